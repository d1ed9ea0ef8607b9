"""The index of batches: which deliveries are known, where they stand, and whether a new one is one of them again.

It is derived. What it says of a sealed batch stands in the log's details, what it says of a spooled one in the spool,
and `follow` brings it up to date with both, from nothing if need be. Only the number of duplicates turned away is its
own: a duplicate leaves no other trace.

SQLite in WAL mode without syncing: killing the process loses nothing; if the machine itself fails, the file may be
behind or damaged, and is brought up to date or rebuilt at the next start.

**When a delivery is a duplicate** (`find`), within one source:

    same idempotency key of the same forwarder, same content    duplicate
    same key, other content                                     new, flagged `key-reused`
    no key, same content as a known batch                       duplicate if every record carries its own id, because
                                                                then a repetition says nothing new; otherwise new,
                                                                flagged `repeated-content`: shippers do send identical
                                                                batches that both happened
    else                                                        new

The window is the whole archive, as far as the log has been followed. Two writers that are sent the same delivery at
once may both take it; with a key, both give it the same id, and the second to commit leaves its records out
(`sealed_elsewhere`, ingest/commit.py).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from strongroom.archive import derived, layout
from strongroom.archive import details as details_format
from strongroom.archive.details import BatchFacts
from strongroom.archive.encryption.contents import Contents
from strongroom.archive.entry import Entry, WriterRange, parse_timestamp
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.log import Log
from strongroom.archive.readahead import REMOTE_THREADS, in_order
from strongroom.ingest.errors import UnknownBatch
from strongroom.ingest.frames import EPOCH, BatchHeader

INDEX = "batches.sqlite"
"""Name of the index in a writer's folder."""

ELSEWHERE = "sealed-elsewhere"
"""Flag of a batch in the details of an entry that has none of its records, because an earlier entry has them."""

_NAMES = 500
_LAST_ENTRY = 1 << 62
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE batches (
    id TEXT PRIMARY KEY, writer TEXT NOT NULL, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL,
    source TEXT NOT NULL, forwarder TEXT NOT NULL, key TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
    received_at INTEGER NOT NULL, flags TEXT NOT NULL,
    entry INTEGER, records INTEGER, accepted INTEGER, quarantined INTEGER,  -- null until sealed
    duplicates INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX by_place ON batches (writer, epoch, sequence);
CREATE INDEX by_content ON batches (source, sha256);
CREATE INDEX by_key ON batches (source, forwarder, key) WHERE key <> '';
CREATE INDEX pending ON batches (writer, bytes) WHERE entry IS NULL;
CREATE INDEX repeated ON batches (writer, duplicates, records) WHERE duplicates > 0;
CREATE TABLE progress (followed INTEGER NOT NULL);  -- index of the next log entry to read
INSERT INTO progress VALUES (0);
CREATE TABLE totals (
    writer TEXT PRIMARY KEY, batches INTEGER NOT NULL, records INTEGER NOT NULL,
    accepted INTEGER NOT NULL, quarantined INTEGER NOT NULL
) WITHOUT ROWID;
"""
_COLUMNS = (
    "id, writer, epoch, sequence, source, sha256, received_at, bytes, flags, entry, records, accepted, quarantined,"
    " duplicates"
)


@dataclass(frozen=True, slots=True)
class BatchState:
    """One batch as it stands. Counts and `entry` (index in the log) are None until it is sealed.

    `bytes` and `sha256` are of the decoded content; `duplicates` counts the further deliveries that were turned away.
    """

    batch: str
    writer: str
    epoch: int
    sequence: int
    source: str
    sha256: str
    state: Literal["spooled", "sealed"]
    received_at: datetime
    bytes: int
    records: int | None
    accepted: int | None
    quarantined: int | None
    duplicates: int
    entry: int | None
    flags: tuple[str, ...]


def spooled_state(header: BatchHeader, writer: str, epoch: int, sequence: int) -> BatchState:
    """The state of a batch that was spooled just now."""
    return BatchState(
        batch=header.batch,
        writer=writer,
        epoch=epoch,
        sequence=sequence,
        source=header.source,
        sha256=header.sha256,
        state="spooled",
        received_at=EPOCH + timedelta(microseconds=header.received_at),
        bytes=header.bytes,
        records=None,
        accepted=None,
        quarantined=None,
        duplicates=0,
        entry=None,
        flags=header.flags,
    )


@dataclass(frozen=True, slots=True)
class Counters:
    """Everything one writer took in since its first batch.

    Batches: received = sealed + pending + duplicates. Records are counted when a batch is sealed:
    received = sealed + quarantined + duplicate, always; what pending batches hold is added when they are sealed.
    """

    received_batches: int
    sealed_batches: int
    duplicate_batches: int
    pending_batches: int
    pending_bytes: int
    received_records: int
    sealed_records: int
    quarantined_records: int
    duplicate_records: int


@dataclass(frozen=True, slots=True)
class Match:
    """What the index says of a delivery: the batch it repeats for certain, a batch it repeats if its records carry
    natural ids, and the flag it is to be stored with otherwise."""

    duplicate: BatchState | None
    perhaps: BatchState | None
    flag: str


class Batches:
    """The index file at `path`, for one writer. Thread-safe."""

    def __init__(self, path: Path, writer_id: str) -> None:
        """Open the index; a missing, damaged or older one is started anew (`follow` fills it)."""
        self._writer = writer_id
        self._follow_lock = threading.Lock()  # an entry must not be counted twice
        self._write_lock, self._read_lock = threading.Lock(), threading.Lock()
        self._db = derived.open_database(path, _SCHEMA, SCHEMA_VERSION)
        # Answers must not wait for a transaction of the spool or the sealer: in WAL mode a reader never does.
        self._reader = derived.connect(path)

    def close(self) -> None:
        """Close the file."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._db.close()

    # -- asking

    def find(self, *, source: str, forwarder: str, key: str, sha256: str) -> Match:
        """Which known batches a delivery may repeat. `key`: hex SHA-256 of the idempotency key, or ""."""
        if key:
            under_key = self._all("source = ? AND forwarder = ? AND key = ? AND key <> ''", source, forwarder, key)
            known = next((state for state in under_key if state.sha256 == sha256), None)
            return Match(known, None, "key-reused" if under_key and known is None else "")
        known = self._one("source = ? AND sha256 = ?", source, sha256)
        return Match(None, known, "repeated-content" if known else "")

    def get(self, batch: str) -> BatchState:
        """The batch of that id. Raises UnknownBatch."""
        found = self._one("id = ?", batch)
        if found is None:
            raise UnknownBatch(f"no batch {batch}", hint="ids are given in the answer to a delivery")
        return found

    def at(self, epoch: int, sequence: int) -> BatchState | None:
        """This writer's batch at that place, None when there is none."""
        place = self._all("writer = ? AND epoch = ? AND sequence = ?", self._writer, epoch, sequence)
        return place[0] if place else None

    def counters(self) -> Counters:
        """Exact totals of this writer."""
        with self._read_lock, _snapshot(self._reader) as db:
            row = db.execute(
                "SELECT batches, records, accepted, quarantined FROM totals WHERE writer = ?", (self._writer,)
            ).fetchone()
            sealed, records, accepted, quarantined = row or (0, 0, 0, 0)
            pending, pending_bytes = db.execute(
                "SELECT count(*), coalesce(sum(bytes), 0) FROM batches WHERE writer = ? AND entry IS NULL",
                (self._writer,),
            ).fetchone()
            repeated, repeated_records = db.execute(
                "SELECT coalesce(sum(duplicates), 0), coalesce(sum(duplicates * records), 0) FROM batches"
                " WHERE duplicates > 0 AND writer = ?",
                (self._writer,),
            ).fetchone()
        return Counters(
            received_batches=sealed + pending + repeated,
            sealed_batches=sealed,
            duplicate_batches=repeated,
            pending_batches=pending,
            pending_bytes=pending_bytes,
            received_records=records + repeated_records,
            sealed_records=accepted,
            quarantined_records=quarantined,
            duplicate_records=repeated_records,
        )

    # -- being told

    def spooled(self, epoch: int, batches: Iterable[tuple[int, BatchHeader]]) -> None:
        """Batches became durable in the spool. Repeating it changes nothing; a sealed batch stays sealed."""
        rows = [
            (h.batch, self._writer, epoch, sequence, h.source, h.forwarder, h.key, h.sha256, h.bytes, h.received_at,
             " ".join(h.flags))
            for sequence, h in batches
        ]  # fmt: skip
        with self._transaction():
            self._db.executemany(
                "INSERT INTO batches (id, writer, epoch, sequence, source, forwarder, key, sha256, bytes, received_at,"
                " flags) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, sequence = excluded.sequence"
                " WHERE entry IS NULL",
                rows,
            )

    def repeated(self, batch: str) -> None:
        """A delivery was turned away as a duplicate of `batch`."""
        with self._transaction():
            self._db.execute("UPDATE batches SET duplicates = duplicates + 1 WHERE id = ?", (batch,))

    def follow(self, log: Log) -> None:
        """Read the entries appended since the last time and note the batches they seal. Raises StoreUnavailable."""
        with self._follow_lock:
            with self._write_lock:
                (followed,) = self._db.execute("SELECT followed FROM progress").fetchone()
            for entry, facts in _facts(log, followed):
                with self._transaction():
                    if entry.writer is not None and entry.writer.complete:
                        self._sealed(entry.writer, entry.index, facts)
                    self._db.execute("UPDATE progress SET followed = ?", (entry.index + 1,))

    def sealed_elsewhere(
        self, batches: Sequence[str], writer: str, epoch: int, first: int, last: int, before: int | None = None
    ) -> set[str]:
        """Which of these ids the log has sealed as other batches than this writer's first … last of this epoch.

        `before`: by entries with a smaller index only.
        """
        found: set[str] = set()
        for start in range(0, len(batches), _NAMES):
            some = batches[start : start + _NAMES]
            marks = ", ".join("?" * len(some))
            with self._read_lock:
                rows = self._reader.execute(
                    f"SELECT id FROM batches WHERE id IN ({marks}) AND entry IS NOT NULL AND entry < ?"  # noqa: S608
                    " AND NOT (writer = ? AND epoch = ? AND sequence BETWEEN ? AND ?)",
                    (*some, _LAST_ENTRY if before is None else before, writer, epoch, first, last),
                ).fetchall()
            found.update(row[0] for row in rows)
        return found

    def missing(self, epoch: int, first: int, next_: int) -> list[BatchState]:
        """Unsealed batches of this writer that the spool (first … next_-1 of `epoch`) does not hold: lost."""
        return self._all(
                "writer = ? AND entry IS NULL AND NOT (epoch = ? AND sequence >= ? AND sequence < ?)",
                self._writer, epoch, first, next_,
            )  # fmt: skip

    def forget(self, batch: str) -> None:
        """Drop an unsealed batch whose bytes are lost, so that its sender can deliver it again."""
        with self._transaction():
            self._db.execute("DELETE FROM batches WHERE id = ? AND entry IS NULL", (batch,))

    def _sealed(self, writer: WriterRange, entry: int, facts: Sequence[BatchFacts]) -> None:
        self._db.execute(
            "UPDATE batches SET entry = ? WHERE writer = ? AND epoch = ? AND sequence BETWEEN ? AND ?",
            (entry, writer.id, writer.epoch, writer.first, writer.last),
        )
        for fact in facts:
            if ELSEWHERE in fact.flags:
                self._db.execute("UPDATE batches SET duplicates = duplicates + 1 WHERE id = ?", (fact.id,))
                continue
            self._db.execute(
                "INSERT INTO batches (id, writer, epoch, sequence, source, forwarder, key, sha256, bytes, received_at,"
                " flags, entry, records, accepted, quarantined) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET writer = excluded.writer, epoch = excluded.epoch,"
                " sequence = excluded.sequence, entry = excluded.entry, records = excluded.records,"
                " accepted = excluded.accepted, quarantined = excluded.quarantined, flags = excluded.flags",
                (fact.id, writer.id, writer.epoch, fact.sequence, fact.source, fact.forwarder, fact.key, fact.sha256,
                 fact.bytes, _micros(fact.received_at), " ".join(fact.flags), entry, fact.records, fact.accepted,
                 fact.quarantined),
            )  # fmt: skip
        self._db.execute(
            "INSERT INTO totals VALUES (?, ?, ?, ?, ?) ON CONFLICT (writer) DO UPDATE SET"
            " batches = batches + excluded.batches, records = records + excluded.records,"
            " accepted = accepted + excluded.accepted, quarantined = quarantined + excluded.quarantined",
            (writer.id, len(facts), sum(f.records for f in facts), sum(f.accepted for f in facts),
             sum(f.quarantined for f in facts)),
        )  # fmt: skip

    def _one(self, where: str, *values: str) -> BatchState | None:
        return next(iter(self._all(f"{where} ORDER BY received_at LIMIT 1", *values)), None)

    def _all(self, where: str, *values: str | int) -> list[BatchState]:
        # `where` is always one of this module's own literals; values are bound.
        with self._read_lock:
            rows = self._reader.execute(f"SELECT {_COLUMNS} FROM batches WHERE {where}", values).fetchall()  # noqa: S608
        return [_state(row) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._write_lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


@contextmanager
def _snapshot(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Several questions to one state."""
    db.execute("BEGIN")
    try:
        yield db
    finally:
        db.execute("ROLLBACK")


def unsealed(path: Path, before: datetime, log: Callable[[], Log]) -> list[BatchState]:
    """Batches accepted before a time that no entry of `log` seals, the oldest first, by the index at `path`.

    For any writer's index, whether that writer runs or not: an index that is behind the log is not believed. The log is
    only asked for when there seems to be one. Raises sqlite3.DatabaseError.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
        asked = f"SELECT {_COLUMNS} FROM batches WHERE entry IS NULL AND received_at < ? ORDER BY received_at"  # noqa: S608
        with _snapshot(db):
            states = [_state(row) for row in db.execute(asked, ((before - EPOCH) // timedelta(microseconds=1),))]
            (followed,) = db.execute("SELECT followed FROM progress").fetchone()
    if states:
        known = log()
        sealed = {fact.id for entry in known.entries(followed) for fact in facts_of(entry, known.contents)}
        states = [state for state in states if state.batch not in sealed]
    return states


def _facts(log: Log, start: int) -> Iterator[tuple[Entry, Sequence[BatchFacts]]]:
    """The entries from `start` on with the batches they seal; read several at once from a remote store."""

    def read(index: int) -> tuple[Entry, Sequence[BatchFacts]]:
        entry = log.entry(index)
        return entry, facts_of(entry, log.contents)

    threads = 1 if log.store.local_path(layout.IDENTITY) is not None or log.size - start < 2 else REMOTE_THREADS
    return in_order(read, range(start, log.size), threads=threads)


def facts_of(entry: Entry, contents: Contents) -> Sequence[BatchFacts]:
    """The batches an entry seals. None where its details are gone or damaged: verification's business, not a reason to
    take no more deliveries."""
    if entry.writer is None or not entry.writer.complete or entry.details is None:
        return ()
    try:
        return details_format.decode(contents.read(entry.details)).batches
    except (ObjectMissing, FormatError):
        return ()


def _state(
    row: tuple[str, str, int, int, str, str, int, int, str, int | None, int | None, int | None, int | None, int],
) -> BatchState:
    batch, writer, epoch, sequence, source, sha256, received, size, flags, entry, *counts, duplicates = row
    records, accepted, quarantined = counts
    return BatchState(
        batch=batch,
        writer=writer,
        epoch=epoch,
        sequence=sequence,
        source=source,
        sha256=sha256,
        state="spooled" if entry is None else "sealed",
        received_at=EPOCH + timedelta(microseconds=received),
        bytes=size,
        records=records,
        accepted=accepted,
        quarantined=quarantined,
        duplicates=duplicates,
        entry=entry,
        flags=tuple(flags.split()),
    )


def _micros(text: str) -> int:
    return (parse_timestamp(text) - EPOCH) // timedelta(microseconds=1)
