"""The push protocols over HTTP, to a real service: real requests, exact answers, refusals that cost little."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import time
import uuid
from urllib.parse import urlsplit

import httpx
import pytest
import zstandard

from tests.pushed import RECORDS, SOURCE_OF, captured
from tests.service.conftest import Service
from tests.system.firehose import log_events

CAPTURED = [(source, name) for source, names in SOURCE_OF.items() for name in names if source != "json"]


def authorised(service: Service, source: str, role: str = "forwarder") -> dict[str, str]:
    """The headers with which clients of a source's protocol show their token."""
    token = service.tokens[role]
    if source in ("bulk", "journal"):
        return {"authorization": "Basic " + base64.b64encode(f"any:{token}".encode()).decode()}
    return {"authorization": f"{'Splunk' if source == 'hec' else 'Bearer'} {token}"}


def send(service: Service, method: str, target: str, headers: dict[str, str], body: bytes) -> httpx.Response:
    return httpx.request(method, service.url + target, headers=headers, content=body, timeout=30)


def count(service: Service, sql: str) -> int:
    assert service.call("POST", "/v1/seal").status_code == 200
    return int(service.rows(sql)[0][0])


@pytest.mark.parametrize(("source", "name"), CAPTURED)
def test_a_real_request_is_taken_and_kept_byte_for_byte(service: Service, source: str, name: str) -> None:
    request = captured(name)
    before = count(service, f"SELECT count(*) FROM {source}")
    headers = request.headers | authorised(service, source)
    answer = send(service, request.method, request.target, headers, request.body)
    assert answer.status_code == {"loki": 204, "journal": 202}.get(source, 200), answer.text
    if source == "otlp":
        assert answer.headers["content-type"] == request.headers["content-type"]
        assert answer.content == (b"{}" if "json" in request.headers["content-type"] else b"")
    if source == "bulk":
        assert answer.headers["x-elastic-product"] == "Elasticsearch"
        assert b'"errors":false,"items":[' in answer.content
    expected = RECORDS.get(name, 5 if source == "journal" else 3)
    assert count(service, f"SELECT count(*) FROM {source}") == before + expected
    raw = [
        row[0]
        for row in service.rows(
            f"SELECT hex(coalesce(raw_bytes, encode(raw))) FROM {source}"
            f" ORDER BY sequence DESC, position DESC LIMIT {expected}"
        )
    ]
    content = request.content.hex().upper()
    assert all(record in content for record in raw)


def test_events_are_acknowledged_when_sealed_and_unknown_ids_never(service: Service) -> None:
    headers = authorised(service, "hec") | {"X-Splunk-Request-Channel": str(uuid.uuid4())}
    body = json.dumps({"event": str(uuid.uuid4())}).encode()
    ack = send(service, "POST", "/services/collector", headers, body).json()["ackId"]

    def asked(*ids: int) -> dict[str, bool]:
        answer = send(service, "POST", "/services/collector/ack", headers, json.dumps({"acks": ids}).encode())
        assert answer.status_code == 200
        return answer.json()["acks"]

    service.call("POST", "/v1/seal")
    assert asked(ack, ack + 10**9, 0) == {str(ack): True, str(ack + 10**9): False, "0": False}
    assert send(service, "POST", "/services/collector", headers, b"").json() == {"text": "No data", "code": 5}
    assert service.call("GET", "/services/collector/health", role=None).json()["code"] == 17


def firehose(service: Service, id: str, body: bytes, role: str = "quarantiner", **headers: str) -> httpx.Response:
    headers = {
        "X-Amz-Firehose-Access-Key": service.tokens[role],
        "X-Amz-Firehose-Request-Id": id,
        "X-Amz-Firehose-Source-Arn": "arn:aws:firehose:eu-central-1:123456789012:deliverystream/flows",
    } | headers
    return send(service, "POST", "/v1/firehose/cwlogs", headers, body)


def test_firehose_is_stored_once_by_its_request_id_also_with_the_second_secret(service: Service) -> None:
    id, first = str(uuid.uuid4()), uuid.uuid4().int % 10**40
    record = base64.b64encode(log_events(first, 5)).decode()
    body = json.dumps({"requestId": id, "timestamp": 1, "records": [{"data": record}]}).encode()
    for _ in range(3):
        answer = firehose(service, id, body)
        assert (answer.status_code, answer.json()["requestId"]) == (200, id)
        assert answer.headers["content-type"] == "application/json" and int(answer.headers["content-length"]) > 0
    made = service.call(
        "POST", "/v1/tokens", json={"role": "forwarder", "name": "test-quarantiner", "sources": ["cwlogs"]}
    ).json()["token"]
    second = firehose(service, id, body, **{"X-Amz-Firehose-Access-Key": made})
    assert second.status_code == 200
    assert count(service, f"SELECT count(*) FROM cwlogs WHERE event_id = '{first:056d}'") == 1


def test_firehose_refusals_keep_its_shape(service: Service) -> None:
    other = firehose(service, "r-1", json.dumps({"requestId": "r-2", "records": []}).encode())
    assert (other.status_code, other.json()["requestId"]) == (400, "r-1") and other.json()["errorMessage"]
    missing = httpx.post(service.url + "/v1/firehose/cwlogs", content=b"{}", headers={"X-Amz-Firehose-Request-Id": "r"})
    assert (missing.status_code, missing.json()["requestId"]) == (401, "r")
    wrong = firehose(service, "r-3", b"{}", role="forwarder")
    assert wrong.status_code == 403  # that token is for other sources


def test_an_event_of_eventbridge_is_stored_once(service: Service) -> None:
    id = str(uuid.uuid4())
    event = {
        "version": "0",
        "id": id,
        "detail-type": "T",
        "source": "aws.x",
        "detail": {"n": 1},
        "time": "2026-01-01T00:00:00Z",
    }
    for _ in range(2):
        headers = {"X-Api-Key": service.tokens["forwarder"], "Range": "bytes=0-1048575"}
        answer = send(service, "POST", "/v1/eventbridge/json", headers, json.dumps(event).encode())
        assert answer.status_code == 200
    assert count(service, f"SELECT count(*) FROM json WHERE TRY(raw->>'$.id') = '{id}'") == 1


def test_the_handshake_of_elasticsearch_clients(service: Service) -> None:
    headers = authorised(service, "bulk")
    for path in ("/elastic", "/elastic/_license", "/elastic/_cluster/health", "/_cat/health"):
        answer = send(service, "GET", path, headers, b"")
        assert (answer.status_code, answer.headers["x-elastic-product"]) == (200, "Elasticsearch"), path
    assert send(service, "GET", "/elastic", headers, b"").json()["version"]["number"].startswith("8.")


# -- refusals: the right answer, bounded cost, a record of source audit and nothing else

TRUNCATED = gzip.compress(b"x" * 5000)[:-9]


@pytest.mark.parametrize(("source", "name"), CAPTURED)
def test_what_arrives_whole_and_broken_is_quarantined_with_success(service: Service, source: str, name: str) -> None:
    request = captured(name)
    headers = request.headers | authorised(service, source) | {"content-encoding": "gzip"}
    before = count(service, "SELECT count(*) FROM quarantine")
    answer = send(service, request.method, request.target, headers, TRUNCATED)
    if source == "journal":  # its uploads are never compressed, and taken as they come
        assert answer.status_code == 202
    else:
        assert answer.status_code == (204 if source == "loki" else 200), answer.text
    assert count(service, "SELECT count(*) FROM quarantine") == before + 1


def test_a_bomb_is_refused_and_leaves_only_an_audit_record(service: Service) -> None:
    bomb = zstandard.compress(bytes(300 << 20))
    assert len(bomb) < 400_000
    sources = ("otlp", "hec", "quarantine")
    before = [count(service, f"SELECT count(*) FROM {source}") for source in sources]
    for target, source in (("/v1/logs", "otlp"), ("/services/collector", "hec")):
        begun = time.monotonic()
        answer = send(service, "POST", target, authorised(service, source) | {"content-encoding": "zstd"}, bomb)
        assert answer.status_code == 413
        assert "retry-after" not in answer.headers
        assert time.monotonic() - begun < 15
    assert [count(service, f"SELECT count(*) FROM {source}") for source in sources] == before
    traces = service.rows(
        "SELECT target FROM audit WHERE action = 'push.refused' AND raw->>'$.detail.code' = 'expands-too-far'"
    )
    assert sorted(row[0] for row in traces) == ["/services/collector", "/v1/logs"]


def test_a_flood_of_wrong_tokens_leaves_one_record(service: Service) -> None:
    sql = (
        "SELECT count(*) FROM audit WHERE action = 'push.refused' AND target = '/loki/api/v1/push'"
        " AND raw->>'$.detail.code' = 'unauthenticated'"
    )
    for _ in range(30):
        answer = send(service, "POST", "/loki/api/v1/push", {"authorization": "Bearer sr_00000000_x"}, b"{}")
        assert answer.status_code == 401
    assert count(service, sql) <= 2  # one a minute: the turn of a minute may come between


def test_too_large_is_413_in_the_protocols_words(service: Service) -> None:
    def body() -> object:
        for _ in range(65):
            yield b" " * (1 << 20)

    answer = httpx.post(
        service.url + "/v1/logs",
        headers=authorised(service, "otlp") | {"content-type": "application/json"},
        content=body(),  # type: ignore[arg-type]
        timeout=60,
    )
    assert (answer.status_code, answer.json()["code"]) == (413, 8)


def test_a_silent_connection_and_a_slow_head_are_closed(service: Service) -> None:
    address = urlsplit(service.url)
    for said in (b"", b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nX-Slow: "):
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=8) as connection:
            connection.sendall(said)
            assert connection.recv(10) == b""
