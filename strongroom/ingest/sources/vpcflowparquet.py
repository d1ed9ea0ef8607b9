"""Flow logs as AWS delivers them in Apache Parquet: rows written out as the lines the text delivery would have.

A row of a Parquet file has no bytes of its own to be exact about: its values lie in pages, column by column, compressed
and encoded. So here, and only here, a record is written and not cut out: the values in the file's order of columns,
separated by spaces, null (and nothing) as `-`. The file itself is what arrived, and is kept whole as an `attachment`;
each row's context names its columns, and the file by its SHA-256. What a row is, anybody can hold against the file.

A row with white space in a value cannot be a line and is broken. A file that cannot be read, holds something else, or
would expand beyond reason, is broken as a whole. Text is read as dictionaries, as it lies in the file, and measured
before it is written out: one long value that a few bytes repeat in every row would fill the memory. Reading runs native
code on strangers' bytes: that is what the sealer's worker processes are for.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from strongroom.ingest.sources import lines
from strongroom.ingest.sources.source import Found, Split

MAGIC = b"PAR1"
_BATCH_ROWS = 16_384
_BATCH_BYTES = 1 << 28
_MAX_CELLS = 1 << 26
_MAX_BYTES = 1 << 30


def split(body: bytes, is_header: Callable[[bytes], bool]) -> Split:
    """The rows of a Parquet file whose column names make a header of flow logs. Never raises."""
    try:
        return _split(body, is_header)
    except (pa.ArrowException, OSError, ValueError, OverflowError):
        return lines.whole(body, "an Apache Parquet file that cannot be read")


def _split(body: bytes, is_header: Callable[[bytes], bool]) -> Split:
    file = pq.ParquetFile(pa.BufferReader(body))
    header = " ".join(file.schema_arrow.names).encode("utf-8", "replace")
    if not is_header(header) or not all(map(_plain, file.schema_arrow.types)):
        return lines.whole(body, "an Apache Parquet file, but not of flow logs")
    encoded = [field.name for field in file.schema_arrow if pa.types.is_string(field.type)]
    file = pq.ParquetFile(pa.BufferReader(body), read_dictionary=encoded)
    width = len(file.schema_arrow)
    if file.metadata.num_rows * width > _MAX_CELLS:
        return lines.whole(body, "an Apache Parquet file with too many rows")
    context = header + b"\nfrom a row of the Parquet file " + sha256(body).hexdigest().encode()
    found, size = Found(), 0
    for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
        written = sum(map(_written, batch.columns))
        size += written
        if written > _BATCH_BYTES or size > _MAX_BYTES:
            return lines.whole(body, "an Apache Parquet file that expands beyond reason")
        texts = pc.binary_join_element_wise(*map(_texts, batch.columns), b" ")
        fits = pc.equal(pc.count_substring_regex(texts, r"[\s\v]"), width - 1)
        if pc.all(fits, min_count=0).as_py():
            found.extend(texts.to_pylist(), context)
            continue
        for line, fit in zip(texts.to_pylist(), fits.to_pylist(), strict=True):
            if fit:
                found.record(line, context)
            else:
                found.damaged(line, "white space in a value of a flow log in Parquet")
    found.attach(body, "parquet")
    return found.split()


def _plain(kind: pa.DataType) -> bool:
    return any(is_of(kind) for is_of in (pa.types.is_string, pa.types.is_integer, pa.types.is_floating))


def _written(column: pa.Array) -> int:
    """How many bytes a column's values are when they are written out, about."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    return len(column) + (pc.sum(lengths.take(column.indices)).as_py() or 0)


def _texts(column: pa.Array) -> pa.Array:
    """A column's values as they stand in a line."""
    if pa.types.is_floating(column.type):
        # Counters with nulls become floating point on their way through other tools.
        whole = pc.equal(column, pc.round(column))
        in_range = pc.less(pc.abs(column), 2.0**53)
        if pc.all(pc.and_(whole, in_range), min_count=0).as_py() is not False:
            column = column.cast(pa.int64())
    if not pa.types.is_string(column.type):
        column = column.cast(pa.string())
    texts = pc.fill_null(column.cast(pa.binary()), b"-")
    return pc.if_else(pc.equal(pc.binary_length(texts), 0), pa.scalar(b"-", pa.binary()), texts)
