"""CloudWatch Logs subscriptions: log events of any kind in an envelope that names their log group and stream.

An envelope is `{"messageType", "owner", "logGroup", "logStream", "subscriptionFilters", "logEvents": […]}`. The
archives of a landing zone hold them concatenated without a separator, compressed one by one or together. Each element
of `logEvents` is a record, the envelope without them its context. (An envelope without log events is itself a record.)

A log event's `message` is a JSON string, often with JSON in it. The exact bytes are those of the event, escapes and
all; the column `message` is the string they mean. A message of a kind known here is read by that kind's own source,
which `kind` names and from which the columns after it are taken; all of it can be reached: `message->>'$.eventName'`.
A message is not a record of its own: it has no exact bytes in what arrived, and its event has an identity it lacks.

Flow logs in CloudWatch have no header line; those of the default format and of the landing zone's usual list of fields
are read, as are lists that begin like it. Others are `text`, and reached by position (docs/sources/cwlogs.md).
Reference: Amazon CloudWatch Logs user guide, "Real-time processing of log data with subscriptions".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from strongroom.ingest.sources import (
    cloudtrail,
    eksaudit,
    guardduty,
    networkfirewall,
    outline,
    route53,
    sessionmanager,
    syslog,
    vpcflow,
    waf,
)
from strongroom.ingest.sources.declared import CONTEXT, JsonSource, events
from strongroom.ingest.sources.documents import container
from strongroom.ingest.sources.fields import field
from strongroom.ingest.sources.source import TEXT, TEXTS, TIME, Contexts, Source

# Kind → its source, and what of its columns goes where: the first that is not null.
_FROM_MESSAGE = ("region", "actor", "action", "target", "source_address", "status", "inner_id")
_INNER: Mapping[str, tuple[Source, Mapping[str, tuple[str, ...]]]] = {
    "cloudtrail": (
        cloudtrail.SOURCE,
        {
            "region": ("region",),
            "actor": ("user_name", "session_issuer_name", "arn", "invoked_by", "principal_id"),
            "action": ("event_name",),
            "target": ("bucket_name", "event_source"),
            "source_address": ("source_address",),
            "status": ("error_code", "error_message"),
            "inner_id": ("event_id",),
        },
    ),
    "vpcflow": (
        vpcflow.SOURCE,
        {
            "region": ("region",),
            "actor": ("instance_id",),
            "action": ("action",),
            "target": ("destination_address",),
            "source_address": ("source_address",),
            "status": ("log_status",),
        },
    ),
    "eksaudit": (
        eksaudit.SOURCE,
        {
            "actor": ("impersonated_user", "user_name"),
            "action": ("verb",),
            "target": ("request_uri",),
            "source_address": ("source_address",),
            "status": ("decision", "response_reason"),
            "inner_id": ("event_id",),
        },
    ),
    "route53": (
        route53.SOURCE,
        {
            "region": ("region",),
            "actor": ("instance_id",),
            "action": ("query_type",),
            "target": ("query_name",),
            "source_address": ("source_address",),
            "status": ("firewall_action", "response_code"),
        },
    ),
    "waf": (
        waf.SOURCE,
        {
            "region": ("region",),
            "action": ("method",),
            "target": ("uri",),
            "source_address": ("source_address",),
            "status": ("action",),
            "inner_id": ("request_id",),
        },
    ),
    "networkfirewall": (
        networkfirewall.SOURCE,
        {
            "action": ("signature", "event_type"),
            "target": ("host", "destination_address"),
            "source_address": ("source_address",),
            "status": ("action",),
        },
    ),
    "guardduty": (
        guardduty.SOURCE,
        {
            "region": ("region",),
            "actor": ("user_name", "principal_id"),
            "action": ("finding_type",),
            "target": ("instance_id", "bucket_name", "access_key_id"),
            "source_address": ("source_address",),
            "inner_id": ("finding_version",),
        },
    ),
    "sessionmanager": (
        sessionmanager.SOURCE,
        {"region": ("region",), "actor": ("arn",), "target": ("instance_id",), "inner_id": ("session_id",)},
    ),
    "syslog": (
        syslog.SOURCE,
        {
            "actor": ("user_name",),
            "action": ("program",),
            "target": ("host",),
            "source_address": ("source_address",),
            "status": ("result",),
        },
    ),
}


class CloudWatchLogs(JsonSource):
    """See the module."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.schema = pa.schema([*self.schema, *((name, TEXT) for name in ("kind", *_FROM_MESSAGE))])

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Columns of the log event and its envelope, then those of the message, all messages of a kind at once."""
        table = super().derive(raw, context)
        messages = [message or "" for message in table["message"].to_pylist()]
        kinds = [_kind(message) for message in messages]
        taken: dict[str, list[str | None]] = {name: [None] * len(raw) for name in _FROM_MESSAGE}
        for kind, (source, columns) in _INNER.items():
            rows = [row for row, found in enumerate(kinds) if found == kind]
            if not rows:
                continue
            inner = _derived(source, [messages[row].encode("utf-8", "replace") for row in rows])
            for name, sources in columns.items():
                values = pc.coalesce(*(inner[column] for column in sources)).to_pylist()
                for row, value in zip(rows, values, strict=True):
                    taken[name][row] = value
        table = table.append_column("kind", pa.array(kinds, TEXT))
        for name, cells in taken.items():
            table = table.append_column(name, pa.array(cells, TEXT))
        return table


def _derived(source: Source, messages: list[bytes]) -> pa.Table:
    """What a kind's own source makes of messages. A flow without its header is given the one it must have had."""
    headers = [vpcflow.presumed(message) for message in messages] if source is vpcflow.SOURCE else None
    return source.derive(messages, headers)


def _kind(message: str) -> str | None:
    """The source that would read this message, `json` or `text` when it is of no kind known here."""
    if not message.strip():
        return None
    head = message.encode("utf-8", "replace")
    if vpcflow.presumed(head):
        return "vpcflow"
    known = next((kind for kind, (source, _) in _INNER.items() if source.recognise(head)), None)
    return known or ("json" if outline.is_json(head) else "text")


SOURCE = CloudWatchLogs(
    name="cwlogs",
    description="Log events of any kind, delivered by CloudWatch Logs subscriptions",
    columns=(
        field("event_time", "timestamp", type=TIME),
        field("event_id", "id"),
        field("account", f"{CONTEXT}.owner", "owner"),
        field("log_group", f"{CONTEXT}.logGroup", "logGroup"),
        field("log_stream", f"{CONTEXT}.logStream", "logStream"),
        field("message_type", f"{CONTEXT}.messageType", "messageType"),
        field("subscription_filters", f"{CONTEXT}.subscriptionFilters", "subscriptionFilters", type=TEXTS),
        field("message", "message"),
    ),
    events=events(
        "cwlogs",
        account="account",
        region="region",
        actor="actor",
        action="coalesce(kind || ':' || action, kind)",
        target="coalesce(target, log_stream)",
        source_address="source_address",
        outcome="""CASE WHEN kind = 'vpcflow'
            THEN CASE action WHEN 'ACCEPT' THEN 'success' WHEN 'REJECT' THEN 'denied' END
            WHEN kind = 'cloudtrail' AND status IS NULL THEN 'success'
            WHEN status ILIKE '%denied%' OR status ILIKE '%unauthorized%' OR status ILIKE '%forbid%' THEN 'denied'
            WHEN kind = 'cloudtrail' THEN 'failure'
            WHEN upper(status) IN ('BLOCK', 'BLOCKED', 'DROP', 'REJECT') THEN 'denied'
            WHEN kind IN ('waf', 'networkfirewall') AND upper(status) IN ('ALLOW', 'ALLOWED', 'PASS') THEN 'success'
            WHEN status IN ('success', 'failure', 'denied') THEN status END""",
        event_id="event_id",
        message="message",
    ),
    sort=("account", "log_group", "log_stream", "event_time"),
    summary_columns=("account", "log_group", "log_stream", "kind", "source_address"),
    marks=(("logGroup", "logStream", "logEvents"),),
    containers=(container("logEvents"),),
    natural_id="event_id",
)
