"""What can be asked: the sources' views and the OCSF views, as the query engine takes them.

Sources are declared in ingest, views are made in query, and neither knows the other.
"""

from __future__ import annotations

from collections.abc import Iterable

from strongroom.ingest.ocsf import CLASSES
from strongroom.ingest.sources import Source
from strongroom.ingest.sources.entities import entities
from strongroom.query.normalised import NormalisedPart, NormalisedView
from strongroom.query.views import ViewSource


def source_views(sources: Iterable[Source]) -> list[ViewSource]:
    """One view a source."""
    return [ViewSource(item.name, item.schema, item.events, item.description, entities(item)) for item in sources]


def ocsf_views() -> list[NormalisedView]:
    """One view an OCSF class."""
    return [
        NormalisedView(
            item.name,
            item.description,
            item.columns,
            tuple(NormalisedPart(part.source.name, part.where, item.values(part)) for part in item.parts),
        )
        for item in CLASSES
    ]
