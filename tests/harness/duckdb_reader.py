"""Reads DuckDB files, or files of other kinds (`:memory:`), with DuckDB's own package: a file and SQL in JSON a line; rows as JSON arrays, then an object."""

import json
import sys

import duckdb


def rows_of(file, sql):
    with duckdb.connect(file, read_only=file != ":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        cursor = connection.execute(sql)
        while rows := cursor.fetchmany(10000):
            yield from rows


def tell(value):
    json.dump(value, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")


for request in sys.stdin:
    end = {}
    try:
        for row in rows_of(*json.loads(request)):
            tell([None if value is None else str(value) for value in row])
    except Exception as error:
        end = {"error": f"{type(error).__name__}: {error}"}
    tell(end)
    sys.stdout.flush()
