"""Rows of Amazon Security Lake's Apache Parquet, written out as JSON objects.

As in vpcflowparquet.py, a row has no bytes of its own: the record is written here, and the file is kept whole as an
`attachment`, whose SHA-256 stands in each record's context. A record has the row's members in the file's order, nested
as they are, without those that are null (of the hundreds of columns of a class most are); times are ISO 8601 in UTC,
maps are objects, bytes are base64. Equal files give equal records.

A file that cannot be read, holds something else, or would expand beyond reason, is broken as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from hashlib import sha256
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from strongroom.ingest.sources import lines
from strongroom.ingest.sources.source import Found, Split

MAGIC = b"PAR1"
_BATCH_ROWS = 1024
_BATCH_BYTES = 1 << 29
_MAX_CELLS = 1 << 28
_MAX_BYTES = 1 << 30
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError, TypeError, RecursionError)


def split(body: bytes, required: Sequence[str]) -> Split:
    """The rows of a Parquet file that has the `required` columns. Never raises."""
    try:
        return _split(body, required)
    except _UNREADABLE:
        return lines.whole(body, "an Apache Parquet file that cannot be read")


def _split(body: bytes, required: Sequence[str]) -> Split:
    file = pq.ParquetFile(pa.BufferReader(body), coerce_int96_timestamp_unit="us")
    if not set(required).issubset(file.schema_arrow.names):
        return lines.whole(body, "an Apache Parquet file, but not of OCSF events")
    if file.metadata.num_rows * file.metadata.num_columns > _MAX_CELLS:
        return lines.whole(body, "an Apache Parquet file with too many rows")
    context = msgspec.json.encode({"parquet_sha256": sha256(body).hexdigest()})
    found, size = Found(), 0
    for batch in file.iter_batches(_rows_at_once(file.metadata), use_threads=False):
        records = [msgspec.json.encode(_said(row)) for row in batch.to_pylist()]
        size += sum(map(len, records))
        if size > _MAX_BYTES:
            return lines.whole(body, "an Apache Parquet file that expands beyond reason")
        found.extend(records, context)
    found.attach(body, "parquet")
    return found.split()


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    """So few that a value which a dictionary repeats in every row does not fill the memory: none is above its chunk."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = (group.column(place).total_uncompressed_size for group in groups for place in range(metadata.num_columns))
    largest: int = max(chunks, default=1)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, largest)))


def _said(value: Any) -> Any:
    """A value as JSON has it, without members that are null."""
    if isinstance(value, dict):
        return {name: _said(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) for item in value):
            return _mapped(value)
        return [_said(item) for item in value]
    return str(value) if isinstance(value, Decimal) else value


def _mapped(pairs: list[Any]) -> Any:
    """The entries of a map: an object where its keys are text and differ, else pairs."""
    names = [key for key, _ in pairs]
    if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
        return {name: _said(value) for name, value in pairs}
    return [[_said(key), _said(value)] for key, value in pairs]
