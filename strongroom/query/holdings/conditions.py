"""What a statement asks of the rows of one view, as far as it is worth knowing for leaving segments out. Pure.

A condition is something that every row which can matter fulfils. It may say less than the statement does, never more:
what can't be expressed here is left out of an `Every`, and makes a whole `Some` unknown. None stands for "anything".
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class OneOf(msgspec.Struct, frozen=True, tag="one_of"):
    """The text in `column` is one of `values`; of a list, with `element`, at least one of its elements is."""

    column: str
    values: tuple[str, ...]
    element: bool = False


class Between(msgspec.Struct, frozen=True, tag="between"):
    """The time in `column` lies in [low, high], microseconds since the epoch; None is open."""

    column: str
    low: int | None = None
    high: int | None = None


class Contains(msgspec.Struct, frozen=True, tag="contains"):
    """The text in `column` contains all of `pieces`, where capital letters (as grams.py knows them) count as small."""

    column: str
    pieces: tuple[str, ...]


class Every(msgspec.Struct, frozen=True, tag="every"):
    """All of the parts."""

    parts: tuple[Condition, ...]


class Some(msgspec.Struct, frozen=True, tag="some"):
    """At least one of the parts."""

    parts: tuple[Condition, ...]


Condition = OneOf | Between | Contains | Every | Some


def every(parts: Iterable[Condition | None]) -> Condition | None:
    """All that is known of the parts together."""
    known = tuple(part for part in parts if part is not None)
    return known[0] if len(known) == 1 else Every(known) if known else None


def some(parts: Iterable[Condition | None]) -> Condition | None:
    """What holds when one of the parts does: nothing is known as soon as nothing is known of one of them."""
    known = tuple(parts)
    if not known or None in known:
        return None
    return known[0] if len(known) == 1 else Some(tuple(part for part in known if part is not None))


def lookups(condition: Condition | None) -> int:
    """How often a condition looks for texts, which takes longer than anything else in it."""
    if isinstance(condition, Every | Some):
        return sum(lookups(part) for part in condition.parts)
    return int(isinstance(condition, Contains))
