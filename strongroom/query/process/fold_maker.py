"""The server's end of the process that makes folds (fold_writer.py): jobs out, files in. Blocks; for a thread.

The process is started when there is a first job, serves as many as there are, and is killed when it takes too long,
sends too much, or its owner stops. It is trusted with nothing but the content of the file: its length, its digest and
what it is said to be are seen to here and in folds.py.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from strongroom.archive.errors import FormatError
from strongroom.query.process.fold_writer import LENGTH_BYTES, Job, Settings
from strongroom.query.process.pool import library_folders, worker_environment

_TICK_SECONDS = 0.2
_SECONDS = 900.0
_PIECE = 1 << 20


class FoldMaker:
    """One process, while the context lasts."""

    def __init__(self, readable: Sequence[Path], stopping: threading.Event) -> None:
        """`readable`: folders with segments and folds. `stopping`: set, it ends whatever is going on."""
        self._readable = [str(path) for path in [*library_folders(), *readable]]
        self._stopping = stopping
        self._child: subprocess.Popen[bytes] | None = None
        self._deadline = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def make(self, job: Job, path: Path) -> str:
        """Have the fold of `job` written to the new file `path`. Its SHA-256 (hex). Raises FormatError, OSError."""
        most = 4 * sum(Path(name).stat().st_size for name in job.paths) + (64 << 20)
        digest, size = sha256(), 0
        self._deadline = time.monotonic() + _SECONDS
        try:
            outgoing, incoming = self._pipes()
            content = msgspec.json.encode(job)
            message = memoryview(len(content).to_bytes(LENGTH_BYTES) + content)
            while message:
                message = message[outgoing.write(message) :]
            with path.open("xb") as file:
                while length := int.from_bytes(self._read(incoming, LENGTH_BYTES)):
                    size += length
                    if size > most:
                        raise FormatError("fold: much larger than what it is made of")
                    while length:
                        piece = self._read(incoming, min(length, _PIECE))
                        digest.update(piece)
                        file.write(piece)
                        length -= len(piece)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            self._end()
            raise
        return digest.hexdigest()

    def _pipes(self) -> tuple[BinaryIO, BinaryIO]:
        if self._child is None:
            settings = msgspec.json.encode(Settings(self._readable, os.getpid())).decode()
            self._child = subprocess.Popen(  # noqa: S603
                [sys.executable, "-B", "-P", "-m", "strongroom.query.process.fold_writer", settings],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                cwd="/",
                env=worker_environment(),
            )
        outgoing, incoming = self._child.stdin, self._child.stdout
        assert outgoing is not None
        assert incoming is not None
        return outgoing, incoming  # type: ignore[return-value]

    def _read(self, incoming: BinaryIO, count: int) -> bytes:
        """Exactly `count` bytes. Raises FormatError when there won't be as many."""
        content = bytearray()
        while len(content) < count:
            while not select.select([incoming], [], [], _TICK_SECONDS)[0]:
                if self._stopping.is_set() or time.monotonic() > self._deadline:
                    raise FormatError("fold: given up")
            piece = incoming.read(count - len(content))
            if not piece:
                raise FormatError("fold: its process ended")
            content += piece
        return bytes(content)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        with suppress(BrokenPipeError), child:
            pass
