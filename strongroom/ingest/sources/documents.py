"""One JSON document and the records in it.

A document is a record itself, or a container of records at a path its source knows: `{"Records": […]}`, an EventBridge
envelope's `detail`, a Security Hub envelope's `detail.findings`. Elements of a container are records and are not opened
again. Records are slices of the document.

What surrounds the records in their document (an envelope, the neighbours of `Records`) is their context: the document
with the array emptied or the object replaced by `null`, its other bytes exact. It is left away when nothing but the
brackets and the container's name remain. Where no record is there to carry it, the document itself is the record, or
the broken one: an envelope must not vanish because it is empty, or because all in it is broken.

Documents come in two versions of equal length: `exact`, as it arrived, from which records are cut, and `shape`, from
which structure is read (see jsonsplit.py; nearly always the same object).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import pyarrow as pa

from strongroom.ingest.sources.source import Found

OBJECT, ARRAY = ord("{"), ord("[")
MALFORMED = (msgspec.DecodeError, RecursionError)
"""What msgspec raises for bytes that are not JSON, or nested too deeply to tell."""

_ELEMENTS: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True)
class Container:
    """Where a document keeps its records: under `path`, an array of them (`many`) or a single object."""

    path: tuple[str, ...]
    many: bool = True

    @cached_property
    def needle(self) -> bytes:
        """Bytes without which a document can't be this container."""
        return b'"' + self.path[-1].encode() + b'"'

    @cached_property
    def decoder(self) -> msgspec.json.Decoder[Any]:
        """Reads just the path and skips the rest of the document."""
        kind: Any = list[msgspec.Raw] if self.many else msgspec.Raw
        for name in reversed(self.path):
            kind = msgspec.defstruct("Document", [("inner", kind)], rename={"inner": name})
        return msgspec.json.Decoder(kind)

    def open(self, shape: bytes) -> list[msgspec.Raw] | None:
        """The records inside, as slices of `shape`; None when it is no such container.

        Raises one of MALFORMED when `shape` is not one JSON document.
        """
        try:
            inner = self.decoder.decode(shape)
        except msgspec.ValidationError:
            return None
        for _ in self.path:
            inner = inner.inner
        if self.many:
            return inner  # type: ignore[no-any-return]
        return [inner] if memoryview(inner)[0] == OBJECT else None


def container(path: str, *, many: bool = True) -> Container:
    """A container whose path is written with dots: `detail.findings`."""
    return Container(tuple(path.split(".")), many)


def elements(shape: bytes) -> list[msgspec.Raw]:
    """The elements of one array, as slices of it. Raises one of MALFORMED."""
    return _ELEMENTS.decode(shape)


def expand(exact: bytes, shape: bytes, containers: Sequence[Container], found: Found) -> None:
    """Add the records of one sound document, without white space around it, to `found`.

    An array here is a batch of documents: some shippers send one a request or one a line.
    """
    if shape[0] != ARRAY:
        _expand_one(exact, shape, containers, found)
        return
    for part, part_shape in cut(exact, shape, elements(shape)):
        _expand_one(part, part_shape, containers, found)


def cut(exact: bytes, shape: bytes, slices: Sequence[msgspec.Raw]) -> list[tuple[bytes, bytes]]:
    """The (exact, shape) bytes of slices of `shape`."""
    if exact is shape:
        return [(part, part) for part in map(bytes, slices)]
    spans = [span(shape, part) for part in slices]
    return [(exact[start:end], shape[start:end]) for start, end in spans]


def open_whole(exact: bytes, shape: bytes, containers: Sequence[Container], found: Found) -> bool:
    """Add the records of a body that is one document of a known container; False when it is not (nothing is added).

    Raises one of MALFORMED when the body is not one sound document.
    """
    for candidate in containers:
        if candidate.needle in shape:
            inner = candidate.open(shape)
            if inner is not None:
                _add_all(exact, shape, candidate, inner, found)
                return True
    return False


def surroundings(before: bytes, after: bytes, kind: Container) -> bytes | None:
    """A document without its array of records; None when only the container's name is left of it."""
    # Compared byte by byte with what is there, so that nothing which could matter is ever left away.
    bare = b"{" + kind.needle + b":[]}"
    rest = before + b"[]" + after
    return None if len(kind.path) == 1 and b"".join(rest.split()) == bare else rest.strip()


def _expand_one(exact: bytes, shape: bytes, containers: Sequence[Container], found: Found) -> None:
    if shape[0] != OBJECT:
        found.damaged(exact, "not a JSON object")
    elif not open_whole(exact, shape, containers, found):
        found.record(exact)


def _add_all(exact: bytes, shape: bytes, kind: Container, inner: Sequence[msgspec.Raw], found: Found) -> None:
    if not inner:
        if len(kind.path) > 1 or b"".join(shape.split()) != b"{" + kind.needle + b":[]}":
            found.record(exact)
        return
    first, last = span(shape, inner[0])[0], span(shape, inner[-1])[1]
    if kind.many:
        opening, closing = shape.rindex(b"[", 0, first), shape.index(b"]", last) + 1
        context = surroundings(exact[:opening], exact[closing:], kind)
    else:
        context = (exact[:first] + b"null" + exact[last:]).strip()
    raw = [bytes(part) for part in inner] if exact is shape else [part for part, _ in cut(exact, shape, inner)]
    if all(record[0] == OBJECT for record in raw):
        found.extend(raw, context)
        return
    if context is not None and all(record[0] != OBJECT for record in raw):
        found.damaged(exact, "not a JSON object")
        return
    for record in raw:
        if record[0] == OBJECT:
            found.record(record, context)
        else:
            found.damaged(record, "not a JSON object")


def span(shape: bytes, part: msgspec.Raw) -> tuple[int, int]:
    """Where a slice lies: msgspec's raw slices are views into what was decoded, so addresses tell."""
    start = pa.py_buffer(part).address - pa.py_buffer(shape).address
    return start, start + memoryview(part).nbytes
