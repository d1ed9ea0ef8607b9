"""All sources there are: those with a module here, and those an operator declares (custom.py).

A registry goes to worker processes as the text of the declarations, and is made of it again there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from strongroom.ingest.sources import (
    attachment,
    audit,
    bulk,
    cloudtrail,
    cloudtraildigest,
    cloudtraillake,
    config,
    custom,
    cwlogs,
    eksaudit,
    elb,
    guardduty,
    hec,
    journal,
    json,
    loki,
    networkfirewall,
    ocsf,
    otlp,
    quarantine,
    route53,
    s3access,
    securityhub,
    sessionmanager,
    sns,
    syslog,
    text,
    vpcflow,
    waf,
)
from strongroom.ingest.sources.source import Source

HEAD_BYTES = 65_536
"""How much of a body recognition looks at."""

# The order is the order of recognition: special before general, `json` and `text` as last resorts.
_BUILT_IN: tuple[Source, ...] = (
    cloudtraillake.SOURCE,
    cloudtrail.SOURCE,
    ocsf.SOURCE,
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
    sns.SOURCE,
    otlp.SOURCE,
    loki.SOURCE,
    hec.SOURCE,
    bulk.SOURCE,
    journal.SOURCE,
    elb.SOURCE,
    s3access.SOURCE,
    syslog.SOURCE,
    attachment.SOURCE,
    audit.SOURCE,
    quarantine.SOURCE,
    json.SOURCE,
    text.SOURCE,
)


class Registry:
    """The sources of one service: name → source. Declared ones are recognised first: somebody means them."""

    def __init__(self, declarations: str = "") -> None:
        """`declarations`: the text of a TOML file. Raises custom.DeclarationError."""
        self._declarations = declarations
        declared = custom.parse(declarations, {s.name for s in _BUILT_IN}) if declarations.strip() else ()
        self._order = (*declared, *_BUILT_IN)
        self.sources: Mapping[str, Source] = MappingProxyType({source.name: source for source in self._order})

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_of, (self._declarations,)

    def recognise(self, head: bytes) -> Source:
        """The source that a body beginning with `head` most likely belongs to."""
        head = head[:HEAD_BYTES]
        return next(source for source in self._order if source.recognise(head))

    def fingerprint(self, name: str) -> str:
        """What tells one declaration of a source from another; "" for those that are not declared."""
        return custom.fingerprint(self.sources[name]) if name in self.sources else ""


@cache
def _made_of(declarations: str) -> Registry:
    return Registry(declarations) if declarations else BUILT_IN


BUILT_IN = Registry()
SOURCES = BUILT_IN.sources
