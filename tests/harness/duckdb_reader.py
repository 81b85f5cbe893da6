"""Reads a DuckDB file with DuckDB's own package: the SQL from standard input, rows as JSON arrays, one a line."""

import json
import sys

import duckdb

with duckdb.connect(sys.argv[1], read_only=True) as connection:
    connection.execute("set TimeZone = 'UTC'")
    cursor = connection.execute(sys.stdin.read())
    while rows := cursor.fetchmany(10000):
        for row in rows:
            json.dump([None if value is None else str(value) for value in row], sys.stdout, ensure_ascii=False)
            sys.stdout.write("\n")
