"""Amazon Data Firehose, delivery to an HTTP endpoint.

A request is `{"requestId", "timestamp", "records": [{"data": base64}, …]}`; every attempt at a batch carries the same
request id, so (stream, request id) is the key. What is kept is the data, not the base64 around it, which says nothing
more. Records of CloudWatch Logs are gzip members and stay so: members one after another are one gzip body. All others
are joined by line feeds where they don't end in one.

The answer must be exactly 200 and name the request id; anything else is tried again for as long as the stream is set
to, and then written to the stream's backup bucket. (413 is not even written there: the limits are above Firehose's.)
Source: Amazon Data Firehose developer guide, "HTTP endpoint delivery request and response specifications".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from strongroom.ingest.decode import decode_whole
from strongroom.ingest.errors import ExpandsTooFar, NotTheProtocol, UndecodableBody
from strongroom.ingest.protocols import Delivery, Reply

KEY_HEADER = "x-amz-firehose-access-key"
ID_HEADER = "x-amz-firehose-request-id"
ARN_HEADER = "x-amz-firehose-source-arn"
_MAX_MESSAGE = 8192
_GZIP = b"\x1f\x8b\x08"
_NOT_BASE64 = "base64"
"""A coding nobody decodes: the intake keeps what carries it in quarantine and says why."""


class _Record(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw(b'""')


class _Request(msgspec.Struct):
    records: list[_Record]
    requestId: str = ""  # Firehose's own spelling


_decoder = msgspec.json.Decoder(_Request)  # made here: see archive/details.py


@dataclass(frozen=True, slots=True)
class Batch:
    """A request read: its id, and what is in it."""

    id: str
    deliveries: Sequence[Delivery]


def read(content: bytes, *, id: str, arn: str, limit: int) -> Batch:
    """The deliveries of a request's decoded body; `id` and `arn` are its headers'.

    `limit` bounds what the records expand to, in bytes. Raises NotTheProtocol, ExpandsTooFar.
    """
    try:
        request = _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotTheProtocol(f"no Firehose request: {error}", hint="this URL is for Amazon Data Firehose") from None
    if id and request.requestId and id != request.requestId:
        raise NotTheProtocol("the request ids of header and body differ")
    id = id or request.requestId
    plain, members, broken = _sorted_out([_data(record.data) for record in request.records], limit)
    parts: list[tuple[str, bytes, str]] = []
    if members:
        parts.append(("gzip", b"".join(members), "gzip"))
    if plain:
        parts.append(("plain", b"".join(item if item.endswith(b"\n") else item + b"\n" for item in plain), "identity"))
    parts += [(f"broken-{number}", item, coding) for number, (item, coding) in enumerate(broken)]
    stream = arn.rpartition("/")[2]
    key = f"firehose {arn} {id}" if id else None
    return Batch(
        id,
        [
            Delivery(body, coding, key and f"{key} {part}", f"{stream}/{id}/{part}" if id else stream)
            for part, body, coding in parts
        ],
    )


def accepted(id: str, milliseconds: int) -> Reply:
    """Everything is durable."""
    return Reply(200, msgspec.json.encode({"requestId": id, "timestamp": milliseconds}))


def refused(id: str, milliseconds: int, status: int, message: str) -> Reply:
    """Nothing was taken; Firehose writes `message` to the stream's error log."""
    told = {"requestId": id, "timestamp": milliseconds, "errorMessage": message[:_MAX_MESSAGE]}
    return Reply(status, msgspec.json.encode(told))


def _data(raw: msgspec.Raw) -> tuple[bytes, str]:
    """(a record's bytes, "identity", or the coding that makes the intake quarantine them)."""
    written = bytes(raw)
    if written[:1] != b'"':  # AWS's own example for CloudWatch Logs shows an object here
        return written, "identity"
    try:
        return base64.b64decode(written[1:-1].replace(b"\\/", b"/"), validate=True), "identity"
    except (binascii.Error, ValueError):
        return written, _NOT_BASE64


def _sorted_out(
    records: Sequence[tuple[bytes, str]], limit: int
) -> tuple[list[bytes], list[bytes], list[tuple[bytes, str]]]:
    """Plain records, gzip members, and those that are broken with their coding."""
    plain: list[bytes] = []
    members: list[bytes] = []
    broken: list[tuple[bytes, str]] = []
    for data, coding in records:
        if coding != "identity":
            broken.append((data, coding))
        elif not data.startswith(_GZIP):
            limit -= len(data)
            if data:
                plain.append(data)
        else:
            try:
                limit -= len(decode_whole(data, "gzip", max(limit, 0)))
                members.append(data)
            except UndecodableBody:
                broken.append((data, "gzip"))
        if limit < 0:
            raise ExpandsTooFar("the records expand too far", hint="send smaller batches")
    return plain, members, broken
