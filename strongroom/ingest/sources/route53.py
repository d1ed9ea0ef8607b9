"""Route 53 Resolver query logs: which names were asked for from which VPC, and what DNS Firewall did about it.

One JSON object a query, as written to S3, Firehose or CloudWatch Logs. There is no identity of a query. Field
reference: Amazon Route 53 developer guide, "Values that appear in VPC Resolver query logs".
"""

from __future__ import annotations

import pyarrow as pa

from strongroom.ingest.sources.declared import JsonSource, events
from strongroom.ingest.sources.fields import field
from strongroom.ingest.sources.source import TEXTS, TIME

SOURCE = JsonSource(
    name="route53",
    description="DNS queries from VPCs, recorded by Route 53 Resolver",
    columns=(
        field("event_time", "query_timestamp", type=TIME),
        field("account", "account_id"),
        field("region", "region"),
        field("vpc_id", "vpc_id"),
        field("query_name", "query_name"),
        field("query_type", "query_type"),
        field("query_class", "query_class"),
        field("response_code", "rcode"),
        # Usually an array; some exporters unpack an array of one.
        field("answers", "answers.*.Rdata", "answers.Rdata", type=TEXTS),
        field("answer_types", "answers.*.Type", "answers.Type", type=TEXTS),
        field("source_address", "srcaddr"),
        field("source_port", "srcport", type=pa.int64()),
        field("transport", "transport"),
        field("instance_id", "srcids.instance"),
        field("resolver_endpoint", "srcids.resolver_endpoint"),
        field("resolver_interface", "srcids.resolver_network_interface"),
        field("firewall_action", "firewall_rule_action"),
        field("firewall_rule_group_id", "firewall_rule_group_id"),
        field("firewall_domain_list_id", "firewall_domain_list_id"),
        field("firewall_protection", "firewall_protection"),
        field("firewall_threat_protection", "firewall_threat_protection_category", "firewall_threat_detection"),
        field("version", "version"),
    ),
    events=events(
        "route53",
        account="account",
        region="region",
        actor="instance_id",
        action="concat_ws(' ', 'query', query_type)",
        target="query_name",
        source_address="source_address",
        outcome="""CASE WHEN firewall_action = 'BLOCK' THEN 'denied' WHEN response_code = 'NOERROR' THEN 'success'
            WHEN response_code IS NOT NULL THEN 'failure' END""",
        message="concat_ws(' ', response_code, array_to_string(answers, ', '))",
    ),
    sort=("account", "vpc_id", "query_name", "event_time"),
    summary_columns=("account", "region", "vpc_id", "query_name", "source_address"),
    marks=(("query_name", "query_type", "query_timestamp"), ("query_name", "rcode", "srcaddr")),
)
