"""Logs of Elastic Load Balancing: access logs of all kinds of load balancers, and connection logs.

The four formats (Application, Network and Classic Load Balancers' access logs, Application Load Balancers' connection
logs) tell themselves apart by how a line begins, and may stand in one body. The same columns serve all; what a kind
does not record is null. Account and region are those of the target group or certificate; a connection's line has
neither, and its `connection_trace_id` leads to the requests that came through it. A line that begins like none of the
four is broken. Field references: Elastic Load Balancing user guides, "Access logs for your Application Load Balancer",
"… Network Load Balancer", "… Classic Load Balancer", "Connection logs for your Application Load Balancer".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from strongroom.ingest.sources import accesslog
from strongroom.ingest.sources.declared import events, matching, mostly
from strongroom.ingest.sources.fields import ACCOUNT_OF_ARN, REGION_OF_ARN
from strongroom.ingest.sources.source import TEXT, TIME, Contexts, Split

_I64, _F64 = pa.int64(), pa.float64()
_TIME = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z?"
_APPLICATION = re.compile(rb"(?:https?|h2|grpcs?|wss?) (?P<time>" + _TIME + rb") \S+ \S+ \S+ (?:\S+ ){3}\S+")
_NETWORK = re.compile(rb"(?:tls|tcp|udp|quic|tcp_udp) \d+\.\d+ (?P<time>" + _TIME + rb") \S+ \S+ \S+:\d+ \S+")
_CLASSIC = re.compile(_TIME + rb" \S+ \S+ \S+ (?:-?[\d.]+ ){3}\S+ \S+ \d+ \d+ \"")
_CONNECTION = re.compile(
    _TIME + rb' [0-9A-Fa-f.:]+ \d+ \d+ \S+ \S+ (?:-|\d+(?:\.\d+)?) (?:"[^"]*"|-) \S+ \S+ (?:Success|Failed\S*|-)(?: |$)'
)
_ANY = re.compile(
    b"|".join(p.pattern.replace(b"?P<time>", b"?:") for p in (_APPLICATION, _NETWORK, _CLASSIC, _CONNECTION))
)

# A format: for each field in order the columns read from it, with their conversion (None: what the type reads).
_Columns = tuple[tuple[str, Callable[[str], object] | None], ...]
_METHOD, _URL, _PROTOCOL = (accesslog.request(part) for part in range(3))
_CLIENT: _Columns = (("source_address", accesslog.address), ("source_port", accesslog.port))
_TARGET: _Columns = (("target_address", accesslog.address), ("target_port", accesslog.port))
_REQUEST: _Columns = (("method", _METHOD), ("url", _URL), ("http_version", _PROTOCOL))


def _one(name: str) -> _Columns:
    return ((name, None),)


def _milliseconds(seconds: str) -> int | None:
    found = accesslog.number(seconds)
    return None if found is None else round(found * 1000)


_FORMATS: Mapping[str, tuple[re.Pattern[bytes], tuple[_Columns, ...]]] = {
    "application": (
        _APPLICATION,
        (
            *map(_one, ("type", "event_time", "load_balancer")),
            *(_CLIENT, _TARGET),
            *map(_one, ("request_seconds", "target_seconds", "response_seconds", "status", "target_status")),
            *map(_one, ("received_bytes", "sent_bytes")),
            _REQUEST,
            *map(_one, ("user_agent", "tls_cipher", "tls_version", "target_group_arn", "trace_id", "host")),
            *map(_one, ("certificate_arn", "rule_priority", "created_at", "actions", "redirect_url", "error_reason")),
            *map(
                _one, ("targets", "target_statuses", "classification", "classification_reason", "connection_trace_id")
            ),
            *map(_one, ("transformed_host", "transformed_uri", "transform_status")),
        ),
    ),
    "network": (
        _NETWORK,
        (
            *map(_one, ("type", "version", "event_time", "load_balancer", "listener")),
            *(_CLIENT, _TARGET),
            *map(_one, ("connection_milliseconds", "handshake_milliseconds", "received_bytes", "sent_bytes")),
            *map(_one, ("tls_alert", "certificate_arn", "certificate_serial", "tls_cipher", "tls_version")),
            *map(_one, ("tls_named_group", "host", "alpn_client", "alpn_target", "alpn_preferences", "created_at")),
        ),
    ),
    "classic": (
        _CLASSIC,
        (
            *map(_one, ("event_time", "load_balancer")),
            *(_CLIENT, _TARGET),
            *map(_one, ("request_seconds", "target_seconds", "response_seconds", "status", "target_status")),
            *map(_one, ("received_bytes", "sent_bytes")),
            _REQUEST,
            *map(_one, ("user_agent", "tls_cipher", "tls_version")),
        ),
    ),
    "connection": (
        _CONNECTION,
        (
            *map(_one, ("event_time", "source_address", "source_port", "listener", "tls_version", "tls_cipher")),
            (("handshake_milliseconds", _milliseconds),),
            *map(_one, ("client_certificate_subject", "client_certificate_validity", "client_certificate_serial")),
            *map(_one, ("tls_verify_status", "connection_trace_id")),
        ),
    ),
}
_OTHER_TYPES = {
    **dict.fromkeys(("event_time", "created_at"), TIME),
    **dict.fromkeys(("source_port", "target_port", "status", "target_status", "received_bytes", "sent_bytes"), _I64),
    **dict.fromkeys(("rule_priority", "connection_milliseconds", "handshake_milliseconds"), _I64),
    **dict.fromkeys(("request_seconds", "target_seconds", "response_seconds"), _F64),
}
_NAMES = dict.fromkeys(name for _, line in _FORMATS.values() for columns in line for name, _ in columns)


class LoadBalancer:
    """See the module."""

    name = "elb"
    description = "Requests and connections through Elastic Load Balancing"
    natural_id: str | None = None
    sort: tuple[str, ...] = ("load_balancer", "event_time")
    summary_columns: tuple[str, ...] = ("account", "region", "load_balancer", "source_address", "host")
    schema = pa.schema(
        [
            *(("format", TEXT), ("account", TEXT), ("region", TEXT)),
            *((name, _OTHER_TYPES.get(name, TEXT)) for name in _NAMES if name != "event_time"),
            accesslog.EXTRA,
        ]
    )
    events: Mapping[str, str] = events(
        "elb",
        account="account",
        region="region",
        action="coalesce(method, type, CASE WHEN format = 'connection' THEN 'connect' END)",
        target="coalesce(url, host)",
        source_address="source_address",
        outcome="""CASE WHEN status IN (401, 403) OR error_reason LIKE 'WAF%' THEN 'denied'
            WHEN status >= 400 THEN 'failure'
            WHEN status IS NOT NULL THEN 'success' WHEN tls_alert IS NOT NULL THEN 'failure'
            WHEN tls_verify_status LIKE 'Failed:ClientCert%' THEN 'denied' WHEN tls_verify_status LIKE 'Failed%'
                THEN 'failure'
            WHEN format = 'connection' AND handshake_milliseconds IS NOT NULL THEN 'success' END""",
        event_id="coalesce(trace_id, connection_trace_id)",
        message="concat_ws(' ', status, error_reason, tls_alert, tls_verify_status)",
    )

    def recognise(self, head: bytes) -> bool:
        """Most of the first lines begin as one of the formats does."""
        return mostly(head, _ANY)

    def split(self, body: bytes) -> Split:
        """Lines of any of the formats."""
        return matching(body, _ANY, "not a line of a load balancer's log")

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Columns by position."""
        return accesslog.table(self.schema, [_read(line) for line in raw])


def _read(line: bytes) -> Mapping[str, object]:
    format = next((name for name, (pattern, _) in _FORMATS.items() if pattern.match(line)), None)
    if format is None:
        return {}
    row: dict[str, object] = {"format": format}
    layout = _FORMATS[format][1]
    values = accesslog.fields(line)
    for columns, value in zip(layout, values, strict=False):
        for name, convert in columns:
            row[name] = (convert or accesslog.CONVERT[_OTHER_TYPES.get(name, TEXT)])(value)
    row["extra"] = values[len(layout) :] or None
    for arn in (row.get("target_group_arn"), row.get("certificate_arn")):
        row["account"] = row.get("account") or ACCOUNT_OF_ARN(arn)
        row["region"] = row.get("region") or REGION_OF_ARN(arn)
    return row


SOURCE = LoadBalancer()
