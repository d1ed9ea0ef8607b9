"""Many records of one tree proven at once: the hashes that complete it, and the root they give. Pure.

docs/format.md §9.3 is normative. Both halves walk the same tree in the same order, left before right:

* to **complete** it, every largest subtree without a disclosed row contributes its hash;
* to **fold** it, those hashes and the disclosed leaves give the root. All hashes must be used, none may be missing.

A hash that two records' paths would share stands there once, so disclosing everything needs no hash at all. For one
record the hashes are its RFC 6962 inclusion path, in walking order.

The walk is done in two storeys, because a full row group is a complete subtree: above, over row-group roots, which the
entry states; below, inside the few row groups that hold a disclosed row. Nothing of another row group is ever read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from strongroom.archive.errors import FormatError
from strongroom.archive.merkle import node_hash, root_of
from strongroom.archive.segment import ROW_GROUP


@dataclass(frozen=True, slots=True)
class Span:
    """Rows start … end-1 of a segment, a subtree of its tree. `disclosed`: whether a disclosed row lies in it."""

    start: int
    end: int
    disclosed: bool

    @property
    def groups(self) -> range:
        """The row groups it covers."""
        return range(self.start // ROW_GROUP, -(-self.end // ROW_GROUP))


class Leaves(Protocol):
    """The disclosed leaves of one tree, in row order."""

    def next_row(self) -> int | None:
        """The row of the next disclosed leaf, None after the last."""
        ...

    def take(self) -> bytes:
        """That leaf's hash; moves on."""
        ...


def spans(rows: Sequence[int], of: int) -> Iterator[Span]:
    """The upper storey: the tree of `of` rows cut, left to right, into undisclosed subtrees and disclosed row groups.

    `rows`: the disclosed ones, ascending.
    """
    stack = [(0, of)]
    while stack:
        start, end = stack.pop()
        disclosed = bisect_left(rows, start) < bisect_left(rows, end)
        if not disclosed or end - start <= ROW_GROUP:
            yield Span(start, end, disclosed)
            continue
        middle = start + split(end - start)
        stack += [(middle, end), (start, middle)]


def complete(leaves: Sequence[bytes], rows: Sequence[int]) -> Iterator[bytes]:
    """The lower storey: the hashes that complete the tree over `leaves` beside those at `rows` (ascending)."""
    stack = [(0, len(leaves))]
    while stack:
        start, end = stack.pop()
        disclosed = bisect_left(rows, end) - bisect_left(rows, start)
        if disclosed == 0:
            yield root_of(leaves[start:end])
        elif disclosed < end - start:
            middle = start + split(end - start)
            stack += [(middle, end), (start, middle)]


def fold(of: int, leaves: Leaves, next_node: Callable[[], bytes]) -> bytes:
    """The root of a tree of `of` leaves from its disclosed leaves and the hashes that complete it.

    `next_node` gives those hashes one by one and raises FormatError when there are no more. Raises FormatError when a
    leaf lies outside the tree or out of order.
    """

    def subtree(start: int, end: int) -> bytes:
        row = leaves.next_row()
        if row is None or row >= end:
            return next_node()
        if row < start:
            raise FormatError(f"row {row} is out of order")
        if end - start == 1:
            return leaves.take()
        middle = start + split(end - start)
        left = subtree(start, middle)
        return node_hash(left, subtree(middle, end))

    if of < 1:
        raise FormatError("a tree without rows discloses nothing")
    root = subtree(0, of)
    if leaves.next_row() is not None:
        raise FormatError(f"row {leaves.next_row()} is not one of {of} rows")
    return root


def split(width: int) -> int:
    """The width of the left subtree of a tree of `width` > 1 leaves (RFC 6962 §2.1)."""
    return 1 << ((width - 1).bit_length() - 1)
