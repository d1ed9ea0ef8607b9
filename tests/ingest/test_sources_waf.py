"""AWS WAF requests."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.ingest.rows import derived, events, sample, some
from tests.ingest.samples import SAMPLES, body


def test_a_captured_request() -> None:
    row, _ = sample("waf", "clo-waf.log")
    some(
        row,
        account="123456789012",
        region="eu-west-1",
        action="ALLOW",
        method="POST",
        uri="/graphql",
        host="xgv77w723jdkfojpi6a2zsw6re.appsync-api.eu-west-1.amazonaws.com",
        source_address="101.93.195.253",
        request_id="a16c2d17-b6a8-4822-9183-ad84a184107c",
    )
    assert row["event_time"] == datetime(2022, 3, 25, 3, 41, 22, 260000, tzinfo=UTC)


def test_outcomes_and_missing_fields() -> None:
    content = body(SAMPLES / "waf" / "panther-rule-tests.jsonl.gz")
    shown = events("waf", content)
    assert len(shown) == 44
    some(shown[0], outcome="denied", source_address="203.0.113.45", target="/wp-admin/", event_id=None)
    assert {e["outcome"] for e in shown} <= {"success", "denied", None}


def test_headers_in_any_case_and_none_at_all() -> None:
    head = b'{"webaclId":"arn:aws:wafv2:us-east-1:1:global/webacl/a/b","httpRequest":{"headers":'
    content = head + b'[7,{"name":"HOST","value":"h"},{"name":"User-Agent","value":"u"}]}}\n' + head + b'"none"}}'
    rows = derived("waf", content)
    some(rows[0], host="h", user_agent="u", account="1", region="us-east-1")
    some(rows[1], host=None, user_agent=None)


def test_labels_and_counting_rules() -> None:
    (row,) = derived(
        "waf",
        b'{"webaclId":"x","httpRequest":{},"labels":[{"name":"a:b"},{"name":"c"}],"responseCodeSent":403,'
        b'"nonTerminatingMatchingRules":[{"ruleId":"r1","action":"COUNT"}],"ja4Fingerprint":"t13"}',
    )
    some(row, labels=["a:b", "c"], counted_rules=["r1"], response_code=403, ja4_fingerprint="t13", account=None)
