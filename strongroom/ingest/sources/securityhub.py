"""AWS Security Hub findings, in the AWS Security Finding Format (ASFF) or in OCSF.

Delivered in EventBridge envelopes (`detail.findings`), as the API's answer (`Findings`), or bare. The newer Security
Hub writes OCSF findings (class 2002, 2003, 2004, …); both fill the same columns. A finding's identity is its id and
time of update together. Field reference: AWS Security Hub user guide, "AWS Security Finding Format"; schema.ocsf.io.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from strongroom.ingest.sources import fields, jsonsplit, lenient, outline
from strongroom.ingest.sources.documents import container
from strongroom.ingest.sources.fields import field
from strongroom.ingest.sources.source import TEXTS, TIME, Contexts, Split

# ASFF paths first, OCSF after them.
_FIELDS = (
    field("event_time", "UpdatedAt", "LastObservedAt", "CreatedAt", "finding_info.modified_time", "time", type=TIME),
    field("finding_id", "Id", "finding_info.uid", "finding.uid", "metadata.uid"),
    field("account", "AwsAccountId", "cloud.account.uid", "cloud.account_uid"),
    field("region", "Region", "Resources.Region", "cloud.region"),
    field("product_arn", "ProductArn", "metadata.product.uid"),
    field("product_name", "ProductName", "ProductFields.aws/securityhub/ProductName", "metadata.product.name"),
    field("company_name", "CompanyName", "ProductFields.aws/securityhub/CompanyName", "metadata.product.vendor_name"),
    field("generator_id", "GeneratorId", "finding_info.analytic.uid", "compliance.control"),
    field("finding_types", "Types", "FindingProviderFields.Types", "finding_info.types", "finding.types", type=TEXTS),
    field("title", "Title", "finding_info.title", "finding.title"),
    field("description", "Description", "finding_info.desc", "finding.desc"),
    field("severity", "Severity.Label", "FindingProviderFields.Severity.Label", "severity"),
    field("severity_score", "Severity.Normalized", type=pa.float64()),
    field("created_at", "CreatedAt", "finding_info.created_time", type=TIME),
    field("updated_at", "UpdatedAt", "finding_info.modified_time", "time", type=TIME),
    field("first_observed_at", "FirstObservedAt", "finding_info.first_seen_time", type=TIME),
    field("last_observed_at", "LastObservedAt", "finding_info.last_seen_time", type=TIME),
    field("compliance_status", "Compliance.Status", "compliance.status"),
    field("control_id", "Compliance.SecurityControlId", "ProductFields.ControlId", "ProductFields.RuleId"),
    field("workflow_status", "Workflow.Status", "WorkflowState", "status"),
    field("record_state", "RecordState"),
    field("resource_type", "Resources.Type", "resources.type", "resource.type"),
    field("resource_id", "Resources.Id", "resources.uid", "resource.uid"),
    field("resource_ids", "Resources.*.Id", "resources.*.uid", type=TEXTS),
    field(
        "source_address",
        "Network.SourceIpV4",
        "Network.SourceIpV6",
        "Action.AwsApiCallAction.RemoteIpDetails.IpAddressV4",
        "Action.NetworkConnectionAction.RemoteIpDetails.IpAddressV4",
        "Action.PortProbeAction.PortProbeDetails.RemoteIpDetails.IpAddressV4",
        "evidences.src_endpoint.ip",
    ),
    field("api", "Action.AwsApiCallAction.Api", "evidences.api.operation"),
    field("class_uid", "class_uid", type=pa.int64()),
    field("activity", "activity_name"),
    field("standards", "Compliance.AssociatedStandards.*.StandardsId", "compliance.standards", type=TEXTS),
    field("vulnerability_ids", "Vulnerabilities.*.Id", "vulnerabilities.*.cve.uid", type=TEXTS),
    field("remediation", "Remediation.Recommendation.Text", "remediation.desc"),
)


class SecurityHub:
    """See the module."""

    name = "securityhub"
    description = "Findings and failed controls collected by AWS Security Hub (ASFF or OCSF)"
    natural_id: str | None = "finding_version"
    sort: tuple[str, ...] = ("account", "generator_id", "event_time")
    summary_columns: tuple[str, ...] = ("account", "region", "product_name", "severity", "control_id", "resource_id")
    schema = fields.schema(_FIELDS).append(pa.field("finding_version", pa.string()))
    containers = (container("detail.findings"), container("Findings"), container("findings"))

    events: Mapping[str, str] = {
        "source": "'securityhub'",
        "event_time": "event_time",
        "account": "account",
        "region": "region",
        "actor": "NULL::VARCHAR",
        "action": "coalesce(control_id, finding_types[1], generator_id)",
        "target": "resource_id",
        "source_address": "source_address",
        "outcome": """CASE compliance_status WHEN 'PASSED' THEN 'success' WHEN 'Pass' THEN 'success'
            WHEN 'FAILED' THEN 'failure' WHEN 'Fail' THEN 'failure' END""",
        # Findings of before 2020 have no label; ranges: ASFF, "Severity".
        "severity": """coalesce(lower(severity), CASE WHEN severity_score >= 90 THEN 'critical'
            WHEN severity_score >= 70 THEN 'high' WHEN severity_score >= 40 THEN 'medium'
            WHEN severity_score >= 1 THEN 'low' WHEN severity_score >= 0 THEN 'informational' END)""",
        "event_id": "finding_id",
        "message": "title",
    }

    def recognise(self, head: bytes) -> bool:
        """ASFF's required fields, or an OCSF class with a finding in it."""
        return (
            outline.has(head, ("ProductArn", "AwsAccountId"))
            or outline.has(head, ("ProductArn", "GeneratorId"))
            or outline.has(head, ("GeneratorId", "AwsAccountId", "Types"))
            or outline.has(head, ("class_uid", "finding_info"))
            or outline.has(head, ("class_uid", "finding"))
        )

    def split(self, body: bytes) -> Split:
        """Findings, out of their envelope if they have one."""
        return jsonsplit.split(body, self.containers)

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Columns by path."""
        table = fields.table(_FIELDS, [lenient.record(r) for r in raw])
        return table.append_column("finding_version", fields.joined(table, "finding_id", "updated_at"))


SOURCE = SecurityHub()
