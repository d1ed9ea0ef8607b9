"""What the records of a JSON body look like, told from its first bytes.

Recognition sees at most the first 64 KiB, which may end anywhere. The outline is the set of member names by their place
in the document, read with a tokenizer that does not mind the missing end. Containers are looked through: the names in
`{"Records": [{"eventName"…`, in an EventBridge envelope around the same record and in the bare record are the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from strongroom.ingest.sources import lines

_TOKEN = re.compile(rb'"((?:[^"\\]|\\.)*+)"(\s*:)?|[\[\]{}]', re.DOTALL)
_JSON = re.compile(rb'\s*(?:\{\s*["}]|\[\s*[\[{\]])')
_MAX_TOKENS = 6_000
_DEPTH = 3
_CONTAINERS: tuple[tuple[str, ...], ...] = (
    (),
    ("Records",),
    ("detail",),
    ("detail", "findings"),
    ("findings",),
    ("Findings",),
)


def is_json(head: bytes) -> bool:
    """Does the body begin as JSON documents do?"""
    return _JSON.match(head.removeprefix(lines.BOM)) is not None


def names(head: bytes) -> frozenset[str]:
    """The names of the records' members, and those of their object members as `service.action`."""
    return _names(head) if is_json(head) else frozenset()


def has(head: bytes, all_of: Iterable[str], none_of: Iterable[str] = ()) -> bool:
    """Do the records have these members, and none of those?"""
    found = names(head)
    return found.issuperset(all_of) and found.isdisjoint(none_of)


@lru_cache(maxsize=8)
def _names(head: bytes) -> frozenset[str]:
    found: set[str] = set()
    for path in _paths(head):
        for container in _CONTAINERS:
            inner = path[len(container) :]
            if path[: len(container)] == container and 1 <= len(inner) <= 2:
                found.add(".".join(inner))
    return frozenset(found)


def _paths(head: bytes) -> set[tuple[str, ...]]:
    """The places of all member names; arrays leave no trace in a path."""
    places: set[tuple[str, ...]] = set()
    stack: list[str | None] = []
    name: str | None = None
    for count, token in enumerate(_TOKEN.finditer(head)):
        if count > _MAX_TOKENS:
            break
        mark = token.group()
        if mark in b"{[":
            stack.append(name)  # an array passes its name on to its elements, which have none of their own
            name = None
        elif mark in b"]}":
            if stack:
                stack.pop()
            name = None
        elif token.group(2):
            name = token.group(1).decode("utf-8", "replace")
            outer = tuple(part for part in stack if part)
            if len(outer) <= _DEPTH:
                places.add((*outer, name))
    return places
