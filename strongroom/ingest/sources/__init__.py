"""Log sources: one module each; this is their registry.

source.py       what a source is                    times.py      event times
lines.py        text bodies                         lenient.py    reading odd records
jsonsplit.py    JSON bodies → exact records         fields.py     columns declared as paths
documents.py    one document and its records        outline.py    what a body looks like
repair.py       records around damage               declared.py   sources that need no code of their own
accesslog.py    lines of fields in quotes
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from strongroom.ingest.sources import (
    attachment,
    audit,
    cloudtrail,
    cloudtraildigest,
    config,
    cwlogs,
    eksaudit,
    elb,
    guardduty,
    json,
    networkfirewall,
    quarantine,
    route53,
    s3access,
    securityhub,
    sessionmanager,
    syslog,
    text,
    vpcflow,
    waf,
)
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
    cwlogs.SOURCE,
    config.SOURCE,
    cloudtraildigest.SOURCE,
    route53.SOURCE,
    waf.SOURCE,
    networkfirewall.SOURCE,
    eksaudit.SOURCE,
    sessionmanager.SOURCE,
    elb.SOURCE,
    s3access.SOURCE,
    syslog.SOURCE,
    attachment.SOURCE,
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
