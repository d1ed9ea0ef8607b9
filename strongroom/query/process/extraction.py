"""What local indexes keep of a segment's file, found in the process that may read it, in one pass over the file.

Where a file leaves out records that its columns give back (archive/rebuilding.py), their text is the values of `fields`
with spaces between them; as grams have no spaces, each value is read once, not each record made anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from strongroom.query.holdings import grams, index

BATCH_BYTES, LEAST_ROWS, MOST_ROWS = 4 << 20, 2048, 1 << 16
"""Of the stored bytes at once, whose records may be ten times as long: the fewer parts, the fewer values come twice."""
_TEXT = pa.large_string()
_NOTHING, _SPACE = pa.scalar("", _TEXT), pa.scalar(" ", _TEXT)


def extract(
    database: duckdb.DuckDBPyConnection,
    path: str,
    *,
    kinds: Mapping[str, Sequence[str]],
    fields: Sequence[str],
    stored_bytes: int,
) -> tuple[set[int], bytes]:
    """Of one segment's file: the words of its entities without the segment's number (index.py), and its filter
    (grams.py).

    `kinds`: kind -> columns, which the file need not have. Raises duckdb.Error, ArrowException, MemoryError.
    """
    file = "read_parquet('" + path.replace("'", "''") + "', hive_partitioning = false)"
    types = {str(name): str(kind) for name, kind, *_ in database.execute(f"DESCRIBE FROM {file}").fetchall()}
    entities = [(kind, name) for kind, names in kinds.items() for name in names if name in types]
    columns = [*("raw", "context"), *(_values(name, types) for _, name in entities)]
    columns += [_field(name, types) for name in fields]
    rows = database.execute(f"SELECT count(*) FROM {file}").fetchall()[0][0]  # noqa: S608
    words, found, texts = set[int](), grams.Filter(stored_bytes), True
    read = database.sql(f"SELECT {', '.join(columns)} FROM {file}")  # noqa: S608 (columns of ours, quoted)
    with read.to_arrow_reader(min(max(rows * BATCH_BYTES // stored_bytes, LEAST_ROWS), MOST_ROWS)) as batches:
        for raw, context, *rest in (batch.columns for batch in batches):
            records, ends = _joined(pc.drop_null(raw))
            if texts and _is_text(records, ends):
                found.add(records)
                for column in rest[len(entities) :]:
                    values = pc.drop_null(column.unique()).cast(_TEXT)
                    found.add(_joined(pc.binary_join_element_wise(values, _NOTHING, _SPACE))[0])
            else:
                texts = False
                found.add_anything()
            if not texts or not _is_text(*_joined(pc.drop_null(context.unique()))):
                words.add(index.hashed(*index.BINARY))
            for (kind, _), column in zip(entities, rest, strict=False):
                each = column.flatten() if pa.types.is_list(column.type) else column
                words.update(index.hashed(kind, value) for value in pc.drop_null(each.unique()).to_pylist())
    return words, found.packed()


def _values(name: str, types: Mapping[str, str]) -> str:
    """A column as texts, or lists of texts."""
    return f"CAST({_quoted(name)} AS VARCHAR{'[]' if types[name].endswith('[]') else ''})"


def _field(name: str, types: Mapping[str, str]) -> str:
    """A column as it stands in a record, but for being a text."""
    return f"epoch_us({_quoted(name)}) // 1000000" if types[name].startswith("TIMESTAMP") else _quoted(name)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _joined(column: pa.Array) -> tuple[bytes, NDArray[np.int64]]:
    """The contents of a binary or text column without nulls, end to end, and where each one ends."""
    wide = column.cast(_TEXT if pa.types.is_large_string(column.type) else pa.large_binary())
    _, offsets, data = wide.buffers()
    if data is None or not len(wide):
        return b"", np.zeros(0, np.int64)
    bounds = np.frombuffer(offsets, np.int64)[wide.offset : wide.offset + len(wide) + 1]
    return bytes(memoryview(data)[bounds[0] : bounds[-1]]), bounds[1:] - bounds[0]


def _is_text(content: bytes, ends: NDArray[np.int64]) -> bool:
    """Whether every record in it is valid UTF-8: all together, and each beginning where a character does."""
    if content.isascii():
        return True
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    begins = ends[ends < len(content)]
    return not bool(((np.frombuffer(content, np.uint8)[begins] & 0xC0) == 0x80).any())
