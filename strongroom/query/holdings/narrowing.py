"""What a question is about, so that segments which cannot matter are not even opened. Pure.

A narrowing is a promise of whoever asks: rows outside it are of no interest. The engine may leave out any segment that
cannot hold a row inside it, and the answer must not change by that: whoever passes a narrowing also states it in the
SQL, or does not care for the rest. Leaving out is always allowed and never required; in doubt a segment stays.

    since, until      event times in [since, until); rows without an event time are outside
    sources           names of sources
    accounts, regions values of the columns `account` and `region`; several are alternatives
    entities          (kind, value) pairs; a row is inside when it has *all* of them, each in any column of its kind

Kinds are those of `ViewSource.entities`: address, principal, access_key, resource, event_id, account, host, region.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

KINDS = ("address", "principal", "access_key", "resource", "event_id", "account", "host", "region")


@dataclass(frozen=True, slots=True)
class Narrowing:
    """See the module. None, and no entities, narrow nothing. Times are aware."""

    since: datetime | None = None
    until: datetime | None = None
    sources: frozenset[str] | None = None
    accounts: frozenset[str] | None = None
    regions: frozenset[str] | None = None
    entities: tuple[tuple[str, str], ...] = ()
