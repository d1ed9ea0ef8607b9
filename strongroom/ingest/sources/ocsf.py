"""Events in the words of the Open Cybersecurity Schema Framework, as Amazon Security Lake and its sources write them.

Security Lake keeps events of all classes in Apache Parquet, whose rows are written out as JSON (ocsfparquet.py); other
tools send the same events as JSON. Findings as JSON are Security Hub's (securityhub.py): their columns are there. Class
decides what else a record has; the columns here are what most classes share, the rest is reached by JSON path. Versions
of the schema since the release candidate of 1.0, in which Security Lake began, are understood.

Mapped already, these records are also the ones whose OCSF views take everything as it stands: ingest/ocsf/mapped.py.
Source: schema.ocsf.io; Amazon Security Lake user guide, "Open Cybersecurity Schema Framework (OCSF)".
"""

from __future__ import annotations

import pyarrow as pa

from strongroom.ingest.sources import jsonsplit, ocsfparquet
from strongroom.ingest.sources.declared import JsonSource, events
from strongroom.ingest.sources.fields import field
from strongroom.ingest.sources.source import TEXTS, TIME, Split

_I64 = pa.int64()
_MARKS = ("class_uid", "category_uid", "metadata.version")


class Ocsf(JsonSource):
    """See the module."""

    def recognise(self, head: bytes) -> bool:
        """By what every event of every class has."""
        if head.startswith(ocsfparquet.MAGIC):
            return all(name.encode() in head for name in _MARKS[:2])
        return super().recognise(head)

    def split(self, body: bytes) -> Split:
        """Rows of a Parquet file written out, or JSON objects."""
        if body.startswith(ocsfparquet.MAGIC):
            return ocsfparquet.split(body, _MARKS[:1])
        return jsonsplit.split(body, self.containers)


SOURCE = Ocsf(
    name="ocsf",
    description="Events in the Open Cybersecurity Schema Framework, as Amazon Security Lake keeps them",
    columns=(
        field("event_time", "time_dt", "time", "finding_info.modified_time", type=TIME),
        field("class_uid", "class_uid", type=_I64),
        field("class_name", "class_name"),
        field("category_name", "category_name"),
        field("activity_id", "activity_id", type=_I64),
        field("activity_name", "activity_name"),
        field("schema_version", "metadata.version"),
        field("product", "metadata.product.name"),
        field("vendor", "metadata.product.vendor_name"),
        field("event_id", "metadata.uid", "finding_info.uid", "finding.uid", "api.request.uid"),
        field("account", "cloud.account.uid", "cloud.account_uid", "unmapped.recipientAccountId"),
        field("region", "cloud.region"),
        field("user_name", "actor.user.name", "actor.session.issuer", "user.name"),
        field("user_id", "actor.user.uid", "actor.user.uuid", "user.uid", "user.uuid"),
        field("access_key_id", "actor.user.credential_uid"),
        field("invoked_by", "actor.invoked_by"),
        field("operation", "api.operation"),
        field("service", "api.service.name"),
        field("source_address", "src_endpoint.ip", "evidences.src_endpoint.ip"),
        field("source_port", "src_endpoint.port", type=_I64),
        field("destination_address", "dst_endpoint.ip"),
        field("destination_port", "dst_endpoint.port", type=_I64),
        field("query_name", "query.hostname"),
        field("url", "http_request.url.url_string", "http_request.url.path"),
        field("user_agent", "http_request.user_agent"),
        field("resource_ids", "resources.*.uid", "resource.uid", type=TEXTS),
        field("title", "finding_info.title", "finding.title"),
        field("severity", "severity"),
        field("status", "status"),
        field("disposition", "disposition"),
        field("error_code", "api.response.error", "status_code"),
        field("message", "message", "status_detail", "api.response.message", "finding_info.desc", "finding.desc"),
    ),
    events=events(
        "ocsf",
        account="account",
        region="region",
        actor="coalesce(user_name, user_id, invoked_by)",
        action="coalesce(operation, class_name || ': ' || activity_name, class_name)",
        target="coalesce(query_name, url, nullif(concat_ws(':', destination_address, destination_port), ''),"
        " resource_ids[1])",
        source_address="source_address",
        outcome="""CASE WHEN disposition IN ('Blocked', 'Dropped', 'Rejected', 'Unauthorized') THEN 'denied'
            WHEN error_code ILIKE '%denied%' OR error_code ILIKE '%unauthorized%' THEN 'denied'
            WHEN lower(status) IN ('success', 'failure') THEN lower(status) END""",
        severity="lower(severity)",
        event_id="event_id",
        message="coalesce(title, message)",
    ),
    sort=("class_uid", "account", "event_time"),
    summary_columns=("account", "region", "class_name", "product", "source_address", "user_name"),
    marks=(_MARKS,),
    foreign=("finding_info", "finding"),
)
