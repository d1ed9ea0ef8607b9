"""CloudWatch Logs envelopes, alone and joined as a landing zone archives them, and the messages in them."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime

from strongroom.ingest.decode import decode_whole
from strongroom.ingest.sources import SOURCES
from tests.ingest.rows import derived, events, sample, some
from tests.ingest.samples import SAMPLES, body


def envelope(*messages: str, group: str = "/g", kind: str = "DATA_MESSAGE") -> bytes:
    log_events = [{"id": str(n), "timestamp": 1700000000123 + n, "message": m} for n, m in enumerate(messages)]
    return json.dumps(
        {
            "messageType": kind,
            "owner": "111122223333",
            "logGroup": group,
            "logStream": "s",
            "subscriptionFilters": ["f"],
            "logEvents": log_events,
        }
    ).encode()


def test_a_real_flow_record_in_its_envelope() -> None:
    (row,) = sample("cwlogs", "newrelic-cwl-vpc-flow.json")
    some(
        row,
        event_id="34542401864989154948626167510903787499092146739808501760",
        account="463657938898",
        log_group="/aws/vpc/flow-logs",
        log_stream="eni-9f825df9-all",
        message="2 463657938898 eni-9f825df9 - - - - - - - 1548934870 1548934929 - NODATA",
        kind="vpcflow",
        status="NODATA",
    )
    assert row["event_time"] == datetime.fromtimestamp(1548934870, UTC)


def test_flows_in_the_landing_zones_list_of_fields() -> None:
    usual = (
        "5 111122223333 eni-1 10.0.0.5 198.51.100.9 49152 443 6 10 840 1700000000 1700000060 REJECT OK vpc-1 subnet-1"
        " i-1 2 IPv4 10.0.0.5 198.51.100.9 ca-central-1 cac1-az1 - - egress 8"
    )
    empty = "2 111122223333 eni-1 - - - - - - - 1700000000 1700000060 - NODATA vpc-1 - - - - - - ca-central-1 cac1-az1"
    other = usual.removeprefix("5 ")  # another order: not guessed
    content = envelope(usual, empty, other, usual + "\n" + usual)
    flow, nothing, unknown, two = derived("cwlogs", content)
    wanted = {"kind": "vpcflow", "region": "ca-central-1", "actor": "i-1", "action": "REJECT", "status": "OK"}
    some(flow, **wanted, source_address="10.0.0.5", target="198.51.100.9")
    some(nothing, kind="vpcflow", region="ca-central-1", source_address=None, status="NODATA")
    some(unknown, kind="text", source_address=None)
    some(two, kind="text")
    assert [row["outcome"] for row in events("cwlogs", content)] == ["denied", None, None, None]


def test_the_landing_zones_objects_are_many_gzip_members_without_separators() -> None:
    documents = [envelope("a", "b", group="/one"), envelope("c", group="/two"), envelope(kind="CONTROL_MESSAGE")]
    stored = b"".join(map(gzip.compress, documents))
    content = decode_whole(stored, "gzip", 1 << 20)
    assert content == b"".join(documents)
    rows = derived("cwlogs", content)
    assert [(r["log_group"], r["message"], r["kind"]) for r in rows] == [
        ("/one", "a", "text"),
        ("/one", "b", "text"),
        ("/two", "c", "text"),
        ("/g", None, None),
    ]


def test_messages_of_known_kinds_are_read_by_their_source() -> None:
    trail = json.loads(body(next((SAMPLES / "cloudtrail").glob("*_7xgocspSowgK0Gto.json.gz"))))["Records"][0]
    audit = body(SAMPLES / "eksaudit" / "audit2rbac-demo.log").splitlines()[0].decode()
    flow = "2 1 eni-1 192.0.2.1 192.0.2.2 1 22 6 1 40 1418530010 1418530070 REJECT OK"
    login = "May 27 09:28:36 h sshd[5617]: Failed password for invalid user oracle from 192.0.2.7 port 634 ssh2"
    query = body(SAMPLES / "route53" / "panther-rule-tests.jsonl").splitlines()[0].decode()
    web = body(SAMPLES / "waf" / "clo-waf.log").splitlines()[0].decode()
    content = envelope(json.dumps(trail), audit, flow, login, query, web, '{"level":"info"}', "plain", "")
    rows = derived("cwlogs", content)
    kinds = ["cloudtrail", "eksaudit", "vpcflow", "syslog", "route53", "waf", "json", "text", None]
    assert [r["kind"] for r in rows] == kinds
    some(rows[0], actor="benjamin", action="GetStorageLensConfiguration", inner_id=trail["eventID"], region="us-east-1")
    some(rows[1], actor="bob", action="list", source_address="::1")
    some(rows[2], source_address="192.0.2.1", target="192.0.2.2", action="REJECT")
    some(rows[3], actor="oracle", source_address="192.0.2.7", status="denied")
    shown = events("cwlogs", content)
    assert [e["outcome"] for e in shown[:4]] == ["success", "denied", "denied", "denied"]
    some(shown[0], action="cloudtrail:GetStorageLensConfiguration", account="111122223333")


def test_exact_bytes_are_those_of_the_log_event_escapes_and_all() -> None:
    event = rb'{ "id":"1","timestamp":1700000000123 , "message":"caf\u00e9 \ud800 \"x\"\n" }'
    content = b'{"messageType":"DATA_MESSAGE","logGroup":"g","logStream":"s","logEvents":[' + event + b"]}"
    found = SOURCES["cwlogs"].split(content)
    assert found.raw == [event]
    assert found.context == [content.replace(event, b"")]
    some(derived("cwlogs", content)[0], message='caf\u00e9 \ufffd "x"\n', log_group="g")
