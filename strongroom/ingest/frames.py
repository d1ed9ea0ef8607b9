"""The spool's file format: how batches lie in a file, and what a reader may conclude after a crash. Pure.

    file  = "SRSPOOL1"  marker(8)  epoch u64  first u64  crc u32           (little-endian; crc over what precedes it)
    frame = marker(8)  sequence u64  group u64  header length u32  body length u64  body crc u32  head crc u32
            header (JSON)  body (as received, still compressed)

The frames of a file carry the consecutive sequence numbers first, first + 1, …. `marker` is random per file, so that a
body can't imitate a frame. `group` is the offset where the frame's group commit began: all frames before it had been
fsynced when this one was written.

That tells a torn tail from damage. Frames that one fsync was to cover may reach the disk in any order, so after a
crash a bad frame can be followed by good ones of the same group; none of them was ever acknowledged, and all are cut.
But if a later frame's group began beyond the bad one, the bad frame had been durable: that is damage, never cut.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from mmap import mmap
from typing import Literal

import msgspec
from isal.isal_zlib import crc32

from strongroom.ingest.decode import Coding

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAGIC = b"SRSPOOL1"
MARKER_BYTES = 8
_FILE = struct.Struct("<8s8sQQI")
_FRAME = struct.Struct("<8sQQIQII")
_CRC_BYTES = 4
FILE_HEADER_BYTES = _FILE.size
FRAME_BYTES = _FRAME.size
"""Bytes a frame takes beside its header and body."""
MAX_HEADER_BYTES = 1 << 20


class BatchHeader(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the intake knows of a batch when it acknowledges it.

    `sha256` and `bytes` are of the decoded content; `received_at` in microseconds since the epoch, UTC; `key` is "" or
    the SHA-256 (hex) of the idempotency key. `reason` is set when the body could not be decoded: the batch then goes to
    quarantine whole, with the source it was sent for in `intended`.
    """

    batch: str
    source: str
    coding: Coding
    sha256: str
    bytes: int
    received_at: int
    forwarder: str
    protocol: str
    address: str
    name: str = ""
    key: str = ""
    flags: tuple[str, ...] = ()
    intended: str = ""
    reason: str = ""


_header = msgspec.json.Decoder(BatchHeader)  # made here: see archive/details.py


@dataclass(frozen=True, slots=True)
class FileHeader:
    """Identity of one spool file: its random marker, the writer's epoch, the sequence number of its first frame."""

    marker: bytes
    epoch: int
    first: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame found in a file, without its body: bytes offset..end, of which body..end are the body."""

    offset: int
    body: int
    end: int
    sequence: int
    header: BatchHeader


@dataclass(frozen=True, slots=True)
class Bad:
    """Where reading stopped. "torn": never acknowledged, to be cut. "damaged": it had been durable."""

    offset: int
    kind: Literal["torn", "damaged"]


def encode_file_header(header: FileHeader) -> bytes:
    """The first bytes of a spool file."""
    data = _FILE.pack(MAGIC, header.marker, header.epoch, header.first, 0)[:-_CRC_BYTES]
    return data + crc32(data).to_bytes(_CRC_BYTES, "little")


def decode_file_header(data: bytes | mmap) -> FileHeader | None:
    """The header a spool file starts with, None when it does not start with one."""
    view = memoryview(data)[: _FILE.size]
    if len(view) < _FILE.size:
        return None
    magic, marker, epoch, first, crc = _FILE.unpack(view)
    if magic != MAGIC or crc != crc32(view[:-_CRC_BYTES]):
        return None
    return FileHeader(marker, epoch, first)


def encode_header(header: BatchHeader) -> bytes:
    """A batch's header as it stands in its frame. Raises ValueError when it is not to be encoded or too long."""
    head = msgspec.json.encode(header)
    if len(head) > MAX_HEADER_BYTES:
        raise ValueError(f"a batch header of {len(head)} bytes")
    return head


def encode_frame(
    file: FileHeader, sequence: int, group: int, head: bytes, body: Sequence[bytes]
) -> tuple[list[bytes], int]:
    """The pieces to write for one frame (`head`: an encoded header), and their total length."""
    body_crc, body_bytes = 0, 0
    for piece in body:
        body_crc = crc32(piece, body_crc)
        body_bytes += len(piece)
    start = _FRAME.pack(file.marker, sequence, group, len(head), body_bytes, body_crc, 0)[:-_CRC_BYTES]
    head_crc = crc32(head, crc32(start)).to_bytes(_CRC_BYTES, "little")
    return [start + head_crc + head, *body], FRAME_BYTES + len(head) + body_bytes


def read_frame(data: bytes | mmap, offset: int, file: FileHeader, sequence: int) -> Frame | None:
    """The frame of that sequence number at `offset`, None unless it is there whole and every checksum holds."""
    found = _read_head(data, offset, file)
    if found is None:
        return None
    frame, _, body_crc = found
    view = memoryview(data)
    if frame.sequence != sequence or frame.end > len(view) or crc32(view[frame.body : frame.end]) != body_crc:
        return None
    return frame


def scan(data: bytes | mmap, file: FileHeader) -> Iterator[Frame | Bad]:
    """The frames of a file in order; at most one Bad, as the last value, where they stop before the file does."""
    offset, sequence = FILE_HEADER_BYTES, file.first
    while offset < len(data):
        frame = read_frame(data, offset, file, sequence)
        if frame is None:
            yield Bad(offset, "damaged" if _was_durable(data, offset, file) else "torn")
            return
        yield frame
        offset, sequence = frame.end, sequence + 1


def _was_durable(data: bytes | mmap, bad: int, file: FileHeader) -> bool:
    """Whether any later frame was written after an fsync that covered the offset `bad`."""
    position = data.find(file.marker, bad + 1)
    while position >= 0:
        found = _read_head(data, position, file)
        if found is not None and found[1] > bad:
            return True
        position = data.find(file.marker, position + 1)
    return False


def _read_head(data: bytes | mmap, offset: int, file: FileHeader) -> tuple[Frame, int, int] | None:
    """Frame, group and body checksum, if prefix and header are intact; the body is not looked at."""
    view = memoryview(data)
    if offset + FRAME_BYTES > len(view):
        return None
    marker, sequence, group, head_bytes, body_bytes, body_crc, head_crc = _FRAME.unpack_from(view, offset)
    body = offset + FRAME_BYTES + head_bytes
    if marker != file.marker or head_bytes > MAX_HEADER_BYTES or body > len(view):
        return None
    start, head = view[offset : offset + FRAME_BYTES - _CRC_BYTES], view[offset + FRAME_BYTES : body]
    if crc32(head, crc32(start)) != head_crc:
        return None
    try:
        header = _header.decode(head)
    except msgspec.DecodeError:
        return None
    return Frame(offset, body, body + body_bytes, sequence, header), group, body_crc
