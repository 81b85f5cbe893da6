"""Which way to replace rows by key is the fastest in DuckDB? Each way, on tables of two sizes, with batches of two sizes.

PYTHONPATH=<where make setup puts DuckDB's package> python3 tests/bench/duckdb_replace.py
"""

import os
import statistics
import tempfile
import time

import duckdb

COLUMNS = """a INTEGER, b VARCHAR, c VARCHAR, d DECIMAL(18,4), e TIMESTAMPTZ,
             _CHANGE_TYPE VARCHAR, _LSN BIGINT, _ORDINAL BIGINT, _TIMESTAMP TIMESTAMPTZ"""
SET = ", ".join(f"{name} = s.{name}" for name in "a b c d e _CHANGE_TYPE _LSN _ORDINAL _TIMESTAMP".split())
WAYS = {
    "merge": [
        f"""MERGE INTO t USING s ON t.id = s.id
            WHEN MATCHED AND (t._LSN, t._ORDINAL) < (s._LSN, s._ORDINAL) THEN UPDATE SET {SET}
            WHEN NOT MATCHED THEN INSERT"""
    ],
    "insert or replace": ["INSERT OR REPLACE INTO t SELECT * FROM s"],
    "delete and insert": ["DELETE FROM t USING s WHERE t.id = s.id", "INSERT INTO t SELECT * FROM s"],
    "guard, delete and insert": [
        """DELETE FROM s USING t WHERE t.id = s.id
           AND (t._LSN > s._LSN OR (t._LSN = s._LSN AND t._ORDINAL >= s._ORDINAL))""",
        "DELETE FROM t USING s WHERE t.id = s.id",
        "INSERT INTO t SELECT * FROM s",
    ],
}


def median(way, rows, batch, has_key):
    with tempfile.TemporaryDirectory() as directory:
        connection = duckdb.connect(os.path.join(directory, "t.duckdb"), config={"threads": 2, "memory_limit": "1GB"})
        connection.execute(f"CREATE TABLE t (id BIGINT {'PRIMARY KEY' if has_key else ''}, {COLUMNS})")
        connection.execute(
            f"""INSERT INTO t SELECT range, range % 1000, 'text of row ' || range, md5(range::VARCHAR), range / 7.0, now(),
                'UPSERT', 0, 0, now() FROM range({rows})"""
        )
        connection.execute("CHECKPOINT")
        took = []
        for run in range(1, 6):
            connection.execute("CREATE OR REPLACE TEMP TABLE s AS FROM t LIMIT 0")
            connection.execute(
                f"""INSERT INTO s SELECT DISTINCT ON (id) * FROM (SELECT (random() * {rows} * 1.1)::BIGINT AS id, 1, 'new text',
                    md5(range::VARCHAR), 1.0, now(), 'UPSERT', {run}, range, now() FROM range({batch}))"""
            )
            began = time.monotonic()
            connection.execute("BEGIN")
            for statement in WAYS[way]:
                connection.execute(statement)
            connection.execute("COMMIT")
            took.append(time.monotonic() - began)
        return statistics.median(took) * 1000


print("| rows | batch | way | primary key | ms |")
print("|--:|--:|---|---|--:|")
for rows in (200_000, 3_000_000):
    for batch in (500, 50_000):
        for way in WAYS:
            for has_key in {"insert or replace": [True], "merge": [False, True]}.get(way, [False]):
                print(f"| {rows} | {batch} | {way} | {has_key} | {median(way, rows, batch, has_key):.1f} |", flush=True)
