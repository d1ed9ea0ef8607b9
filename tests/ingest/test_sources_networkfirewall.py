"""Network Firewall events."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.ingest.rows import derived, events, sample, some
from tests.ingest.samples import SAMPLES, body


def test_alerts_take_suricatas_own_time() -> None:
    first, second = sample("networkfirewall", "otel-stream-alert_log_multi.json")
    some(first, signature="ET MALWARE Suspicious TLS Connection", severity=1, action="allowed", destination_port=443)
    assert first["event_time"] == datetime(2025, 10, 20, 10, 30, 45, 123000, tzinfo=UTC)
    assert second["event_time"] == datetime(2020, 10, 13, 22, 10, 1, 6481, tzinfo=UTC)
    shown = events("networkfirewall", body(SAMPLES / "networkfirewall" / "otel-stream-alert_log_multi.json"))
    some(shown[0], severity="high", outcome="success", target="10.0.1.50:443")


def test_flows_and_tls() -> None:
    (flow,) = sample("networkfirewall", "otel-flow_log.json")
    some(flow, event_type="netflow", packets=150, bytes=45000, action=None)
    assert flow["start_time"] == datetime(2025, 10, 20, 10, 30, 40, tzinfo=UTC)
    (tls,) = sample("networkfirewall", "otel-tls_with_revocation_log.json")
    some(tls, host="example.com", action="DROP", tls_error="Certificate verification failed")


def test_epoch_seconds_and_a_verdict() -> None:
    (row,) = derived(
        "networkfirewall",
        b'{"firewall_name":"f","event_timestamp":"1602627001","event":{"event_type":"alert","alert":{"action":"allowed"},'
        b'"verdict":{"action":"drop"}}}',
    )
    some(row, action="drop")
    assert row["event_time"] == datetime(2020, 10, 13, 22, 10, 1, tzinfo=UTC)
