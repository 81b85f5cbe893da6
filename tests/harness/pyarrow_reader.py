"""Reads a folder of Parquet files as one dataset of pyarrow: rows as JSON arrays of text, by the first column."""

import datetime
import json
import sys

import pyarrow.dataset

folder, *columns = sys.argv[1:]


def text(value):
    if value is None:
        return None
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ").replace("+00:00", "+00")
    return str(value)


table = pyarrow.dataset.dataset(folder, partitioning="hive").to_table(columns=columns)
for row in sorted(zip(*(column.to_pylist() for column in table.columns)), key=lambda row: row[0]):
    json.dump([text(value) for value in row], sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")
