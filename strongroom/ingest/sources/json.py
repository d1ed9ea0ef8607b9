"""Any other JSON: what no source of its own is there for, such as the logs of applications.

Objects in any container; `configurationItems` and `logEvents`, which config.py and cwlogs.py read, are opened here too,
for whoever sends them here. Columns are guessed from the names that many
formats share, in the order given below; the rest is reached by JSON path in `raw`. A guess that finds nothing is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from strongroom.ingest.sources import fields, jsonsplit, lenient, outline
from strongroom.ingest.sources.declared import surroundings
from strongroom.ingest.sources.documents import container
from strongroom.ingest.sources.fields import field
from strongroom.ingest.sources.source import TIME, Contexts, Split

_FIELDS = (
    field(
        "event_time",
        *("eventTime", "timestamp", "@timestamp", "time", "query_timestamp", "event_timestamp", "event.timestamp"),
        *("requestReceivedTimestamp", "stageTimestamp", "configurationItemCaptureTime", "eventTimestamp", "datetime"),
        *("updatedAt", "createdAt", "ts", "date", "_time"),
        type=TIME,
    ),
    field(
        "account",
        *("account", "accountId", "account_id", "awsAccountId", "AwsAccountId", "recipientAccountId", "owner"),
        "cloud.account.uid",
    ),
    field("region", "region", "awsRegion", "aws_region", "cloud.region"),
    field(
        "actor",
        *("user.username", "user.name", "userName", "username", "user_name", "userIdentity.arn", "actor"),
        "actor.user.name",
    ),
    field("action", "action", "eventName", "verb", "event.action", "event.alert.action", "operation", "event_name"),
    field(
        "target",
        *("requestURI", "resourceId", "ARN", "arn", "query_name", "httpRequest.uri", "resource", "uri", "url"),
        "event.hostname",
    ),
    field(
        "source_address",
        *("sourceIPAddress", "sourceIPs", "httpRequest.clientIp", "srcaddr", "src_ip", "event.src_ip", "clientIp"),
        *("client_ip", "source_ip", "remote_addr", "src_endpoint.ip", "ip"),
    ),
    field("event_type", "detail-type", "eventType", "event_type", "event.event_type", "resourceType", "kind", "type"),
    field("severity", "severity", "level", "Severity.Label", "log_level"),
    field("event_id", "eventID", "eventId", "auditID", "configurationStateId", "id", "uuid"),
    field("message", "message", "msg", "log", "title"),
    field("log_group", "logGroup"),
    field("log_stream", "logStream"),
)
# What the context may supply: the log group around a log event, the envelope's account around its detail.
_FROM_CONTEXT = ("log_group", "log_stream", "account", "region")


class Json:
    """See the module."""

    name = "json"
    description = "JSON records of any other kind; columns are guessed from common names"
    natural_id: str | None = None
    sort: tuple[str, ...] = ("event_type", "event_time")
    summary_columns: tuple[str, ...] = ("account", "region", "event_type", "source_address", "log_group")
    schema = fields.schema(_FIELDS)
    containers = (container("Records"), container("configurationItems"), container("logEvents"))

    events: Mapping[str, str] = {
        "source": "'json'",
        "event_time": "event_time",
        "account": "account",
        "region": "region",
        "actor": "actor",
        "action": "coalesce(action, event_type)",
        "target": "target",
        "source_address": "source_address",
        "outcome": """CASE WHEN upper(action) IN ('ALLOW', 'ALLOWED', 'ACCEPT', 'PASS') THEN 'success'
            WHEN upper(action) IN ('BLOCK', 'BLOCKED', 'DENY', 'DENIED', 'REJECT', 'DROP') THEN 'denied' END""",
        "severity": "lower(severity)",
        "event_id": "event_id",
        "message": "message",
    }

    def recognise(self, head: bytes) -> bool:
        """Begins as JSON does."""
        return outline.is_json(head)

    def split(self, body: bytes) -> Split:
        """Objects, out of the containers above."""
        return jsonsplit.split(body, self.containers)

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Columns by path; a few of them from the context where the record is silent."""
        around = surroundings(context, len(raw), lambda document: _around(lenient.record(document)))
        records = zip(map(lenient.record, raw), around, strict=True)
        return fields.table(_FIELDS, [{**told, **record} if told else record for record, told in records])


def _around(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The members of a context that its records may inherit."""
    inherited = {path[0] for f in _FIELDS if f.name in _FROM_CONTEXT for path in f.paths if len(path) == 1}
    return {name: value for name, value in document.items() if name in inherited}


SOURCE = Json()
