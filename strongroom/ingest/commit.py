"""From finished segment files to a committed entry. Blocking; the sealer calls it from a thread.

Order of effects, and what a crash after each leaves:

    segments put        objects under names that only this cut uses; the next try rebuilds the bytes and adopts them
    details put         likewise
    entry appended      sealed. The log names the cut's range; the next try sees that and puts nothing

A name that is taken by other bytes (a torn or foreign object, or one from an older version of this software) can't be
freed: the archive is create-only. The segment is then put under a retry name, and an `incident` entry says which object
is an orphan, so that verification can explain it.

A cut with more segments than one entry holds is committed in parts, in a fixed order; after a crash the parts already
in the log are checked against the rebuilt ones and the rest is added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import msgspec

from strongroom.archive import canonical, details, layout, retention, segment
from strongroom.archive.details import BatchFacts, Details, SegmentSummary
from strongroom.archive.entry import Draft, Entry, ObjectRef, SegmentRef, WriterRange
from strongroom.archive.errors import ObjectExists
from strongroom.archive.log import Log, Standing
from strongroom.archive.retention import Promise
from strongroom.archive.safeguards import keep_until
from strongroom.archive.stores.store import ObjectInfo, ObjectStore
from strongroom.ingest.build import Built, BuiltSegment
from strongroom.ingest.cuts import Cut
from strongroom.ingest.errors import SealConflict, WriterFenced
from strongroom.ingest.writer import Writer

PART_BYTES = 48 << 10
"""Encoded segment references per entry; the rest of an entry fits well into the remaining 16 KiB."""
_MAX_RETRIES = 100


class Committer:
    """Commits the cuts of one writer's epoch, in order. Not for use by several threads at once."""

    def __init__(self, store: ObjectStore, log: Log, writer: Writer, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._log = log
        self._writer = writer
        self._clock = clock
        self._reported: set[str] = set()

    def position(self) -> Standing:
        """How far the log has this epoch. Raises StoreUnavailable."""
        self._log.refresh()
        return self._log.standing(self._writer.id, self._writer.epoch)

    def commit(self, cut: Cut, built: Built) -> None:
        """Put the objects of `cut` and append its entries, or what is missing of both. The files are given up.

        Raises StoreUnavailable (call again), SealConflict, WriterFenced.
        """
        parts = _parts(built.segments)
        before = self.position().parts
        self._must_lead()  # before objects are put that no entry would name
        for number, segments in enumerate(parts, 1):
            if number <= len(before):
                self._must_equal(before[number - 1], cut, segments, number, len(parts))
                continue
            place = WriterRange(self._writer.id, self._writer.epoch, cut.first, cut.last, number, len(parts))
            promises, until = self._promises(segments)  # before the puts: a lock must not end before its promise
            put = [self._put_segment(item, cut, promises.get(item.source)) for item in segments]
            batches = built.batches if place.complete else ()
            reference = self._put_details(cut, place, batches, [summary for _, summary in put], until)
            data = {retention.MEMBER: retention.stated(promises)} if promises else {}
            named = tuple(ref for ref, _ in put)
            self._append(Draft("segment", self._clock(), place, until, named, reference, data))

    def heartbeat(self, next_: int) -> None:
        """Say in the log that this writer is alive and has sealed everything before batch `next_`."""
        self._append(
            Draft("heartbeat", self._clock(), WriterRange(self._writer.id, self._writer.epoch, next_, next_ - 1))
        )

    def disown(self, cut: Cut) -> None:
        """Declare what an earlier try put for `cut` orphaned: its batches will be cut differently."""
        mark = f"/{self._writer.id}-{self._writer.epoch}-{cut.first:020d}-{cut.last:020d}"
        found = [info.key for info in self._store.list(layout.SEGMENTS) if mark in info.key]
        found += [info.key for info in self._store.list(self._details_name(cut, 1)(0).removesuffix(".json"))]
        for key in found:
            self._report_orphan(key)

    def _append(self, draft: Draft) -> None:
        self._log.refresh()
        self._must_lead()
        self._log.append(draft)

    def _must_lead(self) -> None:
        # The log refuses to go on after an entry that breaks a writer's numbering, so look before writing one.
        known = self._log.next_of(self._writer.id)
        if known is not None and known[0] > self._writer.epoch:
            raise WriterFenced(
                f"the log knows epoch {known[0]} of writer {self._writer.id!r}; this is epoch {self._writer.epoch}",
                hint="two instances run under one writer id: stop one, give it another id; this one restarts cleanly",
            )

    def _promises(self, segments: Sequence[BuiltSegment]) -> tuple[dict[str, Promise], datetime | None]:
        """What is promised for these segments, by source, and until when their entry and details are kept."""
        now, rules = self._clock(), self._log.retention
        found = {item.source: rules.promise(item.summary.key, now) for item in segments}
        whole = rules.promise(layout.entry_key(0), now)
        promises = {source: promise for source, promise in found.items() if promise is not None}
        return promises, whole.until if whole is not None else None

    def _put_segment(self, item: BuiltSegment, cut: Cut, promise: Promise | None) -> tuple[SegmentRef, SegmentSummary]:
        facts = item.facts

        def name(retry: int) -> str:
            return layout.segment_key(
                item.source, item.date, self._writer.id, self._writer.epoch, cut.first, cut.last, retry
            )

        info = self._put(name, Path(item.path), facts.sha256, promise.until if promise else None)
        reference = SegmentRef(
            key=info.key,
            version=info.version,
            bytes=facts.bytes,
            sha256=facts.sha256,
            records=facts.records,
            root=facts.root,
            groups=facts.groups,
        )
        return reference, msgspec.structs.replace(item.summary, key=info.key)

    def _put_details(
        self,
        cut: Cut,
        place: WriterRange,
        batches: Sequence[BatchFacts],
        summaries: Sequence[SegmentSummary],
        until: datetime | None,
    ) -> ObjectRef:
        salt = cut.secret(f"details/{place.part}").hex()
        content = details.encode(Details(salt, place, tuple(batches), tuple(summaries)))
        digest = sha256(content).hexdigest()
        info = self._put(self._details_name(cut, place.part), content, digest, until)
        return ObjectRef(info.key, info.version, len(content), digest)

    def _details_name(self, cut: Cut, part: int) -> Callable[[int], str]:
        writer = self._writer
        return lambda retry: layout.details_key(writer.id, writer.epoch, cut.first, cut.last, part, retry)

    def _put(
        self, name: Callable[[int], str], content: bytes | Path, digest: str, until: datetime | None
    ) -> ObjectInfo:
        """Create the object, or adopt it where an earlier try had, under the first name that is free or holds it.

        Where the store locks, it is locked until `until` or longer, also when an earlier try had locked it for less.
        """
        for retry in range(_MAX_RETRIES):
            key = name(retry)
            try:
                return self._store.create(key, content, retain_until=until)
            except ObjectExists:
                if self._stored_digest(key) == digest:
                    info = self._store.head(key)
                    keep_until(self._store, key, info.version, until)
                    return info
                self._report_orphan(key)
        raise SealConflict(f"{_MAX_RETRIES} names from {name(0)} on are taken by other objects")

    def _stored_digest(self, key: str) -> str:
        path = self._store.local_path(key)
        return sha256(self._store.get(key)).hexdigest() if path is None else segment.file_digest(path)

    def _report_orphan(self, key: str) -> None:
        if key not in self._reported:
            data = {"what": "orphan", "key": key, "writer": self._writer.id}
            self._log.append(Draft("incident", self._clock(), data=data))
            self._reported.add(key)

    def _must_equal(self, entry: Entry, cut: Cut, segments: Sequence[BuiltSegment], number: int, parts: int) -> None:
        expected = WriterRange(self._writer.id, self._writer.epoch, cut.first, cut.last, number, parts)
        if entry.writer != expected or [ref.sha256 for ref in entry.segments] != [s.facts.sha256 for s in segments]:
            raise SealConflict(
                f"entry {entry.index} holds another part {number} of batches {cut.first}..{cut.last} than was rebuilt",
                hint="seal the rest with the software version that began it; the spool keeps the batches",
            )


def _parts(segments: Sequence[BuiltSegment]) -> list[list[BuiltSegment]]:
    """The segments of each entry; at least one entry, which may have none (a batch may hold no record)."""
    parts: list[list[BuiltSegment]] = [[]]
    room = PART_BYTES
    for item in segments:
        size = _encoded_size(item)
        if size > room and parts[-1]:
            parts.append([])
            room = PART_BYTES
        parts[-1].append(item)
        room -= size
    return parts


def _encoded_size(item: BuiltSegment) -> int:
    # The store's version and a retry suffix are not known yet; leave them room, so that parts never depend on them.
    return len(item.summary.key) + len(canonical.encode(list(item.facts.groups))) + 600
