"""Content codings: which is chosen, and that the stream is whole."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest
import zstandard

from strongroom.service.answers.compression import coding_of, compressed


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", ""),
        ("gzip, deflate, br", "gzip"),
        ("gzip, zstd", "zstd"),
        ("zstd;q=0.5, gzip;q=0.8", "gzip"),
        ("zstd;q=0, *", "gzip"),
        ("identity", ""),
        ("*;q=0", ""),
        ("gzip;q=nonsense", ""),
        ("GZIP ; q=1.0", "gzip"),
    ],
)
def test_the_client_chooses(accepted: str, coding: str) -> None:
    assert coding_of(accepted) == coding


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_what_was_sent_so_far_can_be_read(coding: str) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for number in range(3):
            yield f"row {number}\n".encode() * 1000

    async def pieces() -> list[bytes]:
        return [piece async for piece in compressed(stream(), coding)]

    sent = asyncio.run(pieces())
    whole = b"".join(f"row {number}\n".encode() * 1000 for number in range(3))
    if coding == "gzip":
        assert gzip.decompress(b"".join(sent)) == whole
    else:
        reader = zstandard.ZstdDecompressor().decompressobj()
        assert reader.decompress(sent[0]) == b"row 0\n" * 1000
        assert reader.decompress(b"".join(sent[1:])) == whole[6000:]
