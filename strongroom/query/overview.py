"""What can be asked: every view with its columns, and how many records, of what time, the segments behind it hold.

All of it is known from the catalog; no segment is opened.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from strongroom.query import normalised, views
from strongroom.query.holdings.catalog import Catalog, instant
from strongroom.query.holdings.segments import SegmentTable
from strongroom.query.normalised import NormalisedView
from strongroom.query.views import ViewSource


def overview(catalog: Catalog, sources: Sequence[ViewSource], across: Sequence[NormalisedView]) -> dict[str, Any]:
    """Every view, and the snapshot that the ranges and counts are of, as members of a JSON answer."""
    snapshot = catalog.snapshot()
    known = catalog.table
    segments = known.upto(snapshot.size)

    def of(names: Collection[str]) -> int:
        return segments & known.of_sources(names)

    tables = [_table(view.name, view.description, views.columns_of(view), known, of([view.name])) for view in sources]
    in_events = {view.name for view in sources if view.events}
    tables += [
        _table(
            views.EVENTS,
            f"what happened, across {', '.join(sorted(in_events)) or 'no sources yet'}, in common columns",
            views.event_columns(),
            known,
            of(in_events),
        ),
        *(
            _table(
                view.name,
                view.description,
                normalised.columns_of(view),
                known,
                of(normalised.sources_read([view.name], across)),
            )
            for view in across
        ),
        {
            "name": views.ENTRIES,
            "description": "the log: one row an entry",
            "columns": _columns(views.catalog_columns(views.ENTRIES)),
            "records": snapshot.size,
        },
        {
            "name": views.SEGMENTS,
            "description": "the sealed segments: one row each",
            "columns": _columns(views.catalog_columns(views.SEGMENTS)),
            "records": segments.bit_count(),
        },
    ]
    return {
        "snapshot": {"size": snapshot.size, "root": snapshot.root},
        "tables": tables,
        "problems": list(catalog.problems),
    }


def _columns(columns: Sequence[views.Column]) -> list[dict[str, str]]:
    return [{"name": column.name, "type": column.type, "description": column.description} for column in columns]


def _table(name: str, text: str, columns: Sequence[views.Column], known: SegmentTable, chosen: int) -> dict[str, Any]:
    records, size = known.totals(chosen)
    earliest, latest = known.span(chosen)
    return {
        "name": name,
        "description": text,
        "columns": _columns(columns),
        "records": records,
        "segments": chosen.bit_count(),
        "bytes": size,
        "min_time": instant(earliest),
        "max_time": instant(latest),
    }
