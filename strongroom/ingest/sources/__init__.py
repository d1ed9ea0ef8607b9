"""Log sources: one module each; this is their registry.

source.py       what a source is                    times.py     event times
lines.py        text bodies                         lenient.py   reading odd records
jsonsplit.py    JSON bodies → exact records         fields.py    columns declared as paths
documents.py    one document and its records        outline.py   what a body looks like
repair.py       records around damage
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from strongroom.ingest.sources import audit, cloudtrail, guardduty, json, quarantine, securityhub, text, vpcflow
from strongroom.ingest.sources.source import Broken, Source, Split

__all__ = ["HEAD_BYTES", "SOURCES", "Broken", "Source", "Split", "recognise"]

HEAD_BYTES = 65_536
"""How much of a body recognition looks at."""

# The order is the order of recognition: special before general, `json` and `text` as last resorts.
_ALL: tuple[Source, ...] = (
    cloudtrail.SOURCE,
    vpcflow.SOURCE,
    guardduty.SOURCE,
    securityhub.SOURCE,
    audit.SOURCE,
    quarantine.SOURCE,
    json.SOURCE,
    text.SOURCE,
)

SOURCES: Mapping[str, Source] = MappingProxyType({source.name: source for source in _ALL})


def recognise(head: bytes) -> Source:
    """The source that a body beginning with `head` most likely belongs to."""
    head = head[:HEAD_BYTES]
    return next(source for source in _ALL if source.recognise(head))
