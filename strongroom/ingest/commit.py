"""From finished segment files to a committed entry. Blocking; the sealer calls it from a thread.

Order of effects, and what a crash after each leaves:

    segments put        objects under names that only this cut uses; the next try rebuilds the bytes and adopts them
    details put         likewise
    entry appended      sealed. The log names the cut's range; the next try sees that and puts nothing

A name that is taken by other bytes (a torn or foreign object, or one from an older version of this software) can't be
freed: the archive is create-only. The segment is then put under a retry name, and an `incident` entry says which object
is an orphan, so that verification can explain it.

In an encrypted archive the same content gives another envelope with each try (archive/encryption/encryption.py), so an
earlier try's object is recognised by its content: it is opened, and adopted with the bytes it has.

A batch that another writer sealed first, under the same id, must not be sealed twice. So the log is followed once more
with every try to append (`Log.append(unless=…)`); when it has gained such a batch, SealedElsewhere stops the commit,
and the cut is built again without its records. Nothing can come between the look and the append: whoever comes between
makes the append fail, and the next try looks again. (A commit in several entries is only looked at before its first.)

A cut with more segments than one entry holds is committed in parts, in a fixed order; after a crash the parts already
in the log are checked against the rebuilt ones and the rest is added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from strongroom.archive import canonical, details, layout, segment
from strongroom.archive.details import BatchFacts, Details, SegmentSummary
from strongroom.archive.encryption.contents import is_envelope
from strongroom.archive.encryption.envelope import FileFacts
from strongroom.archive.entry import Draft, Entry, ObjectRef, SegmentRef, WriterRange
from strongroom.archive.errors import FormatError, ObjectExists
from strongroom.archive.log import Log, Standing
from strongroom.archive.retention import rules as retention
from strongroom.archive.retention.rules import Promise
from strongroom.archive.stores.copies import local_file
from strongroom.archive.stores.store import ObjectStore
from strongroom.archive.verification.safeguards import keep_until
from strongroom.ingest.batches import ELSEWHERE, Batches
from strongroom.ingest.build import Built, BuiltSegment
from strongroom.ingest.cuts import Cut
from strongroom.ingest.errors import SealConflict, SealedElsewhere, WriterFenced
from strongroom.ingest.writer import Writer

PART_BYTES = 48 << 10
"""Encoded segment references per entry; the rest of an entry fits well into the remaining 16 KiB."""
_MAX_RETRIES = 100


class Committer:
    """Commits the cuts of one writer's epoch, in order. Not for use by several threads at once."""

    def __init__(
        self,
        store: ObjectStore,
        log: Log,
        writer: Writer,
        clock: Callable[[], datetime],
        batches: Batches | None = None,
    ) -> None:
        """`batches`: the index that knows what other writers sealed; needed by `commit`."""
        self._batches = batches
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

        Raises StoreUnavailable (call again), SealedElsewhere (build again), SealConflict, WriterFenced.
        """
        parts = _parts(built.segments)
        before = self.position().parts
        self._must_lead()  # before objects are put that no entry would name
        self._log.declare_encryption(self._clock())
        self._must_be_new(cut, built, before[0].index if before else None)
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
            unless = self._must_lead
            if number == 1:
                self._disown_rest(cut, built, named)
                unless = partial(self._must_be_new, cut, built, None)
            self._log.append(Draft("segment", self._clock(), place, until, named, reference, data), unless=unless)

    def heartbeat(self, next_: int) -> None:
        """Say in the log that this writer is alive and has sealed everything before batch `next_`."""
        place = WriterRange(self._writer.id, self._writer.epoch, next_, next_ - 1)
        self._log.append(Draft("heartbeat", self._clock(), place), unless=self._must_lead)

    def disown(self, cut: Cut) -> None:
        """Declare what an earlier try put for `cut` orphaned: its batches will be cut differently."""
        for key in self._objects_of(cut):
            self._report_orphan(key)

    def disown_beyond(self) -> None:
        """Declare what this epoch put beyond its last commit orphaned: it is over, others seal its batches.

        Before the next epoch is claimed: from then on an object nobody explains is a finding.
        """
        standing = self._log.standing(self._writer.id, self._writer.epoch)
        explained = {reference.key for entry in standing.parts for reference in entry.objects}
        explained |= {
            str(entry.data.get("key"))
            for entry in self._log.entries(max(standing.index, 0))
            if entry.kind == "incident"
        }
        segments = (info.key for info in self._store.list(layout.SEGMENTS))
        details = (info.key for info in self._store.list(f"{layout.DETAILS}{self._writer.id}/{self._writer.epoch}/"))
        for key in (*segments, *details):
            place = layout.place_of(key)
            if place is None or (place.writer, place.epoch) != (self._writer.id, self._writer.epoch):
                continue
            if place.first > standing.sealed and key not in explained:
                self._report_orphan(key)

    def _disown_rest(self, cut: Cut, built: Built, named: Sequence[SegmentRef]) -> None:
        """After a cut was built again without some batches: what the first build put and the second one has not."""
        if not any(ELSEWHERE in batch.flags for batch in built.batches):
            return
        stored = self._log.contents.encryption.name
        kept = {reference.key for reference in named} | {stored(item.summary.key) for item in built.segments}
        for key in self._objects_of(cut):
            if key.startswith(layout.SEGMENTS) and key not in kept:
                self._report_orphan(key)

    def _objects_of(self, cut: Cut) -> list[str]:
        mark = f"/{self._writer.id}-{self._writer.epoch}-{cut.first:020d}-{cut.last:020d}"
        found = [info.key for info in self._store.list(layout.SEGMENTS) if mark in info.key]
        return found + [info.key for info in self._store.list(self._details_name(cut, 1)(0).removesuffix(".json"))]

    def _must_be_new(self, cut: Cut, built: Built, before: int | None) -> None:
        """Raises SealedElsewhere when the log (up to entry `before`) has batches of the cut, WriterFenced."""
        self._must_lead()
        if self._batches is None:
            return
        self._batches.follow(self._log)
        ids = [batch.id for batch in built.batches if ELSEWHERE not in batch.flags]
        found = self._batches.sealed_elsewhere(ids, self._writer.id, self._writer.epoch, cut.first, cut.last, before)
        if found:
            raise SealedElsewhere(found)

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

        put = self._put(name, Path(item.path), facts.sha256, promise.until if promise else None)
        reference = SegmentRef(
            key=put.key,
            version=put.version,
            bytes=put.bytes,
            sha256=put.sha256,
            records=facts.records,
            root=facts.root,
            groups=facts.groups,
        )
        return reference, msgspec.structs.replace(item.summary, key=put.key)

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
        return self._put(self._details_name(cut, place.part), content, sha256(content).hexdigest(), until)

    def _details_name(self, cut: Cut, part: int) -> Callable[[int], str]:
        writer = self._writer
        return lambda retry: layout.details_key(writer.id, writer.epoch, cut.first, cut.last, part, retry)

    def _put(self, name: Callable[[int], str], content: bytes | Path, digest: str, until: datetime | None) -> ObjectRef:
        """Create the object, or adopt it where an earlier try had, under the first name that is free or holds it.

        `digest`: SHA-256 (hex) of `content`; what is returned is of the object as stored. Where the store locks, it is
        locked until `until` or longer, also when an earlier try had locked it for less.
        """
        for retry in range(_MAX_RETRIES):
            key = self._log.contents.encryption.name(name(retry))
            body, facts = self._body(key, content, digest)
            try:
                info = self._store.create(key, body, retain_until=until)
            except ObjectExists:
                found = self._found(key)
                if found.content != digest:
                    self._report_orphan(key)
                    continue
                info, facts = self._store.head(key), found.stored
                keep_until(self._store, key, info.version, until)
            return ObjectRef(key, info.version, facts.bytes, facts.sha256)
        raise SealConflict(f"{_MAX_RETRIES} names from {name(0)} on are taken by other objects")

    def _body(self, key: str, content: bytes | Path, digest: str) -> tuple[bytes | Path, FileFacts]:
        """What to put as `key`: the content, or its envelope."""
        if not is_envelope(key):
            size = content.stat().st_size if isinstance(content, Path) else len(content)
            return content, FileFacts(size, digest)
        encryption = self._log.contents.encryption
        if isinstance(content, Path):
            target = content.with_name(content.name + layout.ENCRYPTED)
            target.unlink(missing_ok=True)  # of a try that failed
            return target, encryption.seal_file(key, content, target)
        envelope = encryption.seal_bytes(key, content)
        return envelope, FileFacts(len(envelope), sha256(envelope).hexdigest())

    def _found(self, key: str) -> _Found:
        """What lies under a name that is taken. Raises StoreUnavailable, KeyWithheld for an envelope of a lost key."""
        with TemporaryDirectory(prefix="strongroom-") as folder, local_file(self._store, key) as path:
            stored = FileFacts(path.stat().st_size, segment.file_digest(path))
            if not is_envelope(key):
                return _Found(stored, stored.sha256)
            try:
                opened = self._log.contents.encryption.open_file(key, path, Path(folder) / "content")
            except FormatError:  # torn, or never an envelope of this archive
                return _Found(stored, "")
            return _Found(stored, opened.sha256)

    def _report_orphan(self, key: str) -> None:
        if key not in self._reported:
            data = {"what": "orphan", "key": key, "writer": self._writer.id}
            self._log.append(Draft("incident", self._clock(), data=data))
            self._reported.add(key)

    def _must_equal(self, entry: Entry, cut: Cut, segments: Sequence[BuiltSegment], number: int, parts: int) -> None:
        expected = WriterRange(self._writer.id, self._writer.epoch, cut.first, cut.last, number, parts)
        pairs = list(zip(entry.segments, segments, strict=False))
        same = len(entry.segments) == len(segments) and all(_is_of(ref, item) for ref, item in pairs)
        if entry.writer != expected or not same:
            raise SealConflict(
                f"entry {entry.index} holds another part {number} of batches {cut.first}..{cut.last} than was rebuilt",
                hint="seal the rest with the software version that began it; the spool keeps the batches",
            )


@dataclass(frozen=True, slots=True)
class _Found:
    """An object found under a name: its facts as stored, and its content's SHA-256 (hex), "" when it has none."""

    stored: FileFacts
    content: str


def _is_of(reference: SegmentRef, item: BuiltSegment) -> bool:
    """Whether an entry's segment is the one rebuilt. What envelopes hold, the roots tell: they cover every record."""
    if is_envelope(reference.key):
        return (reference.root, reference.groups) == (item.facts.root, item.facts.groups)
    return reference.sha256 == item.facts.sha256


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
