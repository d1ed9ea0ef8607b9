"""Who writes: the lock on a state directory, and the writer's identity and epoch.

An epoch is one life of a spool. Within it batches are numbered 0, 1, 2, … without gaps, and the log refuses anything
else. A new epoch starts when the numbering can't be continued:

* the state directory is new (or its disk was lost) while the log already knows this writer;
* the spool is behind the log: somebody restored it from a backup;
* the log knows a newer epoch: another instance took over under the same id.

A new epoch is claimed by an empty entry before a batch gets a number in it. Two instances that claim the same one at
once see each other in the log; the later one takes the next. `writer.json` is written after the claim, so that a crash
between the two only skips an epoch.

A spool left behind by an earlier epoch is not lost: the intake takes its unsealed batches into the new one.
"""

from __future__ import annotations

import fcntl
import os
import socket
from datetime import datetime
from pathlib import Path
from types import TracebackType

import msgspec

from strongroom.archive import durable
from strongroom.archive.entry import Draft, Entry, WriterRange
from strongroom.archive.log import Log
from strongroom.ingest.errors import SpoolDamaged, SpoolLocked
from strongroom.ingest.spool import make_folder

_FILE = "writer.json"


class Writer(msgspec.Struct, frozen=True):
    """A writer's id and its current epoch (from 1)."""

    id: str
    epoch: int


class DirectoryLock:
    """Exclusive use of a state directory by one process, for as long as this object is open."""

    def __init__(self, directory: Path) -> None:
        """Raises SpoolLocked, naming the holder."""
        make_folder(directory)
        path = directory / "lock"
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._descriptor, 200).decode(errors="replace") or "another process"
            os.close(self._descriptor)
            raise SpoolLocked(
                f"{directory} is in use by {holder}", hint="stop it, or give this instance a directory of its own"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._descriptor)

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def recall(directory: Path, writer_id: str) -> Writer | None:
    """The writer this state directory belongs to, None when it is new. Raises SpoolDamaged when it is another's."""
    try:
        writer = msgspec.json.decode((directory / _FILE).read_bytes(), type=Writer)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise SpoolDamaged(
            f"{directory / _FILE}: {error}", hint="restore it from its neighbours, or use a fresh directory"
        ) from None
    if writer.id != writer_id:
        raise SpoolDamaged(
            f"{directory} belongs to writer {writer.id!r}, not {writer_id!r}",
            hint="one state directory per writer; check the setting of the writer's id",
        )
    return writer


def claim(directory: Path, writer_id: str, log: Log, now: datetime) -> Writer:
    """Claim the next free epoch in the log and remember it. Raises StoreUnavailable."""
    known = log.next_of(writer_id)
    epoch = 1 if known is None else known[0] + 1
    while True:
        before = log.size
        mine = log.append(Draft("heartbeat", now, WriterRange(writer_id, epoch, 0, -1), data={"claims": "epoch"}))
        if not any(_in_epoch(entry, writer_id, epoch) for entry in log.entries(before, mine.index)):
            break
        epoch += 1
    writer = Writer(writer_id, epoch)
    durable.replace(directory / _FILE, msgspec.json.encode(writer))
    return writer


def _in_epoch(entry: Entry, writer_id: str, epoch: int) -> bool:
    return entry.writer is not None and (entry.writer.id, entry.writer.epoch) == (writer_id, epoch)
