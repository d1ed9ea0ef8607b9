"""Which column names a statement mentions anywhere: views need no others. Pure.

A view over a source has dozens of columns, and each costs time when a statement is bound to it, used or not. Names are
collected from the whole syntax tree without asking where they belong, so leaving out the columns nobody mentions can't
change what a name means. Where columns are meant without being named (a star, a whole row, a position, a natural
join, a renamed column list, PIVOT, DESCRIBE) all are needed.
"""

from __future__ import annotations

from typing import Any

_UNNAMED = frozenset({"STAR", "POSITIONAL_REFERENCE", "PIVOT", "SHOW_REF"})


def columns(tree: Any) -> frozenset[str] | None:
    """Every name, in lower case, that can be a column's; None when all columns are needed."""
    mentioned: set[str] = set()
    tables: set[str] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, dict):
            kind = node.get("type")
            if kind in _UNNAMED or node.get("column_name_alias") or node.get("ref_type") in ("NATURAL", "POSITIONAL"):
                return None
            mentioned.update(name.lower() for name in node.get("column_names") or () if isinstance(name, str))
            mentioned.update(name.lower() for name in node.get("using_columns") or () if isinstance(name, str))
            if kind == "BASE_TABLE":
                tables |= {node["alias"].lower(), node["qualified_name"]["path"][-1].lower()}
            waiting.extend(node.values())
    qualified = {name for name in mentioned & tables if name}
    return None if qualified and _whole_row(tree, qualified) else frozenset(mentioned)


def _whole_row(tree: Any, tables: set[str]) -> bool:
    """Whether a table's name stands where a column's does: it then means the row."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, dict):
            names = node.get("column_names") or ()
            if node.get("type") == "COLUMN_REF" and names and str(names[-1]).lower() in tables:
                return True
            waiting.extend(node.values())
    return False
