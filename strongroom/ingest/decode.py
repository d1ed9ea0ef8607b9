"""Content codings: from a body as sent to its content, without trusting its size.

A decoder is fed the body chunk by chunk while it arrives. It hashes and counts the decoded content, keeps the first
64 KiB of it for recognising the source (of a Parquet file, which says at its end what it holds, the last 64 KiB behind
the magic), and drops the rest: memory does not grow with what a body expands to. The
codecs are stepped so that one step yields at most a few MiB, whatever the input claims (a gzip byte expands to at most
about 1 KiB, a zstd RLE block of four bytes to 128 KiB), and the bound is checked after every step. Snappy can't be
stepped: it states its size first, which is checked before anything is made of it.

    identity    the bytes themselves
    gzip        RFC 1952, any number of members; zero padding after the last one is ignored, as gzip(1) does
    zstd        RFC 8878, any number of frames, windows up to 32 MiB
    deflate     RFC 1950 (zlib), and the bare RFC 1951 that some clients send under that name
    snappy      one raw block, as Loki's clients send; decoded when it has ended, because only then it can be
    auto        gzip or zstd by their magic bytes, else identity

All of it is CPU work that releases the interpreter lock; callers run it in threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import pyarrow as pa
import zstandard
from isal import isal_zlib

from strongroom.ingest.errors import ExpandsTooFar, UndecodableBody, UnsupportedCoding

Coding = Literal["identity", "gzip", "zstd", "deflate", "snappy"]

HEAD_BYTES = 65_536
PARQUET_MAGIC = b"PAR1"
_GZIP_MAGIC = b"\x1f\x8b\x08"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_STEP_OUT = 1 << 18
_STEP_IN = 1 << 16
_ZSTD_STEP_IN = 1 << 10
"""1 KiB of RLE blocks is 32 MiB of content: the most one step of the zstd decoder can put into memory."""
_ZSTD_WINDOW = 1 << 25
_ZSTD_HEAD = 18  # bytes of a frame that state its size, at most
_ZSTD_UNSTATED = -1

_SNAPPY_PREAMBLE = 5
"""Bytes that state a snappy block's size, at most."""

_NAMES: dict[str, Coding] = {
    "": "identity",
    "identity": "identity",
    "gzip": "gzip",
    "x-gzip": "gzip",
    "zstd": "zstd",
    "deflate": "deflate",
    "snappy": "snappy",
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """What is known of a body after it was decoded: digest (hex), head and size in bytes of its content."""

    coding: Coding
    sha256: str
    head: bytes
    bytes: int


class _Expander(Protocol):
    def feed(self, data: memoryview) -> Iterator[bytes | memoryview]: ...

    def finish(self) -> Iterator[bytes]:
        """What only the end brings to light."""
        ...


class _Identity:
    def feed(self, data: memoryview) -> Iterator[bytes | memoryview]:
        yield data

    def finish(self) -> Iterator[bytes]:
        return iter(())


class _Gzip:
    def __init__(self) -> None:
        self._member = isal_zlib.decompressobj(wbits=31)
        self._inside = False
        self._members = 0

    def feed(self, data: memoryview) -> Iterator[bytes | memoryview]:
        rest: bytes | memoryview = data
        while len(rest):
            if not self._inside:
                rest = self._between_members(rest)
                if not rest:
                    return
            try:
                piece = self._member.decompress(rest, _STEP_OUT)
            except isal_zlib.IsalError as error:  # type: ignore[misc]  # the stub calls the class an instance
                raise UndecodableBody(
                    f"the gzip body is broken: {error}", hint="send it again from the original"
                ) from None
            if piece:
                yield piece
            if self._member.eof:
                rest = self._member.unused_data
                self._member = isal_zlib.decompressobj(wbits=31)
                self._inside = False
                self._members += 1
            else:
                rest = self._member.unconsumed_tail
                if not rest and len(piece) == _STEP_OUT:
                    yield from self._pending()

    def _between_members(self, rest: bytes | memoryview) -> bytes:
        # Tape-style zero padding may follow a member, nothing else but a further member.
        kept = bytes(rest).lstrip(b"\0") if self._members else bytes(rest)
        self._inside = bool(kept)
        return kept

    def _pending(self) -> Iterator[bytes]:
        # The input is used up but the output step was exactly full: the codec may hold more content back.
        while not self._member.eof:
            piece = self._member.decompress(b"", _STEP_OUT)
            if not piece:
                return
            yield piece
        self._member = isal_zlib.decompressobj(wbits=31)
        self._inside = False
        self._members += 1

    def finish(self) -> Iterator[bytes]:
        if self._inside or not self._members:
            raise UndecodableBody("the gzip body ends early", hint="it was cut on the way; send it again")
        return iter(())


class _Zstd:
    """Frames, each as long as it says and within the window.

    libzstd is stricter with some frames that it is given in one piece, and less strict with others: a stated size is
    not always compared, a window not always bounded. But what is taken as it arrives must be taken again, cut
    differently, when it is sealed; so both are looked at here, at the end of each frame.
    """

    def __init__(self) -> None:
        self._frame = self._new()
        self._inside = False
        self._frames = 0
        self._head = b""
        self._bytes = 0

    @staticmethod
    def _new() -> zstandard.ZstdDecompressionObj:
        return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()

    def feed(self, data: memoryview) -> Iterator[bytes | memoryview]:
        for start in range(0, len(data), _ZSTD_STEP_IN):
            rest = bytes(data[start : start + _ZSTD_STEP_IN])
            while rest:
                self._inside = True
                self._head += rest[: _ZSTD_HEAD - len(self._head)]
                try:
                    piece = self._frame.decompress(rest)
                    self._bytes += len(piece)
                    rest = b""
                    if self._frame.eof:
                        rest = self._frame.unused_data
                        self._end_frame()
                except zstandard.ZstdError as error:
                    raise UndecodableBody(
                        f"the zstd body is broken: {error}", hint="send it again from the original"
                    ) from None
                if piece:
                    yield piece

    def _end_frame(self) -> None:
        if zstandard.frame_content_size(self._head) not in (_ZSTD_UNSTATED, self._bytes):
            raise zstandard.ZstdError("a frame is not as long as it says")
        if zstandard.get_frame_parameters(self._head).window_size > _ZSTD_WINDOW:
            raise zstandard.ZstdError("a frame needs too large a window")
        self._frame, self._head, self._bytes = self._new(), b"", 0
        self._inside = False
        self._frames += 1

    def finish(self) -> Iterator[bytes]:
        if self._inside or not self._frames:
            raise UndecodableBody("the zstd body ends early", hint="it was cut on the way; send it again")
        return iter(())


class _Deflate:
    def __init__(self) -> None:
        self._stream: isal_zlib.Decompress | None = None
        self._first = b""

    def feed(self, data: memoryview) -> Iterator[bytes | memoryview]:
        rest: bytes | memoryview = data
        if self._stream is None:
            rest = self._first + bytes(data)
            if len(rest) < 2:
                self._first = bytes(rest)
                return
            # RFC 1950: the method is 8, and the two bytes together are a multiple of 31.
            zlib_header = rest[0] & 0x0F == 8 and (rest[0] << 8 | rest[1]) % 31 == 0
            self._stream = isal_zlib.decompressobj(wbits=15 if zlib_header else -15)
        while True:
            if self._stream.eof:
                if len(rest):
                    raise UndecodableBody("bytes follow the deflate body", hint="send it again from the original")
                return
            try:
                piece = self._stream.decompress(rest, _STEP_OUT)
            except isal_zlib.IsalError as error:  # type: ignore[misc]  # the stub calls the class an instance
                raise UndecodableBody(
                    f"the deflate body is broken: {error}", hint="send it again from the original"
                ) from None
            if piece:
                yield piece
            rest = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            if not rest and len(piece) < _STEP_OUT and not self._stream.eof:
                return

    def finish(self) -> Iterator[bytes]:
        if self._stream is None or not self._stream.eof:
            raise UndecodableBody("the deflate body ends early", hint="it was cut on the way; send it again")
        return iter(())


class _Snappy:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._block = bytearray()

    def feed(self, data: memoryview) -> Iterator[bytes | memoryview]:
        self._block += data
        return iter(())

    def finish(self) -> Iterator[bytes]:
        size = 0
        for place, byte in enumerate(self._block[:_SNAPPY_PREAMBLE]):
            size |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                break
        else:
            raise UndecodableBody(
                "the snappy body does not state its size", hint="it was cut on the way; send it again"
            )
        # Three bytes of snappy copy at most 64: what claims more is refused before the memory for it is taken.
        if size > self._limit or size > 32 * len(self._block):
            raise ExpandsTooFar(f"the snappy body claims {size} bytes", hint="send it in smaller deliveries")
        try:
            yield pa.Codec("snappy").decompress(bytes(self._block), size, asbytes=True)
        except (pa.ArrowException, OSError) as error:
            raise UndecodableBody(
                f"the snappy body is broken: {error}", hint="send it again from the original"
            ) from None


def _expander(coding: Coding, limit: int) -> _Expander:
    return _Snappy(limit) if coding == "snappy" else _EXPANDERS[coding]()


_EXPANDERS: dict[Coding, type[_Identity] | type[_Gzip] | type[_Zstd] | type[_Deflate]] = {
    "identity": _Identity,
    "gzip": _Gzip,
    "zstd": _Zstd,
    "deflate": _Deflate,
}


def coding_named(content_encoding: str) -> Coding:
    """The coding a Content-Encoding value names. Raises UnsupportedCoding."""
    try:
        return _NAMES[content_encoding.strip().lower()]
    except KeyError:
        raise UnsupportedCoding(
            f"content coding {content_encoding!r} is not decoded here",
            hint="send identity, gzip, zstd, deflate or snappy",
        ) from None


def coding_of(magic: bytes) -> Coding:
    """The coding the first four bytes of a body show."""
    if magic.startswith(_GZIP_MAGIC):
        return "gzip"
    return "zstd" if magic.startswith(_ZSTD_MAGIC) else "identity"


class Decoder:
    """Decodes one body as it streams in. `coding` is a Content-Encoding value or "auto"; `limit` bounds the content.

    Raises UnsupportedCoding at once; `feed` and `finish` raise UndecodableBody and ExpandsTooFar. After an error the
    decoder is of no further use.
    """

    def __init__(self, coding: str, limit: int) -> None:
        self._limit = limit
        self._undecided = b""
        self._coding: Coding | None = None if coding == "auto" else coding_named(coding)
        self._expander: _Expander | None = None
        if self._coding:
            self._expander = _expander(self._coding, self._limit)
        self._hash = hashlib.sha256()
        self._head = bytearray()
        self._tail = bytearray()
        self._bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body as sent."""
        if self._expander is None:
            chunk = self._undecided + chunk
            if len(chunk) < len(_ZSTD_MAGIC):
                self._undecided = chunk
                return
        self._expand(chunk)

    def finish(self) -> Decoded:
        """The body has ended."""
        if self._expander is None:
            self._expand(self._undecided)
        for piece in cast(_Expander, self._expander).finish():
            self._take(piece)
        return Decoded(cast(Coding, self._coding), self._hash.hexdigest(), self._looked_at(), self._bytes)

    def _looked_at(self) -> bytes:
        if not self._tail:
            return bytes(self._head)
        return PARQUET_MAGIC + bytes((self._head + self._tail)[len(PARQUET_MAGIC) - HEAD_BYTES :])

    def _expand(self, chunk: bytes) -> None:
        if self._expander is None:
            self._coding = coding_of(chunk[:4])
            self._expander = _expander(self._coding, self._limit)
            self._undecided = b""
        view = memoryview(chunk)
        for start in range(0, len(view), _STEP_IN):
            for piece in self._expander.feed(view[start : start + _STEP_IN]):
                self._take(piece)

    def _take(self, piece: bytes | memoryview) -> None:
        self._bytes += len(piece)
        if self._bytes > self._limit:
            raise ExpandsTooFar(
                f"the content passes {self._limit} bytes when decoded", hint="send it in smaller deliveries"
            )
        self._hash.update(piece)
        if len(self._head) < HEAD_BYTES:
            taken = HEAD_BYTES - len(self._head)
            self._head += piece[:taken]
            piece = piece[taken:]
        if len(piece) and self._head.startswith(PARQUET_MAGIC):
            self._tail += piece
            del self._tail[:-HEAD_BYTES]


def decode_whole(body: bytes, coding: Coding, limit: int) -> bytes:
    """The whole content of a stored body. Raises UndecodableBody, ExpandsTooFar."""
    if coding == "identity":
        return body
    expander = _expander(coding, limit)
    pieces: list[bytes | memoryview] = []
    size = 0
    view = memoryview(body)
    for start in range(0, len(view), _STEP_IN):
        for piece in expander.feed(view[start : start + _STEP_IN]):
            size += len(piece)
            if size > limit:
                raise ExpandsTooFar(f"the content passes {limit} bytes when decoded")
            pieces.append(piece)
    for piece in expander.finish():
        size += len(piece)
        pieces.append(piece)
    if size > limit:
        raise ExpandsTooFar(f"the content passes {limit} bytes when decoded")
    return b"".join(pieces)
