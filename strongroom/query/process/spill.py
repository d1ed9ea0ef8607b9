"""Where queries put what they can't hold in memory: a folder a process, on the local disk, never longer than it runs.

    <folder>/<server>/<worker>/   DuckDB's temporary files of the query that runs there

Several servers may share a folder. Each holds a lock on its own part of it, which the kernel lets go when the server is
gone; what a dead one left is removed by whoever comes next. The files hold parts of records as they are in segments,
not encrypted, as the query cache does: nobody but the service's user can read them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp


class SpillFolder:
    """This server's part of the folder. Methods block. Raises OSError where the folder can't be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._mine: Path | None = None
        self._lock = -1

    def open(self) -> None:
        """Take a part of its own, and remove what dead servers left."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(self._folder):  # nobody takes a part between its making and its locking for a dead one's
            for left in self._folder.iterdir():
                lock = _locked(left)
                if lock is not None:
                    shutil.rmtree(left, ignore_errors=True)
                    os.close(lock)
            self._mine = Path(mkdtemp(dir=self._folder))
            lock = _locked(self._mine)
            assert lock is not None
            self._lock = lock

    def close(self) -> None:
        """Remove it. Any number of times."""
        if self._mine is not None:
            shutil.rmtree(self._mine, ignore_errors=True)
            os.close(self._lock)
            self._mine = None

    def new(self) -> Path:
        """A folder for one process, to be given to `remove` when that has ended."""
        assert self._mine is not None
        return Path(mkdtemp(dir=self._mine))


def remove(folder: Path) -> None:
    """A process's folder with all it has written."""
    shutil.rmtree(folder, ignore_errors=True)


def size(folder: Path) -> int:
    """Bytes on disk of the files in a process's folder."""
    with suppress(FileNotFoundError), os.scandir(folder) as files:
        return sum(_blocks(file) for file in files)
    return 0


def _blocks(file: os.DirEntry[str]) -> int:
    with suppress(FileNotFoundError):  # files come and go
        return file.stat(follow_symlinks=False).st_blocks * 512
    return 0


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock, None where somebody else does or it is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
