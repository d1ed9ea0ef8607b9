"""The protobuf wire format, read without a schema: which fields a message has, and where their exact bytes lie.

A generated parser gives values; here the slices are needed, because a record is bytes. Groups, which proto3 does not
have, are malformed. Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_MAX_VARINT = 10
_FIXED = {FIXED64: 8, FIXED32: 4}


class Malformed(ValueError):
    """The bytes are no message."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: `tag_start` … `end` are its bytes, `start` … `end` those of its value, all in the buffer given."""

    number: int
    wire: int
    tag_start: int
    start: int
    end: int


def fields(message: bytes, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """The fields of `message[start:end]`, in order. Raises Malformed."""
    end = len(message) if end is None else end
    while start < end:
        tag_start = start
        tag, start = varint(message, start, end)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise Malformed("a field numbered 0")
        if wire == VARINT:
            _, stop = varint(message, start, end)
        elif wire == LENGTH:
            length, start = varint(message, start, end)
            stop = start + length
        elif wire in _FIXED:
            stop = start + _FIXED[wire]
        else:
            raise Malformed(f"wire type {wire}")
        if stop > end:
            raise Malformed("a field passes the end")
        yield Field(number, wire, tag_start, start, stop)
        start = stop


def varint(message: bytes, start: int, end: int) -> tuple[int, int]:
    """The unsigned number at `start` and where it ends. Raises Malformed."""
    value = 0
    for place in range(min(_MAX_VARINT, end - start)):
        byte = message[start + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, start + place + 1
    raise Malformed("a number passes the end")


def number(message: bytes, field: Field) -> int:
    """The unsigned value of a varint or fixed field. Raises Malformed for any other."""
    if field.wire == VARINT:
        return varint(message, field.start, field.end)[0]
    if field.wire in _FIXED:
        return int.from_bytes(message[field.start : field.end], "little")
    raise Malformed("not a number")


def text(message: bytes, field: Field) -> str:
    """A string field; bytes that are no UTF-8 become U+FFFD."""
    return message[field.start : field.end].decode("utf-8", "replace")


def encode_varint(value: int) -> bytes:
    """An unsigned number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(number: int, value: bytes | int) -> bytes:
    """One field: a number as varint, bytes with their length."""
    if isinstance(value, int):
        return encode_varint(number << 3 | VARINT) + encode_varint(value)
    return encode_varint(number << 3 | LENGTH) + encode_varint(len(value)) + value
