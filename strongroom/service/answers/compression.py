"""Answers compressed on their way out, as `Accept-Encoding` allows (RFC 9110, section 12.5.3): zstd, gzip, or not.

Each piece is flushed as it comes: whoever reads a stream sees its rows when they are there. Large ones are compressed
in a thread, for the event loop has others to serve. Parquet is not compressed a second time.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Protocol

import zstandard

CODINGS = ("zstd", "gzip")
_ZSTD_LEVEL, _GZIP_LEVEL = 3, 1
_LARGE_BYTES = 32 << 10
"""Compressing so much takes longer than going to a thread and back."""


class _Compressor(Protocol):
    def piece(self, content: bytes) -> bytes: ...
    def end(self) -> bytes: ...


def coding_of(accept_encoding: str) -> str:
    """The best coding the client accepts, "" for none: zstd before gzip, unless the weights say otherwise."""
    weights: dict[str, float] = {}
    for offer in accept_encoding.lower().split(","):
        name, *parameters = (part.strip() for part in offer.split(";"))
        weight = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        try:
            weights[name] = float(weight)
        except ValueError:
            weights[name] = 0.0
    rest = weights.get("*", 0.0)
    best = max(CODINGS, key=lambda coding: weights.get(coding, rest))
    return best if weights.get(best, rest) > 0 else ""


async def compressed(stream: AsyncIterator[bytes], coding: str) -> AsyncIterator[bytes]:
    """The stream in a coding of CODINGS. What it raises goes through: the last frame is then missing."""
    compressor: _Compressor = _Zstd() if coding == "zstd" else _Gzip()
    async for content in stream:
        large = len(content) >= _LARGE_BYTES
        if piece := await asyncio.to_thread(compressor.piece, content) if large else compressor.piece(content):
            yield piece
    yield compressor.end()


class _Zstd:
    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()

    def piece(self, content: bytes) -> bytes:
        return self._compressor.compress(content) + self._compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def end(self) -> bytes:
        return self._compressor.flush()


class _Gzip:
    def __init__(self) -> None:
        self._compressor = zlib.compressobj(_GZIP_LEVEL, wbits=31)

    def piece(self, content: bytes) -> bytes:
        return self._compressor.compress(content) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._compressor.flush()
