"""Which statements are questions: DuckDB's own parser, then an allow-list over what it parsed. Pure but for the parser.

Rules, in this order:

1. The text is valid, not longer than the limit, without NUL, and parses to exactly one statement that
   `json_serialize_sql` can express: a SELECT, VALUES, FROM, DESCRIBE or SUMMARIZE. `EXPLAIN [ANALYZE]` is taken off
   first, the rest is checked as a statement of its own, and what runs is EXPLAIN put before the checked rest.
2. Every node of the syntax tree is of a kind listed here. "It is a SELECT" is not enough: DuckDB 2.0 counts
   `WITH x AS (COPY … TO 'f') SELECT` as SELECT and writes the file; INSERT, UPDATE and DELETE hide in a WITH likewise.
3. Every table is a view of ours or a WITH name *in scope at that place*. A table name is otherwise a file path to
   DuckDB ('/etc/passwd'), and a WITH name used outside its scope would be one again.
4. Every function, table function included, is listed in functions.py, whatever it is qualified by: nobody can define
   functions here but we (instants.py), so a listed name is the function that was reviewed.

The parser runs in the worker, never in the server: hostile text may hang or crash it. The guard is the first of three
walls; DuckDB's locked settings and the operating system (sandbox.py) stand behind it and assume nothing about it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import duckdb
import msgspec

from strongroom.query.errors import Position, QueryError, QueryInvalid, QueryRefused
from strongroom.query.process.functions import FUNCTIONS, TABLE_FUNCTIONS

_QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_TABLE_REFERENCES = frozenset(
    {"BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "PIVOT", "SHOW_REF"}
)
_MODIFIERS = frozenset({"ORDER_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER"})
_ORDERS = frozenset({"ORDER_DEFAULT", "ASCENDING", "DESCENDING"})
_NODES = _QUERY_NODES | _TABLE_REFERENCES | _MODIFIERS | _ORDERS
_EXPRESSIONS = frozenset(
    {
        "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT",
        "FUNCTION", "LAMBDA", "LAMBDA_REF", "OPERATOR", "PARAMETER", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY",
        "TYPE", "WINDOW",
    }
)  # fmt: skip
_NOT_QUESTIONS = {
    "COPY_QUERY_NODE": "COPY",
    "INSERT_QUERY_NODE": "INSERT",
    "UPDATE_QUERY_NODE": "UPDATE",
    "DELETE_QUERY_NODE": "DELETE",
    "MERGE_QUERY_NODE": "MERGE",
}

# White space and comments, possessive: nothing here can be made to backtrack.
_SPACE = r"(?:\s|--[^\n]*+(?:\n|$)|/\*(?:[^*]|\*(?!/))*+\*/)"
_EXPLAIN = re.compile(rf"{_SPACE}*+EXPLAIN{_SPACE}++(?P<analyze>ANALYZE{_SPACE}++)?", re.IGNORECASE)
_SHOW_TABLES = re.compile(rf"{_SPACE}*+SHOW{_SPACE}++(?:ALL{_SPACE}++)?TABLES{_SPACE}*+;?{_SPACE}*+", re.IGNORECASE)
_FIRST_WORD = re.compile(rf"{_SPACE}*+(\w+)")


@dataclass(frozen=True, slots=True)
class Checked:
    """A statement that passed: the text to run, the views it names, and its syntax tree (None where there is none).

    `explains`: its answer is a plan, of what the tree would do.
    """

    sql: str
    views: frozenset[str]
    tree: Any = None
    explains: bool = False

    @property
    def ordered(self) -> bool:
        """Whether its rows come in an order that it states."""
        modifiers = self.tree["modifiers"] if self.tree else ()
        return any(modifier["type"] == "ORDER_MODIFIER" for modifier in modifiers)


def check(sql: str, views: Collection[str], connection: duckdb.DuckDBPyConnection, *, max_bytes: int) -> Checked:
    """Let `sql` pass, or raise QueryRefused or QueryInvalid with the position and a suggestion.

    `connection` lends its parser; nothing of the statement is bound or run on it.
    """
    if len(sql.encode()) > max_bytes:
        raise QueryRefused(f"the statement is longer than {max_bytes} bytes", hint="pass long lists as parameters")
    if "\0" in sql:  # where one reader stops and another goes on
        raise QueryRefused("the statement has a NUL character")
    if _SHOW_TABLES.fullmatch(sql):
        listed = ", ".join(f"('{name}')" for name in sorted(views))
        return Checked(f"SELECT name FROM (VALUES {listed}) AS tables(name) ORDER BY name", frozenset())  # noqa: S608
    prefix, rest, shift = "", sql, 0
    if explain := _EXPLAIN.match(sql):
        prefix, rest = "EXPLAIN ANALYZE " if explain["analyze"] else "EXPLAIN ", sql[explain.end() :]
        shift = len(sql[: explain.end()].encode())
    walk = _Walk(sql, shift, {name.lower(): name for name in views})
    tree = _statement(rest, sql, shift, connection)
    try:
        walk.visit(tree, frozenset())
    except RecursionError:
        raise QueryRefused("the statement is nested too deeply", hint="use IN lists instead of chains") from None
    return Checked(prefix + rest, frozenset(walk.named), tree, bool(prefix))


def _statement(text: str, sql: str, shift: int, connection: duckdb.DuckDBPyConnection) -> Any:
    """The syntax tree of the one statement in `text`."""
    ((tree,),) = connection.execute("SELECT json_serialize_sql(?)", [text]).fetchall()
    parsed = msgspec.json.decode(tree)
    if parsed["error"]:
        if parsed["error_type"] != "parser":
            raise _not_a_question(text, parsed["error_message"])
        offset = parsed.get("position", "")
        position = Position.at_byte(sql, int(offset) + shift) if offset.isdigit() else None
        raise QueryInvalid(parsed["error_message"], position=position)
    statements = parsed["statements"]
    if len(statements) != 1:
        what = "no statement" if not statements else f"{len(statements)} statements"
        raise QueryRefused(f"one statement at a time, found {what}", hint="send each as a query of its own")
    return statements[0]["node"]


def _not_a_question(text: str, message: str) -> QueryError:
    first = _FIRST_WORD.match(text)
    word = first[1].upper() if first else ""
    if word == "PIVOT":
        hint = "write it as SELECT * FROM (PIVOT … ON … IN (…) USING …), with the values listed"
    else:
        hint = "ask with SELECT, WITH, VALUES, DESCRIBE, SUMMARIZE or EXPLAIN over the views"
    if message.startswith("Only SELECT"):
        message = f"{word or 'this'} is not a question: an archive is only ever read"
    return QueryRefused(message, hint=hint)


class _Walk:
    """One pass over a syntax tree, carrying the WITH names in scope; collects the views named."""

    def __init__(self, sql: str, shift: int, views: dict[str, str]) -> None:
        self.sql, self.shift, self.views = sql, shift, views
        self.named: set[str] = set()

    def visit(self, node: Any, scope: frozenset[str]) -> None:
        if isinstance(node, list):
            for item in node:
                self.visit(item, scope)
        elif isinstance(node, dict):
            self._check(node, scope)
            if "cte_map" in node:
                scope = self._common_tables(node["cte_map"]["map"], scope)
            kind = node.get("type")
            for name, child in node.items():
                if name == "cte_map":
                    continue
                if kind == "TABLE_FUNCTION" and name == "function":
                    self._check_function(child, TABLE_FUNCTIONS, "table function", node)
                    self.visit(child["arguments"], scope)
                elif kind == "RECURSIVE_CTE_NODE" and name == "right":
                    self.visit(child, scope | {node["cte_name"].lower()})  # only this side sees the name itself
                else:
                    self.visit(child, scope)

    def _common_tables(self, declared: list[dict[str, Any]], scope: frozenset[str]) -> frozenset[str]:
        """Each WITH sees those before it, not itself: its own name in there means the outer table."""
        for table in declared:
            self.visit(table["value"], scope)
            scope |= {table["key"].lower()}
        return scope

    def _check(self, node: dict[str, Any], scope: frozenset[str]) -> None:
        kind = node.get("type")
        if "class" in node:
            if node["class"] not in _EXPRESSIONS:
                raise self._refused(node, f"{node['class']} expressions are not available")
            if node["class"] in ("FUNCTION", "WINDOW"):
                self._check_function(node, FUNCTIONS, "function", node)
        elif isinstance(kind, str):
            if kind in _NOT_QUESTIONS:
                raise self._refused(node, f"{_NOT_QUESTIONS[kind]} is not a question: an archive is only ever read")
            if kind not in _NODES:
                raise self._refused(node, f"{kind} is not available")
            if kind == "BASE_TABLE":
                self._check_table(node, scope)
            elif kind == "SHOW_REF" and node.get("query") is None:
                raise self._refused(node, "only SHOW TABLES is available", hint="or DESCRIBE <view>")

    def _check_table(self, node: dict[str, Any], scope: frozenset[str]) -> None:
        path = node["qualified_name"]["path"]
        name = path[-1].lower() if path else ""
        if node.get("at_clause") is not None:
            raise self._refused(node, "AT is not available", hint="use as_of to ask an older snapshot")
        if len(path) == 1 and name in scope:
            return
        if len(path) == 1 and name in self.views:
            self.named.add(self.views[name])
            return
        shown = ".".join(path)
        near = get_close_matches(name, [*self.views, *scope], n=1)
        hint = f"did you mean {near[0]}?" if near else f"the views are {', '.join(sorted(self.views.values()))}"
        raise self._refused(node, f"there is no view {shown!r}", hint=hint)

    def _check_function(self, node: dict[str, Any], allowed: frozenset[str], what: str, place: dict[str, Any]) -> None:
        name = node["qualified_name"]["path"][-1].lower() if "qualified_name" in node else node["function_name"].lower()
        if node.get("export_state"):
            raise self._refused(place, "EXPORT_STATE is not available")
        if name not in allowed:
            near = get_close_matches(name, allowed, n=1, cutoff=0.8)
            hint = f"did you mean {near[0]}?" if near else ""
            raise self._refused(place, f"{what} {name!r} is not available", hint=hint)

    def _refused(self, node: dict[str, Any], message: str, *, hint: str = "") -> QueryRefused:
        offset = node.get("query_location", -1)
        position = Position.at_byte(self.sql, offset + self.shift) if isinstance(offset, int) else None
        return QueryRefused(message, hint=hint, position=position)
