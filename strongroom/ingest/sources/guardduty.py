"""Amazon GuardDuty findings.

Three deliveries of the same finding: JSON lines exported to S3, EventBridge envelopes (`detail`), and the API's answer
(`Findings`, names in PascalCase). A finding is updated while its threat goes on, so its identity is id and time of
update together. Field reference: Amazon GuardDuty user guide, "Finding details"; API reference, "Finding".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from strongroom.ingest.sources import fields, jsonsplit, lenient, outline
from strongroom.ingest.sources.documents import container
from strongroom.ingest.sources.fields import field
from strongroom.ingest.sources.source import TIME, Contexts, Split

_CALL = "service.action.awsApiCallAction"
_CONNECTION = "service.action.networkConnectionAction"
_DNS = "service.action.dnsRequestAction"
_KUBERNETES = "service.action.kubernetesApiCallAction"
_LOGIN = "service.action.rdsLoginAttemptAction"
_PROBE = "service.action.portProbeAction.portProbeDetails"
_ACTIONS = (_CALL, _CONNECTION, _KUBERNETES, _LOGIN, _PROBE)
_INSTANCE = "resource.instanceDetails"
_INTERFACE = f"{_INSTANCE}.networkInterfaces"

_FIELDS = (
    field("event_time", "updatedAt", "service.eventLastSeen", "createdAt", type=TIME),
    field("finding_id", "id"),
    field("finding_type", "type"),
    field("account", "accountId"),
    field("region", "region"),
    field("severity", "severity", type=pa.float64()),
    field("title", "title"),
    field("description", "description"),
    field("created_at", "createdAt", type=TIME),
    field("updated_at", "updatedAt", type=TIME),
    field("first_seen", "service.eventFirstSeen", type=TIME),
    field("last_seen", "service.eventLastSeen", type=TIME),
    field("count", "service.count", type=pa.int64()),
    field("archived", "service.archived", type=pa.bool_()),
    field("detector_id", "service.detectorId"),
    field("feature", "service.featureName"),
    field("arn", "arn"),
    field("resource_type", "resource.resourceType"),
    field("resource_role", "service.resourceRole"),
    field("instance_id", f"{_INSTANCE}.instanceId"),
    field("interface_id", f"{_INTERFACE}.networkInterfaceId"),
    field("vpc_id", f"{_INTERFACE}.vpcId"),
    field("access_key_id", "resource.accessKeyDetails.accessKeyId"),
    field("principal_id", "resource.accessKeyDetails.principalId"),
    field(
        "user_name", "resource.accessKeyDetails.userName", "resource.kubernetesDetails.kubernetesUserDetails.username"
    ),
    field("bucket_name", "resource.s3BucketDetails.name"),
    field("cluster_name", "resource.eksClusterDetails.name", "resource.ecsClusterDetails.name"),
    field("database_id", "resource.rdsDbInstanceDetails.dbInstanceIdentifier"),
    field("function_name", "resource.lambdaDetails.functionName"),
    field("action_type", "service.action.actionType"),
    field("api", f"{_CALL}.api", f"{_KUBERNETES}.verb"),
    field("event_source", f"{_CALL}.serviceName"),
    field("error_code", f"{_CALL}.errorCode"),
    field(
        "source_address",
        *(f"{action}.remoteIpDetails.ipAddressV4" for action in _ACTIONS),
        f"{_CALL}.remoteIpDetails.ipAddressV6",
        f"{_CONNECTION}.remoteIpDetails.ipAddressV6",
        f"{_KUBERNETES}.sourceIps",
    ),
    field("source_country", *(f"{action}.remoteIpDetails.country.countryName" for action in _ACTIONS)),
    field("source_port", f"{_CONNECTION}.remotePortDetails.port", type=pa.int64()),
    field("local_address", f"{_CONNECTION}.localIpDetails.ipAddressV4", f"{_INTERFACE}.privateIpAddress"),
    field(
        "local_port",
        f"{_CONNECTION}.localPortDetails.port",
        f"{_PROBE}.localPortDetails.port",
        type=pa.int64(),
    ),
    field("connection_direction", f"{_CONNECTION}.connectionDirection"),
    field("blocked", f"{_CONNECTION}.blocked", f"{_DNS}.blocked", type=pa.bool_()),
    field("domain", f"{_DNS}.domain", f"{_CALL}.domainDetails.domain"),
)


class GuardDuty:
    """See the module."""

    name = "guardduty"
    description = "Threat findings of Amazon GuardDuty"
    natural_id: str | None = "finding_version"
    sort: tuple[str, ...] = ("account", "finding_type", "event_time")
    summary_columns: tuple[str, ...] = (
        "account",
        "region",
        "finding_type",
        "source_address",
        "access_key_id",
        "instance_id",
    )
    schema = fields.schema(_FIELDS).append(pa.field("finding_version", pa.string()))
    containers = (container("detail", many=False), container("Findings"), container("findings"))

    events: Mapping[str, str] = {
        "source": "'guardduty'",
        "event_time": "event_time",
        "account": "account",
        "region": "region",
        "actor": "coalesce(user_name, principal_id)",
        "action": "finding_type",
        "target": "coalesce(instance_id, bucket_name, cluster_name, database_id, function_name, access_key_id)",
        "source_address": "source_address",
        "outcome": "CASE WHEN blocked THEN 'denied' WHEN error_code IS NOT NULL THEN 'failure' END",
        # Ranges: GuardDuty user guide, "Severity levels for GuardDuty findings".
        "severity": """CASE WHEN severity >= 9 THEN 'critical' WHEN severity >= 7 THEN 'high'
            WHEN severity >= 4 THEN 'medium' WHEN severity IS NOT NULL THEN 'low' END""",
        "event_id": "finding_id",
        "message": "title",
    }

    def recognise(self, head: bytes) -> bool:
        """A finding's service and resource, in either spelling; or an envelope that says so."""
        return (
            outline.has(head, ("service.serviceName", "resource.resourceType"))
            or outline.has(head, ("Service.ServiceName", "Resource.ResourceType"))
            or outline.has(head, ("service", "resource.resourceType", "type"))
            or outline.has(head, ("Service", "Resource.ResourceType", "Type"))
            or outline.has(head, ("service.detectorId", "severity"))
            or outline.has(head, ("schemaVersion", "partition", "accountId", "severity", "type"))
            or (outline.has(head, ("detail", "detail-type")) and b'"GuardDuty Finding"' in head)
        )

    def split(self, body: bytes) -> Split:
        """Findings, out of their envelope if they have one."""
        return jsonsplit.split(body, self.containers)

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Columns by path."""
        table = fields.table(_FIELDS, [lenient.record(r) for r in raw])
        return table.append_column("finding_version", fields.joined(table, "finding_id", "updated_at"))


SOURCE = GuardDuty()
