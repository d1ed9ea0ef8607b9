"""The service's own audit: every query, every administrative act, every refusal, sealed like any other log.

Written by the service only: JSON objects with the members time, actor, action, target, outcome and detail. It is never
recognised from content, or anybody's upload to `auto` could pose as an act of this service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import pyarrow as pa

from strongroom.ingest.sources import fields, jsonsplit, lenient
from strongroom.ingest.sources.fields import field
from strongroom.ingest.sources.source import TEXT, TIME, Contexts, Split

_FIELDS = (
    field("event_time", "time", type=TIME),
    field("actor", "actor"),
    field("action", "action"),
    field("target", "target"),
    field("outcome", "outcome"),
    field("source_address", "address", "detail.address"),
)


class Audit:
    """See the module."""

    name = "audit"
    description = "Acts of users and administrators of this service"
    natural_id: str | None = None
    sort: tuple[str, ...] = ("actor", "event_time")
    summary_columns: tuple[str, ...] = ("actor", "action")
    schema = fields.schema(_FIELDS).append(pa.field("detail", TEXT))

    events: Mapping[str, str] = {
        "source": "'audit'",
        "event_time": "event_time",
        "account": "NULL::VARCHAR",
        "region": "NULL::VARCHAR",
        "actor": "actor",
        "action": "action",
        "target": "target",
        "source_address": "source_address",
        "outcome": "outcome",
        "severity": "NULL::VARCHAR",
        "event_id": "NULL::VARCHAR",
        "message": "detail",
    }

    def recognise(self, head: bytes) -> bool:
        """Never: see the module."""
        return False

    def split(self, body: bytes) -> Split:
        """Objects."""
        return jsonsplit.split(body)

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Columns by path; `detail` as JSON text."""
        records = [lenient.record(r) for r in raw]
        details = [msgspec.json.encode(r["detail"]).decode() if r.get("detail") is not None else None for r in records]
        return fields.table(_FIELDS, records).append_column("detail", pa.array(details, TEXT))


SOURCE = Audit()
