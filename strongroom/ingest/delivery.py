"""One body on its way in: bounded, counted, decoded on the fly, and drained before it is refused.

Many shippers lose what is refused before they have sent it all, or see a reset instead of the status. So a refusal is
kept until the body has ended (or an endless sender has sent as much again as the bound) and raised then; nothing of a
refused body is kept in memory meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from strongroom.ingest.decode import Decoded, Decoder
from strongroom.ingest.errors import BodyTooLarge, DeliveryRefused, ExpandsTooFar, IngestError, IntakeBusy

_DECODE_STEP = 1 << 18
_INLINE_BYTES = 1 << 18


class Memory:
    """Bytes that all bodies in flight may hold together. Belongs to one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    def take(self, size: int) -> None:
        """Raises IntakeBusy when it is more than there is."""
        if self.used + size > self._limit:
            raise IntakeBusy(f"{self.used} bytes of deliveries are in flight", hint="send again in a few seconds")
        self.used += size

    def give(self, size: int) -> None:
        """Give back what was taken."""
        self.used -= size


@dataclass(frozen=True, slots=True)
class Body:
    """A body as received, and what decoding showed; `refusal` is set instead where it could not be decoded."""

    chunks: list[bytes]
    bytes: int
    decoded: Decoded
    refusal: DeliveryRefused | None


class Upload:
    """Receives one body. `close` gives its memory back."""

    def __init__(
        self,
        coding: str,
        *,
        memory: Memory,
        max_body: int,
        max_expanded: int,
        keep_undecodable: bool,
        refuse_expanding: bool = False,
    ) -> None:
        self._coding = coding
        self._memory = memory
        self._max_body = max_body
        self._max_expanded = max_expanded
        self._keep_undecodable = keep_undecodable
        self._refuse_expanding = refuse_expanding
        self._chunks: list[bytes] = []
        self._bytes = 0
        self._fed = 0
        self._undecoded = 0
        self._refusal: DeliveryRefused | None = None
        self._decoder: Decoder | None = None

    async def receive(self, chunks: AsyncIterator[bytes]) -> Body:
        """The whole body. Raises DeliveryRefused, IntakeBusy, after draining it."""
        refused: IngestError | None = None
        sent = 0
        async for chunk in chunks:
            sent += len(chunk)
            if refused is None:
                try:
                    await self._take(bytes(chunk))
                except (DeliveryRefused, IntakeBusy) as error:
                    refused = error
                    self.close()
            elif sent > 2 * self._max_body:
                break
        if refused is None:
            try:
                return await self._finish()
            except DeliveryRefused as error:
                refused = error
        self.close()
        raise refused

    def close(self) -> None:
        """Drop what was received."""
        self._memory.give(self._bytes)
        self._chunks, self._bytes = [], 0

    async def _take(self, chunk: bytes) -> None:
        if self._bytes + len(chunk) > self._max_body:
            raise BodyTooLarge(f"the body passes {self._max_body} bytes", hint="send it in smaller deliveries")
        self._memory.take(len(chunk))
        self._chunks.append(chunk)
        self._bytes += len(chunk)
        self._undecoded += len(chunk)
        if self._undecoded >= _DECODE_STEP and self._refusal is None:
            await self._decode(end=False)

    async def _finish(self) -> Body:
        decoded = await self._decode(end=True) if self._refusal is None else None
        if decoded is None:
            content = hashlib.sha256()
            for chunk in self._chunks:
                content.update(chunk)
            decoded = Decoded("identity", content.hexdigest(), b"", self._bytes)
        return Body(self._chunks, self._bytes, decoded, self._refusal)

    async def _decode(self, *, end: bool) -> Decoded | None:
        data = b"".join(self._chunks[self._fed :])
        self._fed, self._undecoded = len(self._chunks), 0
        try:
            if self._decoder is None:
                self._decoder = Decoder(self._coding, self._max_expanded)
            # A small plain body is hashed in microseconds; anything compressed may expand a thousandfold.
            if self._coding in ("", "identity") and len(data) <= _INLINE_BYTES:
                return _step(self._decoder, data, end)
            return await asyncio.to_thread(_step, self._decoder, data, end)
        except DeliveryRefused as error:
            if not self._keep_undecodable or (self._refuse_expanding and isinstance(error, ExpandsTooFar)):
                raise
            self._refusal = error
            return None


def _step(decoder: Decoder, data: bytes, end: bool) -> Decoded | None:
    decoder.feed(data)
    return decoder.finish() if end else None
