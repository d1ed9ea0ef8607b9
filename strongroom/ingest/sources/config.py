"""AWS Config: what resources looked like, when they changed, and whether they complied.

Three deliveries. Snapshots and history files hold `configurationItems`, each a record with the file's other members
(such as `configSnapshotId`) as context. Notifications (SNS, EventBridge's `detail`) are records whole, since the
difference they report stands beside the item. Invocations of rules, in which the notification is a string, are kept as
they are, and read.

An item's version is known by its account, region, resource and capture time. Every later snapshot repeats the versions
that are still current, so the same identity comes again and again: that says nothing new, and is no error. Reference:
AWS Config developer guide, "Components of a configuration item" and "Notifications that AWS Config sends".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from strongroom.ingest.sources import lenient
from strongroom.ingest.sources.declared import CONTEXT, JsonSource, events
from strongroom.ingest.sources.documents import container
from strongroom.ingest.sources.fields import Field, field
from strongroom.ingest.sources.source import TEXT, TEXTS, TIME, Contexts

_INVOCATION = "invokingEvent"
_ITEM = "configurationItem"
# Where a record may have its item: it is one, or is about one. An item too large for a message is summarised.
_PLACES = ("", f"{_ITEM}.", f"{_ITEM}Summary.", f"{_INVOCATION}.{_ITEM}.", f"{_INVOCATION}.{_ITEM}Summary.")


def _of_item(column: str, *members: str, type: pa.DataType = TEXT) -> Field:
    return field(column, *(place + member for place in _PLACES for member in members), type=type)


class Config(JsonSource):
    """See the module."""

    def records(self, raw: Sequence[bytes], context: Contexts) -> list[Mapping[str, Any]]:
        """With the notification in a rule's invocation read."""
        return [
            {**record, _INVOCATION: lenient.record(inner.encode("utf-8", "replace"))}
            if isinstance(inner := record.get(_INVOCATION), str)
            else record
            for record in super().records(raw, context)
        ]


SOURCE = Config(
    name="config",
    description="Configurations of resources, their changes and compliance, recorded by AWS Config",
    columns=(
        field(
            "event_time",
            *(f"{place}{_ITEM}CaptureTime" for place in _PLACES),
            *("notificationCreationTime", "notificationCreateTime", "newEvaluationResult.resultRecordedTime"),
            *(f"{_INVOCATION}.notificationCreationTime", f"{CONTEXT}.time"),
            type=TIME,
        ),
        _of_item("account", "awsAccountId", "accountId"),
        _of_item("region", "awsRegion"),
        _of_item("resource_type", "resourceType"),
        _of_item("resource_id", "resourceId"),
        _of_item("resource_name", "resourceName"),
        _of_item("arn", "ARN", "arn"),
        _of_item("status", f"{_ITEM}Status"),
        _of_item("captured_at", f"{_ITEM}CaptureTime", type=TIME),
        _of_item("state_id", "configurationStateId"),
        _of_item("resource_created_at", "resourceCreationTime", type=TIME),
        _of_item("availability_zone", "availabilityZone"),
        _of_item("related_events", "relatedEvents", type=TEXTS),
        field("message_type", "messageType", f"{_INVOCATION}.messageType"),
        field("change_type", f"{_ITEM}Diff.changeType", f"{_INVOCATION}.{_ITEM}Diff.changeType"),
        field("config_rule", "configRuleName"),
        field("compliance", "newEvaluationResult.complianceType"),
        field("previous_compliance", "oldEvaluationResult.complianceType"),
        field("snapshot_id", f"{CONTEXT}.configSnapshotId", "configSnapshotId"),
    ),
    events=events(
        "config",
        account="account",
        region="region",
        action="coalesce(change_type, status, message_type)",
        target="coalesce(arn, nullif(concat_ws('/', resource_type, resource_id), ''))",
        outcome="CASE compliance WHEN 'COMPLIANT' THEN 'success' WHEN 'NON_COMPLIANT' THEN 'failure' END",
        event_id="item_version",
        message="coalesce(config_rule || ': ' || compliance, config_rule, resource_name)",
    ),
    sort=("account", "resource_type", "resource_id", "event_time"),
    summary_columns=("account", "region", "resource_type", "resource_id", "arn"),
    marks=(
        ("fileVersion", "configurationItems"),
        ("configurationItems.configurationItemCaptureTime",),
        ("configurationItemCaptureTime", "resourceType"),
        ("configurationItemDiff", "messageType"),
        ("configurationItem", "messageType"),
        ("configurationItemSummary", "messageType"),
        ("newEvaluationResult", "messageType"),
        ("configSnapshotId", "messageType"),
        ("invokingEvent", "configRuleName"),
    ),
    containers=(container("configurationItems"), container("detail", many=False)),
    natural_id="item_version",
    identity=("account", "region", "resource_type", "resource_id", "captured_at"),
)
