"""Records in arrays of arrays: `{"streams": [{"stream": {…}, "values": [record, …]}]}`, and deeper.

The context of a record is the document it came in with every other branch cut out of it: exact bytes, still one JSON
document of the same shape, with an empty array where the record was. An element that holds no record at any depth has
none to carry it and is broken, whole. `exact` and `shape` are those of documents.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from strongroom.ingest.sources import lines
from strongroom.ingest.sources.documents import MALFORMED, Container, cut, span
from strongroom.ingest.sources.jsonsplit import readable
from strongroom.ingest.sources.source import Found, Split


@dataclass(frozen=True)
class Nest:
    """`path`: the arrays' names from the outside in. A record begins with the byte `opening`."""

    path: tuple[str, ...]
    opening: int
    levels: tuple[Container, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(Container((name,)) for name in self.path))
        for level in self.levels:
            level.decoder  # noqa: B018  # made here: see archive/details.py

    def split(self, body: bytes) -> Split:
        """The records of one document. Never raises."""
        exact = body.removeprefix(lines.BOM).strip()
        found = Found()
        if not exact:
            return found.split()
        shape = readable(exact)
        try:
            branches = None if shape is None else _open(exact, shape, self.levels)
        except MALFORMED:
            branches = None
        if branches is None:
            return lines.whole(body, f"not a JSON document with {'.'.join(self.path)}")
        if not branches.children and b"".join(exact.split()) in (b"{}", b'{"' + self.path[0].encode() + b'":[]}'):
            return found.split()
        self._add(branches, b"", b"", found)
        return found.split()

    def _add(self, branch: _Branch, before: bytes, after: bytes, found: Found) -> None:
        if not self._carries(branch):
            found.damaged(branch.exact, "holds no records")
            return
        before, after = before + branch.before, branch.after + after
        for child in branch.children:
            if isinstance(child, _Branch):
                self._add(child, before, after, found)
            elif child[0] == self.opening:
                found.record(child, before + after)
            else:
                found.damaged(child, f"does not begin with {chr(self.opening)}")

    def _carries(self, branch: _Branch) -> bool:
        return any(
            self._carries(child) if isinstance(child, _Branch) else child[0] == self.opening
            for child in branch.children
        )


@dataclass(frozen=True)
class _Branch:
    """A document or element, its bytes around the array inside, and what the array holds."""

    exact: bytes
    before: bytes
    after: bytes
    children: Sequence[_Branch | bytes]


def _open(exact: bytes, shape: bytes, levels: Sequence[Container]) -> _Branch | None:
    """None when it is no object with that array. Raises one of MALFORMED."""
    inner: list[msgspec.Raw] | None = levels[0].open(shape)
    if inner is None:
        return None if shape[:1] != b"{" else _Branch(exact, exact, b"", ())
    if not inner:
        return _Branch(exact, exact, b"", ())
    first, last = span(shape, inner[0])[0], span(shape, inner[-1])[1]
    children: list[_Branch | bytes] = []
    for part, part_shape in cut(exact, shape, inner):
        if len(levels) == 1:
            children.append(part)
        else:
            children.append(_open(part, part_shape, levels[1:]) or _Branch(part, part, b"", ()))
    return _Branch(exact, exact[:first], exact[last:], children)
