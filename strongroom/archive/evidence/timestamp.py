"""What an RFC 3161 timestamp response says: over which hash, at what time. Pure.

Only that is read here, by walking DER to the TSTInfo, so that a token is understood also without the authority's
certificates; its signature is archive/timestamps.py's matter, or that of `openssl ts -verify`. A token over other bytes
than this bundle's checkpoint is a problem even then, because somebody put it there.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from strongroom.archive.errors import FormatError

_INTEGER, _OCTETS, _OID, _SEQUENCE, _CONTEXT_0, _TIME = 0x02, 0x04, 0x06, 0x30, 0xA0, 0x18
_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
_TST_INFO = bytes.fromhex("2a864886f70d0109100104")
_HASHES = {
    bytes.fromhex("608648016503040201"): "sha256",
    bytes.fromhex("608648016503040202"): "sha384",
    bytes.fromhex("608648016503040203"): "sha512",
}
_GENERALIZED = re.compile(rb"(\d{14})(?:\.\d+)?Z")


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A token's claim: at `time`, something with this digest existed."""

    time: datetime
    algorithm: str
    imprint: bytes

    def covers(self, checkpoint: bytes) -> int | None:
        """How many leading lines of the checkpoint were stamped, None when it is not about this checkpoint.

        Cosignatures are appended to a checkpoint after it was stored, so what was stamped may be a shorter note.
        """
        for count in range(5, checkpoint.count(b"\n") + 1):
            if hashlib.new(self.algorithm, lines_of(checkpoint, count)).digest() == self.imprint:
                return count
        return None


def lines_of(checkpoint: bytes, count: int) -> bytes:
    """The first `count` lines of a checkpoint, each with its newline."""
    return b"".join(line + b"\n" for line in checkpoint.split(b"\n")[:count])


def read(response: bytes) -> Timestamp:
    """The claim of a DER TimeStampResp. Raises FormatError."""
    try:
        status_info, token = _parts(_one(response, _SEQUENCE), _SEQUENCE, _SEQUENCE)
        status = _parts(status_info, _INTEGER)[0]
        if status not in (b"\x00", b"\x01"):
            raise FormatError("timestamp: the authority did not grant it")
        kind, explicit = _parts(token, _OID, _CONTEXT_0)
        signed_data = _one(explicit, _SEQUENCE)
        _, _, content = _parts(signed_data, _INTEGER, 0x31, _SEQUENCE)
        content_kind, content_explicit = _parts(content, _OID, _CONTEXT_0)
        if (kind, content_kind) != (_SIGNED_DATA, _TST_INFO):
            raise FormatError("timestamp: not a time-stamp token")
        info = _one(_one(content_explicit, _OCTETS), _SEQUENCE)
        _, _, imprint, _, time = _parts(info, _INTEGER, _OID, _SEQUENCE, _INTEGER, _TIME)
        algorithm, digest = _parts(imprint, _SEQUENCE, _OCTETS)
        moment = _GENERALIZED.fullmatch(time)
        if moment is None:
            raise FormatError("timestamp: malformed time")
        return Timestamp(
            datetime.strptime(moment[1].decode(), "%Y%m%d%H%M%S").replace(tzinfo=UTC),
            _HASHES[_parts(algorithm, _OID)[0]],
            digest,
        )
    except (IndexError, KeyError, ValueError) as error:
        raise FormatError(f"timestamp: malformed: {error!r}") from None


def _parts(content: bytes, *tags: int) -> list[bytes]:
    """The contents of the leading elements of a constructed one, which must have these tags; more may follow."""
    found: list[bytes] = []
    place = 0
    for tag in tags:
        if content[place] != tag:
            raise ValueError(f"tag {content[place]:02x} where {tag:02x} is due")
        length, place = content[place + 1], place + 2
        if length >= 0x80:
            width = length & 0x7F
            length, place = int.from_bytes(content[place : place + width], "big"), place + width
        if place + length > len(content):
            raise ValueError("an element is cut off")
        found.append(content[place : place + length])
        place += length
    return found


def _one(content: bytes, tag: int) -> bytes:
    return _parts(content, tag)[0]
