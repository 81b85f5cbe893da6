"""Reads parts of values with pyarrow: on a line of JSON, files of a table and ways to values; one row a line, by its id, then `null`."""

import json
import sys
import uuid

import pyarrow
import pyarrow.dataset

# From 1970-01-01 to 2000-01-01.
EPOCH_DAYS = 10957


def part(value, way):
    """What a way leads to: names of fields, 0 for the first of a list, null for how many there are."""
    for step in way:
        if isinstance(value, pyarrow.ExtensionScalar):
            value = value.value
        if value is None or not value.is_valid:
            return None
        if step is None:
            return str(len(value))
        if isinstance(value, pyarrow.StringScalar):
            # An interval: `N months N days N microseconds`.
            words = value.as_py().split()
            return words[words.index(step) - 1]
        if step == 0:
            value = value[0] if len(value) else None
        else:
            value = value[step]
    return text(value)


def text(value):
    if value is None or not value.is_valid:
        return None
    if isinstance(value, pyarrow.UuidScalar):
        return str(value.as_py())
    if isinstance(value, pyarrow.ExtensionScalar):
        return text(value.value)
    if isinstance(value, pyarrow.StringScalar):
        return value.as_py()
    if isinstance(value, pyarrow.BooleanScalar):
        return "true" if value.as_py() else "false"
    if isinstance(value, pyarrow.FixedSizeBinaryScalar):
        return str(uuid.UUID(bytes=value.as_py()))
    if isinstance(value, pyarrow.BinaryScalar):
        return value.as_py().hex().upper()
    if isinstance(value, pyarrow.Date32Scalar):
        return str(value.value - EPOCH_DAYS)
    if isinstance(value, (pyarrow.TimestampScalar, pyarrow.Time64Scalar)):
        return str(value.value)
    if isinstance(value, (pyarrow.Decimal128Scalar, pyarrow.Decimal256Scalar)):
        return format(value.as_py(), "f")
    return str(value.as_py())


for request in sys.stdin:
    files, ways = json.loads(request)
    table = pyarrow.dataset.dataset(files).to_table().sort_by("id")
    for place in range(table.num_rows):
        row = {name: table[name][place] for name in {"id"} | {way[0] for way in ways}}
        values = [part(row[way[0]], way[1:]) for way in ways]
        json.dump([str(row["id"].as_py()), *values], sys.stdout, ensure_ascii=False)
        sys.stdout.write("\n")
    sys.stdout.write("null\n")
