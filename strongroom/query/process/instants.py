"""Times in UTC, reckoned without the calendar: fast forms of DuckDB's functions over TIMESTAMPTZ. Pure.

DuckDB hands every time that has a zone to ICU's calendar, row by row. Here the zone is UTC and can't be changed, so
plain arithmetic says the same, five to fifty times faster: it is what DuckDB does with a TIMESTAMP, which a TIMESTAMPTZ
becomes by `make_timestamp(epoch_us(…))` at almost no cost. Nobody should have to write that. So the functions that a
statement calls are made anew for it, under their own names, as temporary macros: DuckDB finds these first.

Nothing but the time taken may differ, which is why

1. the fast form is an overload for TIMESTAMPTZ alone. Types that DuckDB would cast to it have overloads of their own,
   anything else comes to the last one, and all of these call DuckDB's own function;
2. where plain arithmetic has no answer (infinite times), has another one (years before the first, names of zones), or
   is not known to have the same, DuckDB's own function is asked. (Beyond it, near the limits of what a TIMESTAMPTZ can
   hold, 290,000 years away, arithmetic answers where the calendar refuses to);
3. a function is left alone in a statement that calls it otherwise than plainly: by its bare name, with as many
   arguments as here, not too often, and without anything in them that is better not computed several times, or whose
   errors have a place;
4. when a statement can't be bound with the macros, they are dropped, and what DuckDB then says holds: a macro does not
   know a name given in the same SELECT, and its errors don't say where they are. (Two errors that come later do differ:
   of an argument that is a literal and no time, without its place, and of a bucket of no length, in other words.)

To make a macro takes as long as a small question. So it is done for what is called, while the server looks for the
files, and not for every database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NESTED = 2
"""Calls in one another that are made fast: each writes out its arguments up to four times."""
CALLS = 20
"""Calls in one statement that are made fast: each costs half a millisecond before the first row is read."""

_INSTANT = "TIMESTAMPTZ"
_NEAR = ("TIMESTAMP", "DATE", "TIMESTAMP_NS", "TIMESTAMPTZ_NS")
"""Types that DuckDB would rather cast to TIMESTAMPTZ than leave to an overload without types."""
_ONCE = frozenset({"min", "max", "any_value", "first", "last", "arg_min", "arg_max", "min_by", "max_by"})
"""Aggregates of times: a macro can't have one as its argument."""
_FIELDS = """
microsecond millisecond second minute hour day dayofmonth dayofweek weekday isodow dayofyear week weekofyear month
quarter isoyear yearweek
"""
_PASSED = "microsecond millisecond second minute hour day week month year"
_TRUNCATED = f"{_PASSED} quarter"
_PARTS = "microsecond millisecond second minute hour day dow isodow doy week month quarter isoyear yearweek"


@dataclass(frozen=True, slots=True)
class _Function:
    """Parameters, by DuckDB's names, with their types; and the fast form.

    In `fast`, {own} is DuckDB's function, {asked} its call with all parameters, and {name} the parameter of that name,
    without its zone if it is an instant. `far`: another type of instant that DuckDB's function takes, so that a bare
    NULL is as ambiguous as it was. `also`: other numbers of arguments that it takes.
    """

    parameters: dict[str, str]
    fast: str
    far: str = ""
    also: tuple[int, ...] = ()


def _part_in(words: str) -> str:
    """A condition: the part of a time that is asked for is one of these, in the singular or the plural."""
    listed = ", ".join(f"'{word}'" for word in words.split())
    return f"rtrim(lower({{part}}), 's') IN ({listed})"


def _if_known(fast: str) -> str:
    return f"coalesce({fast}, {{asked}})"


_TS = {"ts": _INSTANT}
_FIELD = "{own}({ts})"
_YEAR = "greatest({call}, 1 - {call})"  # the year 0 is 1 BC, which the calendar calls 1
_TRUNC = _Function(
    {"part": "VARCHAR", "timestamp": _INSTANT},
    _if_known(
        f"CASE WHEN {_part_in(_TRUNCATED)} THEN make_timestamptz(epoch_us({{own}}({{part}}, {{timestamp}}))) END"
    ),
    far="INTERVAL",
)
_PART = _Function(
    {"part": "VARCHAR", "ts": _INSTANT},
    _if_known(
        f"CASE WHEN {_part_in(_PARTS)} THEN {{own}}({{part}}, {{ts}})"
        f" WHEN {_part_in('year')} THEN {_YEAR.format(call='{own}({part}, {ts})')} END"
    ),
    far="INTERVAL",
)
_DIFF = _Function(
    {"part": "VARCHAR", "startdate": _INSTANT, "enddate": _INSTANT},
    _if_known(f"CASE WHEN {_part_in(_PASSED)} THEN {{own}}({{part}}, {{startdate}}, {{enddate}}) END"),
    far="TIME",
)
FUNCTIONS = {
    **dict.fromkeys(_FIELDS.split(), _Function(_TS, _FIELD, far="INTERVAL")),
    "year": _Function(_TS, _YEAR.format(call=_FIELD), far="INTERVAL"),
    **dict.fromkeys(("dayname", "monthname", "last_day"), _Function(_TS, _FIELD)),
    **dict.fromkeys(("date_trunc", "datetrunc"), _TRUNC),
    **dict.fromkeys(("date_part", "datepart"), _PART),
    **dict.fromkeys(("date_diff", "datediff"), _DIFF),
    "time_bucket": _Function(
        {"bucket_width": "INTERVAL", "timestamp": _INSTANT},
        _if_known("make_timestamptz(epoch_us({own}({bucket_width}, {timestamp})))"),
        far="TIME",
        also=(3,),
    ),
    "timezone": _Function(
        {"timezone": "VARCHAR", "timestamp": _INSTANT},
        _if_known("CASE WHEN {timezone} = 'UTC' THEN {timestamp} END"),
        far="TIME WITH TIME ZONE",
        also=(1,),
    ),
}


def called(tree: Any) -> list[str]:
    """The functions to make, for a statement's syntax tree (a node of json_serialize_sql)."""
    calls = _Calls()
    calls.depth(tree)
    return sorted(calls.plain - calls.other) if calls.count <= CALLS else []


def making(name: str) -> str:
    """The statement that makes a macro of a function."""
    function = FUNCTIONS[name]
    overloads = [_overload(name, function.parameters, function.fast)]
    others = [*_NEAR, function.far] if function.far else _NEAR
    overloads += [_overload(name, _with(function.parameters, kind), "{asked}") for kind in others]
    overloads.append(_overload(name, dict.fromkeys(function.parameters, ""), "{asked}"))
    overloads += [_overload(name, {f"p{i}": "" for i in range(count)}, "{asked}") for count in function.also]
    return f"CREATE TEMP MACRO {name}{', '.join(overloads)}"


def dropping(name: str) -> str:
    """The statement that leaves the function as it was."""
    return f"DROP MACRO temp.main.{name}"


class _Calls:
    """Which functions of ours are called `plain`, and which otherwise too."""

    def __init__(self) -> None:
        self.plain: set[str] = set()
        self.other: set[str] = set()
        self.count = 0
        self._columns = 0

    def depth(self, node: Any) -> int:
        """How many calls are in one another at most, in or under a node of the tree; as many as may be, where it has
        what should be computed once."""
        depth, columns = 0, self._columns
        if isinstance(node, list | dict):
            for child in node if isinstance(node, list) else node.values():
                depth = max(depth, self.depth(child))
        if not isinstance(node, dict):
            return depth
        kind = node.get("class")
        if kind in ("FUNCTION", "WINDOW"):
            path = node["qualified_name"]["path"] if "qualified_name" in node else [node["function_name"]]
            name = path[-1].lower()
            if name in _ONCE:
                return NESTED
            if name in FUNCTIONS:
                depth += 1
                self.count += 1
                plain = kind == "FUNCTION" and depth <= NESTED and _is_plain(node, FUNCTIONS[name])
                (self.plain if plain else self.other).add(name)
        self._columns += kind == "COLUMN_REF"
        may_fail = kind == "CAST" and not node["try_cast"] and self._columns > columns  # its error must say where
        return NESTED if kind in ("SUBQUERY", "WINDOW") or may_fail else depth


def _is_plain(call: dict[str, Any], function: _Function) -> bool:
    arguments = call["arguments"]
    bare = len(call["qualified_name"]["path"]) == 1 and not any(argument["name"] for argument in arguments)
    return bare and not call["distinct"] and len(arguments) == len(function.parameters)


def _with(parameters: dict[str, str], near: str) -> dict[str, str]:
    """The parameters with instants of another type."""
    return {name: near if kind == _INSTANT else kind for name, kind in parameters.items()}


def _overload(name: str, parameters: dict[str, str], body: str) -> str:
    """One overload, as it stands in CREATE MACRO."""
    own = f"system.main.{name}"
    values = {parameter: f'"{parameter}"' for parameter in parameters}
    asked = f"{own}({', '.join(values.values())})"
    for parameter, kind in parameters.items():
        if kind == _INSTANT:
            values[parameter] = f'make_timestamp(epoch_us("{parameter}"))'
    declared = ", ".join(f'"{parameter}" {kind}' for parameter, kind in parameters.items())
    return f"({declared}) AS {body.format(own=own, asked=asked, **values)}"
