"""The views of one query, as the statements that make them: no more sources, no more columns than it needs. Pure.

A source without segments to read is left out of `events` and of the views across sources; where it is named itself
its view is empty, with the right columns. `needed` names columns (mentions.py), None means all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from strongroom.query import normalised, views
from strongroom.query.normalised import NormalisedView
from strongroom.query.views import Files, ViewSource


def statements(
    named: Collection[str],
    needed: Collection[str] | None,
    files: Mapping[str, Sequence[Files]],
    root: Path,
    sources: Sequence[ViewSource],
    across: Sequence[NormalisedView],
    *,
    marked: bool = False,
) -> list[str]:
    """CREATE statements for the views `named`, in order. `files`: of each source that has any, its segments' under
    `root`. `marked`: the views say what is sealed."""
    asked = [view for view in across if view.name in named]
    made = []
    for source in sources:
        groups = files.get(source.name, ())
        if source.name in named or (groups and _read_across(source, named, asked)):
            columns = _columns(source, named, needed, asked)
            made.append(views.source_view(source, groups, root, columns, marked=marked))
    present = [source for source in sources if source.name in files]
    if views.EVENTS in named:
        made.append(views.events_view(present, needed, marked=marked))
    names = {source.name for source in present}
    return made + [normalised.normalised_view(view, names, needed, marked=marked) for view in asked]


def _read_across(source: ViewSource, named: Collection[str], asked: Sequence[NormalisedView]) -> bool:
    in_events = views.EVENTS in named and bool(source.events)
    return in_events or any(part.source == source.name for view in asked for part in view.parts)


def _columns(
    source: ViewSource, named: Collection[str], needed: Collection[str] | None, asked: Sequence[NormalisedView]
) -> set[str] | None:
    """The columns that a source's view must have for all the views that read it."""
    if needed is None:
        return None
    columns = set(needed) if source.name in named else set()
    if views.EVENTS in named:
        columns |= views.read_by_events(source, needed) or set()
    for view in asked:
        columns |= normalised.read_by(view, source.name, needed) or set()
    return columns
