"""Search: which records have this text, these entities, this time, in any source. Pure: from filters to SQL.

Hits have the columns of `events`, newest first, each with its address. Rules:

1. All filters must hold; several values of one filter (two sources, two outcomes) are alternatives, several texts and
   entities are not.
2. An entity is compared with every column of its kind (views.ViewSource.entities), exactly. A source without such a
   column has no hits.
3. Text is looked for in the record as it arrived, letter by letter: JSON shows `"` as `\\"` there.
4. A record that claims no time is found when no time is asked for, and comes last.
5. The order is total: time, then address. So a page ends at a place, and a cursor is that place on that snapshot: the
   next page begins right after it, however much was sealed since.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any

import msgspec

from strongroom.query.errors import CursorInvalid, ParameterInvalid
from strongroom.query.holdings.narrowing import KINDS, Narrowing
from strongroom.query.questions.prepared import Prepared
from strongroom.query.views import EVENT_COLUMNS, MARK, ViewSource, literal, quoted

COLUMNS = ("source", "event_time", *EVENT_COLUMNS, "_segment", "_row")
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")
_NOT_SEARCHED = frozenset({"attachment"})  # whole files, whose records are in their own sources


@dataclass(frozen=True, slots=True)
class Filters:
    """What a hit must be. Empty means anything. `entities` are (kind, value) pairs; times are aware, [since, until)."""

    texts: tuple[str, ...] = ()
    ignore_case: bool = False
    entities: tuple[tuple[str, str], ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    sources: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Tells whether a cursor belongs to these filters."""
        said = [getattr(self, name) for name in self.__slots__]
        return sha256(msgspec.json.encode(said)).hexdigest()[:16]

    @property
    def only_time_and_sources(self) -> bool:
        """Whether counts by source and hour, which the log commits to, can answer for them."""
        return self == Filters(since=self.since, until=self.until, sources=self.sources)


class Cursor(msgspec.Struct, frozen=True):
    """The place after which the next page begins. `time` is as the answer wrote it, None where the record has none."""

    size: int
    digest: str
    time: str | None
    segment: str
    row: int

    def text(self) -> str:
        """As a client keeps it."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")


_cursor = msgspec.json.Decoder(Cursor)


def read_cursor(text: str, filters: Filters) -> Cursor:
    """The cursor a client sends back. Raises CursorInvalid."""
    try:
        cursor = _cursor.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, msgspec.DecodeError, ValueError):
        raise CursorInvalid("this is no cursor", hint="take `next` from the page before, as it is") from None
    if cursor.digest != filters.digest:
        raise CursorInvalid(
            "this cursor belongs to another search", hint="keep all parameters as they were, but for the limit"
        )
    return cursor


def entity(text: str) -> tuple[str, str]:
    """`kind:value` taken apart. Raises ParameterInvalid."""
    kind, colon, value = text.partition(":")
    if not colon or not value or kind not in KINDS:
        raise ParameterInvalid(
            f"{text[:80]!r} is no entity", hint=f"write kind:value; kinds are {', '.join(sorted(KINDS))}"
        )
    return kind, value


def about(filters: Filters, text: str) -> Filters:
    """The same filters, and first of all this entity (`kind:value`). Raises ParameterInvalid."""
    return replace(filters, entities=(entity(text), *filters.entities))


def narrowing(filters: Filters) -> Narrowing:
    """What the filters say about segments."""
    return Narrowing(
        filters.since,
        filters.until,
        frozenset(filters.sources) or None,
        # An event's account and region may come from an expression; only entities say what columns hold.
        entities=filters.entities,
    )


class Bound:
    """Values on their way into a statement, each under a name."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def add(self, value: Any) -> str:
        """The placeholder of a value."""
        name = f"v{len(self.values)}"
        self.values[name] = value
        return f"${name}"

    def used(self, sql: str) -> dict[str, Any] | None:
        """The values that a finished statement names: where no source can have a hit, it names few or none."""
        named = set(re.findall(r"\$(v[0-9]+)\b", sql))
        return {name: value for name, value in self.values.items() if name in named} or None


# Names and expressions below are declared by us, quoted; values of a question are bound, never pasted.
# ruff: noqa: S608


def search(
    filters: Filters,
    views: Sequence[ViewSource],
    *,
    after: Cursor | None = None,
    raw: bool = False,
    marked: bool = False,
) -> Prepared:
    """The question for hits in these views (see `searched`), newest first. `marked`: with `_sealed`."""
    bound = Bound()
    rows = hits(filters, views, bound, {view.name: {MARK: MARK} for view in views} if marked else None)
    condition = "" if after is None else f" WHERE {_after(after, bound)}"
    columns = ", ".join([*COLUMNS, *(["raw"] if raw else []), *([MARK] if marked else [])])
    sql = f"SELECT {columns} FROM ({rows}){condition} ORDER BY event_time DESC NULLS LAST, _segment, _row"
    return Prepared(sql, bound.used(sql), narrowing(filters))


def hits(
    filters: Filters, views: Sequence[ViewSource], bound: Bound, extra: Mapping[str, Mapping[str, str]] | None = None
) -> str:
    """SELECT of all hits in these views: COLUMNS, `raw`, and more columns from `extra` (source -> column -> SQL)."""
    given = [(kind, value, bound.add(value)) for kind, value in filters.entities]
    texts = [_text_condition(text, bound, ignore_case=filters.ignore_case) for text in filters.texts]
    outside = _outside(filters, bound)
    parts = []
    for view in views:
        conditions = [_entity_condition(view, kind, name) for kind, _, name in given]
        if any(condition == "" for condition in conditions):
            continue
        more = (extra or {}).get(view.name, {})
        inner = f"SELECT {_mapped(view, more)} FROM {quoted(view.name)}{_where([*conditions, *texts])}"
        names = ", ".join(map(quoted, [*COLUMNS, "raw", *more]))
        parts.append(f"SELECT {names} FROM ({inner}){_where(outside)}")
    return " UNION ALL ".join(parts) or _nothing(extra or {})


def searched(filters: Filters, views: Sequence[ViewSource]) -> list[ViewSource]:
    """The views that are looked through, of all there are. Raises ParameterInvalid for a name that is none."""
    known = {view.name: view for view in views}
    for name in filters.sources:
        if name not in known:
            raise ParameterInvalid(f"there is no source {name!r}", hint=f"there is {', '.join(sorted(known))}")
    return [known[name] for name in filters.sources] or [v for v in views if v.name not in _NOT_SEARCHED]


def _mapped(view: ViewSource, extra: Mapping[str, str]) -> str:
    event_time = view.events.get("event_time", "event_time")
    return ", ".join(
        [
            f"{literal(view.name)} AS source",
            f"CAST(({event_time}) AS TIMESTAMPTZ) AS event_time",
            *(f"CAST(({view.events.get(n, 'NULL')}) AS VARCHAR) AS {quoted(n)}" for n in EVENT_COLUMNS),
            *(["raw", "_segment", "_row"]),
            *(f"{expression} AS {quoted(name)}" for name, expression in extra.items()),
        ]
    )


def _nothing(extra: Mapping[str, Mapping[str, str]]) -> str:
    """No source can have a hit: the columns, and no row."""
    types = dict.fromkeys(("source", *EVENT_COLUMNS, "raw", "_segment"), "VARCHAR")
    types |= {"event_time": "TIMESTAMPTZ", "_row": "BIGINT"}
    columns = [f"CAST(NULL AS {types[name]}) AS {quoted(name)}" for name in (*COLUMNS, "raw")]
    more = {name: sql for columns_of in extra.values() for name, sql in columns_of.items()}
    columns += [f"NULL AS {quoted(name)}" for name in more]
    return f"SELECT {', '.join(columns)} WHERE false"


def _entity_condition(view: ViewSource, kind: str, placeholder: str) -> str:
    """Any column of the kind has the value; "" when the source has none. Lists hold several."""
    texts = {column.name for column in view.schema if str(column.type) in ("string", "large_string")}
    found = [
        f"{quoted(name)} = {placeholder}" if name in texts else f"list_contains({quoted(name)}, {placeholder})"
        for name in view.entities.get(kind, ())
    ]
    return f"({' OR '.join(found)})" if found else ""


def _text_condition(text: str, bound: Bound, *, ignore_case: bool) -> str:
    """To ignore case, a regular expression takes less than half the time of `lower(raw)` or ILIKE."""
    if ignore_case:
        pattern = _SPECIAL.sub(lambda found: "\\" + found[0], text)
        return f"regexp_matches(raw, {bound.add('(?i)' + pattern)})"
    return f"contains(raw, {bound.add(text)})"


def _outside(filters: Filters, bound: Bound) -> list[str]:
    """Conditions on the mapped columns."""
    found = []
    for column, values in (
        ("account", filters.accounts),
        ("region", filters.regions),
        ("outcome", filters.outcomes),
    ):
        if values:
            found.append(f"{column} IN ({', '.join(bound.add(value) for value in values)})")
    for sign, moment in ((">=", filters.since), ("<", filters.until)):
        if moment is not None:
            found.append(f"event_time {sign} CAST({bound.add(moment.isoformat())} AS TIMESTAMPTZ)")
    return found


def _after(cursor: Cursor, bound: Bound) -> str:
    address = f"(_segment, _row) > ({bound.add(cursor.segment)}, {bound.add(cursor.row)})"
    if cursor.time is None:
        return f"event_time IS NULL AND {address}"
    time = f"CAST({bound.add(cursor.time)} AS TIMESTAMPTZ)"
    return f"(event_time < {time} OR event_time IS NULL OR (event_time = {time} AND {address}))"


def _where(conditions: Iterable[str]) -> str:
    listed = list(conditions)
    return f" WHERE {' AND '.join(listed)}" if listed else ""
