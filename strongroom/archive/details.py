"""The details object of one commit: what its entry must not disclose. Pure.

Which deliveries were sealed and where they came from, and per segment what the catalogue needs to prune: time range,
counts per hour, column ranges. It starts with a random salt, so that its hash in the entry does not let a reader of
the entry test guesses about it. docs/format.md §5 is normative.
"""

from __future__ import annotations

import msgspec

from strongroom.archive import canonical
from strongroom.archive.entry import WriterRange
from strongroom.archive.errors import FormatError

FORMAT = "strongroom/details/1"


class BatchFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sealed delivery.

    `sha256` and `bytes` are of the decoded content. records = accepted + quarantined. `key` is "" or the SHA-256
    (hex) of the sender's idempotency key; `name` the file or object name, "" when there is none.
    """

    sequence: int
    id: str
    source: str
    sha256: str
    bytes: int
    records: int
    accepted: int
    quarantined: int
    received_at: str
    forwarder: str
    protocol: str
    address: str
    key: str
    name: str
    flags: tuple[str, ...] = ()


class SegmentSummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is in one segment. Times are event times in microseconds since the epoch, UTC; absent when unknown.

    `hours` counts records per event hour ("2023-07-10T11", "" for records without a time); `columns` gives
    (smallest, largest) of string columns worth pruning by.
    """

    key: str
    source: str
    date: str
    records: int
    min_time: int | None = None
    max_time: int | None = None
    hours: dict[str, int] = {}
    columns: dict[str, tuple[str, str]] = {}


class Details(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All details of one entry. Batches are listed in the last part of a commit only."""

    salt: str
    writer: WriterRange
    batches: tuple[BatchFacts, ...]
    segments: tuple[SegmentSummary, ...]
    format: str = FORMAT


# msgspec (0.22) learns a type at its first use, and crashes the process when two threads are first at once. So every
# type that threads decode is used here and in its like once, by the one thread that imports.
msgspec.json.Decoder(Details)


def encode(details: Details) -> bytes:
    """The canonical bytes of `details`."""
    return canonical.encode(msgspec.to_builtins(details))


def decode(data: bytes) -> Details:
    """The details that `data` encodes. Raises FormatError."""
    try:
        details = msgspec.convert(canonical.decode(data), Details)
    except (msgspec.ValidationError, TypeError) as error:
        raise FormatError(f"details: {error}") from None
    if details.format != FORMAT:
        raise FormatError("details: unknown format")
    return details
