"""Content codings: any chunking, several members, damage, bombs."""

from __future__ import annotations

import gzip
import hashlib
import time
import zlib

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from strongroom.ingest.decode import HEAD_BYTES, Decoded, Decoder, decode_whole
from strongroom.ingest.errors import DeliveryRefused, ExpandsTooFar, UndecodableBody, UnsupportedCoding

ENCODERS = {
    "identity": lambda parts: b"".join(parts),
    "gzip": lambda parts: b"".join(gzip.compress(part, 1) for part in parts),
    "zstd": lambda parts: b"".join(zstandard.compress(part) for part in parts),
}


def decode(body: bytes, coding: str, limit: int = 1 << 30, step: int = 1000) -> Decoded:
    decoder = Decoder(coding, limit)
    for start in range(0, len(body), step):
        decoder.feed(body[start : start + step])
    return decoder.finish()


@given(
    st.lists(st.binary(max_size=3000), min_size=1, max_size=4),
    st.sampled_from(sorted(ENCODERS)),
    st.booleans(),
    st.integers(1, 2000),
)
def test_any_chunking_of_any_number_of_members_gives_the_content(
    parts: list[bytes], coding: str, auto: bool, step: int
) -> None:
    content = b"".join(parts)
    if coding == "identity" and content[:2] in (b"\x1f\x8b", b"\x28\xb5"):
        auto = False
    found = decode(ENCODERS[coding](parts), "auto" if auto else coding, step=step)
    assert (found.sha256, found.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert found.head == content[:HEAD_BYTES]
    assert found.coding == coding
    assert decode_whole(ENCODERS[coding](parts), found.coding, 1 << 30) == content


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_large_content_is_exact_and_only_its_head_is_kept(coding: str) -> None:
    content = b"".join(b"%d some line of a log\n" % n for n in range(200_000))
    found = decode(ENCODERS[coding]([content]), "auto", step=50_000)
    assert (found.sha256, found.bytes, found.head) == (
        hashlib.sha256(content).hexdigest(),
        len(content),
        content[:HEAD_BYTES],
    )


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_body_cut_anywhere_is_undecodable(coding: str) -> None:
    body = ENCODERS[coding]([b"first " * 50, b"second " * 50])
    first = len(ENCODERS[coding]([b"first " * 50]))
    for end in range(len(body)):
        if end == first:
            continue  # a whole member: whoever cut it there can't be noticed
        with pytest.raises(UndecodableBody):
            decode(body[:end], coding)


def frame(content: bytes, *, stated: int, window_log: int) -> bytes:
    """A zstd frame of one block as it is, which states a size (of 256 to 65,791 bytes) and a window."""
    header = b"\x28\xb5\x2f\xfd" + bytes([0x40, (window_log - 10) << 3]) + (stated - 256).to_bytes(2, "little")
    return header + (len(content) << 3 | 1).to_bytes(3, "little") + content


@pytest.mark.adversarial
@pytest.mark.parametrize(
    "body",
    [
        frame(b"", stated=300, window_log=20),
        frame(b"x" * 299, stated=300, window_log=20),
        frame(b"x" * 300, stated=300, window_log=27),
        frame(b"x" * 1010, stated=1010, window_log=20) + frame(b"x" * 300, stated=300, window_log=27),
    ],
    ids=["nothing", "too little", "a wide window", "a wide window behind another frame"],
)
def test_zstd_is_refused_however_it_arrives(body: bytes) -> None:
    """What one way of cutting takes and another refuses would be acknowledged, and end in quarantine at sealing."""
    decoders = [Decoder("zstd", 1 << 20) for _ in range(4)]
    for decoder, step in zip(decoders, (len(body), 1018, 7, 1), strict=True):
        with pytest.raises(UndecodableBody):
            for at in range(0, len(body), step):
                decoder.feed(body[at : at + step])
            decoder.finish()
    with pytest.raises(UndecodableBody):
        decode_whole(body, "zstd", 1 << 20)
    assert decode_whole(frame(b"x" * 300, stated=300, window_log=20), "zstd", 1 << 20) == b"x" * 300


def test_gzip_padding_is_ignored_and_garbage_is_not() -> None:
    body = gzip.compress(b"content")
    assert decode(body + b"\0" * 5000, "gzip").bytes == 7
    with pytest.raises(UndecodableBody):
        decode(body + b"\0\0garbage", "gzip")


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_changed_byte_never_yields_other_content_silently(place: int, change: int) -> None:
    content = b"account 123456789012 did something, " * 20
    for coding in ("gzip", "zstd"):
        encoder = zstandard.ZstdCompressor(write_checksum=True)
        body = bytearray(gzip.compress(content, 1, mtime=0) if coding == "gzip" else encoder.compress(content))
        body[place % len(body)] ^= change
        try:
            found = decode(bytes(body), coding)
        except DeliveryRefused:
            continue
        assert found.sha256 == hashlib.sha256(content).hexdigest()  # a header field without meaning was hit


@pytest.mark.adversarial
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_bomb_stops_at_the_bound_soon(coding: str) -> None:
    if coding == "gzip":
        packer = zlib.compressobj(9, wbits=31)
        bomb = b"".join(packer.compress(b"\0" * (1 << 20)) for _ in range(256)) + packer.flush()
    else:
        bomb = zstandard.compress(b"\0" * (1 << 28), 19)
    started = time.monotonic()
    with pytest.raises(ExpandsTooFar):
        decode(bomb, "auto", limit=1 << 20, step=1 << 18)
    with pytest.raises(ExpandsTooFar):
        decode_whole(bomb, coding, 1 << 20)  # type: ignore[arg-type]
    assert time.monotonic() - started < 2


def test_codings_are_named_as_in_http_or_refused() -> None:
    assert decode(gzip.compress(b"x"), "X-GZip").bytes == 1
    assert decode(b"", "").bytes == 0
    assert decode(b"ab", "auto").coding == "identity"
    with pytest.raises(UnsupportedCoding) as refused:
        Decoder("br", 10)
    assert not refused.value.transient and "gzip" in refused.value.hint


def bare(content: bytes) -> bytes:
    squeezer = zlib.compressobj(wbits=-15)
    return squeezer.compress(content) + squeezer.flush()


def snappy(content: bytes) -> bytes:
    return bytes(pa.Codec("snappy").compress(content, asbytes=True))


NAMED = {"deflate": (zlib.compress, bare), "snappy": (snappy,)}
"""Codings that only a header can name: nothing in the bytes tells them."""


@given(st.binary(max_size=5000) | st.binary(max_size=9).map(lambda piece: piece * 70_000), st.integers(1, 3000))
def test_codings_that_only_a_header_names(content: bytes, step: int) -> None:
    for coding, encoders in NAMED.items():
        for encode in encoders:
            found = decode(encode(content), coding, step=step)
            assert (found.sha256, found.bytes, found.coding) == (
                hashlib.sha256(content).hexdigest(), len(content), coding,
            )  # fmt: skip
            assert decode_whole(encode(content), found.coding, 1 << 30) == content


@given(st.sampled_from(sorted(NAMED)), st.binary(max_size=60), st.integers(1, 50), st.binary(max_size=5))
def test_damage_in_named_codings_is_refused_or_harmless(coding: str, content: bytes, cut: int, tail: bytes) -> None:
    for encode in NAMED[coding]:
        body = encode(content)
        for damaged in (body[:-cut], body + tail, tail + body, tail):
            try:
                assert decode_whole(damaged, coding, 1 << 20) == decode_whole(damaged, coding, 1 << 20)  # type: ignore[arg-type]
            except DeliveryRefused as error:
                assert isinstance(error, UndecodableBody | ExpandsTooFar)


@pytest.mark.parametrize("coding", sorted(NAMED))
def test_bombs_in_named_codings_stop_at_the_bound(coding: str) -> None:
    body = NAMED[coding][0](bytes(50_000_000))
    with pytest.raises(ExpandsTooFar):
        decode(body, coding, limit=1_000_000)
    with pytest.raises(ExpandsTooFar):
        decode_whole(body, coding, 1_000_000)  # type: ignore[arg-type]
    claim = b"\xff\xff\xff\xff\x0f" + b"\x00" * 20  # four GiB out of 25 bytes
    if coding == "snappy":
        with pytest.raises(ExpandsTooFar):
            decode(claim, coding, limit=1 << 40)
