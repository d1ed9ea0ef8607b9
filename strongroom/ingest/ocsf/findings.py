"""What somebody found: Detection Finding, Compliance Finding."""

from __future__ import annotations

from collections.abc import Mapping

from strongroom.ingest.ocsf.event_class import (
    DISPOSITION,
    DISPOSITIONS,
    FINDING,
    INT,
    TEXT,
    OcsfClass,
    Part,
    endpoint,
    named,
)
from strongroom.ingest.ocsf.network import FIREWALL
from strongroom.ingest.sources import config, guardduty, networkfirewall, securityhub

_FINDING_ACTIVITIES = {0: "Unknown", 1: "Create", 2: "Update", 3: "Close"}
_HUB: Mapping[str, str] = {
    "finding_info.uid": "finding_id",
    "finding_info.title": "title",
    "finding_info.desc": "description",
    "finding_info.types": "finding_types",
    "finding_info.created_time": "epoch_ms(created_at)",
    "finding_info.modified_time": "epoch_ms(updated_at)",
    "finding_info.first_seen_time": "epoch_ms(first_observed_at)",
    "finding_info.last_seen_time": "epoch_ms(last_observed_at)",
    "resources": "CASE WHEN resource_id IS NOT NULL THEN list_prepend({'uid': resource_id, 'type': resource_type},"
    " [{'uid': id, 'type': NULL} FOR id IN resource_ids[2:]]) END",
    "remediation.desc": "remediation",
}
_HUB_ACTIVITY = """CASE WHEN activity IN ('Create', 'Generate') THEN 1 WHEN activity = 'Update' THEN 2
    WHEN activity = 'Close' OR record_state = 'ARCHIVED' THEN 3 WHEN updated_at > created_at THEN 2 ELSE 1 END"""
_IS_COMPLIANCE = "coalesce(class_uid = 2003, compliance_status IS NOT NULL)"

DETECTION_FINDING = OcsfClass(
    "ocsf_detection_finding",
    2004,
    "Detection Finding",
    2,
    "Findings",
    _FINDING_ACTIVITIES,
    {**FINDING, **endpoint("src"), "dst_endpoint.ip": TEXT, "dst_endpoint.port": INT, **DISPOSITION},
    (
        Part(
            guardduty.SOURCE,
            "true",
            "CASE WHEN archived THEN 3 WHEN updated_at > created_at THEN 2 ELSE 1 END",
            "GuardDuty",
            {
                "finding_info.uid": "finding_id",
                "finding_info.title": "title",
                "finding_info.desc": "description",
                "finding_info.types": "[finding_type]",
                "finding_info.created_time": "epoch_ms(created_at)",
                "finding_info.modified_time": "epoch_ms(updated_at)",
                "finding_info.first_seen_time": "epoch_ms(first_seen)",
                "finding_info.last_seen_time": "epoch_ms(last_seen)",
                "resources": "[{'uid': coalesce(instance_id, bucket_name, cluster_name, database_id, function_name,"
                " access_key_id), 'type': resource_type}]",
                "src_endpoint.ip": "source_address",
                "src_endpoint.port": "source_port",
                "dst_endpoint.ip": "local_address",
                "dst_endpoint.port": "local_port",
                "disposition_id": "CASE WHEN blocked THEN 2 WHEN NOT blocked THEN 1 ELSE 0 END",
                "disposition": "CASE WHEN blocked THEN 'Blocked' WHEN NOT blocked THEN 'Allowed' ELSE 'Unknown' END",
            },
        ),
        Part(
            securityhub.SOURCE,
            f"coalesce(class_uid, 2004) = 2004 AND NOT {_IS_COMPLIANCE}",
            _HUB_ACTIVITY,
            "Security Hub",
            {**_HUB, "src_endpoint.ip": "source_address"},
        ),
        Part(
            networkfirewall.SOURCE,
            "event_type = 'alert'",
            "1",
            "AWS Network Firewall",
            {
                "cloud.zone": "availability_zone",
                "finding_info.uid": "flow_id",
                "finding_info.title": "signature",
                "finding_info.types": "[category]",
                "src_endpoint.ip": "source_address",
                "src_endpoint.port": "source_port",
                "dst_endpoint.ip": "destination_address",
                "dst_endpoint.port": "destination_port",
                "disposition_id": FIREWALL,
                "disposition": named(f"({FIREWALL})", DISPOSITIONS),
            },
        ),
    ),
)

_PASSED = "CASE WHEN upper({0}) IN ('PASSED', 'PASS', 'COMPLIANT') THEN {1} WHEN upper({0}) IN ('WARNING') THEN {2}"
_PASSED += " WHEN upper({0}) IN ('FAILED', 'FAIL', 'NON_COMPLIANT') THEN {3} ELSE {4} END"
COMPLIANCE_FINDING = OcsfClass(
    "ocsf_compliance_finding",
    2003,
    "Compliance Finding",
    2,
    "Findings",
    _FINDING_ACTIVITIES,
    {
        **FINDING,
        "compliance.control": TEXT,
        "compliance.status": TEXT,
        "compliance.status_id": INT,
        "compliance.standards": "VARCHAR[]",
    },
    (
        Part(
            securityhub.SOURCE,
            _IS_COMPLIANCE,
            _HUB_ACTIVITY,
            "Security Hub",
            {
                **_HUB,
                "compliance.control": "coalesce(control_id, CASE WHEN class_uid IS NOT NULL THEN generator_id END)",
                "compliance.standards": "standards",
                "compliance.status": _PASSED.format("compliance_status", "'Pass'", "'Warning'", "'Fail'", "'Unknown'"),
                "compliance.status_id": _PASSED.format("compliance_status", 1, 2, 3, 0),
            },
        ),
        Part(
            config.SOURCE,
            "compliance IS NOT NULL",
            "CASE WHEN previous_compliance IS NULL THEN 1 ELSE 2 END",
            "AWS Config",
            {
                "finding_info.uid": "concat_ws('/', account, region, config_rule, resource_type, resource_id)",
                "finding_info.title": "config_rule",
                "finding_info.modified_time": "epoch_ms(event_time)",
                "resources": "[{'uid': coalesce(arn, resource_id), 'type': resource_type}]",
                "compliance.control": "config_rule",
                "compliance.status": _PASSED.format("compliance", "'Pass'", "'Warning'", "'Fail'", "'Unknown'"),
                "compliance.status_id": _PASSED.format("compliance", 1, 2, 3, 0),
            },
        ),
    ),
)
