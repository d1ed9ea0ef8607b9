"""The spool in the bucket: an acknowledgement then means that the archive's own store has the batch.

For machines whose disk goes with them. A group commit is one put of `spool/<writer>/<epoch>/<first>-<last>`: a whole
spool file (ingest/frames.py) with one group. What lies in the state directory beside it is a copy for the worker
processes, never synced and never read again after a start. An epoch is one life of the process: each start claims the
next one and takes over what the earlier ones left (ingest/recovery.py), so an empty disk and a full one start alike.

    put, answer lost            read back; put again under the same name, which is create-if-absent: one object
    given up (`give_up_seconds`)   the senders are refused. The put may still come true: the next group begins at the
                                same number and carries the next attempt in its name, which makes this object void
    put, not answered           recovery takes the batches over; the sender sends again, and the index recognises them
    cut decided, process lost   its seed is in the bucket too (`.cut`), so that a commit of several entries of which
                                some are in the log can be finished to the byte

In an encrypted archive spool objects are envelopes, as everything with content is.

Spool objects are locked for some days only, well beyond the time that sealing takes; a lifecycle rule of the bucket
removes them after that. They are no part of what the archive proves: what is sealed is proven by the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from strongroom.archive import layout
from strongroom.archive.errors import FormatError, ObjectExists, ObjectMissing, StoreUnavailable
from strongroom.archive.log import Log
from strongroom.archive.readahead import REMOTE_THREADS, in_order
from strongroom.ingest import frames
from strongroom.ingest.cuts import Cut
from strongroom.ingest.errors import SpoolUnavailable
from strongroom.ingest.frames import BatchHeader, Frame
from strongroom.ingest.spool import GROUP_BATCHES, FrameAt, Group
from strongroom.ingest.writer import Writer

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_cut = msgspec.json.Decoder(Cut)  # made here: see archive/details.py


@dataclass(frozen=True, slots=True)
class BucketRules:
    """How the bucket keeps what is spooled.

    `retain_days`: the lock on spool objects. `linger_seconds`: how long a put waits for more batches to share it.
    `give_up_seconds`: how long a put is tried before its senders are refused.
    """

    retain_days: float = 14.0
    linger_seconds: float = 0.02
    give_up_seconds: float = 20.0


USUAL = BucketRules()


@dataclass(frozen=True, slots=True)
class Leftover:
    """One unsealed batch of an earlier epoch, as its spool object holds it."""

    sequence: int
    header: BatchHeader
    body: bytes


class Bucket:
    """Durability of one writer's epoch in the bucket (spool.Durability), and its cuts."""

    file_bytes = 1  # each group is an object, and each object a file

    def __init__(self, log: Log, writer: Writer, rules: BucketRules, clock: Callable[[], datetime]) -> None:
        self._store, self._contents = log.store, log.contents
        self._writer, self._rules, self._clock = writer, rules, clock
        self._attempt = 0
        self.linger_seconds = rules.linger_seconds

    def create(self, path: Path, content: bytes) -> None:
        """See spool.Durability.create: a copy, not synced."""
        path.write_bytes(content)

    def keep(self, descriptor: int, group: Group) -> None:
        """See spool.Durability.keep: put the group as one object."""
        content = b"".join([frames.encode_file_header(group.header), *group.pieces])
        try:
            self._put(lambda: self._name(group), content)
        except StoreUnavailable as error:
            self._attempt += 1
            raise SpoolUnavailable(
                f"the spool in the bucket: {error.message}", hint="nothing counts as stored; send it again"
            ) from error

    def decide(self, cut: Cut) -> None:
        """Make a cut's seed durable. Raises StoreUnavailable."""
        key = layout.cut_key(self._writer.id, self._writer.epoch, cut.first, cut.last)
        self._put(lambda: key, msgspec.json.encode(cut))

    def _name(self, group: Group) -> str:
        return layout.spool_key(self._writer.id, self._writer.epoch, group.first, group.last, self._attempt)

    def _put(self, name: Callable[[], str], content: bytes) -> None:
        """Create the object, trying again while the outcome is not known. Raises StoreUnavailable."""
        until, pause = time.monotonic() + self._rules.give_up_seconds, _FIRST_PAUSE
        retain_until = self._clock() + timedelta(days=self._rules.retain_days)
        sealed: dict[str, bytes] = {}  # encryption is not repeatable: the same name is always put with the same bytes
        while True:
            key = self._contents.encryption.name(name())
            try:
                if key not in sealed:
                    sealed[key] = self._contents.seal(key, content)
                stored = sealed[key]
                self._store.create(key, stored, retain_until=retain_until)
                return
            except ObjectExists:
                if self._holds(key, stored):
                    return
                self._attempt += 1  # a group that was given up came true in between
            except StoreUnavailable:
                if time.monotonic() + pause > until:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _holds(self, key: str, content: bytes) -> bool:
        try:
            return self._store.get(key) == content
        except ObjectMissing:
            return False


def unsealed(log: Log, writer: str, epoch: int) -> list[layout.SpoolName]:
    """The spool objects of an epoch that hold batches which the log does not seal, by first number; void ones left out.

    Raises StoreUnavailable.
    """
    sealed = log.standing(writer, epoch).sealed
    folder = layout.spool_folder(writer, epoch)
    # An object may begin with sealed batches, but it holds no more than a group.
    start = f"{folder}{max(sealed + 1 - GROUP_BATCHES, 0):020d}"
    latest: dict[int, layout.SpoolName] = {}
    for info in log.store.list(folder, start):
        name = layout.parse_spool(info.key)
        if name is None or name.cut or name.last <= sealed:
            continue
        known = latest.get(name.first)
        if known is None or known.attempt < name.attempt:
            latest[name.first] = name
    return [latest[first] for first in sorted(latest)]


def leftovers(log: Log, names: Sequence[layout.SpoolName], unreadable: Callable[[str], None]) -> Iterator[Leftover]:
    """The batches in these objects that the log does not seal, in order.

    An object that is no spool file of that epoch and range is passed to `unreadable` and otherwise left alone: whoever
    may put objects must not be able to keep a writer from starting. Raises StoreUnavailable.
    """
    for name, content in _contents(log, names):
        found = _frames(content, name)
        if found is None:
            unreadable(name.key)
            continue
        sealed = log.standing(name.writer, name.epoch).sealed
        for frame in found:
            if frame.sequence > sealed:
                yield Leftover(frame.sequence, frame.header, content[frame.body : frame.end])


def copy_range(log: Log, writer: Writer, cut: Cut, folder: Path) -> list[FrameAt]:
    """Files in `folder` with the batches of a cut of an earlier epoch, and where each batch lies in them."""
    places: list[FrameAt] = []
    for name, content in _contents(log, unsealed(log, writer.id, writer.epoch)):
        path = folder / f"{name.first:020d}.spool"
        path.write_bytes(content)
        places += [
            FrameAt(str(path), frame.offset, frame.sequence)
            for frame in _frames(content, name) or ()
            if cut.first <= frame.sequence <= cut.last
        ]
    return places


def read_cut(log: Log, writer: Writer, first: int, last: int) -> Cut | None:
    """The cut that an earlier life decided for these batches, None when there is none to be read."""
    plain = layout.cut_key(writer.id, writer.epoch, first, last)
    for key in (plain, plain + layout.ENCRYPTED):
        with suppress(ObjectMissing, FormatError, msgspec.DecodeError):
            return _cut.decode(log.contents.unseal(key, log.store.get(key)))
    return None


def _contents(log: Log, names: Sequence[layout.SpoolName]) -> Iterator[tuple[layout.SpoolName, bytes]]:
    """The objects' contents; nothing for an envelope that is damaged."""

    def read(name: layout.SpoolName) -> bytes:
        try:
            return log.contents.unseal(name.key, log.store.get(name.key))
        except FormatError:
            return b""

    yield from zip(names, in_order(read, names, threads=REMOTE_THREADS // 4), strict=True)


def _frames(content: bytes, name: layout.SpoolName) -> list[Frame] | None:
    """The frames of a spool object, None when it is not exactly what its name says."""
    header = frames.decode_file_header(content)
    if header is None or (header.epoch, header.first) != (name.epoch, name.first):
        return None
    found = list(frames.scan(content, header))
    whole = [frame for frame in found if isinstance(frame, Frame)]
    return whole if len(whole) == len(found) == name.last - name.first + 1 else None
