"""Which segments can hold a row that matters: conditions and narrowings, answered from the catalog and indexes. Pure.

A choice is a set of segments as bits (segments.py). For each condition the answer may be too large, never too small:
times come from the catalog, values from the entity index, what a record contains from the text index, and where the
index does not cover a segment, or a column is not one that it knows, the segment stays. A view made of sources' columns
hands a condition on to them where its column is one of theirs, or the first of several that has a value (`coalesce`):
whatever such an expression gives is a value of one of its columns.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pyarrow as pa

from strongroom.query.holdings.conditions import Between, Condition, Contains, Every, OneOf, Some
from strongroom.query.holdings.narrowing import Narrowing
from strongroom.query.holdings.segments import SegmentTable
from strongroom.query.normalised import NormalisedView
from strongroom.query.views import EVENT_COLUMNS, EVENTS, ViewSource

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMN = re.compile(r'(?:CAST\()?"?(?P<name>[a-z][a-z0-9_]*)"?(?P<element>\[[0-9]+\])?(?: AS VARCHAR\))?')
_NULL = re.compile(r"NULL(?:::VARCHAR)?", re.IGNORECASE)
_COALESCE = re.compile(r"coalesce\((?P<inner>[^()]*)\)")


class Index(Protocol):
    """What is asked of an index of entities (index.py)."""

    @property
    def covered(self) -> int:
        """The segments it knows."""
        ...

    def find(self, kind: str, values: Collection[str]) -> int:
        """Those among them that can hold one of the values."""
        ...


class Texts(Protocol):
    """What is asked of an index of records' texts (texts.py)."""

    @property
    def covered(self) -> int:
        """The segments it knows."""
        ...

    def find(self, pieces: Collection[str], among: int) -> int:
        """Those of them `among` that can hold a record which contains all of these texts, case apart."""
        ...


@dataclass(frozen=True, slots=True)
class Carrier:
    """A column that a view's column takes its value from: `element`, an element of a list."""

    column: str
    element: bool = False


_RECORD = (Carrier("raw"),)


class Pruner:
    """Chooses segments. One for all queries; what it chooses from grows meanwhile, also while it chooses."""

    def __init__(
        self,
        table: SegmentTable,
        index: Index,
        texts: Texts,
        sources: Sequence[ViewSource],
        normalised: Sequence[NormalisedView],
    ) -> None:
        self._table, self._index, self._texts = table, index, texts
        self._kinds = {source.name: _kinds(source) for source in sources}
        self._carriers: dict[tuple[str, str], dict[str, tuple[Carrier, ...] | None]] = {}
        for source in sources:
            self._carriers[source.name, source.name] = {}
            events = dict.fromkeys(EVENT_COLUMNS, "NULL") | {"event_time": "event_time"} | dict(source.events)
            self._carriers[EVENTS, source.name] = {name: carried(sql) for name, sql in events.items()}
            self._carriers[EVENTS, source.name]["raw"] = _RECORD
        for view in normalised:
            for part in view.parts:  # several parts of one source: a column must come from the same columns in all
                mapped = {name: carried(part.values.get(name, "NULL")) for name in view.columns} | {"raw": _RECORD}
                before = self._carriers.get((view.name, part.source))
                if before is not None:
                    mapped = {name: _both(before[name], found) for name, found in mapped.items()}
                self._carriers[view.name, part.source] = mapped

    def choose(
        self,
        size: int,
        sources: Collection[str],
        reading: Mapping[str, Condition | None],
        narrowing: Narrowing | None = None,
    ) -> tuple[int, int]:
        """Of the segments of `sources` in the first `size` entries: all, and those that have to be read.

        `reading`: the views that the statement names, with their conditions.
        """
        total = chosen = 0
        snapshot = self._table.upto(size)
        for source in sources:
            mine = self._table.of_sources([source]) & snapshot
            wanted = 0
            for view, condition in reading.items():
                if (view, source) in self._carriers:
                    wanted |= mine if condition is None else self._of(condition, view, source, mine)
            total |= mine
            chosen |= wanted if narrowing is None else self._narrowed(narrowing, source, wanted)
        return total, chosen

    def _of(self, condition: Condition, view: str, source: str, among: int) -> int:
        """The segments `among` which can hold a row of `source` that fulfils the condition on `view`."""
        if isinstance(condition, Every):
            for part in condition.parts:
                among = self._of(part, view, source, among)
            return among
        if isinstance(condition, Some):
            found = 0
            for part in condition.parts:
                found |= self._of(part, view, source, among)
            return found
        if view != source and condition.column == "source" and isinstance(condition, OneOf):
            return among if source in condition.values else 0
        carriers = self._carriers_of(view, source, condition.column)
        if carriers is None:
            return among
        if isinstance(condition, Between):
            timely = carriers == (Carrier("event_time"),)
            return among & self._table.within(condition.low, condition.high) if timely else among
        if isinstance(condition, OneOf):
            return self._holding(source, carriers, condition, among)
        return self._containing(condition, among) if carriers == _RECORD else among

    def _carriers_of(self, view: str, source: str, column: str) -> tuple[Carrier, ...] | None:
        if view == source:
            return (Carrier(column),)
        return self._carriers[view, source].get(column)

    def _holding(self, source: str, carriers: Sequence[Carrier], condition: OneOf, among: int) -> int:
        """Those where one of the columns can hold one of the values; all, when one of them is not indexed."""
        kinds, found = self._kinds[source], ~self._index.covered  # before looking, as below
        for carrier in carriers:
            kind = kinds.get((carrier.column, carrier.element or condition.element))
            if kind is None or (carrier.element and condition.element):
                return among
            found |= self._index.find(kind, condition.values)
        return among & found

    def _containing(self, condition: Contains, among: int) -> int:
        """Those with a record that can contain all the pieces."""
        known = self._texts.covered  # before looking, as below
        return among & (~known | self._texts.find(condition.pieces, among & known))

    def _narrowed(self, narrowing: Narrowing, source: str, among: int) -> int:
        if narrowing.sources is not None and source not in narrowing.sources:
            return 0
        if narrowing.since is not None or narrowing.until is not None:
            among &= self._table.within(_micros(narrowing.since), _micros(narrowing.until))
        values: list[tuple[str, Collection[str]]] = [(kind, (value,)) for kind, value in narrowing.entities]
        values += [("account", narrowing.accounts)] if narrowing.accounts is not None else []
        values += [("region", narrowing.regions)] if narrowing.regions is not None else []
        for kind, alternatives in values:
            unknown = ~self._index.covered  # before looking: what is indexed meanwhile must not count as looked into
            among &= unknown | self._index.find(kind, alternatives)
        return among


def carried(expression: str) -> tuple[Carrier, ...] | None:
    """The columns of which one must have the value that a view's expression gives; None when that can't be said."""
    text = expression.strip()
    if _NULL.fullmatch(text):
        return ()
    if plain := _COLUMN.fullmatch(text):
        return (Carrier(plain["name"], plain["element"] is not None),)
    if first := _COALESCE.fullmatch(text):
        inner = [carried(part) for part in first["inner"].split(",")]
        return None if None in inner else tuple(item for found in inner if found is not None for item in found)
    return None


def _both(one: tuple[Carrier, ...] | None, other: tuple[Carrier, ...] | None) -> tuple[Carrier, ...] | None:
    return None if one is None or other is None else (*one, *(item for item in other if item not in one))


def _kinds(source: ViewSource) -> dict[tuple[str, bool], str]:
    """(column, whether its elements are meant) -> kind."""
    lists = {field.name for field in source.schema if pa.types.is_list(field.type)}
    return {(name, name in lists): kind for kind, names in source.entities.items() for name in names}


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // timedelta(microseconds=1)
