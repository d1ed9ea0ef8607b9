"""Where queries put what they can't hold in memory: a folder a process, on the local disk, never longer than it runs.

    <folder>/<server>/<worker>/   DuckDB's temporary files of the query that runs there

Several servers may share a folder. Each holds a lock on its own part of it, which the kernel lets go when the server is
gone; what a dead one left is removed by whoever comes next. The files hold parts of records as they are in segments,
not encrypted, as the query cache does: nobody but the service's user can read them.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import mkdtemp

from strongroom.archive.locks import attempted, exclusive

_LOCK = ".lock"


class SpillFolder:
    """This server's part of the folder. Methods block. Raises OSError where the folder can't be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._mine: Path | None = None
        self._held = ExitStack()

    def open(self) -> None:
        """Take a part of its own, and remove what dead servers left."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with exclusive(self._folder / _LOCK):  # nobody takes a part between its making and its locking for a dead one's
            for left in [path for path in self._folder.iterdir() if path.is_dir()]:
                with attempted(left / _LOCK) as dead:
                    if dead:
                        shutil.rmtree(left, ignore_errors=True)
            self._mine = Path(mkdtemp(dir=self._folder))
            self._held.enter_context(attempted(self._mine / _LOCK))

    def close(self) -> None:
        """Remove it. Any number of times."""
        if self._mine is not None:
            shutil.rmtree(self._mine, ignore_errors=True)
            self._held.close()
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
