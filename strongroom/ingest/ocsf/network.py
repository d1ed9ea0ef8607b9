"""What went over the network: Network Activity, DNS Activity, HTTP Activity."""

from __future__ import annotations

from strongroom.ingest.ocsf.event_class import (
    BIG,
    BOTH_ENDS,
    CONNECTION,
    DISPOSITION,
    DISPOSITIONS,
    HTTP,
    INT,
    TEXT,
    OcsfClass,
    Part,
    named,
    numbered,
)
from strongroom.ingest.sources import elb, networkfirewall, route53, s3access, vpcflow, waf

FIREWALL = (
    "CASE WHEN lower(action) IN ('allowed', 'pass', 'accept') THEN 1"
    " WHEN lower(action) IN ('blocked', 'drop', 'reject') THEN 2 ELSE 0 END"
)

_VERDICT = "CASE {0} WHEN 'ACCEPT' THEN 1 WHEN 'REJECT' THEN 2 ELSE 0 END"
_DIRECTION = "CASE flow_direction WHEN 'ingress' THEN 1 WHEN 'egress' THEN 2 ELSE 0 END"
_DIRECTIONS = {0: "Unknown", 1: "Inbound", 2: "Outbound"}


def _own_end(side: str, column: str) -> str:
    """What the flow log says of its interface belongs to the end that the interface is: the source unless inbound."""
    return f"CASE WHEN (flow_direction = 'ingress') IS {'NOT ' if side == 'src' else ''}TRUE THEN {column} END"


NETWORK_ACTIVITY = OcsfClass(
    "ocsf_network_activity",
    4001,
    "Network Activity",
    4,
    "Network Activity",
    {0: "Unknown", 1: "Open", 5: "Refuse", 6: "Traffic"},
    {
        **BOTH_ENDS,
        **CONNECTION,
        **DISPOSITION,
        "traffic.packets": BIG,
        "traffic.bytes": BIG,
        "start_time": BIG,
        "end_time": BIG,
        "status_code": TEXT,
    },
    (
        Part(
            vpcflow.SOURCE,
            "true",
            "CASE action WHEN 'ACCEPT' THEN 6 WHEN 'REJECT' THEN 5 ELSE 0 END",
            "Amazon VPC",
            {
                "cloud.zone": "az_id",
                "src_endpoint.ip": "coalesce(packet_source_address, source_address)",
                "src_endpoint.port": "source_port",
                "src_endpoint.svc_name": "packet_source_service",
                "src_endpoint.intermediate_ips": "CASE WHEN source_address <> packet_source_address"
                " THEN [source_address] END",
                "dst_endpoint.ip": "coalesce(packet_destination_address, destination_address)",
                "dst_endpoint.port": "destination_port",
                "dst_endpoint.svc_name": "packet_destination_service",
                "dst_endpoint.intermediate_ips": "CASE WHEN destination_address <> packet_destination_address"
                " THEN [destination_address] END",
                **{
                    f"{side}_endpoint.{name}_uid": _own_end(side, f"{name}_id")
                    for side in ("src", "dst")
                    for name in ("instance", "interface", "vpc", "subnet")
                },
                "connection_info.protocol_num": "protocol",
                "connection_info.protocol_ver": "type",
                "connection_info.tcp_flags": "tcp_flags",
                "connection_info.direction_id": _DIRECTION,
                "connection_info.direction": named(f"({_DIRECTION})", _DIRECTIONS),
                "traffic.packets": "packets",
                "traffic.bytes": "bytes",
                "start_time": "epoch_ms(start_time)",
                "end_time": "epoch_ms(end_time)",
                "status_code": "log_status",
                "disposition_id": _VERDICT.format("action"),
                "disposition": named(f"({_VERDICT.format('action')})", DISPOSITIONS),
            },
        ),
        Part(
            networkfirewall.SOURCE,
            "event_type IS DISTINCT FROM 'alert' AND event_type IS DISTINCT FROM 'http'",
            "6",
            "AWS Network Firewall",
            {
                "cloud.zone": "availability_zone",
                "src_endpoint.ip": "source_address",
                "src_endpoint.port": "source_port",
                "dst_endpoint.ip": "destination_address",
                "dst_endpoint.port": "destination_port",
                "dst_endpoint.hostname": "host",
                "connection_info.protocol_name": "lower(protocol)",
                "traffic.packets": "packets",
                "traffic.bytes": "bytes",
                "start_time": "epoch_ms(start_time)",
                "end_time": "epoch_ms(end_time)",
                "disposition_id": FIREWALL,
                "disposition": named(f"({FIREWALL})", DISPOSITIONS),
            },
        ),
        Part(
            elb.SOURCE,
            "format = 'network'",
            "1",
            "Elastic Load Balancing",
            {
                "src_endpoint.ip": "source_address",
                "src_endpoint.port": "source_port",
                "dst_endpoint.ip": "target_address",
                "dst_endpoint.port": "target_port",
                "dst_endpoint.hostname": "host",
                "connection_info.protocol_name": "'tcp'",
                "traffic.bytes": "received_bytes + sent_bytes",
                "status_code": "tls_alert",
            },
        ),
    ),
)

_CODES = {
    "NOERROR": 0,
    "FORMERR": 1,
    "SERVFAIL": 2,
    "NXDOMAIN": 3,
    "NOTIMP": 4,
    "REFUSED": 5,
    "YXDOMAIN": 6,
    "YXRRSET": 7,
    "NXRRSET": 8,
    "NOTAUTH": 9,
    "NOTZONE": 10,
}
_CODE = numbered("response_code", _CODES)
_CODE_NAMES = {
    0: "NoError",
    1: "FormError",
    2: "ServError",
    3: "NXDomain",
    4: "NotImp",
    5: "Refused",
    6: "YXDomain",
    7: "YXRRSet",
    8: "NXRRSet",
    9: "NotAuth",
    10: "NotZone",
}
_DNS_FIREWALL = "CASE firewall_action WHEN 'ALLOW' THEN 1 WHEN 'BLOCK' THEN 2 WHEN 'ALERT' THEN 16 ELSE 0 END"

DNS_ACTIVITY = OcsfClass(
    "ocsf_dns_activity",
    4003,
    "DNS Activity",
    4,
    "Network Activity",
    {0: "Unknown", 1: "Query", 2: "Response", 6: "Traffic"},
    {
        **BOTH_ENDS,
        **CONNECTION,
        **DISPOSITION,
        "query.hostname": TEXT,
        "query.type": TEXT,
        "query.class": TEXT,
        "rcode_id": INT,
        "rcode": TEXT,
        "answers": "STRUCT(rdata VARCHAR, type VARCHAR)[]",
    },
    (
        Part(
            route53.SOURCE,
            "true",
            "CASE WHEN response_code IS NULL THEN 1 ELSE 2 END",
            "Route 53",
            {
                "src_endpoint.ip": "source_address",
                "src_endpoint.port": "source_port",
                "src_endpoint.vpc_uid": "vpc_id",
                "src_endpoint.instance_uid": "instance_id",
                "dst_endpoint.instance_uid": "resolver_endpoint",
                "dst_endpoint.interface_uid": "resolver_interface",
                "connection_info.protocol_name": "transport",
                "connection_info.direction_id": "0",
                "connection_info.direction": "'Unknown'",
                "query.hostname": "query_name",
                "query.type": "query_type",
                "query.class": "query_class",
                "answers": "[{'rdata': pair[1], 'type': pair[2]} FOR pair IN list_zip(answers, answer_types)]",
                "rcode_id": _CODE,
                "rcode": named(_CODE, _CODE_NAMES),
                "disposition_id": _DNS_FIREWALL,
                "disposition": named(f"({_DNS_FIREWALL})", DISPOSITIONS),
            },
        ),
    ),
)

_METHOD = """CASE upper({0}) WHEN 'CONNECT' THEN 1 WHEN 'DELETE' THEN 2 WHEN 'GET' THEN 3 WHEN 'HEAD' THEN 4
    WHEN 'OPTIONS' THEN 5 WHEN 'POST' THEN 6 WHEN 'PUT' THEN 7 WHEN 'TRACE' THEN 8 ELSE 99 END"""
_WAF = """CASE WHEN action = 'ALLOW' THEN 1 WHEN action IN ('BLOCK', 'CAPTCHA', 'CHALLENGE') THEN 2 ELSE 0 END"""

HTTP_ACTIVITY = OcsfClass(
    "ocsf_http_activity",
    4002,
    "HTTP Activity",
    4,
    "Network Activity",
    {
        1: "Connect",
        2: "Delete",
        3: "Get",
        4: "Head",
        5: "Options",
        6: "Post",
        7: "Put",
        8: "Trace",
        99: "Other",
    },
    {**BOTH_ENDS, **HTTP, **DISPOSITION, "actor.user.uid_alt": TEXT, "traffic.bytes": BIG},
    (
        Part(
            waf.SOURCE,
            "true",
            _METHOD.format("method"),
            "AWS WAF",
            {
                "src_endpoint.ip": "source_address",
                "dst_endpoint.svc_name": "protected_service",
                "http_request.http_method": "method",
                "http_request.version": "http_version",
                "http_request.url.hostname": "host",
                "http_request.url.path": "uri",
                "http_request.user_agent": "user_agent",
                "http_request.uid": "request_id",
                "http_response.code": "response_code",
                "disposition_id": _WAF,
                "disposition": named(f"({_WAF})", DISPOSITIONS),
            },
        ),
        Part(
            elb.SOURCE,
            "format <> 'network'",
            _METHOD.format("method"),
            "Elastic Load Balancing",
            {
                "src_endpoint.ip": "source_address",
                "src_endpoint.port": "source_port",
                "dst_endpoint.ip": "target_address",
                "dst_endpoint.port": "target_port",
                "http_request.http_method": "method",
                "http_request.version": "http_version",
                "http_request.url.hostname": "regexp_extract(url, '^[a-z]+://([^/:?]+)', 1)",
                "http_request.url.path": "regexp_extract(url, '^[a-z]+://[^/?]*([^?]*)', 1)",
                "http_request.user_agent": "user_agent",
                "http_request.uid": "trace_id",
                "http_response.code": "status",
                "traffic.bytes": "received_bytes + sent_bytes",
            },
        ),
        Part(
            s3access.SOURCE,
            "method IS NOT NULL",
            _METHOD.format("method"),
            "Amazon S3",
            {
                "actor.user.uid_alt": "requester",
                "src_endpoint.ip": "source_address",
                "dst_endpoint.svc_name": "bucket_name",
                "http_request.http_method": "method",
                "http_request.version": "http_version",
                "http_request.url.hostname": "host",
                "http_request.url.path": "split_part(uri, '?', 1)",
                "http_request.user_agent": "user_agent",
                "http_request.uid": "request_id",
                "http_response.code": "status",
                "traffic.bytes": "sent_bytes",
            },
        ),
        Part(
            networkfirewall.SOURCE,
            "event_type = 'http'",
            _METHOD.format("method"),
            "AWS Network Firewall",
            {
                "src_endpoint.ip": "source_address",
                "src_endpoint.port": "source_port",
                "dst_endpoint.ip": "destination_address",
                "dst_endpoint.port": "destination_port",
                "http_request.http_method": "method",
                "http_request.url.hostname": "host",
                "http_request.url.path": "split_part(uri, '?', 1)",
                "http_request.user_agent": "user_agent",
                "http_response.code": "http_status",
            },
        ),
    ),
)
