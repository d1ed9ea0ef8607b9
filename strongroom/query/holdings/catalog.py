"""What segments exist and what is in them: read from entries and their details, kept in columns, rebuildable.

The catalog follows the log entry by entry and never forgets, so a question about an older tree size is answered from
the same lists: the snapshot at size n is the entries with index < n and the segments they name. Which file is a
segment's, its length and its SHA-256 come from the entry, which the log's root commits to. Time ranges come from the
details object; when that is damaged or missing the segment is still asked, only without them (`problems` says so, and
verification finds it).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from strongroom.archive import details as detail
from strongroom.archive import layout
from strongroom.archive.entry import Entry, parse_timestamp
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.log import Log
from strongroom.archive.retention.order_book import OrderBook
from strongroom.archive.stores.store import ObjectStore
from strongroom.query.errors import SnapshotUnknown
from strongroom.query.holdings import kept_catalog
from strongroom.query.holdings.kept_catalog import Kept
from strongroom.query.holdings.segments import Segment, SegmentTable

_INSTANT = pa.timestamp("us", tz="UTC")

ENTRIES_SCHEMA = pa.schema(
    [
        ("entry", pa.int64()),
        ("kind", pa.string()),
        ("written_at", _INSTANT),
        ("writer", pa.string()),
        ("epoch", pa.int64()),
        ("first", pa.int64()),
        ("last", pa.int64()),
        ("part", pa.int64()),
        ("parts", pa.int64()),
        ("segments", pa.int64()),
        ("records", pa.int64()),
        ("bytes", pa.int64()),
        ("details", pa.string()),
        ("retain_until", _INSTANT),
        ("prev", pa.string()),
    ]
)
SEGMENTS_SCHEMA = pa.schema(
    [
        ("segment", pa.string()),
        ("source", pa.string()),
        ("date", pa.date32()),
        ("entry", pa.int64()),
        ("sealed_at", _INSTANT),
        ("records", pa.int64()),
        ("bytes", pa.int64()),
        ("min_time", _INSTANT),
        ("max_time", _INSTANT),
        ("sha256", pa.string()),
        ("root", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The tree a query saw: number of entries, and their root (hex)."""

    size: int
    root: str


class EntryRows:
    """The rows of the view `entries`, one an entry: a table, and what came since as rows."""

    def __init__(self, table: pa.Table | None = None) -> None:
        self._table = ENTRIES_SCHEMA.empty_table() if table is None else table
        self._fresh: list[dict[str, object]] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._table.num_rows) + len(self._fresh)

    def append(self, row: dict[str, object]) -> None:
        with self._lock:
            self._fresh.append(row)

    def table(self, size: int) -> pa.Table:
        """The first `size` rows."""
        with self._lock:
            if self._fresh:
                added = pa.Table.from_pylist(self._fresh, ENTRIES_SCHEMA)
                self._table, self._fresh = pa.concat_tables([self._table, added]).combine_chunks(), []
            return self._table.slice(0, size)


class Catalog:
    """The entries and segments of one log, as far as `follow` has read it. Thread-safe."""

    def __init__(self, store: ObjectStore, log: Log) -> None:
        self._store, self._log = store, log
        self._lock = threading.Lock()
        self._entries = EntryRows()
        self.table = SegmentTable()
        self.problems: list[str] = []
        self._book = OrderBook(store, log.contents.unseal)
        self._orders = 0  # entries that name orders and have been followed
        self._gone: list[tuple[int, str]] = []  # (index of the prune, segment), for segments that are really gone

    @property
    def size(self) -> int:
        """Tree size read so far."""
        return len(self._entries)

    @property
    def behind(self) -> bool:
        """Whether `follow` has anything to read."""
        return self.size != self._log.size or self._orders != len(self._log.orders)

    def follow(self) -> int:
        """Read what the log has gained. Returns the tree size. Raises FormatError, StoreUnavailable."""
        if not self.behind:
            return self.size
        with self._lock:
            self._follow_prunes()
            for entry in self._log.entries(len(self._entries), self._log.size):
                self.table.append(self._segments_of(entry))
                self._entries.append(_entry_row(entry))
            return len(self._entries)

    def gone(self, size: int) -> int:
        """The segments that the first `size` entries say were removed after their retention, and that are not there.

        One that is still there is read: no order hides a record.
        """
        numbers = (self.table.number(key) for index, key in self._gone if index < size)
        return sum(1 << number for number in numbers if number is not None)

    def _follow_prunes(self) -> None:
        known = len(self._book.obligations.pruned)
        for entry in self._log.orders[self._orders :]:
            self._book.follow(entry)
            self._orders += 1
        pruned = self._book.obligations.pruned
        if len(pruned) > known:
            there = {info.key for info in self._store.list(layout.SEGMENTS)}
            self._gone = sorted((index, key) for key, (index, _) in pruned.items() if key not in there)

    def recall(self, path: Path) -> None:
        """Go on from what `keep` wrote, if it is there, undamaged and of this log."""
        with self._lock:
            kept = kept_catalog.load(path)
            if kept is None or self.size or not 0 < kept.size <= self._log.size:
                return
            if self._log.root(kept.size).hex() == kept.root:
                self._entries, self.table = EntryRows(kept.entries), kept.segments
                self.problems = list(kept.problems)

    def keep(self, path: Path) -> None:
        """Write down what is known, so that the next start need not read every details object. Raises OSError."""
        with self._lock:
            size = self.size
            root = self._log.root(size).hex()
            kept = Kept(size, root, self._entries.table(size), self.table, tuple(self.problems))
        kept_catalog.save(path, kept)

    def snapshot(self, as_of: int | None = None) -> Snapshot:
        """The newest snapshot, or the one of tree size `as_of`. Raises SnapshotUnknown."""
        size = self.size
        if as_of is not None and not 0 <= as_of <= size:
            raise SnapshotUnknown(
                f"there is no snapshot {as_of}: the log has {size} entries",
                hint="as_of is a tree size, as an earlier answer's snapshot gave it",
            )
        size = size if as_of is None else as_of
        return Snapshot(size, self._log.root(size).hex())

    def segments(self, size: int, sources: Iterable[str] | None = None) -> list[Segment]:
        """Segments that the first `size` entries name, in log order; of the given sources only, when given."""
        wanted = self.table.upto(size)
        return self.table.chosen(wanted if sources is None else wanted & self.table.of_sources(set(sources)))

    def place(self, segment: str) -> tuple[int, int] | None:
        """The entry that names the segment and its position there, None when none does."""
        number = self.table.number(segment)
        if number is None:
            return None
        found = self.table[number]
        return found.entry, found.position

    def entries_table(self, size: int) -> pa.Table:
        """The view `entries` at tree size `size`."""
        return self._entries.table(size)

    def segments_table(self, size: int) -> pa.Table:
        """The view `segments` at tree size `size`."""
        return pa.Table.from_pylist([_segment_row(segment) for segment in self.segments(size)], SEGMENTS_SCHEMA)

    def _segments_of(self, entry: Entry) -> list[Segment]:
        if not entry.segments:
            return []
        summaries = self._summaries(entry)
        sealed_at = parse_timestamp(entry.written_at)
        found = []
        for position, reference in enumerate(entry.segments):
            source, date = layout.segment_source(reference.key), layout.segment_date(reference.key)
            if source is None or date is None:
                self._problem(f"entry {entry.index} names a segment {reference.key!r} that is no segment name")
                continue
            summary = summaries.get(reference.key)
            found.append(
                Segment(
                    key=reference.key,
                    source=source,
                    date=date.isoformat(),
                    entry=entry.index,
                    sealed_at=sealed_at,
                    records=reference.records,
                    bytes=reference.bytes,
                    sha256=reference.sha256,
                    root=reference.root,
                    min_time=summary.min_time if summary else None,
                    max_time=summary.max_time if summary else None,
                    position=position,
                    version=reference.version,
                )
            )
        return found

    def _summaries(self, entry: Entry) -> Mapping[str, detail.SegmentSummary]:
        if entry.details is None or not entry.segments:
            return {}
        try:
            data = self._log.contents.read(entry.details)
            return {summary.key: summary for summary in detail.decode(data).segments}
        except (FormatError, ObjectMissing) as error:
            self._problem(f"details {entry.details.key} of entry {entry.index}: {error.message}")
            return {}

    def _problem(self, message: str) -> None:
        self.problems.append(f"{message}; run `strongroom verify`")


def instant(microseconds: int | None) -> str | None:
    """RFC 3339 text of microseconds since the epoch, UTC; None for None and for times no calendar has."""
    if microseconds is None:
        return None
    try:
        moment = datetime.fromtimestamp(microseconds // 1_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{microseconds % 1_000_000:06d}Z"


def _entry_row(entry: Entry) -> dict[str, object]:
    writer = entry.writer
    return {
        "entry": entry.index,
        "kind": entry.kind,
        "written_at": parse_timestamp(entry.written_at),
        "writer": writer.id if writer else None,
        "epoch": writer.epoch if writer else None,
        "first": writer.first if writer else None,
        "last": writer.last if writer else None,
        "part": writer.part if writer else None,
        "parts": writer.parts if writer else None,
        "segments": len(entry.segments),
        "records": sum(reference.records for reference in entry.segments),
        "bytes": sum(reference.bytes for reference in entry.segments),
        "details": entry.details.key if entry.details else None,
        "retain_until": parse_timestamp(entry.retain_until) if entry.retain_until else None,
        "prev": entry.prev,
    }


def _segment_row(segment: Segment) -> dict[str, object]:
    return {
        "segment": segment.key,
        "source": segment.source,
        "date": datetime.fromisoformat(segment.date).date(),
        "entry": segment.entry,
        "sealed_at": segment.sealed_at,
        "records": segment.records,
        "bytes": segment.bytes,
        "min_time": segment.min_time,
        "max_time": segment.max_time,
        "sha256": segment.sha256,
        "root": segment.root,
    }
