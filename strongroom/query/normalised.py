"""Views across sources in a schema of somebody else's: nested columns, each source giving its part of the rows. Pure.

Columns are named with dots, `actor.user.name`, and shown as nested values, so that a question written for that schema
runs as it is. Every part has all columns with the same types; what a source does not say is NULL. The rows keep their
addresses: `_segment`, `_row`, and the record itself in `raw`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strongroom.query.views import Column, quoted

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


def normalised_view(view: NormalisedView, sources: Collection[str]) -> str:
    """CREATE VIEW over the views of `sources`; parts of other sources are left out."""
    empty = NormalisedPart("", "false", {})
    selects = [_select(view, part) for part in view.parts if part.source in sources] or [_select(view, empty)]
    return f"CREATE VIEW {quoted(view.name)} AS {' UNION ALL '.join(selects)}"


def _select(view: NormalisedView, part: NormalisedPart) -> str:
    values = {name: f"CAST(({part.values.get(name, 'NULL')}) AS {kind})" for name, kind in view.columns.items()}
    columns = [f"{_value(value)} AS {quoted(name)}" for name, value in _tree(values).items()]
    if not part.source:
        nothing = [f"CAST(NULL AS {kind}) AS {quoted(name)}" for name, kind in _ADDRESS.items()]
        return f"SELECT {', '.join([*columns, *nothing])} WHERE false"
    address = [f"'{part.source}' AS source", "raw", "_segment", "_row"]
    return f"SELECT {', '.join([*columns, *address])} FROM {quoted(part.source)} WHERE {part.where}"


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
