"""Push protocols: one module each, pure. What a request holds, and the exact words its client needs to hear.

Rules that all of them keep, learnt from what real clients do with each status (docs/forwarders/README.md):

    1. 200 (or the protocol's own success) only for what is durable.
    2. Whatever may pass is 503: the one status on which every serious client keeps its data. (What keeps data on
       nothing but a broken connection gets that: see elastic.py.)
    3. What arrived whole and can't be understood is kept in quarantine and answered with success: clients throw away
       what a 4xx refuses.
    4. All or nothing: no answer says that some records were taken and others not.
    5. Answers are compact JSON with a Content-Length, because some clients search them for literal text.

The record is always the sender's own bytes; which ones is told by the source that reads them (ingest/sources/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, as it goes out."""

    status: int
    body: bytes = b""
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Delivery:
    """One body for the intake. `coding` as its `receive` takes it; `key`: the protocol's own name of this delivery."""

    content: bytes
    coding: str = "identity"
    key: str | None = None
    name: str = ""
