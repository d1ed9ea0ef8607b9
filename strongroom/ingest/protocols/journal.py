"""systemd-journal-upload: one request with as much of the journal as there is, cut into batches while it comes.

The client saves its cursor when it has the answer, so that a request that breaks off is sent again from the last
cursor. Cuts are made at the first end of an entry after PART_BYTES, wherever the network cut: the same entries sent
again from the same cursor make the same batches, and as every entry carries its cursor, those are known as duplicates.
Source: systemd.io, "Journal Export Formats"; systemd-journal-upload(8).
"""

from __future__ import annotations

from collections.abc import Iterator

from strongroom.ingest.errors import BodyTooLarge
from strongroom.ingest.protocols import Reply
from strongroom.ingest.sources.journal import advance

PART_BYTES = 8 << 20
_TEXT = "text/plain; charset=utf-8"


class Parts:
    """Cuts a body into batches as it arrives. `limit`: most bytes of one entry."""

    def __init__(self, limit: int, part_bytes: int = PART_BYTES) -> None:
        self._limit = limit
        self._part = part_bytes
        self._waiting = bytearray()
        self._whole = 0
        self._seen = 0  # of the entry behind those: its whole fields are not looked at again

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Take the next bytes; gives the batches that are complete. Raises BodyTooLarge."""
        self._waiting += chunk
        while len(self._waiting) >= self._part:
            self._seen, end, state = advance(self._waiting, self._seen)
            if state != "ended":
                if len(self._waiting) - self._whole > self._limit:
                    raise BodyTooLarge(f"an entry passes {self._limit} bytes", hint="raise max_body_bytes")
                return
            self._whole = self._seen = end
            if end >= self._part:
                yield bytes(self._waiting[:end])
                del self._waiting[:end]
                self._whole = self._seen = 0

    def finish(self) -> bytes:
        """What is left at the end of the body."""
        return bytes(self._waiting)


def taken() -> Reply:
    """Durable, as systemd-journal-remote says it."""
    return Reply(202, b"OK.\n", _TEXT)


def refused(status: int, message: str) -> Reply:
    """Not all of it was taken: the client ends, and is started again by its unit."""
    return Reply(status, message.encode() + b"\n", _TEXT)
