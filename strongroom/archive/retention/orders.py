"""Orders: what is decided about objects after they were sealed. Legal holds by case, extensions, prunes. Pure.

An entry can't be changed, so what is decided later is an object of its own, named by an entry of its own. The order
carries what the entry must not disclose (the case, the question that chose the segments, the segments) and starts with
a random salt, as details do. docs/format.md §4.7 is normative.

What orders add up to, in the order of the log:

* A **case** is open from its first `hold` to its `release`; `hold` and `cover` add segments to it. A segment is held
  while any open case has it, so that releasing one case never frees what another still needs.
* An `extend` moves promises on to a later moment and never back.
* A `prune` says that segments whose time was over were found removed. It removes nothing, and one that comes before
  the promise or a hold has ended is itself a finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import msgspec

from strongroom.archive import canonical
from strongroom.archive import entry as entries
from strongroom.archive.errors import FormatError

FORMAT = "strongroom/order/1"
MAX_SEGMENTS = 10_000
"""Segments of one order; more are several orders."""

Action = Literal["hold", "cover", "release", "extend", "prune"]
KIND: dict[Action, str] = {"hold": "hold", "cover": "hold", "release": "hold", "extend": "policy", "prune": "prune"}
"""The kind of the entry that names an order."""


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One decision.

    `case`: of holds. `view` and `where`: the question that chose the segments, for people and for covering what is
    sealed later (docs/operators/holds.md); `size`: the tree size it was asked of. `until`: the later moment of an
    `extend`; `log`: it also binds every object that is not a segment. `segments`: names, ascending.
    """

    salt: str
    action: Action
    by: str
    case: str = ""
    view: str = ""
    where: str = ""
    size: int = 0
    until: str = ""
    log: bool = False
    segments: tuple[str, ...] = ()
    format: str = FORMAT


msgspec.json.Decoder(Order)  # learnt here: see archive/details.py


def encode(order: Order) -> bytes:
    """The canonical bytes of `order`."""
    return canonical.encode(msgspec.to_builtins(order) | {"format": order.format})


def decode(data: bytes) -> Order:
    """The order that `data` encodes. Raises FormatError."""
    try:
        order = msgspec.convert(canonical.decode(data), Order)
    except (msgspec.ValidationError, TypeError) as error:
        raise FormatError(f"order: {error}") from None
    if order.format != FORMAT:
        raise FormatError("order: unknown format")
    if (order.action in ("hold", "cover", "release")) != bool(order.case):
        raise FormatError(f"order: {order.action} {'with' if order.case else 'without'} a case")
    if (order.action == "extend") != bool(order.until):
        raise FormatError(f"order: {order.action} {'with' if order.until else 'without'} a time")
    if order.until:
        entries.parse_timestamp(order.until)
    return order


def split(segments: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The segments in as many parts as orders are needed; one empty part for none."""
    ordered = sorted(segments)
    for start in range(0, max(len(ordered), 1), MAX_SEGMENTS):
        yield tuple(ordered[start : start + MAX_SEGMENTS])


@dataclass(slots=True)
class Case:
    """One case: the questions asked for it, and what it holds.

    `entries` are the indices that say so; `size` the tree size that all its questions have been asked of.
    """

    name: str
    opened: str
    by: str
    questions: list[tuple[str, str]] = field(default_factory=list)
    segments: set[str] = field(default_factory=set)
    entries: list[int] = field(default_factory=list)
    size: int = 0
    released: str = ""


@dataclass(slots=True)
class Obligations:
    """What the orders followed so far add up to."""

    cases: dict[str, Case] = field(default_factory=dict)
    extended: dict[str, datetime] = field(default_factory=dict)
    log_extended: list[tuple[int, datetime]] = field(default_factory=list)  # (entries before this index, until)
    pruned: dict[str, tuple[int, datetime]] = field(default_factory=dict)  # the first to say so: index, written_at
    held_at_prune: set[str] = field(default_factory=set)

    def follow(self, index: int, written_at: str, order: Order) -> None:
        """Take in the order that entry `index` names."""
        match order.action:
            case "hold" | "cover":
                self._hold(index, written_at, order)
            case "release":
                if (known := self.cases.get(order.case)) is not None and not known.released:
                    known.released = written_at
                    known.entries.append(index)
            case "extend":
                until = entries.parse_timestamp(order.until)
                self.extended |= {key: max(until, self.extended.get(key, until)) for key in order.segments}
                self.log_extended += [(index, until)] if order.log else []
            case "prune":
                for key in order.segments:
                    self.pruned.setdefault(key, (index, entries.parse_timestamp(written_at)))
                    self.held_at_prune |= {key} if self.holders(key) else set()

    @property
    def open_cases(self) -> list[Case]:
        """Cases that are not released, by name."""
        return [self.cases[name] for name in sorted(self.cases) if not self.cases[name].released]

    @property
    def held(self) -> frozenset[str]:
        """Every segment under an open case."""
        return frozenset().union(*(case.segments for case in self.open_cases))

    def holders(self, segment: str) -> list[str]:
        """The open cases a segment is under."""
        return [case.name for case in self.open_cases if segment in case.segments]

    def freed_by(self, case: str) -> frozenset[str]:
        """The segments that a release of `case` leaves, or has left, under no open case."""
        known = self.cases.get(case)
        others: Iterable[set[str]] = (other.segments for other in self.open_cases if other.name != case)
        return frozenset(known.segments if known else ()) - frozenset().union(*others)

    def log_until(self, index: int) -> datetime | None:
        """Until when orders have extended the objects of entry `index` that are not segments."""
        found = [until for before, until in self.log_extended if index < before]
        return max(found, default=None)

    def _hold(self, index: int, written_at: str, order: Order) -> None:
        known = self.cases.get(order.case)
        if known is None or known.released:
            # A case that was released and is opened again begins anew: what it held before was freed.
            if order.action == "cover":
                return  # released meanwhile by somebody else: a released case holds nothing
            known = self.cases[order.case] = Case(order.case, written_at, order.by)
        question = (order.view, order.where)
        if order.action == "hold" and question not in known.questions:
            known.questions.append(question)
        if not known.entries:
            known.size = order.size
        elif order.action == "cover":  # asks all questions; one asked by a further `hold` leaves the others behind
            known.size = max(known.size, order.size)
        known.segments.update(order.segments)
        known.entries.append(index)
