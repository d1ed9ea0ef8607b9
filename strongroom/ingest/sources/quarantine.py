"""Where bytes go that are no record of the source they were sent to, with the reason.

The record is the broken bytes as they came. The context says why they are here: a JSON object with the members `source`
(where they were meant to go) and `reason`, made by `why`. Nothing is recognised as quarantine, and whoever sends to it
gets the whole body kept as one record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from strongroom.ingest.sources import lenient
from strongroom.ingest.sources.source import TEXT, TIME, Contexts, Split


def why(source: str, reason: str) -> bytes:
    """The context of a quarantined record. Equal causes give equal bytes, so that they compress to nothing."""
    return msgspec.json.encode({"source": source, "reason": reason})


class Quarantine:
    """See the module."""

    name = "quarantine"
    description = "What could not be parsed: the exact bytes, where they were sent, and what is wrong with them"
    natural_id: str | None = None
    sort: tuple[str, ...] = ("intended_source", "reason")
    summary_columns: tuple[str, ...] = ("intended_source",)
    schema = pa.schema({"intended_source": TEXT, "reason": TEXT})
    events: Mapping[str, str] = {}

    def recognise(self, head: bytes) -> bool:
        """Never."""
        return False

    def split(self, body: bytes) -> Split:
        """The body."""
        return Split(raw=[body] if body else [], context=None, positions=None, broken=[])

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Both columns from the context; a broken record has no time of its own."""
        known: dict[bytes | None, Mapping[str, Any]] = {None: {}}
        causes = []
        for why_here in [None] * len(raw) if context is None else context:
            if why_here not in known:
                known[why_here] = lenient.record(why_here or b"")
            causes.append(known[why_here])
        columns: dict[str, pa.Array] = {
            "event_time": pa.nulls(len(raw), TIME),
            "intended_source": pa.array([_text(c.get("source")) for c in causes], TEXT),
            "reason": pa.array([_text(c.get("reason")) for c in causes], TEXT),
        }
        return pa.table(columns)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


SOURCE = Quarantine()
