"""AWS WAF: each web request that a web ACL inspected, and the rule that decided.

One JSON object a request, from Firehose, S3 or CloudWatch Logs. Account and region are those of the web ACL's ARN.
The request's id is the protected service's (for load balancers, the trace id). Field reference: AWS WAF developer
guide, "Log fields for protection pack (web ACL) traffic".
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from strongroom.ingest.sources.declared import JsonSource, events
from strongroom.ingest.sources.fields import ACCOUNT_OF_ARN, REGION_OF_ARN, Convert, field, text
from strongroom.ingest.sources.source import TEXTS, TIME


def _header(wanted: str) -> Convert:
    """A conversion of the list of headers to the value of one, whatever the case of its name."""

    def convert(headers: Any) -> str | None:
        for header in headers if isinstance(headers, list) else []:
            if isinstance(header, dict) and str(header.get("name")).lower() == wanted:
                return text(header.get("value"))
        return None

    return convert


SOURCE = JsonSource(
    name="waf",
    description="Web requests inspected by AWS WAF",
    columns=(
        field("event_time", "timestamp", type=TIME),
        field("account", "webaclId", convert=ACCOUNT_OF_ARN),
        field("region", "webaclId", convert=REGION_OF_ARN),
        field("web_acl", "webaclId"),
        field("action", "action"),
        field("rule_id", "terminatingRuleId"),
        field("rule_type", "terminatingRuleType"),
        field("counted_rules", "nonTerminatingMatchingRules.*.ruleId", type=TEXTS),
        field("labels", "labels.*.name", type=TEXTS),
        field("protected_service", "httpSourceName"),
        field("protected_id", "httpSourceId"),
        field("source_address", "httpRequest.clientIp"),
        field("source_country", "httpRequest.country"),
        field("method", "httpRequest.httpMethod"),
        field("host", "httpRequest.headers", convert=_header("host")),
        field("uri", "httpRequest.uri"),
        field("arguments", "httpRequest.args"),
        field("http_version", "httpRequest.httpVersion"),
        field("user_agent", "httpRequest.headers", convert=_header("user-agent")),
        field("request_id", "httpRequest.requestId"),
        field("response_code", "responseCodeSent", type=pa.int64()),
        field("ja3_fingerprint", "ja3Fingerprint"),
        field("ja4_fingerprint", "ja4Fingerprint"),
    ),
    events=events(
        "waf",
        account="account",
        region="region",
        action="method",
        target="nullif(concat(host, uri), '')",
        source_address="source_address",
        outcome="""CASE WHEN action = 'ALLOW' THEN 'success'
            WHEN action IN ('BLOCK', 'CAPTCHA', 'CHALLENGE') THEN 'denied' END""",
        event_id="request_id",
        message="concat_ws(' ', action, rule_id)",
    ),
    sort=("account", "web_acl", "action", "event_time"),
    summary_columns=("account", "region", "web_acl", "action", "source_address"),
    marks=(("webaclId", "httpRequest"), ("webaclId", "terminatingRuleId")),
    natural_id="request_id",
)
