"""Makes a bucket, or puts all of its objects into a directory, with Amazon's own client."""

import os
import sys

import boto3

endpoint, bucket, *directory = sys.argv[1:]
client = boto3.client(
    "s3",
    endpoint_url=endpoint,
    region_name="us-east-1",
    aws_access_key_id="test",
    aws_secret_access_key="test",
)
if not directory:
    client.create_bucket(Bucket=bucket)
else:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            path = os.path.join(directory[0], entry["Key"])
            os.makedirs(os.path.dirname(path), exist_ok=True)
            client.download_file(bucket, entry["Key"], path)
