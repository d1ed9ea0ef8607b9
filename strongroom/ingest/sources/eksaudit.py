"""Kubernetes audit events, as Amazon EKS and other clusters write them: who asked the API server for what.

Bare `audit.k8s.io` events, one a line from a file or in an `EventList` from a webhook. (EKS itself delivers them
through CloudWatch Logs; see cwlogs.py.) A request has one audit id and one event for each stage it went through, so the
identity of an event is both together. Account, access key and role are what aws-iam-authenticator adds about the user.
Field reference: Kubernetes, "kube-apiserver Audit Configuration (v1)".
"""

from __future__ import annotations

import pyarrow as pa

from strongroom.ingest.sources.declared import JsonSource, events
from strongroom.ingest.sources.documents import container
from strongroom.ingest.sources.fields import ACCOUNT_OF_ARN, field
from strongroom.ingest.sources.source import TEXTS, TIME

SOURCE = JsonSource(
    name="eksaudit",
    description="Requests to Kubernetes API servers (audit.k8s.io events)",
    columns=(
        field("event_time", "requestReceivedTimestamp", "timestamp", "stageTimestamp", type=TIME),
        field("audit_id", "auditID"),
        field("stage", "stage"),
        field("stage_time", "stageTimestamp", type=TIME),
        field("level", "level"),
        field("verb", "verb"),
        field("request_uri", "requestURI"),
        field("namespace", "objectRef.namespace"),
        field("resource", "objectRef.resource"),
        field("subresource", "objectRef.subresource"),
        field("name", "objectRef.name"),
        field("api_group", "objectRef.apiGroup"),
        field("user_name", "user.username"),
        field("user_id", "user.uid"),
        field("groups", "user.groups", type=TEXTS),
        field("account", "user.extra.canonicalArn", "user.extra.arn", convert=ACCOUNT_OF_ARN),
        field("arn", "user.extra.arn"),
        field("role_arn", "user.extra.canonicalArn"),
        field("access_key_id", "user.extra.accessKeyId"),
        field("impersonated_user", "impersonatedUser.username"),
        field("source_address", "sourceIPs"),
        field("source_addresses", "sourceIPs", type=TEXTS),
        field("user_agent", "userAgent"),
        field("response_code", "responseStatus.code", type=pa.int64()),
        field("response_reason", "responseStatus.reason"),
        field("response_message", "responseStatus.message"),
        field("decision", ("annotations", "authorization.k8s.io/decision")),
        field("decision_reason", ("annotations", "authorization.k8s.io/reason")),
    ),
    events=events(
        "eksaudit",
        account="account",
        actor="coalesce(impersonated_user, user_name)",
        action="concat_ws(' ', verb, nullif(concat_ws('/', resource, subresource), ''))",
        target="coalesce(nullif(concat_ws('/', namespace, name), ''), request_uri)",
        source_address="source_address",
        outcome="""CASE WHEN decision = 'forbid' OR response_code IN (401, 403) THEN 'denied'
            WHEN response_code >= 400 THEN 'failure' WHEN response_code IS NOT NULL THEN 'success' END""",
        event_id="event_id",
        message="coalesce(response_message, response_reason, decision_reason)",
    ),
    sort=("namespace", "resource", "verb", "event_time"),
    summary_columns=("account", "namespace", "resource", "user_name", "source_address", "access_key_id"),
    marks=(("auditID", "verb"), ("auditID", "requestURI"), ("items.auditID", "items.verb")),
    containers=(container("items"),),
    natural_id="event_id",
    identity=("audit_id", "stage"),
)
