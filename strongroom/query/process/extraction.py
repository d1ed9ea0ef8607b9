"""What local indexes keep of a segment's file, found in the process that may read it: its entities and its texts.

Where a file leaves out records that its columns give back (archive/rebuilding.py), their text is the values of `fields`
with spaces between them; as grams have no spaces, every value is read once, not every record made anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from strongroom.query.holdings import grams, index

BATCH_ROWS = 4096
_TEXT = pa.large_string()
_NOTHING, _SPACE = pa.scalar("", _TEXT), pa.scalar(" ", _TEXT)

# Names below come from our own schemas and segments' footers, quoted; nothing of a question is pasted into SQL.
# ruff: noqa: S608


class File:
    """One file of a segment, read through `database`. Its methods raise duckdb.Error, ArrowException, MemoryError."""

    def __init__(self, database: duckdb.DuckDBPyConnection, path: str) -> None:
        self._database = database
        self._sql = "read_parquet('" + path.replace("'", "''") + "', hive_partitioning = false)"
        described = database.execute(f"DESCRIBE SELECT * FROM {self._sql}").fetchall()
        self._types = {str(name): str(kind) for name, kind, *_ in described}

    def words(self, kinds: Mapping[str, Sequence[str]], number: int) -> bytes:
        """The entities in it, as words of index.py."""
        table = self._database.sql(index.words_sql(kinds, self._types, self._sql, number)).to_arrow_table()
        return b"".join(
            memoryview(chunk.buffers()[1]).cast("B")[8 * chunk.offset : 8 * (chunk.offset + len(chunk))]
            for chunk in table.column(0).chunks
            if len(chunk)
        )

    def filter(self, fields: Sequence[str], stored_bytes: int) -> bytes:
        """The grams of its records' texts, as a filter of grams.py."""
        made = grams.Filter(stored_bytes)
        records = self._database.sql(f"SELECT raw FROM {self._sql} WHERE raw IS NOT NULL")
        with records.to_arrow_reader(BATCH_ROWS) as batches:
            for batch in batches:
                content, ends = _joined(batch.column(0))
                if not _is_text(content, ends):
                    made.add_anything()
                    return made.packed()
                made.add(content)
        if fields:
            values = self._database.sql(f"SELECT {', '.join(map(self._field, fields))} FROM {self._sql}")
            with values.to_arrow_reader(1 << 16) as batches:
                for column in (column for batch in batches for column in batch.columns):
                    texts = pc.drop_null(column.unique()).cast(_TEXT)
                    made.add(_joined(pc.binary_join_element_wise(texts, _NOTHING, _SPACE))[0])
        return made.packed()

    def _field(self, name: str) -> str:
        """A column as it stands in a record, but for being a text."""
        quoted = '"' + name.replace('"', '""') + '"'
        return f"epoch_us({quoted}) // 1000000" if self._types[name].startswith("TIMESTAMP") else quoted


def _joined(column: pa.Array) -> tuple[bytes, np.ndarray]:
    """The contents of a binary or text column without nulls, end to end, and where each one ends."""
    wide = pa.types.is_large_binary(column.type) or pa.types.is_large_string(column.type)
    if not wide:
        column = column.cast(pa.large_binary())
    _, offsets, data = column.buffers()
    if data is None or not len(column):
        return b"", np.zeros(0, np.int64)
    bounds = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return bytes(memoryview(data)[bounds[0] : bounds[-1]]), bounds[1:] - bounds[0]


def _is_text(content: bytes, ends: np.ndarray) -> bool:
    """Whether every record in it is valid UTF-8: all together, and each beginning where a character does."""
    if content.isascii():
        return True
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    begins = ends[ends < len(content)]
    return not ((np.frombuffer(content, np.uint8)[begins] & 0xC0) == 0x80).any()
