"""AWS Config: items in files, notifications about them, rules that were asked."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from strongroom.ingest.sources import SOURCES
from tests.ingest.rows import derived, events, sample, some

ITEM = {
    "configurationItemCaptureTime": "2024-03-01T10:00:00.5Z",
    "awsAccountId": "111122223333",
    "awsRegion": "eu-west-1",
    "resourceType": "AWS::S3::Bucket",
    "resourceId": "b",
    "ARN": "arn:aws:s3:::b",
    "configurationItemStatus": "ResourceDiscovered",
    "relatedEvents": ["a", "b"],
}


def test_history_file() -> None:
    rows = sample("config", "clo-config-history.json")
    assert len(rows) == 2
    some(rows[0], resource_type="AWS::Lambda::Function", account="123456789012", region="eu-west-1", status="OK")
    assert rows[0]["event_time"] == datetime(2022, 5, 5, 1, 36, 21, 252000, tzinfo=UTC)
    assert rows[0]["item_version"] != rows[1]["item_version"]


def test_snapshot_file_gives_its_items_and_keeps_its_name_around_them() -> None:
    content = b'{"fileVersion":"1.0","configSnapshotId":"s-1","configurationItems":[ %s ,%s]}'
    found = SOURCES["config"].split(content % (json.dumps(ITEM).encode(), b'{"resourceId":"c"}'))
    assert found.raw[0] == json.dumps(ITEM).encode()
    assert found.context == [b'{"fileVersion":"1.0","configSnapshotId":"s-1","configurationItems":[]}'] * 2
    rows = derived("config", content % (json.dumps(ITEM).encode(), b'{"resourceId":"c"}'))
    some(rows[0], snapshot_id="s-1", related_events=["a", "b"])
    assert rows[0]["item_version"] == "111122223333@eu-west-1@AWS::S3::Bucket@b@1709287200500000"
    some(rows[1], snapshot_id="s-1", resource_id="c", item_version=None, event_time=None)


def test_notifications_stay_whole_with_their_difference() -> None:
    notification = {
        "configurationItemDiff": {"changeType": "UPDATE", "changedProperties": {}},
        "configurationItem": ITEM,
        "messageType": "ConfigurationItemChangeNotification",
    }
    bare = json.dumps(notification).encode()
    enveloped = b'{"detail-type":"Config Configuration Item Change","detail":%s,"time":"2024-03-01T11:00:00Z"}' % bare
    for content in (bare, enveloped):
        found = SOURCES["config"].split(content)
        assert found.raw == [bare]
        (row,) = derived("config", content)
        some(row, change_type="UPDATE", resource_id="b", message_type="ConfigurationItemChangeNotification")
        assert row["event_time"] == row["captured_at"]
    (event,) = events("config", bare)
    some(event, action="UPDATE", target="arn:aws:s3:::b", account="111122223333", outcome=None)


def test_compliance_change() -> None:
    content = (
        b'{"configRuleName":"no-public","resourceType":"AWS::S3::Bucket","resourceId":"b","awsAccountId":"1","awsRegion":"r",'
        b'"newEvaluationResult":{"complianceType":"NON_COMPLIANT","resultRecordedTime":"2024-03-01T10:00:00Z"},'
        b'"oldEvaluationResult":{"complianceType":"COMPLIANT"},"messageType":"ComplianceChangeNotification"}'
    )
    (row,) = derived("config", content)
    some(row, compliance="NON_COMPLIANT", previous_compliance="COMPLIANT", config_rule="no-public", item_version=None)
    (event,) = events("config", content)
    some(event, outcome="failure", target="AWS::S3::Bucket/b", message="no-public: NON_COMPLIANT")


def test_invocations_of_rules_are_read_inside() -> None:
    (changed,) = sample("config", "powertools-awsConfigRuleConfigurationChanged.json")
    some(changed, resource_id="i-042dd005362091826", change_type="UPDATE", config_rule="MyRule")
    (oversized,) = sample("config", "powertools-awsConfigRuleOversizedConfiguration.json")
    some(oversized, resource_id="i-00000000", message_type="OversizedConfigurationItemChangeNotification")
