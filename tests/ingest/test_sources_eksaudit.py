"""Kubernetes audit events."""

from __future__ import annotations

from datetime import UTC, datetime

from strongroom.ingest.sources import SOURCES
from tests.ingest.rows import derived, events, sample, some
from tests.ingest.samples import SAMPLES, body


def test_who_authenticated_through_iam() -> None:
    row = sample("eksaudit", "panther-rule-tests.jsonl.gz")[0]
    some(
        row,
        event_id="35506555-dffc-4337-b2b1-c4af52b88e18@ResponseStarted",
        verb="get",
        resource="pods",
        subresource="log",
        account="123412341234",
        access_key_id="ASIARLIVEKVNN6Y6J5UW",
        decision="allow",
        source_addresses=["5.5.5.5"],
    )
    assert row["event_time"] == datetime(2022, 11, 29, 0, 9, 4, 380000, tzinfo=UTC)


def test_impersonation_and_refusal() -> None:
    shown = events("eksaudit", body(SAMPLES / "eksaudit" / "audit2rbac-demo.log"))
    some(shown[0], actor="bob", action="list pods", outcome="denied", source_address="::1")
    assert len(shown) == 37 and len({e["event_id"] for e in shown}) == 37


def test_stages_of_one_request_are_different_events_in_one_list() -> None:
    one, two = (
        b'{"auditID":"a","stage":"RequestReceived","verb":"get"}',
        b'{"auditID":"a","stage":"Panic","verb":"get"}',
    )
    content = b'{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[%s,%s]}' % (one, two)
    assert SOURCES["eksaudit"].split(content).raw == [one, two]
    assert [r["event_id"] for r in derived("eksaudit", content)] == ["a@RequestReceived", "a@Panic"]
