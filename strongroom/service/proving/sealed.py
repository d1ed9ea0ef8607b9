"""Where a batch is sealed: read from the archive, down to the address of each of its records.

The entry that completes the commit is given (the batch index knows it). From there on only what the entry commits to is
believed: its details object by its hash, which names the batch and its number; and the segments of all entries of that
commit, whose column `sequence` tells a batch's records apart. That column is derived, so an address is a hint; what it
leads to is proven by evidence.prove_record.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from strongroom.archive import details as details_format
from strongroom.archive.details import BatchFacts
from strongroom.archive.encryption.contents import Contents
from strongroom.archive.entry import Entry, SegmentRef
from strongroom.archive.errors import FormatError
from strongroom.archive.log import Log
from strongroom.archive.note import Checkpoint

_ROWS = pa.schema([("position", pa.int64()), ("row", pa.int64())])


@dataclass(frozen=True, slots=True)
class Part:
    """Records of a batch in one segment: which, and between which rows (inclusive)."""

    entry: int
    position: int
    segment: SegmentRef
    records: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Address:
    """One record of a batch: its ordinal there, and where it is."""

    record: int
    segment: str
    row: int


@dataclass(frozen=True, slots=True)
class EntryProof:
    """That an entry is in the log: its exact bytes, their path to a tree head, and the signed note of that."""

    entry: bytes
    path: tuple[bytes, ...]
    head: Checkpoint
    note: bytes
    witnessed: bool


@dataclass(frozen=True, slots=True)
class Seal:
    """Where a batch is sealed: the entry that completes its commit, what its details say, and its segments.

    `content`: the details object, when asked for; `proof`: None until the entry is signed.
    """

    entry: Entry
    facts: BatchFacts
    parts: tuple[Part, ...]
    records: tuple[Address, ...] = ()
    content: bytes | None = None
    proof: EntryProof | None = None


def seal_of(log: Log, batch: str, entry: int, *, records: int = 0, after: int = -1) -> Seal:
    """Where `batch` is sealed, given the entry that completes its commit.

    `records`: list the addresses of so many records beyond ordinal `after`. Reads two columns of the commit's segments.
    Raises FormatError when the entry's details are not those it commits to or do not name the batch, ObjectMissing.
    """
    last = log.entry(entry)
    content, facts = _facts(log.contents, last, batch)
    parts: list[Part] = []
    tables: list[pa.Table] = []
    for named in _commit(log, last):
        for position, reference in enumerate(named.segments):
            found = _rows(log.contents, reference, facts.sequence)
            if found.num_rows:
                rows = found.column("row")
                parts.append(
                    Part(named.index, position, reference, len(rows), pc.min(rows).as_py(), pc.max(rows).as_py())
                )
                tables.append(found.append_column("segment", pa.array([reference.key] * len(rows))))
    listed: tuple[Address, ...] = ()
    if records and tables:
        rows = pa.concat_tables(tables).sort_by("position")
        rows = rows.filter(pc.greater(rows.column("position"), after)).slice(0, records)
        listed = tuple(Address(row["position"], row["segment"], row["row"]) for row in rows.to_pylist())
    return Seal(last, facts, tuple(parts), listed, content)


def _facts(contents: Contents, entry: Entry, batch: str) -> tuple[bytes, BatchFacts]:
    named = entry.details
    if named is None:
        raise FormatError(f"entry {entry.index} has no details", hint="the batch index is wrong: delete it")
    content = contents.read(named)
    for facts in details_format.decode(content).batches:
        if facts.id == batch:
            return content, facts
    raise FormatError(f"entry {entry.index} does not name batch {batch}", hint="the batch index is wrong: delete it")


def _commit(log: Log, last: Entry) -> list[Entry]:
    """The entries of the commit that `last` completes, in order."""
    found = [last]
    index = last.index
    assert last.writer is not None
    while found[0].writer is not None and found[0].writer.part > 1:
        index -= 1
        entry = log.entry(index)
        writer = entry.writer
        if writer is not None and (writer.id, writer.epoch, writer.first) == (
            last.writer.id,
            last.writer.epoch,
            last.writer.first,
        ):
            found.insert(0, entry)
    return found


def _rows(contents: Contents, reference: SegmentRef, sequence: int) -> pa.Table:
    """Columns `position` and `row` of the segment's records that came in batch `sequence`. Raises FormatError."""
    found = [_ROWS.empty_table()]
    try:
        with contents.file(reference) as path, pq.ParquetFile(path) as file:
            start = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if _may_hold(file, group, sequence):
                    table = file.read_row_group(group, columns=["sequence", "position"])
                    rows = pa.array(range(start, start + count), pa.int64())
                    mine = pc.equal(table.column("sequence"), sequence)
                    columns = {"position": table.column("position"), "row": rows}
                    found.append(pa.table(columns, _ROWS).filter(mine))
                start += count
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{reference.key}: {error}", hint="run `strongroom verify`") from None
    return pa.concat_tables(found)


def _may_hold(file: pq.ParquetFile, group: int, sequence: int) -> bool:
    """Whether a row group's own statistics leave room for records of a batch."""
    column = file.schema_arrow.get_field_index("sequence")
    statistics = file.metadata.row_group(group).column(column).statistics
    return statistics is None or not statistics.has_min_max or statistics.min <= sequence <= statistics.max
