"""Deliveries over HTTP, to a real service."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard

from strongroom.archive.note import parse_vkey
from strongroom.ingest import receipts
from tests.service.conftest import SAMPLES, Service


def trail(count: int) -> bytes:
    """A CloudTrail file of `count` fresh events."""
    records = [
        {
            "eventVersion": "1.08",
            "eventID": str(uuid.uuid4()),
            "eventTime": "2026-01-31T12:00:00Z",
            "eventSource": "iam.amazonaws.com",
            "eventName": "CreateUser",
            "awsRegion": "us-east-1",
            "sourceIPAddress": "198.51.100.7",
            "userIdentity": {"type": "IAMUser", "accountId": "123456789012", "userName": "alice"},
        }
        for _ in range(count)
    ]
    return json.dumps({"Records": records}).encode()


def push(service: Service, source: str, body: Any, *, role: str = "forwarder", **options: Any) -> dict[str, Any]:
    answer = service.call("POST", f"/v1/ingest/{source}", role=role, content=body, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("headers", "encode"),
    [
        ({}, bytes),
        ({}, gzip.compress),
        ({"Content-Encoding": "gzip"}, gzip.compress),
        ({"Content-Encoding": "zstd"}, zstandard.compress),
        ({"Content-Encoding": "identity", "Content-Type": "application/x-www-form-urlencoded"}, bytes),
    ],
)
def test_every_coding_gives_the_same_records(service: Service, headers: dict[str, str], encode: Any) -> None:
    body = trail(3)
    answer = push(service, "cloudtrail", encode(body), headers=headers, params={"wait": "sealed"})
    assert (answer["state"], answer["records"], answer["accepted"], answer["quarantined"]) == ("sealed", 3, 3, 0)
    assert answer["bytes"] == len(body)
    sealed = service.rows("SELECT count(*) FROM cloudtrail WHERE sequence = ?", [answer["sequence"]])
    assert sealed == [[3]]


def test_the_receipt_is_signed_and_binds_the_content(service: Service) -> None:
    answer = push(service, "cloudtrail", trail(1))
    key = service.folder / "state" / "keys" / "receipts.pem"
    assert key.stat().st_mode & 0o077 == 0
    from strongroom.archive import keys

    origin = service.call("GET", "/v1/status").json()["origin"]
    (signer,) = keys.load(key, f"{origin}/receipts")
    receipt = receipts.verify(answer["receipt"], [parse_vkey(signer.key.vkey())])
    assert (receipt.batch, receipt.sha256, receipt.source) == (answer["batch"], answer["sha256"], "cloudtrail")


def test_a_chunked_put_without_length_is_taken(service: Service) -> None:
    def chunks() -> Iterator[bytes]:
        body = trail(2)
        yield body[:100]
        yield body[100:]

    answer = service.call("PUT", "/v1/ingest/cloudtrail", role="forwarder", content=chunks(), params={"wait": "sealed"})
    assert (answer.status_code, answer.json()["accepted"]) == (200, 2)


def test_auto_recognises(service: Service) -> None:
    flow = next(SAMPLES.glob("*vpcflowlogs*")).read_bytes()
    answer = push(service, "auto", flow, role="quarantiner", params={"wait": "sealed", "name": "flows.log.gz"})
    assert (answer["source"], answer["records"], answer["quarantined"]) == ("vpcflow", 99, 0)


def test_natural_ids_make_a_repetition_a_duplicate(service: Service) -> None:
    body = trail(2)
    first = push(service, "cloudtrail", body, params={"wait": "sealed"})
    again = push(service, "cloudtrail", gzip.compress(body))
    assert (first["duplicate"], again["duplicate"]) == (False, True)
    assert again["batch"] == first["batch"]
    assert service.call("GET", f"/v1/batches/{first['batch']}").json()["duplicates"] == 1


def test_a_key_makes_a_repetition_a_duplicate(service: Service) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first = push(service, "json", b'{"a": 1}', headers=key)
    again = push(service, "json", b'{"a": 1}', headers=key)
    assert (again["duplicate"], again["batch"]) == (True, first["batch"])


def test_equal_content_without_key_is_stored_and_flagged(service: Service) -> None:
    body = json.dumps({"n": str(uuid.uuid4())}).encode()
    first, second = push(service, "json", body), push(service, "json", body)
    assert (second["duplicate"], second["flags"]) == (False, ["repeated-content"])
    assert first["batch"] != second["batch"]


def test_broken_records_are_quarantined_beside_good_ones(service: Service) -> None:
    answer = push(service, "json", b'{"good": 1}\n{broken\n{"good": 2}\n', params={"wait": "sealed"})
    assert (answer["records"], answer["accepted"], answer["quarantined"]) == (3, 2, 1)


def test_an_undecodable_body_is_refused_or_kept_as_the_token_says(service: Service) -> None:
    broken = gzip.compress(trail(1))[:-12]
    refused = service.call("POST", "/v1/ingest/cloudtrail", role="forwarder", content=broken)
    assert (refused.status_code, refused.json()["code"]) == (400, "undecodable-body")
    kept = push(service, "cloudtrail", broken, role="quarantiner", params={"wait": "sealed"})
    assert (kept["source"], kept["quarantined"], kept["accepted"]) == ("quarantine", 1, 0)
    assert "undecodable" in kept["flags"]


def test_an_unknown_coding_is_415(service: Service) -> None:
    answer = service.call(
        "POST", "/v1/ingest/json", role="forwarder", content=b"{}", headers={"Content-Encoding": "br"}
    )
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-coding")


def test_counters_add_up(service: Service) -> None:
    service.call("POST", "/v1/seal")
    push(service, "json", b'{"a": 1}\n{"a": 2}\n', params={"wait": "sealed"})
    service.call("POST", "/v1/seal")
    counters = service.call("GET", "/v1/status").json()["counters"]
    assert counters["received_batches"] == (
        counters["sealed_batches"] + counters["pending_batches"] + counters["duplicate_batches"]
    )
    assert counters["received_records"] == (
        counters["sealed_records"] + counters["quarantined_records"] + counters["duplicate_records"]
    )
    assert counters["sealed_records"] > 0
