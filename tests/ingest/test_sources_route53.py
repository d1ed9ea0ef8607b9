"""Route 53 Resolver queries."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.ingest.rows import derived, events, sample, some
from tests.ingest.samples import SAMPLES, body


def test_a_query_that_dns_firewall_saw() -> None:
    (row,) = sample("route53", "route53-inputs0.json.gz")
    some(
        row,
        query_name="ip-127-0-0-62.alert.firewall.canary.",
        answers=["127.0.0.62"],
        answer_types=["A"],
        source_port=15083,
        firewall_action="ALERT",
        resolver_endpoint="rslvr-in-0000000000000000",
        vpc_id="vpc-00000000000000000",
    )
    assert row["event_time"] == datetime(2022, 10, 13, 21, 2, 36, tzinfo=UTC)
    (event,) = events("route53", body(SAMPLES / "route53" / "route53-inputs0.json.gz"))
    some(event, action="query A", outcome="success", message="NOERROR 127.0.0.62")


def test_one_answer_where_there_should_be_a_list() -> None:
    rows = sample("route53", "panther-rule-tests.jsonl")
    assert len(rows) == 13
    some(rows[0], answers=["1.2.3.4"], instance_id="i-0abc234")


def test_outcomes() -> None:
    line = b'{"query_name":"x.","query_type":"A","query_timestamp":"2024-01-01T00:00:00Z","rcode":"%s"%s}\n'
    content = line % (b"NXDOMAIN", b"") + line % (b"NOERROR", b',"firewall_rule_action":"BLOCK"')
    assert [e["outcome"] for e in events("route53", content)] == ["failure", "denied"]
    some(derived("route53", content)[0], answers=None, source_address=None)
