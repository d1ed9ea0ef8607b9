"""What a statement's WHERE says about the rows of each view it names, read from its syntax tree.

Every place where a view is named is looked at, and in doubt that place wants everything. Of a view in the FROM of a
SELECT, rows that the WHERE does not let pass can't matter to that SELECT, whatever else it does with the others: so
the WHERE's conjuncts on that view's columns are its condition. In a join they hold for a side whose missing rows the
join does not make up for (both sides of an inner join, the left of a left join), when the column is qualified by that
side's name; and so does the ON of inner joins. A view named in several places has the conditions of all, joined by OR.

Understood are, on a plain column: `=`, `IN`, comparisons and BETWEEN, `list_contains` and an element of a list; LIKE,
ILIKE, `contains`, `starts_with`, `ends_with` and regular expressions (patterns.py), also on `lower(column)`; joined by
AND and OR. Values are constants and bound parameters, texts also put together of such; times also a constant distance
from now. All else is unknown, which is sound. In DuckDB's WHERE a name means a column before it means an alias of the
SELECT list, and names match without regard to case; a name that is no column of the view is for the reader to ignore.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import duckdb
import msgspec

from strongroom.query.holdings.conditions import Between, Condition, OneOf, every, lookups, some
from strongroom.query.process import patterns

MAX_DEPTH, MAX_VALUES, MAX_LOOKUPS = 16, 1_000, 100
CLOCK_MICROSECONDS = 3_600_000_000
"""How far apart reading "now" here and in the statement itself may be: a reader of files may have to wait for them."""

_LIST_MEMBER = frozenset({"list_contains", "list_has", "array_contains", "array_has"})
_LIKE = {"~~": False, "like_escape": False, "~~*": True, "ilike_escape": True}  # -> whether it ignores case
_PART = frozenset({"contains", "starts_with", "^@", "prefix", "ends_with", "suffix"})
_EXPRESSION = frozenset({"regexp_matches", "regexp_full_match"})
_LOWER = frozenset({"lower", "lcase"})
_TEXT_MADE_BY = frozenset({"||", "concat", "regexp_escape", *_LOWER})
_NOW = frozenset({"now", "current_timestamp", "get_current_timestamp", "transaction_timestamp"})
_NEAR_NOW = _NOW | {"-", "+", "trunc", "to_seconds", "to_minutes", "to_hours", "to_days", "to_weeks", "to_months"}
_FLIPPED = {
    "COMPARE_LESSTHAN": "COMPARE_GREATERTHAN",
    "COMPARE_LESSTHANOREQUALTO": "COMPARE_GREATERTHANOREQUALTO",
    "COMPARE_GREATERTHAN": "COMPARE_LESSTHAN",
    "COMPARE_GREATERTHANOREQUALTO": "COMPARE_LESSTHANOREQUALTO",
}


def conditions(tree: Any, views: Collection[str], constants: Constants) -> dict[str, Condition]:
    """The condition of each of `views` that the statement `tree` (a node of json_serialize_sql) names and narrows."""
    named = {view.lower(): view for view in views}
    found: dict[str, list[Condition | None]] = {}
    handled: dict[int, Condition | None] = {}
    for node in _nodes(tree):
        kind = node.get("type")
        if kind == "SELECT_NODE" and "from_table" in node:
            handled |= _of_select(node, constants)
        elif kind == "BASE_TABLE" and len(node["qualified_name"]["path"]) == 1:
            name = node["qualified_name"]["path"][0].lower()
            if name in named:
                found.setdefault(named[name], []).append(handled.get(id(node)))
    return {view: condition for view, parts in found.items() if (condition := some(parts)) is not None}


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every node, a SELECT before the tables in it."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def _of_select(select: dict[str, Any], constants: Constants) -> dict[int, Condition | None]:
    """The conditions of the tables directly in the FROM of one SELECT, by the identity of their nodes."""
    if select.get("sample") is not None:
        return {}
    tables: list[dict[str, Any]] = []
    predicates: list[Any] = [select["where_clause"]]
    _filtered(select["from_table"], True, tables, predicates)
    names = [_name(table) for table in tables]
    alone = select["from_table"].get("type") == "BASE_TABLE"
    result = {}
    for table, name in zip(tables, names, strict=True):
        if names.count(name) == 1 and not table["column_name_alias"] and table["sample"] is None:
            reader = _Reader(name, alone, constants)
            result[id(table)] = every(reader.read(predicate, 0) for predicate in predicates if predicate is not None)
    return result


def _filtered(node: dict[str, Any], inner: bool, tables: list[dict[str, Any]], predicates: list[Any]) -> None:
    """Collect the tables whose rows the WHERE filters, and the ON of joins that filter as it does (inner ones)."""
    kind = node.get("type")
    if kind == "BASE_TABLE":
        tables.append(node)
    elif kind == "JOIN" and node["ref_type"] in ("REGULAR", "CROSS") and not node.get("ranking_expression"):
        plain = node["join_type"] == "INNER"
        if plain and inner:
            predicates.append(node["condition"])
        if plain or node["join_type"] in ("LEFT", "SEMI", "ANTI"):
            _filtered(node["left"], inner and plain, tables, predicates)
        if plain or node["join_type"] == "RIGHT":
            _filtered(node["right"], inner and plain, tables, predicates)


def _name(table: dict[str, Any]) -> str:
    alias: str = table["alias"] or table["qualified_name"]["path"][0]
    return alias.lower()


class _Reader:
    """Reads predicates for one table: called `name`, and, when it stands alone, by its columns' bare names."""

    def __init__(self, name: str, alone: bool, constants: Constants) -> None:
        self._name, self._alone, self._constants = name, alone, constants
        self._lookups = 0

    def read(self, node: Any, depth: int) -> Condition | None:
        """What a predicate says, None when nothing that we understand."""
        kind = node["type"]
        if depth > MAX_DEPTH:
            return None
        if kind in ("CONJUNCTION_AND", "CONJUNCTION_OR"):
            parts = [self.read(child, depth + 1) for child in node["children"]]
            return every(parts) if kind == "CONJUNCTION_AND" else some(parts)
        if kind == "COMPARE_EQUAL":
            return self._equal(node["left"], node["right"]) or self._equal(node["right"], node["left"])
        if kind == "COMPARE_IN":
            subject, *values = node["children"]
            return self._one_of(subject, values)
        if kind == "COMPARE_BETWEEN":
            return self._between(node["input"], node["lower"], node["upper"])
        if kind in _FLIPPED:
            compared = self._compare(node["left"], kind, node["right"])
            return compared or self._compare(node["right"], _FLIPPED[kind], node["left"])
        if kind == "FUNCTION":
            return self._function(node)
        return None

    def _equal(self, subject: Any, value: Any) -> Condition | None:
        found = self._one_of(subject, [value])
        if found is None and self._column(subject) is not None:
            return self._between(subject, value, value)
        return found

    def _one_of(self, subject: Any, values: Sequence[Any]) -> Condition | None:
        element = subject["type"] == "ARRAY_EXTRACT"
        column = self._column(subject["children"][0] if element else subject)
        texts = [self._constants.text(value) for value in values[: MAX_VALUES + 1]]
        if column is None or None in texts or len(texts) > MAX_VALUES:
            return None
        return OneOf(column, tuple(text for text in texts if text is not None), element)

    def _between(self, subject: Any, low: Any, high: Any) -> Condition | None:
        column = self._column(subject)
        if column is None:
            return None
        lowest, highest = self._constants.moment(low, -1), self._constants.moment(high, 1)
        return None if lowest is None and highest is None else Between(column, lowest, highest)

    def _compare(self, subject: Any, kind: str, bound: Any) -> Condition | None:
        column = self._column(subject)
        if column is None:
            return None
        lower = kind.startswith("COMPARE_GREATERTHAN")
        moment = self._constants.moment(bound, -1 if lower else 1)
        if moment is None:
            return None
        return Between(column, low=moment) if lower else Between(column, high=moment)

    def _function(self, node: Any) -> Condition | None:
        name, arguments = _called(node)
        if len(arguments) < 2:
            return None
        subject, *rest = arguments
        texts = [self._constants.text(argument) for argument in rest]
        given = [text for text in texts if text is not None]
        if len(given) < len(texts):
            return None
        if name in _LIST_MEMBER and len(given) == 1:
            column = self._column(subject)
            return None if column is None else OneOf(column, (given[0],), element=True)
        function, inner = _called(subject)
        ignoring_case = function in _LOWER and len(inner) == 1
        column = self._column(inner[0] if ignoring_case else subject)
        found = None if column is None else _matching(name, column, given, ignoring_case)
        self._lookups += lookups(found)
        return found if self._lookups <= MAX_LOOKUPS else None

    def _column(self, node: Any) -> str | None:
        """The name of a column of this table, nested ones with dots; None for anything else."""
        if node["type"] != "COLUMN_REF":
            return None
        names = [part.lower() for part in node["column_names"]]
        if len(names) > 1 and names[0] == self._name:
            return ".".join(names[1:])
        return ".".join(names) if self._alone else None


def _matching(name: str, column: str, given: list[str], ignoring_case: bool) -> Condition | None:
    """What a function that looks into a text says, `given` its other arguments."""
    if name in _LIKE:
        escape = given[1] if len(given) == 2 else ""
        if len(given) > 2 or escape.isalnum() or len(escape) > 1 or not escape.isascii():
            return None  # with a letter that escapes, ignoring case means more than is worth knowing
        return patterns.like(column, given[0], escape, ignoring_case=ignoring_case or _LIKE[name])
    if name in _PART and len(given) == 1:
        return patterns.contained(column, given, ignoring_case=ignoring_case)
    return patterns.expression(column, *given) if name in _EXPRESSION and len(given) <= 2 else None


def _called(node: Any) -> tuple[str, list[Any]]:
    """The function that an expression calls, with its arguments; "" when it calls none."""
    if node["type"] != "FUNCTION":
        return "", []
    return node["qualified_name"]["path"][-1].lower(), [item["expression"] for item in node["arguments"]]


class Constants:
    """The values of constants and bound parameters, as the database would take them. `connection` only computes."""

    def __init__(self, parameters: Sequence[Any] | Mapping[str, Any] | None, connection: duckdb.DuckDBPyConnection):
        if isinstance(parameters, Mapping):
            self._bound = dict(parameters)
        else:
            self._bound = {str(number): value for number, value in enumerate(parameters or (), 1)}
        self._connection = connection

    def text(self, node: Any, depth: int = 0) -> str | None:
        """A constant text. Numbers are none: compared with a column of text they are compared as numbers."""
        if node["type"] == "VALUE_CONSTANT":
            literal = node["literal"]
            return literal["text"] if literal.get("kind") == "STRING" else None
        if node["type"] == "VALUE_PARAMETER":
            value = self._bound.get(node["identifier"])
            return value if isinstance(value, str) else None
        name, arguments = _called(node)
        if name not in _TEXT_MADE_BY or depth > MAX_DEPTH:
            return None
        parts = [self.text(argument, depth + 1) for argument in arguments]
        if None in parts:
            return None
        made = self._value(f'SELECT "{name}"({", ".join("?" * len(parts))})', parts)  # one of those named above
        return made if isinstance(made, str) else None

    def moment(self, node: Any, widen: int) -> int | None:
        """A constant time, microseconds since the epoch; one that depends on the clock is moved towards `widen`."""
        text = self.text(node)
        if text is not None:
            return self._epoch("epoch_us(TRY_CAST($1 AS TIMESTAMPTZ))", [text])
        if node["type"] == "OPERATOR_CAST" and self.text(node["child"]) is not None:
            kind = node["type_expr"].get("type_name", "").upper()
            if kind in ("TIMESTAMP", "TIMESTAMPTZ", "DATE", "TIMESTAMP WITH TIME ZONE"):
                expression = f"epoch_us(CAST(TRY_CAST($1 AS {kind}) AS TIMESTAMPTZ))"
                return self._epoch(expression, [self.text(node["child"])])
        if self._near_now(node, 0):
            tree = {"error": False, "statements": [{"node": _SELECT | {"select_list": [node]}, "named_param_map": []}]}
            sql = self._value("SELECT json_deserialize_sql(CAST($1 AS JSON))", [msgspec.json.encode(tree).decode()])
            if isinstance(sql, str):
                expression = sql.removeprefix("SELECT ")
                moment = self._epoch(f"epoch_us(CAST(({expression}) AS TIMESTAMPTZ))", [])
                return None if moment is None else moment + widen * CLOCK_MICROSECONDS
        return None

    def _near_now(self, node: Any, depth: int) -> bool:
        """Whether an expression is the present moment and constant distances from it."""
        kind = node["type"]
        if depth > MAX_DEPTH:
            return False
        if kind == "VALUE_CONSTANT":
            return True
        if kind == "COLUMN_REF":
            return [name.lower() for name in node["column_names"]] in [[name] for name in _NOW]
        if kind == "OPERATOR_CAST":
            return self._near_now(node["child"], depth + 1)
        if kind == "FUNCTION" and node["qualified_name"]["path"][-1].lower() in _NEAR_NOW:
            return all(self._near_now(item["expression"], depth + 1) for item in node["arguments"])
        return False

    def _epoch(self, expression: str, values: list[Any]) -> int | None:
        value = self._value(f"SELECT {expression}", values)  # ours, or made of functions listed above
        return value if isinstance(value, int) and abs(value) < 1 << 62 else None

    def _value(self, sql: str, values: list[Any]) -> Any:
        try:
            ((value,),) = self._connection.execute(sql, values).fetchall()
        except duckdb.Error:
            return None
        return value


_SELECT: dict[str, Any] = {
    "type": "SELECT_NODE",
    "modifiers": [],
    "cte_map": {"map": []},
    "from_table": {"type": "EMPTY", "alias": "", "sample": None},
    "where_clause": None,
    "group_expressions": [],
    "group_sets": [],
    "aggregate_handling": "STANDARD_HANDLING",
    "having": None,
    "sample": None,
    "qualify": None,
}
