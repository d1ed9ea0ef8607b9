"""What the columns of all sources point at: an address, a principal, an access key, … Pure.

Columns that mean the same have the same name in every source, so a column's name says its kind; the few names that
mean something else in one source are listed for it. Sources that an operator declares get their entities the same way,
by naming columns as everybody does. Kinds are what an investigator goes from one log to another by, and what the query
side keeps an index of; a column belongs to one kind at most, and is a text or a list of texts.
"""

from __future__ import annotations

from collections.abc import Mapping

from strongroom.ingest.sources.source import TEXT, TEXTS, Source

_KINDS: Mapping[str, tuple[str, ...]] = {
    "address": (
        *("source_address", "destination_address", "local_address", "target_address", "source_addresses"),
        *("packet_source_address", "packet_destination_address", "answers"),
    ),
    "principal": (
        *("principal_id", "arn", "user_name", "session_issuer_arn", "session_issuer_name", "source_identity"),
        *("invoked_by", "actor", "requester", "impersonated_user", "role_arn", "run_as_user", "user_id"),
    ),
    "access_key": ("access_key_id",),
    "resource": (
        *("resource_arns", "resource_id", "resource_ids", "resource_name", "bucket_name", "key", "instance_id"),
        *("interface_id", "vpc_id", "subnet_id", "load_balancer", "target_group_arn", "protected_id", "web_acl"),
        *("database_id", "function_name", "cluster_name", "topic_arn", "target", "vpc_endpoint_id", "log_group"),
    ),
    "event_id": (
        *("event_id", "shared_event_id", "request_id", "finding_id", "trace_id", "audit_id", "session_id"),
        *("message_id", "document_id", "audit_serial", "item_version", "cursor", "connection_trace_id"),
    ),
    "account": ("account", "identity_account", "bucket_owner", "tgw_src_vpc_account_id", "tgw_dst_vpc_account_id"),
    "host": ("host", "domain", "query_name", "dns_name"),
    "region": ("region", "source_region"),
}
# In findings and configuration items the ARN is of a thing, not of who did it.
_OTHERWISE: Mapping[str, Mapping[str, str]] = {
    "guardduty": {"arn": "resource"},
    "config": {"arn": "resource"},
}


def entities(source: Source) -> dict[str, tuple[str, ...]]:
    """Kind -> columns of `source` that hold entities of this kind."""
    of_column = {name: kind for kind, names in _KINDS.items() for name in names}
    of_column.update(_OTHERWISE.get(source.name, {}))
    found: dict[str, list[str]] = {}
    for field in source.schema:
        if field.name in of_column and field.type in (TEXT, TEXTS):
            found.setdefault(of_column[field.name], []).append(field.name)
    return {kind: tuple(names) for kind, names in found.items()}


def single_values(source: Source) -> list[str]:
    """The columns of `source` that are searched for one of very many values: Parquet keeps filters for them."""
    kinds = entities(source)
    names = [name for kind in ("address", "principal", "access_key", "event_id") for name in kinds.get(kind, ())]
    return [name for name in names if source.schema.field(name).type == TEXT]
