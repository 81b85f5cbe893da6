"""Reads the complete files of a table with Python's json (lines, or one array) and DuckDB's CSV reader: one JSON object a
row."""

import json
import os
import sys

directory, null_marker = sys.argv[1:]


def text(value):
    if isinstance(value, bool):
        return "t" if value else "f"
    return value


def json_lines(path):
    with open(path, encoding="utf-8", newline="\n") as lines:
        for line in lines:
            row = json.loads(line, parse_float=str, parse_int=str)
            yield {name: text(value) for name, value in row.items()}


def json_array(path):
    with open(path, encoding="utf-8", newline="\n") as array:
        for row in json.load(array, parse_float=str, parse_int=str):
            yield {name: text(value) for name, value in row.items()}


def csv(path):
    import duckdb

    options = dict(header=True, all_varchar=True, sep=",", quotechar='"', escapechar='"', na_values=null_marker)
    rows = duckdb.read_csv(path, parallel=False, allow_quoted_nulls=False, **options)
    for row in rows.fetchall():
        yield dict(zip(rows.columns, row))


for name in sorted(os.listdir(directory)):
    if not name.startswith("."):
        path = os.path.join(directory, name)
        rows = {"jsonl": json_lines, "json": json_array}.get(name.rsplit(".")[-1], csv)
        for row in rows(path):
            json.dump(row, sys.stdout, ensure_ascii=False)
            sys.stdout.write("\n")
