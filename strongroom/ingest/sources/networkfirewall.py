"""AWS Network Firewall: alerts, flows and TLS inspection of its stateful engine, which is Suricata.

One JSON object an event, `event` in Suricata's EVE format. The record names neither account nor region. A flow's id is
shared by all its events, so none of them has an identity of its own. Suricata's severity counts down: 1 is the worst.
Field reference: AWS Network Firewall developer guide, "Contents of a firewall log"; Suricata, "Eve JSON Format".
"""

from __future__ import annotations

import pyarrow as pa

from strongroom.ingest.sources.declared import JsonSource, events
from strongroom.ingest.sources.fields import field
from strongroom.ingest.sources.source import TIME

_I64 = pa.int64()

SOURCE = JsonSource(
    name="networkfirewall",
    description="Alerts, flows and TLS events of AWS Network Firewall",
    columns=(
        field("event_time", "event.timestamp", "event_timestamp", type=TIME),
        field("firewall_name", "firewall_name"),
        field("availability_zone", "availability_zone"),
        field("event_type", "event.event_type"),
        field("flow_id", "event.flow_id"),
        field("source_address", "event.src_ip"),
        field("source_port", "event.src_port", type=_I64),
        field("destination_address", "event.dest_ip"),
        field("destination_port", "event.dest_port", type=_I64),
        field("protocol", "event.proto"),
        field("application_protocol", "event.app_proto"),
        field("action", "event.verdict.action", "event.alert.action", "event.revocation_check.action"),
        field("signature", "event.alert.signature"),
        field("signature_id", "event.alert.signature_id", type=_I64),
        field("category", "event.alert.category"),
        field("severity", "event.alert.severity", type=_I64),
        field("host", "event.http.hostname", "event.tls.sni", "event.sni"),
        field("uri", "event.http.url"),
        field("method", "event.http.http_method"),
        field("user_agent", "event.http.http_user_agent"),
        field("http_status", "event.http.status", type=_I64),
        field("tls_subject", "event.tls.subject"),
        field("tls_issuer", "event.tls.issuerdn", "event.tls.issuer"),
        field("tls_version", "event.tls.version"),
        field("tls_error", "event.tls_error.error_message"),
        field("dns_name", "event.dns.rrname", "event.dns.queries.rrname"),
        field("packets", "event.netflow.pkts", type=_I64),
        field("bytes", "event.netflow.bytes", type=_I64),
        field("start_time", "event.netflow.start", type=TIME),
        field("end_time", "event.netflow.end", type=TIME),
    ),
    events=events(
        "networkfirewall",
        action="coalesce(signature, event_type)",
        target="nullif(concat_ws(':', coalesce(host, destination_address), destination_port), '')",
        source_address="source_address",
        outcome="""CASE WHEN lower(action) IN ('allowed', 'pass', 'accept', 'alert') THEN 'success'
            WHEN lower(action) IN ('blocked', 'drop', 'reject') THEN 'denied' END""",
        severity="""CASE severity WHEN 1 THEN 'high' WHEN 2 THEN 'medium' WHEN 3 THEN 'low'
            WHEN 4 THEN 'informational' END""",
        message="concat_ws(' ', action, category, tls_error)",
    ),
    sort=("firewall_name", "event_type", "event_time"),
    summary_columns=("firewall_name", "event_type", "source_address", "destination_address", "host"),
    marks=(("firewall_name", "event.event_type"), ("firewall_name", "event_timestamp", "event")),
)
