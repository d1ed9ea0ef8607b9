"""Findings in AWS Security Hub, in its finding format (ASFF, schema 2018-10-08), by BatchImportFindings.

One of our findings is one of theirs, under an id made of log, code and object: found again, it is updated and keeps the
workflow people gave it; no longer found, it is archived. A run that failed or was missed is a finding about the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from strongroom.service.alerts import aws
from strongroom.service.alerts.alert import Alert, subjects
from strongroom.service.errors import AlertNotSent

_BATCH = 100  # most findings of one call
_MOST = 1000  # an archive with more is beyond triage one by one; the alert's other ways tell the number
_LABELS = {"critical": "CRITICAL", "error": "HIGH", "warning": "MEDIUM", "info": "INFORMATIONAL"}


class SecurityHubSink:
    """Imports into the account and region the process runs in, under the account's default product."""

    name = "securityhub"

    def __init__(self, client: Any = None, identity: Any = None) -> None:
        """`client`, `identity`: boto3 clients of Security Hub and STS, made when missing."""
        self._client = client or aws.client("securityhub")
        self._identity = identity or aws.client("sts")
        self._account = ""

    async def send(self, alert: Alert) -> None:
        if not self._account:
            asked = await aws.call("sts", self._identity.get_caller_identity)
            self._account = str(asked["Account"])
        region = self._client.meta.region_name
        made = [asff(alert, finding, self._account, region) for finding in subjects(alert)[:_MOST]]
        for start in range(0, len(made), _BATCH):
            part = made[start : start + _BATCH]
            answer = await aws.call(self.name, self._client.batch_import_findings, Findings=part)
            if answer.get("FailedCount"):
                reasons = {str(failed.get("ErrorMessage")) for failed in answer.get("FailedFindings", [])}
                raise AlertNotSent(
                    f"{self.name}: {answer['FailedCount']} findings refused: {'; '.join(sorted(reasons))}"
                )


def asff(alert: Alert, finding: Mapping[str, Any], account: str, region: str) -> dict[str, Any]:
    """One finding in Security Hub's format."""
    partition = "aws-us-gov" if region.startswith("us-gov-") else "aws-cn" if region.startswith("cn-") else "aws"
    named = f"{alert.origin}/{finding['code']}/{finding['object']}"
    moment = alert.time.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    label = _LABELS[str(finding["severity"])]
    kinds = ["Unusual Behaviors/Data"] if label == "CRITICAL" else ["Software and Configuration Checks"]
    said = f"{finding['meaning']}. Expected {finding['expected']}, found {finding['actual']}."
    return {
        "SchemaVersion": "2018-10-08",
        "Id": f"strongroom/{sha256(named.encode()).hexdigest()}",
        "ProductArn": f"arn:{partition}:securityhub:{region}:{account}:product/{account}/default",
        "GeneratorId": f"strongroom/verify/{finding['code']}",
        "AwsAccountId": account,
        "Types": kinds,
        "CreatedAt": moment,
        "UpdatedAt": moment,
        "Severity": {"Label": label},
        "Title": f"{finding['code']}: {alert.origin}"[:256],
        "Description": said[:1024],
        "Remediation": {"Recommendation": {"Text": str(finding["next_step"])[:512]}},
        "ProductFields": {
            "strongroom/level": alert.level,
            "strongroom/run": alert.run or "-",
            "strongroom/object": str(finding["object"])[:1024],
        },
        "Resources": [{"Type": "Other", "Id": f"strongroom:{alert.origin}/{finding['object']}"[:512]}],
        "RecordState": "ARCHIVED" if alert.kind == "recovered" else "ACTIVE",
    }
