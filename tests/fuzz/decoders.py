"""What decoders of things from outside promise for any bytes: their documented errors, and nothing else."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal

import pyarrow as pa
import zstandard

from strongroom.ingest import frames
from strongroom.ingest.decode import Coding, Decoded, Decoder, coding_of, decode_whole
from strongroom.ingest.errors import DeliveryRefused
from strongroom.ingest.protocols import elastic, firehose, hec, journal, sns
from strongroom.ingest.sources.bulk import OPERATIONS, pairs

LIMIT = 1 << 20
"""Bytes that content may have."""
TOPIC = "arn:aws:sns:eu-central-1:111122223333:alerts"

# -- codings


def coded(coding: Coding | Literal["auto"], content: bytes) -> None:
    """Streamed in two ways and decoded at once: the same content, or the same refusal."""
    first, second = (_streamed(coding, content, step) for step in (len(content) or 1, 7))
    assert first == second
    known = coding_of(content[:4]) if coding == "auto" else coding
    try:
        whole = decode_whole(content, known, LIMIT)
    except DeliveryRefused as refused:
        assert first == refused.code
    else:
        assert isinstance(first, Decoded)
        assert (len(whole), hashlib.sha256(whole).hexdigest()) == (first.bytes, first.sha256)


def _streamed(coding: str, content: bytes, step: int) -> Decoded | str:
    decoder = Decoder(coding, LIMIT)
    try:
        for at in range(0, len(content), step):
            decoder.feed(content[at : at + step])
        return decoder.finish()
    except DeliveryRefused as refused:
        return refused.code


PLAIN = b"".join(b'{"time":"2024-05-06T10:00:00Z","n":%d}\n' % n for n in range(40))
CODED = (
    gzip.compress(PLAIN, mtime=0),
    gzip.compress(PLAIN[:50], mtime=0) + gzip.compress(PLAIN[50:], mtime=0) + b"\0" * 9,
    zstandard.compress(PLAIN),
    zstandard.compress(PLAIN) + zstandard.compress(b""),
    pa.Codec("snappy").compress(PLAIN, asbytes=True),
    zlib.compress(PLAIN),
    zlib.compress(PLAIN)[2:-4],
    PLAIN,
)

# -- protocols


def bulk_request(content: bytes) -> None:
    """As many items as actions, and no line is lost."""
    found = list(pairs(content))
    at = 0
    for operation, action, document, both in found:
        assert operation in ("", *OPERATIONS) and both.startswith(action) and both.endswith(document or action)
        at = content.index(both, at) + len(both)
    reply = elastic.taken(content, "0" * 64, 1)
    assert len(json.loads(reply.body)["items"]) == sum(bool(operation) for operation, _, _, _ in found)


def firehose_request(content: bytes) -> None:
    """Members that go together are one sound body; what is broken goes alone."""
    try:
        batch = firehose.read(content, id="", arn="arn:aws:firehose:x:1:deliverystream/s", limit=LIMIT)
    except DeliveryRefused:
        return
    for delivery in batch.deliveries:
        if delivery.coding == "gzip" and delivery.name.endswith("/gzip"):
            decode_whole(delivery.content, "gzip", LIMIT)
    firehose.accepted(batch.id, 1)


def journal_body(content: bytes) -> None:
    """Cut wherever the network cut: the same parts, together the whole."""
    found = []
    for step in (len(content) or 1, 11):
        parts = journal.Parts(LIMIT, 64)
        pieces = [p for at in range(0, len(content), step) for p in parts.feed(content[at : at + step])]
        found.append([*pieces, parts.finish()])
    assert found[0] == found[1] and b"".join(found[0]) == content


def sns_message(content: bytes) -> None:
    try:
        message = sns.read(content, {TOPIC})
        sns.verify(message, b"-----BEGIN CERTIFICATE-----\n", datetime(2024, 1, 1, tzinfo=UTC))
    except DeliveryRefused:
        return
    raise AssertionError("nobody signed this")


def hec_acks(content: bytes) -> None:
    ids = hec.asked(content)
    assert json.loads(hec.acks(ids, lambda ack: hec.place_of(ack)[0] > 0).body)["acks"].keys() == {str(i) for i in ids}


def parsed(parse: Callable[[bytes], object], error: type[Exception], content: bytes) -> None:
    """Parsed, or refused in the one way that is documented."""
    with suppress(error):
        parse(content)


def spooled(content: bytes) -> None:
    """A spool file as a crash may leave it: frames in order, at most one bad place, at the end."""
    header = frames.decode_file_header(content)
    if header is None:
        return
    end = frames.FILE_HEADER_BYTES
    for found in frames.scan(content, header):
        assert found.offset == end
        end = found.end if isinstance(found, frames.Frame) else len(content)
    assert end == len(content)


def spool_file() -> bytes:
    header = frames.FileHeader(b"12345678", 1, 1)
    parts = [frames.encode_file_header(header)]
    for number in range(3):
        batch = frames.BatchHeader("b", "json", "identity", "0" * 64, 7, 1, "f", "http", "a")
        size = sum(map(len, parts))
        parts += frames.encode_frame(header, 1 + number, size, frames.encode_header(batch), [b'{"n":1}'])[0]
    return b"".join(parts)
