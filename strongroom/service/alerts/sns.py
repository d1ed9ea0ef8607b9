"""Alerts by Amazon SNS: a subject for people, the alert as JSON, attributes for subscription filters."""

from __future__ import annotations

from typing import Any

import msgspec

from strongroom.service.alerts import aws
from strongroom.service.alerts.alert import Alert

_MAX_SUBJECT = 100
_MAX_FINDINGS = 50  # a message holds 256 KiB


class SnsSink:
    """Publishes to one topic."""

    name = "sns"

    def __init__(self, topic: str, client: Any = None) -> None:
        """`topic`: ARN; `client`: a boto3 SNS client, made when missing."""
        self._topic = topic
        self._client = client or aws.client("sns")

    async def send(self, alert: Alert) -> None:
        told = alert.to_json()
        told |= {"findings": told["findings"][:_MAX_FINDINGS], "findings_total": len(alert.findings)}
        # SNS takes printable ASCII only; the whole title is in the message.
        subject = "".join(c if " " <= c <= "~" else "?" for c in alert.title)[:_MAX_SUBJECT]
        words = {"kind": alert.kind, "severity": alert.severity, "level": alert.level, "verdict": alert.verdict}
        await aws.call(
            self.name,
            self._client.publish,
            TopicArn=self._topic,
            Subject=subject,
            Message=msgspec.json.encode(told).decode(),
            MessageAttributes={
                name: {"DataType": "String", "StringValue": word} for name, word in words.items() if word
            },
        )
