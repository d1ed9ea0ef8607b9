"""The entry: the small manifest of one commit, whose exact stored bytes are one leaf of the log. Pure.

docs/format.md §4 is normative. An entry names no account, source or time range beyond what the segment names carry;
those facts stand in the details object it commits to, so that a proof for one record discloses one record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from strongroom.archive import canonical
from strongroom.archive.errors import FormatError

FORMAT = "strongroom/entry/1"
MAX_ENTRY_BYTES = 65_535  # an entry must fit a tlog-tiles entry bundle, whose lengths are 16-bit

KINDS = frozenset(
    {
        "genesis", "segment", "heartbeat", "source-digest", "timestamp", "key",
        "policy", "hold", "prune", "incident", "report", "successor",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object the entry commits to: name, store version ("" where there are none), length and SHA-256 (hex)."""

    key: str
    version: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SegmentRef:
    """A segment the entry commits to: as ObjectRef, and its records root and row-group roots (hex)."""

    key: str
    version: str
    bytes: int
    sha256: str
    records: int
    root: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WriterRange:
    """The batch sequence numbers first..last of one writer's epoch that this entry seals.

    `last == first - 1` is the empty range (heartbeats). A commit too large for one entry is split into `parts`
    entries of the same range; its batches are sealed when the last part is committed.
    """

    id: str
    epoch: int
    first: int
    last: int
    part: int = 1
    parts: int = 1

    @property
    def empty(self) -> bool:
        """Whether the range covers no batch."""
        return self.last < self.first

    @property
    def complete(self) -> bool:
        """Whether this is the last part of its commit."""
        return self.part == self.parts


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry but for its place: what a writer wants committed."""

    kind: str
    written_at: datetime
    writer: WriterRange | None = None
    retain_until: datetime | None = None
    segments: tuple[SegmentRef, ...] = ()
    details: ObjectRef | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def objects(self) -> tuple[SegmentRef | ObjectRef, ...]:
        """Every object the entry will commit to."""
        return (*self.segments, *((self.details,) if self.details else ()))


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log. `prev` is the SHA-256 (hex) of the entry before; for index 0 of archive.json.

    Optional members (writer, retain_until, details) are absent from the bytes when they are None.
    """

    index: int
    kind: str
    prev: str
    origin: str
    written_at: str
    writer: WriterRange | None
    retain_until: str | None
    segments: tuple[SegmentRef, ...]
    details: ObjectRef | None
    data: Mapping[str, Any]

    @property
    def objects(self) -> tuple[SegmentRef | ObjectRef, ...]:
        """Every object the entry commits to."""
        return (*self.segments, *((self.details,) if self.details else ()))


def place(draft: Draft, *, origin: str, index: int, prev: str) -> Entry:
    """The draft as the entry at `index`."""
    return Entry(
        index=index,
        kind=draft.kind,
        prev=prev,
        origin=origin,
        written_at=timestamp(draft.written_at),
        writer=draft.writer,
        retain_until=None if draft.retain_until is None else timestamp(draft.retain_until),
        segments=draft.segments,
        details=draft.details,
        data=dict(draft.data),
    )


def encode(entry: Entry) -> bytes:
    """The entry's stored bytes. Raises FormatError when they would exceed MAX_ENTRY_BYTES."""
    value: dict[str, Any] = {"format": FORMAT}
    for member in fields(entry):
        content = getattr(entry, member.name)
        if content is not None:
            value[member.name] = _plain(content)
    data = canonical.encode(value)
    if len(data) > MAX_ENTRY_BYTES:
        raise FormatError(f"entry {entry.index} would be {len(data)} bytes; the limit is {MAX_ENTRY_BYTES}")
    return data


def decode(data: bytes) -> Entry:
    """The entry that `data` encodes. Raises FormatError for anything `encode` would not have written."""
    if len(data) > MAX_ENTRY_BYTES:
        raise FormatError("entry: too long")
    value = canonical.decode(data)
    try:
        if value.pop("format") != FORMAT:
            raise FormatError("entry: unknown format")
        entry = Entry(
            index=_integer(value.pop("index")),
            kind=_string(value.pop("kind")),
            prev=_digest(value.pop("prev")),
            origin=_string(value.pop("origin")),
            written_at=_string(value.pop("written_at")),
            writer=_writer(value.pop("writer")) if "writer" in value else None,
            retain_until=_string(value.pop("retain_until")) if "retain_until" in value else None,
            segments=tuple(_segment(item) for item in value.pop("segments")),
            details=_object(value.pop("details")) if "details" in value else None,
            data=_mapping(value.pop("data")),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(f"entry: malformed member: {error}") from None
    if value:
        raise FormatError(f"entry: unknown members {sorted(value)}")
    if entry.kind not in KINDS:
        raise FormatError(f"entry: unknown kind {entry.kind!r}")
    parse_timestamp(entry.written_at)
    if entry.retain_until is not None:
        parse_timestamp(entry.retain_until)
    return entry


def digest(data: bytes) -> str:
    """SHA-256 (hex) of stored bytes: what `prev` of the next entry says."""
    return sha256(data).hexdigest()


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds. The moment must be aware."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_timestamp(text: str) -> datetime:
    """The aware UTC datetime of `timestamp`'s text. Raises FormatError."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        raise FormatError(f"{text!r} is not a timestamp like 2026-01-31T12:00:00.000000Z") from None


def _plain(content: Any) -> Any:
    match content:
        case ObjectRef() | SegmentRef() | WriterRange():
            return {member.name: _plain(getattr(content, member.name)) for member in fields(content)}
        case list() | tuple():
            return [_plain(item) for item in content]
        case _:
            return content


def _writer(value: dict[str, Any]) -> WriterRange:
    writer = WriterRange(**value)
    _string(writer.id)
    numbers = (writer.epoch, writer.first, writer.part, writer.parts)
    if any(_integer(number) < 0 for number in numbers) or type(writer.last) is not int:
        raise ValueError("writer range")
    if writer.last < writer.first - 1 or not 1 <= writer.part <= writer.parts:
        raise ValueError("writer range")
    return writer


def _object(value: dict[str, Any]) -> ObjectRef:
    reference = ObjectRef(**value)
    _string(reference.key), _string(reference.version), _integer(reference.bytes), _digest(reference.sha256)
    return reference


def _segment(value: dict[str, Any]) -> SegmentRef:
    reference = SegmentRef(**{**value, "groups": tuple(_digest(group) for group in value["groups"])})
    _string(reference.key), _string(reference.version), _integer(reference.bytes), _digest(reference.sha256)
    _integer(reference.records), _digest(reference.root)
    return reference


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _integer(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is not a count")
    return value


def _digest(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise ValueError(f"{value!r} is not a SHA-256 in lower-case hex")
    return value
