"""Segments: Parquet files whose records form one RFC 6962 tree with blinded leaves (docs/format.md §3).

* Row groups hold exactly 65,536 records, the last one fewer. A full row group is a complete subtree, so the records
  root is the root over the row-group roots, damage is located to a row group, and a proof reads one row group.
* Leaf data = nonce ‖ record bytes. The 16-byte nonces of row group g are the leading bytes of
  SHAKE-256(secret ‖ g as 8 bytes big-endian); the 32-byte secret is in the Parquet footer. A sibling hash in a proof
  therefore does not let its reader guess the neighbouring record.
* Leaf hashes are not stored: they would weigh more than a compressed flow record.
* The same table, secret and metadata give the same bytes, so sealing again after a crash rebuilds the same object.

* A line that its columns give back is not stored twice: `raw` is null there (archive/rebuilding.py). Readers of this
  module get every record's bytes either way.

Everything but the record is derived; only the record is evidence.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from strongroom.archive import rebuilding
from strongroom.archive.errors import FormatError
from strongroom.archive.merkle import leaf_hash, root_of
from strongroom.archive.rebuilding import Form

FORMAT = "strongroom/segment/1"
ROW_GROUP = 65_536
NONCE_BYTES = 16
SECRET_BYTES = 32
FILTER_FROM = 256  # distinct values: fewer are told by a row group's smallest and largest, or its dictionary
RUN = 4_096  # records that a reader of single records holds at once
PIECE = 2_048  # records that are made one array: a large one is copied again and again while it grows

UNIVERSAL = pa.schema(
    [
        pa.field("event_time", pa.timestamp("us", tz="UTC")),
        pa.field("received_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("context", pa.binary()),
        pa.field("raw", pa.binary(), nullable=False),
    ]
)

_FORMAT_KEY, _SECRET_KEY, _LINES_KEY = "strongroom.format", "strongroom.secret", "strongroom.lines"
# What Arrow raises over bytes that are no sound Parquet file; the last ones come from names and counts in a footer.
_UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError, KeyError, OverflowError, TypeError)
# Columns that are unique per record or long: a dictionary would only be built to be thrown away.
NO_DICTIONARY = frozenset({"raw", "event_id", "request_id"})
# Columns that are not searched for a range of values, which may be long.
_NO_STATISTICS = frozenset({"raw", "context"})


@dataclass(frozen=True, slots=True)
class SegmentFacts:
    """What an entry says about a segment; roots and digest in hex."""

    bytes: int
    sha256: str
    records: int
    root: str
    groups: tuple[str, ...]


def write(
    path: Path,
    records: Sequence[bytes],
    columns: pa.Table,
    *,
    typed: pa.Schema,
    secret: bytes,
    metadata: Mapping[str, str],
    forms: Sequence[Form] = (),
    filtered: Iterable[str] = (),
) -> SegmentFacts:
    """Write a segment file at `path`: `records` in row order with their other `columns`, and read it back.

    `typed` are the source's columns, which follow the UNIVERSAL ones. `columns` holds them all but `raw`, in any order;
    it may lack those that no row fills, and hold others as dictionaries. `metadata` (source, date, writer, …) goes into
    the footer beside the format and the secret. Records that one of `forms` rebuilds are left out of `raw`. `filtered`:
    columns of text that are searched for single values.

    What is returned is computed from the file, not from what was given, and the file must hold what was given: a bit
    flipped in memory or by the encoder would otherwise be sealed for ever. One row group at a time is in memory beside
    the arguments. Raises FormatError when they break the rules above, or the file does not hold them.
    """
    if columns.num_rows != len(records) or not records:
        raise FormatError("segment: needs as many rows as records, and at least one")
    if len(secret) != SECRET_BYTES:
        raise FormatError(f"segment: the secret must be {SECRET_BYTES} bytes long")
    footer = {
        **{f"strongroom.{name}": text for name, text in metadata.items()},
        _FORMAT_KEY: FORMAT,
        _SECRET_KEY: secret.hex(),
    }
    if forms:
        footer[_LINES_KEY] = rebuilding.encode(forms)
    raw = pa.field("raw", pa.binary(), nullable=bool(forms))
    schema = pa.schema([*(raw if field.name == "raw" else field for field in UNIVERSAL), *typed], footer)
    encodings = {field.name: encoding for field in schema if (encoding := encoding_of(field))}
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=1,  # records sorted by kind: level 3 takes half as long again and gains nothing
        use_dictionary=[name for name in schema.names if name not in NO_DICTIONARY | encodings.keys()],
        write_statistics=[name for name in schema.names if name not in _NO_STATISTICS],
        column_encoding=encodings,
        write_page_index=True,
        bloom_filter_options=_filters(columns, filtered),
    ) as writer:
        left = []
        for start in range(0, len(records), ROW_GROUP):
            stored = _group(schema, records, columns, start)
            if stored.column("raw").null_count:
                raise FormatError("segment: a row without a record")
            stored = rebuilding.omit(stored, forms) if forms else stored
            writer.write_table(stored, row_group_size=ROW_GROUP)
            left += [stored.column("raw")] if forms else []
    return _compared(path, records, columns, forms, left)


def read_back(path: Path) -> SegmentFacts:
    """Everything an entry says about the segment file at `path`, recomputed from its bytes alone.

    Raises FormatError when the file is not a readable segment.
    """
    with _readable(path) as file:
        secret = secret_of(file)
        roots = [
            root_of(leaf_hashes(_records(file, [group], ["raw"]).column("raw").to_pylist(), secret, group))
            for group in range(file.metadata.num_row_groups)
        ]
        return _facts(path, file.metadata.num_rows, roots)


def leaf_hashes(raws: Sequence[bytes], secret: bytes, group: int) -> list[bytes]:
    """Leaf hashes of the records of row group `group`, in row order."""
    sha256, nonces = hashlib.sha256, struct.iter_unpack(f"{NONCE_BYTES}s", _nonces(secret, group, len(raws)))
    return [sha256(b"\x00" + nonce + raw).digest() for (nonce,), raw in zip(nonces, raws, strict=True)]


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive records of one row group with their nonces and leaf hashes; `start` is the row of the first one."""

    start: int
    raws: list[bytes]
    nonces: list[bytes]
    leaves: list[bytes]


def runs(path: Path, groups: Iterable[int]) -> Iterator[Run]:
    """The records of the named row groups, in order, in runs short enough to hold in memory.

    Reads nothing of other row groups, checks nothing against an entry. Raises FormatError when the file is damaged.
    """
    with _readable(path) as file:
        secret = secret_of(file)
        for group in groups:
            if not 0 <= group < file.metadata.num_row_groups:
                raise FormatError(f"segment: no row group {group}")
            blob = _nonces(secret, group, file.metadata.row_group(group).num_rows)
            start = group * ROW_GROUP
            for batch in file.iter_batches(RUN, row_groups=[group], columns=_reading(file, ["raw"])):
                raws = _restored(file, pa.Table.from_batches([batch])).column("raw").to_pylist()
                places = range(start % ROW_GROUP * NONCE_BYTES, len(blob), NONCE_BYTES)
                nonces = [blob[place : place + NONCE_BYTES] for place, _ in zip(places, raws, strict=False)]
                if len(nonces) != len(raws):
                    raise FormatError(f"segment: row group {group} has more rows than it states")
                leaves = [leaf_hash(nonce + raw) for nonce, raw in zip(nonces, raws, strict=True)]
                yield Run(start, raws, nonces, leaves)
                start += len(raws)


def secret_of(file: pq.ParquetFile) -> bytes:
    """The segment's secret, from an open file's footer. Raises FormatError when it is no Strongroom segment."""
    footer = file.metadata.metadata or {}
    if footer.get(_FORMAT_KEY.encode()) != FORMAT.encode():
        raise FormatError("segment: the footer names no known format")
    try:
        secret = bytes.fromhex(footer[_SECRET_KEY.encode()].decode())
    except (KeyError, ValueError):
        raise FormatError("segment: the footer holds no secret") from None
    if len(secret) != SECRET_BYTES:
        raise FormatError("segment: the secret is not 32 bytes long")
    return secret


def tables(path: Path) -> Iterator[pa.Table]:
    """The segment's row groups as tables, all columns. Raises FormatError when the file is damaged."""
    with _readable(path) as file:
        for group in range(file.metadata.num_row_groups):
            yield _restored(file, file.read_row_group(group))


def forms_of(file: pq.ParquetFile) -> tuple[Form, ...]:
    """How an open segment's records are rebuilt where `raw` is null. Raises FormatError."""
    text = (file.metadata.metadata or {}).get(_LINES_KEY.encode())
    return rebuilding.decode(text.decode()) if text is not None else ()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _group(schema: pa.Schema, records: Sequence[bytes], columns: pa.Table, start: int) -> pa.Table:
    """The row group that begins with row `start`, with all columns of `schema`."""
    raws = records[start : start + ROW_GROUP]
    whole = []
    for field in schema:
        if field.name == "raw":
            pieces = [pa.array(raws[at : at + PIECE], pa.binary()) for at in range(0, len(raws), PIECE)]
            whole.append(pa.chunked_array(pieces))
        elif field.name in columns.schema.names:
            whole.append(columns.column(field.name).slice(start, ROW_GROUP).cast(field.type))
        else:
            whole.append(pa.chunked_array([pa.nulls(len(raws), field.type)]))
    return pa.table(whole, schema=schema)


def _compared(
    path: Path,
    records: Sequence[bytes],
    columns: pa.Table,
    forms: Sequence[Form],
    left: Sequence[pa.Array],
) -> SegmentFacts:
    """What an entry says about the file at `path`, which must hold the records and all that belongs to them.

    `left`: by row group what forms left of `raw`. The rest they make of columns, which are compared as well, so the
    lines need not be made again to know that they are the records.
    """
    names = list(dict.fromkeys([*UNIVERSAL.names, *rebuilding.columns_needed(forms)]))
    encoded = [field.name for field in columns.schema if pa.types.is_dictionary(field.type)]
    with _readable(path, encoded) as file:
        secret, roots = secret_of(file), list[bytes]()
        if forms_of(file) != tuple(forms):
            raise FormatError("segment: the footer does not read back as it was written")
        for group in range(file.metadata.num_row_groups):
            start = group * ROW_GROUP
            raws = records[start : start + ROW_GROUP]
            found, given = file.read_row_group(group, columns=names), columns.slice(start, ROW_GROUP)
            raw = found.column("raw")
            same = raw.equals(left[group]) if left else raw.to_pylist() == raws
            if not same or not all(_holds(found.column(name), given, name) for name in names if name != "raw"):
                raise FormatError(f"segment: row group {group} does not read back as it was written")
            roots.append(root_of(leaf_hashes(raws, secret, group)))
        return _facts(path, file.metadata.num_rows, roots)


def _holds(found: pa.ChunkedArray, given: pa.Table, name: str) -> bool:
    """Whether a column that was read holds what was given. Values of a dictionary are compared once, then places."""
    if name not in given.schema.names:
        return bool(found.null_count == len(found))
    column = given.column(name)
    if not pa.types.is_dictionary(column.type):
        return bool(found.equals(column.cast(found.type)))
    mine, theirs = found.combine_chunks(), column.combine_chunks()
    places = pc.index_in(mine.dictionary, theirs.dictionary).take(mine.indices)
    return bool(places.equals(theirs.indices.cast(places.type)))


def _filters(columns: pa.Table, names: Iterable[str]) -> dict[str, dict[str, float]] | None:
    """Bloom filters for columns that are searched for single values: where they save reading a row group of several."""
    if columns.num_rows <= ROW_GROUP:
        return None
    present = {name: columns.column(name) for name in names if name in columns.schema.names}
    distinct = {name: min(len(pc.drop_null(column.unique())), ROW_GROUP) for name, column in present.items()}
    return {name: {"ndv": count, "fpp": 0.03} for name, count in distinct.items() if count >= FILTER_FROM} or None


def encoding_of(field: pa.Field) -> str | None:
    """How a column is written where that beats a dictionary: rows are sorted by time, and counts are small numbers."""
    if pa.types.is_timestamp(field.type) or field.name in ("sequence", "position"):
        return "DELTA_BINARY_PACKED"
    return "BYTE_STREAM_SPLIT" if field.type == pa.int64() else None


@contextmanager
def _readable(path: Path, encoded: Sequence[str] = ()) -> Iterator[pq.ParquetFile]:
    """The Parquet file at `path`, checked for the row-group rule; whatever fails while reading is a FormatError.

    `encoded`: columns that are read as dictionaries.
    """
    try:
        with pq.ParquetFile(path, read_dictionary=encoded) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
            if not sizes or any(size != ROW_GROUP for size in sizes[:-1]) or not 0 < sizes[-1] <= ROW_GROUP:
                raise FormatError(f"segment: row groups of {sizes[:8]} records")
            yield file
    except _UNREADABLE as error:
        raise FormatError(f"segment: unreadable: {error}") from None


def _records(file: pq.ParquetFile, groups: list[int], columns: list[str]) -> pa.Table:
    """The named columns of row groups, with every record's bytes in `raw`."""
    return _restored(file, file.read_row_groups(groups, columns=_reading(file, columns))).select(columns)


def _reading(file: pq.ParquetFile, columns: list[str]) -> list[str]:
    return list(dict.fromkeys([*columns, *rebuilding.columns_needed(forms_of(file))]))


def _restored(file: pq.ParquetFile, table: pa.Table) -> pa.Table:
    return rebuilding.restore(table, forms_of(file))


def _nonces(secret: bytes, group: int, count: int) -> bytes:
    return hashlib.shake_256(secret + group.to_bytes(8, "big")).digest(count * NONCE_BYTES)


def _facts(path: Path, records: int, roots: Sequence[bytes]) -> SegmentFacts:
    return SegmentFacts(
        bytes=path.stat().st_size,
        sha256=file_digest(path),
        records=records,
        root=root_of(roots).hex(),
        groups=tuple(root.hex() for root in roots),
    )
