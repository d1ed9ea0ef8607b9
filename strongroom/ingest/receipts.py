"""Receipts: the signed promise a forwarder gets for every batch, to be held against the archive later.

A receipt is a C2SP signed note. Its text is

    strongroom receipt v1
    origin <log origin>
    batch <batch id>
    source <source>
    sha256 <hex digest of the decoded content>
    bytes <length of the decoded content>
    received_at <RFC 3339, UTC, microseconds>
    writer <writer id> <epoch> <sequence>

It says: this content was durable here at that time and will be sealed as batch `sequence` of that writer's epoch (or of
a later epoch, under the same batch id, if the writer had to start a new one). It is given before the records are
counted. The text is a function of the batch alone, so a repeated delivery gets the same promise again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from strongroom.archive import note
from strongroom.archive.entry import parse_timestamp, timestamp
from strongroom.archive.errors import FormatError
from strongroom.archive.note import NoteSigner, VerifierKey
from strongroom.ingest.errors import ReceiptInvalid

_TEXT = re.compile(
    r"strongroom receipt v1\n"
    r"origin (?P<origin>[^\n]+)\n"
    r"batch (?P<batch>[0-9a-f]{64})\n"
    r"source (?P<source>[a-z][a-z0-9_]*)\n"
    r"sha256 (?P<sha256>[0-9a-f]{64})\n"
    r"bytes (?P<bytes>0|[1-9][0-9]{0,18})\n"
    r"received_at (?P<received_at>[^\n]+)\n"
    r"writer (?P<writer>[a-z0-9_]+) (?P<epoch>[1-9][0-9]{0,18}) (?P<sequence>0|[1-9][0-9]{0,18})\n"
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a receipt states. `sha256` and `bytes` are of the decoded content."""

    origin: str
    batch: str
    source: str
    sha256: str
    bytes: int
    received_at: datetime
    writer: str
    epoch: int
    sequence: int

    def text(self) -> str:
        """The lines that are signed."""
        return (
            "strongroom receipt v1\n"
            f"origin {self.origin}\n"
            f"batch {self.batch}\n"
            f"source {self.source}\n"
            f"sha256 {self.sha256}\n"
            f"bytes {self.bytes}\n"
            f"received_at {timestamp(self.received_at)}\n"
            f"writer {self.writer} {self.epoch} {self.sequence}\n"
        )


def sign(receipt: Receipt, signer: NoteSigner) -> str:
    """The receipt as a signed note."""
    return note.sign(receipt.text(), [signer]).encode()


def parse(text: str) -> Receipt:
    """What a signed receipt states, its signature unchecked. Raises ReceiptInvalid."""
    return _parse_text(_parse_note(text).text)


def verify(text: str, keys: Iterable[VerifierKey]) -> Receipt:
    """What a receipt states, once at least one of `keys` is seen to have signed it. Raises ReceiptInvalid."""
    signed = _parse_note(text)
    try:
        if not note.verify(signed, keys):
            raise ReceiptInvalid("the receipt is not signed by a known key", hint="check whose archive it is from")
    except FormatError as error:
        raise ReceiptInvalid(error.message) from None
    return _parse_text(signed.text)


def _parse_note(text: str) -> note.Note:
    try:
        return note.parse(text.encode())
    except (FormatError, UnicodeEncodeError) as error:
        raise ReceiptInvalid(f"not a receipt: {error}") from None


def _parse_text(text: str) -> Receipt:
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ReceiptInvalid("not a receipt: the text is not the eight lines of version 1")
    try:
        received_at = parse_timestamp(found["received_at"])
    except FormatError as error:
        raise ReceiptInvalid(f"not a receipt: {error.message}") from None
    return Receipt(
        origin=found["origin"],
        batch=found["batch"],
        source=found["source"],
        sha256=found["sha256"],
        bytes=int(found["bytes"]),
        received_at=received_at,
        writer=found["writer"],
        epoch=int(found["epoch"]),
        sequence=int(found["sequence"]),
    )
