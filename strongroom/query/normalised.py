"""Views across sources in a schema of somebody else's: nested columns, each source giving its part of the rows. Pure.

Columns are named with dots, `actor.user.name`, and shown as nested values, so that a question written for that schema
runs as it is. Every part has all columns with the same types; what a source does not say is NULL. The rows keep their
addresses: `_segment`, `_row`, and the record itself in `raw`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strongroom.query.views import MARK, Column, quoted

_NAMES = re.compile(r"[a-z_][a-z0-9_]*")
_ADDRESS = {"source": "VARCHAR", "raw": "VARCHAR", "_segment": "VARCHAR", "_row": "BIGINT"}


@dataclass(frozen=True, slots=True)
class NormalisedPart:
    """The rows of one source that belong to a view: `where` and `values` (column with dots -> SQL) over its columns."""

    source: str
    where: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NormalisedView:
    """A view over several sources: its columns (with dots) and their SQL types, and what gives its rows."""

    name: str
    description: str
    columns: Mapping[str, str]
    parts: tuple[NormalisedPart, ...]


def sources_read(named: Collection[str], views: Sequence[NormalisedView]) -> frozenset[str]:
    """The sources that the named views among `views` read."""
    return frozenset(part.source for view in views if view.name in named for part in view.parts)


def columns_of(view: NormalisedView) -> list[Column]:
    """The columns of a view, in order."""
    typed = _tree(view.columns)
    return [Column(name, _type(kind)) for name, kind in {**typed, **_ADDRESS}.items()]


# Names and expressions below are declared by us, quoted; nothing of a question is pasted into SQL.
# ruff: noqa: S608


def normalised_view(
    view: NormalisedView, sources: Collection[str], needed: Collection[str] | None = None, *, marked: bool = False
) -> str:
    """CREATE VIEW over the views of `sources`, with the columns `needed` (None: all), without other sources' parts.

    A nested column is there whole when its outermost name is needed. `marked`: with `_sealed`.
    """
    columns = _wanted(view, needed)
    every = _ADDRESS | ({MARK: "BOOLEAN"} if marked else {})
    address = {name: kind for name, kind in every.items() if needed is None or name in needed}
    address = address if columns or address else {"_row": _ADDRESS["_row"]}
    parts = [part for part in view.parts if part.source in sources] or [NormalisedPart("", "false", {})]
    selects = [_select(columns, address, part) for part in parts]
    return f"CREATE OR REPLACE TEMP VIEW {quoted(view.name)} AS {' UNION ALL '.join(selects)}"


def read_by(view: NormalisedView, source: str, needed: Collection[str] | None) -> set[str] | None:
    """The names that the parts of `source` mention for the columns `needed`, its columns' among them; None for all."""
    if needed is None:
        return None
    wanted = _wanted(view, needed)
    texts = [
        text
        for part in view.parts
        if part.source == source
        for text in (part.where, *(sql for name, sql in part.values.items() if name in wanted))
    ]
    return {*_NAMES.findall(" ".join(texts)), *({*_ADDRESS, MARK} & set(needed)), "_row"}


def _wanted(view: NormalisedView, needed: Collection[str] | None) -> dict[str, str]:
    return {n: kind for n, kind in view.columns.items() if needed is None or n.partition(".")[0] in needed}


def _select(columns: Mapping[str, str], address: Mapping[str, str], part: NormalisedPart) -> str:
    values = {name: f"CAST(({part.values.get(name, 'NULL')}) AS {kind})" for name, kind in columns.items()}
    selected = [f"{_value(value)} AS {quoted(name)}" for name, value in _tree(values).items()]
    if not part.source:
        selected += [f"CAST(NULL AS {kind}) AS {quoted(name)}" for name, kind in address.items()]
        return f"SELECT {', '.join(selected)} WHERE false"
    selected += [f"'{part.source}' AS source" if name == "source" else name for name in address]
    return f"SELECT {', '.join(selected)} FROM {quoted(part.source)} WHERE {part.where}"


def _tree(leaves: Mapping[str, str]) -> dict[str, Any]:
    """`{"a.b": x, "a.c": y}` as `{"a": {"b": x, "c": y}}`, in the order of first appearance."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        node = tree
        *outer, last = name.split(".")
        for step in outer:
            node = node.setdefault(step, {})
        node[last] = leaf
    return tree


def _type(node: Any) -> str:
    if isinstance(node, str):
        return node
    return f"STRUCT({', '.join(f'{quoted(name)} {_type(inner)}' for name, inner in node.items())})"


def _value(node: Any) -> str:
    if isinstance(node, str):
        return node
    return f"struct_pack({', '.join(f'{quoted(name)} := {_value(inner)}' for name, inner in node.items())})"
