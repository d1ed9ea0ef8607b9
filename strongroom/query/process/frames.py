"""What the server and a query's process say to each other over two pipes: length-prefixed MessagePack messages.

    server -> worker    Ask, then Grant (or Drop, when no answer is wanted), a query each; or Index
    worker -> server    Ready once; a query each: Tables, Begin, Data…, End; or Failure instead of any of the last four;
                        once in a query, Widen instead of Begin, for another Grant; Indexed after an Index, or Failure

The bytes of an answer are in no message: they follow the Data that announces them, as they are. So nobody copies them
to pack them, and the server hands them on as they come.

The worker runs SQL of strangers, so the server trusts nothing it says: messages are decoded into exact types, a frame
is at most MAX_FRAME long, and whatever does not fit is the end of that worker.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from strongroom.query.holdings.conditions import Condition

LENGTH_BYTES = 4
MAX_FRAME = 1 << 30


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """Check this statement, which `owner` asks, and say which views it names."""

    owner: str
    sql: str
    parameters: list[Any] | dict[str, Any] | None
    views: list[str]
    format: str
    rows: int
    bytes: int
    cpu_seconds: int
    snapshot: tuple[int, str]


class Grant(msgspec.Struct, frozen=True, tag="grant"):
    """Run it: in views made by `setup`, with these tables given as Arrow streams.

    `explained`: rows (key, value) that an EXPLAIN begins with, what only the server knows about the statement.
    """

    setup: list[str]
    tables: dict[str, bytes]
    explained: list[tuple[str, str]] = []


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    """The statement need not be run."""


class Indexable(msgspec.Struct, frozen=True):
    """A file of the segment `number`, which is of `bytes`; `fields`: columns that records are rebuilt from."""

    path: str
    number: int
    bytes: int
    fields: list[str]


class Index(msgspec.Struct, frozen=True, tag="index"):
    """Say what indexes keep of these files of one source: texts, and the entities in the columns that `kinds` names."""

    files: list[Indexable]
    kinds: dict[str, list[str]]
    cpu_seconds: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The process stands; `sandbox` says what of the operating system's walls is up."""

    sandbox: dict[str, str]


class Tables(msgspec.Struct, frozen=True, tag="tables"):
    """The statement passed the check: it names these views, mentions these columns (None: wants all), and of some views
    it wants only some rows."""

    views: list[str]
    conditions: dict[str, Condition] = {}
    columns: list[str] | None = None


class Widen(msgspec.Struct, frozen=True, tag="widen"):
    """The statement can't be bound. Grant it once more, with all columns: then the error can suggest the right one."""


class Indexed(msgspec.Struct, frozen=True, tag="indexed"):
    """Of the files: words as index.py has them, and a filter of grams.py each."""

    words: bytes
    filters: list[bytes]


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """The answer starts: (name, type) of its columns."""

    columns: list[tuple[str, str]]


class Data(msgspec.Struct, frozen=True, tag="data"):
    """The next `size` bytes are of the answer."""

    size: Annotated[int, msgspec.Meta(ge=1)]


class End(msgspec.Struct, frozen=True, tag="end"):
    """The answer is whole. `truncated` is "" or the limit that cut it: "rows", "bytes"."""

    rows: int
    truncated: str


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """The query failed. `kind` is a code of errors.py; `offset` counts characters of the SQL, -1 when unknown."""

    kind: str
    message: str
    hint: str = ""
    offset: int = -1


Request = Ask | Grant | Drop | Index
Reply = Ready | Tables | Widen | Indexed | Begin | Data | End | Failure

_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(Request)
_replies = msgspec.msgpack.Decoder(Reply)


def encode(message: Request | Reply) -> bytearray:
    """The frame of one message, length included."""
    frame = bytearray(LENGTH_BYTES)
    _encoder.encode_into(message, frame, LENGTH_BYTES)
    length = len(frame) - LENGTH_BYTES
    if length > MAX_FRAME:
        raise ValueError(f"a frame of {length} bytes")
    frame[:LENGTH_BYTES] = length.to_bytes(LENGTH_BYTES)
    return frame


def decode_request(body: bytes) -> Request:
    """A message to the worker. Raises msgspec.ValidationError or DecodeError."""
    request: Request = _requests.decode(body)
    return request


def decode_reply(body: bytes) -> Reply:
    """A message from the worker. Raises msgspec.ValidationError or DecodeError."""
    reply: Reply = _replies.decode(body)
    return reply
