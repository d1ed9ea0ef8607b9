"""The spool: acknowledged batches until they are sealed, on this machine's disk or (ingest/diskless.py) in the bucket.

`append` returns a future that resolves when the batch is durable *and* known to the index of batches; that is the
acknowledgement. One writer thread serves all appends: whatever waits when it comes round is written with one system
call and made durable at once (group commit): by one fdatasync, or by one put. Batches get consecutive sequence numbers
from 0 in each epoch. What is said below of fsync is the disk's part, `Disk`.

What a crash leaves, after each step:

    frames written, not synced      a torn group at the end of the last file; `open` cuts it off (and keeps the bytes
                                    under torn/). Nobody was told that these batches are safe.
    synced, not indexed             whole frames; `open` finds them and the index learns them from there.
    indexed, not answered           the sender sends again; the index recognises the batch.
    new file created, none written  an empty file that carries the next sequence number on. The newest file is therefore
                                    never removed, also when all its batches are sealed.
    some files released             the rest hold sealed batches; the log says so and `release` is repeated.

A write that fails (disk full) is undone by truncation, and the next one may succeed. An fsync that fails is final: the
kernel may have dropped the pages and will report the next fsync as good, so no promise can be made about this file any
more; the spool refuses everything until it is opened again and what the disk really holds has been read.
"""

from __future__ import annotations

import mmap
import os
import queue
import secrets
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from strongroom.archive import durable
from strongroom.ingest import frames
from strongroom.ingest.errors import IntakeUnavailable, SpoolDamaged, SpoolFull, SpoolUnavailable
from strongroom.ingest.frames import Bad, BatchHeader, FileHeader, Frame

FILE_BYTES = 64 << 20
GROUP_BATCHES = 1000
_GROUP_BYTES = 64 << 20
_WRITEV_PIECES = 512
_SUFFIX = ".spool"

Durable = Sequence[tuple[int, BatchHeader]]


@dataclass(frozen=True, slots=True)
class FrameAt:
    """Where a worker process finds one batch."""

    path: str
    offset: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Group:
    """What one commit makes durable: the frames first … last, which begin at byte `start` of a spool file."""

    header: FileHeader
    start: int
    first: int
    last: int
    pieces: Sequence[bytes]


class Durability(Protocol):
    """What makes spooled bytes survive. Called by the spool's writer thread alone."""

    @property
    def file_bytes(self) -> int:
        """A file of so many bytes gets no further group."""
        ...

    @property
    def linger_seconds(self) -> float:
        """How long a group waits for more batches to share its cost."""
        ...

    def create(self, path: Path, content: bytes) -> None:
        """Make a new file that begins with `content`. Raises OSError."""
        ...

    def keep(self, descriptor: int, group: Group) -> None:
        """Return when the group, which is written to the open file, is durable.

        Raises SpoolUnavailable when it does not count and the next one may succeed; OSError when nothing can be
        promised about this file any more.
        """
        ...


@dataclass(frozen=True, slots=True)
class Disk:
    """Durable on this machine's disk: fdatasync."""

    file_bytes: int = FILE_BYTES
    linger_seconds: float = 0.0

    def create(self, path: Path, content: bytes) -> None:
        """See Durability.create."""
        durable.replace(path, content)

    def keep(self, descriptor: int, group: Group) -> None:
        """See Durability.keep."""
        os.fdatasync(descriptor)


DISK = Disk()


@dataclass(slots=True)
class _File:
    path: Path
    header: FileHeader
    size: int
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    expanded: array[int] = field(default_factory=lambda: array("Q"))
    received: array[int] = field(default_factory=lambda: array("q"))

    @property
    def next(self) -> int:
        return self.header.first + len(self.offsets)

    def add(self, frame_offset: int, header: BatchHeader, end: int) -> None:
        self.offsets.append(frame_offset)
        self.expanded.append(header.bytes)
        self.received.append(header.received_at)
        self.size = end


@dataclass(frozen=True, slots=True)
class _Append:
    header: BatchHeader
    head: bytes
    body: Sequence[bytes]
    bytes: int
    done: Future[int]


class Spool:
    """The spool files of one epoch of one writer, in `folder`. One process at a time (ingest/writer.py holds the lock).

    `on_durable` is called in the writer thread with the (sequence, header) pairs of a group once it is durable and
    before their futures resolve; when it raises, the group is undone and refused.
    """

    def __init__(
        self,
        folder: Path,
        *,
        epoch: int,
        limit_bytes: int,
        on_durable: Callable[[Durable], None],
        durability: Durability = DISK,
    ) -> None:
        """Open the spool, reading every frame. Raises SpoolDamaged, SpoolUnavailable."""
        self._folder = folder
        self._epoch = epoch
        self._limit = limit_bytes
        self._durability = durability
        self._on_durable = on_durable
        self._lock = threading.Lock()
        self._broken = ""
        self._reserved = 0
        self.syncs = 0
        try:
            make_folder(folder)
            self._files = self._load()
            if not self._files:
                self._files.append(self._create(0))
            self._descriptor = os.open(self._files[-1].path, os.O_WRONLY)
        except OSError as error:
            raise SpoolUnavailable(f"spool {folder}: {error.strerror}", hint="check the disk") from error
        self._queue: queue.SimpleQueue[_Append | Future[int] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    # -- what it holds

    @property
    def first(self) -> int:
        """Sequence number of the oldest batch still in a file."""
        return self._files[0].header.first

    @property
    def next(self) -> int:
        """Sequence number the next batch will get."""
        return self._files[-1].next

    @property
    def stored_bytes(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in list(self._files))

    @property
    def problem(self) -> str:
        """Why the spool refuses everything until restart, "" while it works."""
        return self._broken

    def frames(self, first: int, last: int) -> list[FrameAt]:
        """Where the batches first..last lie."""
        with self._lock:
            return [
                FrameAt(str(file.path), file.offsets[sequence - file.header.first], sequence)
                for file in self._files
                for sequence in range(max(first, file.header.first), min(last + 1, file.next))
            ]

    def pin(self, first: int, last: int, folder: Path) -> list[FrameAt] | None:
        """Where the batches first..last lie, under names in `folder` that `release` leaves alone; the folder's owner
        removes them. None when the spool does not hold them all any more. Raises OSError."""
        places: list[FrameAt] = []
        with self._lock:
            if first < self.first:
                return None
            for file in self._files:
                numbers = range(max(first, file.header.first), min(last + 1, file.next))
                if numbers:
                    name = folder / file.path.name
                    os.link(file.path, name)
                    places += [FrameAt(str(name), file.offsets[n - file.header.first], n) for n in numbers]
        return places

    def sizes(self, first: int) -> Iterator[tuple[int, int, int]]:
        """(sequence, stored bytes, content bytes) of the batches from `first` on."""
        with self._lock:
            files = [(file, file.next, file.size) for file in self._files if file.next > first]
        for file, stop, size in files:
            for sequence in range(max(first, file.header.first), stop):
                place = sequence - file.header.first
                end = file.offsets[place + 1] if sequence + 1 < stop else size
                yield sequence, end - file.offsets[place], file.expanded[place]

    def received_at(self, sequence: int) -> int | None:
        """When the batch of that number was received (µs), None when the spool does not hold it."""
        with self._lock:
            for file in reversed(self._files):
                if file.header.first <= sequence < file.next:
                    return file.received[sequence - file.header.first]
        return None

    def headers(self, first: int) -> Iterator[tuple[int, BatchHeader]]:
        """(sequence, header) of the batches from `first` on, read from the files."""
        for place in self.frames(first, self.next - 1):
            yield place.sequence, read(place)[0]

    # -- taking in

    def append(self, header: BatchHeader, body: Sequence[bytes]) -> Future[int]:
        """Make a batch durable; the future gives its sequence number.

        Raises SpoolFull, and ValueError for a header that can't be encoded, at once; the future raises
        SpoolUnavailable. Safe from any thread.
        """
        head = frames.encode_header(header)  # here, so that an odd header costs its own batch and not the group
        size = sum(len(piece) for piece in body)
        with self._lock:
            self._check()
            if self.stored_bytes + self._reserved + size > self._limit:
                raise SpoolFull(
                    f"the spool holds {self.stored_bytes} of {self._limit} bytes",
                    hint="it drains as the sealer works; see whether the archive's store can be reached",
                )
            self._reserved += size
        done = _promise()
        self._queue.put(_Append(header, head, body, size, done))
        return done

    def rotate(self) -> Future[int]:
        """Start a new file, so that the batches so far can be released; the future gives the next sequence number."""
        done = _promise()
        self._queue.put(done)
        return done

    def release(self, last: int) -> None:
        """Remove the files all of whose batches are numbered at most `last`: they are sealed. Raises SpoolUnavailable.

        Removing needs no fsync: a file that comes back after a crash is released again, because the log says it may.
        """
        with self._lock:
            while len(self._files) > 1 and self._files[0].next - 1 <= last:
                try:
                    self._files[0].path.unlink(missing_ok=True)
                except OSError as error:
                    raise SpoolUnavailable(f"can't remove {self._files[0].path}: {error.strerror}") from error
                del self._files[0]

    def close(self) -> None:
        """Stop the writer thread after what is queued, and close the file. Files stay as they are."""
        self._queue.put(None)
        self._thread.join()
        self._broken = self._broken or "the spool is closed"
        os.close(self._descriptor)

    # -- the writer thread

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            group: list[_Append] = []
            size, until = 0, time.monotonic() + self._durability.linger_seconds
            while isinstance(item, _Append):
                group.append(item)
                size += item.bytes
                if size > _GROUP_BYTES or len(group) == GROUP_BATCHES:
                    break
                try:
                    item = self._queue.get(timeout=max(until - time.monotonic(), 0.0))
                except queue.Empty:
                    break
            if group:
                self._commit(group)
            if item is None:
                return
            if isinstance(item, Future):
                self._finish_rotation(item)

    def _commit(self, group: list[_Append]) -> None:
        file = self._files[-1]
        start = file.size
        try:
            self._check()
            if file.offsets and file.size >= self._durability.file_bytes:
                self._rotate()
                file = self._files[-1]
                start = file.size
            pieces: list[bytes] = []
            added: list[tuple[int, int, BatchHeader]] = []
            offset = start
            for sequence, item in enumerate(group, file.next):
                encoded, size = frames.encode_frame(file.header, sequence, start, item.head, item.body)
                added.append((offset, sequence, item.header))
                pieces += encoded
                offset += size
            self._write(pieces, start)
            self._sync(Group(file.header, start, file.next, file.next + len(group) - 1, pieces))
            # The index must know a batch before its sender may hear of it: a second delivery can come at once.
            self._on_durable([(sequence, header) for _, sequence, header in added])
        except Exception as error:  # whatever failed, the senders must be told and nothing may count as stored
            self._undo(start)
            failure = error if isinstance(error, IntakeUnavailable) else _unavailable(self._folder, error)
            self._settle(group)
            for item in group:
                item.done.set_exception(failure)
            return
        with self._lock:
            for position, (frame_offset, _, header) in enumerate(added):
                end = added[position + 1][0] if position + 1 < len(added) else offset
                file.add(frame_offset, header, end)
        self._settle(group)
        for item, (_, sequence, _) in zip(group, added, strict=True):
            item.done.set_result(sequence)

    def _settle(self, group: list[_Append]) -> None:
        with self._lock:
            self._reserved -= sum(item.bytes for item in group)

    def _write(self, pieces: list[bytes], offset: int) -> None:
        for start in range(0, len(pieces), _WRITEV_PIECES):
            views = [memoryview(piece) for piece in pieces[start : start + _WRITEV_PIECES] if piece]
            while views:
                written = os.pwritev(self._descriptor, views, offset)
                offset += written
                while views and written >= len(views[0]):
                    written -= len(views.pop(0))
                if views:
                    views[0] = views[0][written:]

    def _sync(self, group: Group) -> None:
        try:
            self._durability.keep(self._descriptor, group)
        except OSError as error:
            self._broken = f"fsync failed: {error.strerror}"
            raise
        self.syncs += 1

    def _undo(self, start: int) -> None:
        # Leave no bytes of refused batches behind. If even that fails, what is on disk is unknown: stop.
        try:
            os.ftruncate(self._descriptor, start)
            if not self._broken:
                os.fdatasync(self._descriptor)
        except OSError as error:
            self._broken = self._broken or f"a failed write could not be undone: {error.strerror}"

    def _finish_rotation(self, done: Future[int]) -> None:
        try:
            self._check()
            if self._files[-1].offsets:
                self._rotate()
            done.set_result(self.next)
        except SpoolUnavailable as error:
            done.set_exception(error)

    def _rotate(self) -> None:
        try:
            file = self._create(self.next)
            descriptor = os.open(file.path, os.O_WRONLY)
        except OSError as error:
            raise _unavailable(self._folder, error) from error
        os.close(self._descriptor)
        self._descriptor = descriptor
        with self._lock:
            self._files.append(file)

    def _check(self) -> None:
        if self._broken:
            raise SpoolUnavailable(f"spool {self._folder}: {self._broken}", hint="check the disk, then restart")

    # -- files

    def _create(self, first: int) -> _File:
        header = FileHeader(secrets.token_bytes(frames.MARKER_BYTES), self._epoch, first)
        path = self._folder / f"{first:020d}{_SUFFIX}"
        self._durability.create(path, frames.encode_file_header(header))
        return _File(path, header, frames.FILE_HEADER_BYTES)

    def _load(self) -> list[_File]:
        paths = sorted(self._folder.glob(f"*{_SUFFIX}"))
        files: list[_File] = []
        for path in paths:
            file = self._load_file(path, newest=path == paths[-1])
            if files and file.header.first != files[-1].next:
                raise SpoolDamaged(
                    f"{path} begins at batch {file.header.first}, the file before ends before {files[-1].next}",
                    hint="a spool file is missing; restore it or start a fresh state directory and report the gap",
                )
            files.append(file)
        return files

    def _load_file(self, path: Path, *, newest: bool) -> _File:
        if path.stat().st_size < frames.FILE_HEADER_BYTES:
            raise SpoolDamaged(f"{path} is cut off in its first bytes, which were durable before the file had its name")
        with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = frames.decode_file_header(data[: frames.FILE_HEADER_BYTES])
            if header is None or header.epoch != self._epoch:
                raise SpoolDamaged(f"{path} does not start as a spool file of epoch {self._epoch}")
            file = _File(path, header, frames.FILE_HEADER_BYTES)
            for found in frames.scan(data, header):
                if isinstance(found, Frame):
                    file.add(found.offset, found.header, found.end)
                else:
                    self._cut(path, data, found, newest=newest)
        return file

    def _cut(self, path: Path, data: mmap.mmap, bad: Bad, *, newest: bool) -> None:
        aside = self._folder / "torn" / f"{path.name}-{bad.offset}-{time.time_ns()}"
        aside.parent.mkdir(exist_ok=True, mode=0o700)
        durable.replace(aside, data[bad.offset :])
        # Files are only left behind whole, so a bad frame in any but the newest had been durable.
        if bad.kind == "damaged" or not newest:
            raise SpoolDamaged(
                f"{path}: the frame at byte {bad.offset} is damaged although it had been durable",
                hint=f"acknowledged bytes were lost on this disk; what is left of them is also in {aside}",
            )
        with path.open("r+b") as opened:
            opened.truncate(bad.offset)
            os.fsync(opened.fileno())


def read(place: FrameAt) -> tuple[BatchHeader, bytes]:
    """One batch's header and body, checksums verified. Raises SpoolDamaged. Used in worker processes, too."""
    with Path(place.path).open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        header = frames.decode_file_header(data[: frames.FILE_HEADER_BYTES])
        frame = header and frames.read_frame(data, place.offset, header, place.sequence)
        if not frame:
            raise SpoolDamaged(f"{place.path}: the frame at byte {place.offset} (batch {place.sequence}) is damaged")
        return frame.header, data[frame.body : frame.end]


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably: files in a folder whose name is lost are lost. Raises OSError."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        durable.sync_folder(path.parent)


def _promise() -> Future[int]:
    """A future that only the writer thread ends: who stops waiting for it does not take the write back."""
    done: Future[int] = Future()
    done.set_running_or_notify_cancel()
    return done


def _unavailable(folder: Path, error: Exception) -> SpoolUnavailable:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return SpoolUnavailable(f"spool {folder}: {reason}", hint="nothing of this delivery was stored; send it again")
