"""What is acknowledged and not sealed yet, by every way of asking: answers as after sealing, addresses aside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from strongroom.client import Client
from strongroom.query.investigations import library
from tests.ingest.samples import SAMPLES, body, files
from tests.service.conftest import QUIET, Service, make_tokens, start_service

KEY = "AKIAUNSEALEDUNSEALED"
BLANKS: dict[str, Any] = {"key": KEY}
SOURCES = ("guardduty", "syslog", "journal", "s3access", "securityhub")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("unsealed")
    tokens = make_tokens(folder)
    running = start_service(folder, **QUIET)
    running.tokens = tokens
    yield running
    running.stop()


def test_an_answer_is_the_same_before_sealing_and_after(service: Service) -> None:
    calls = [_call(number, name, error) for number, (name, error) in enumerate(_CALLS)]
    _push(service, "cloudtrail", json.dumps({"Records": calls}).encode())
    for source in SOURCES:
        _push(service, source, b"\n".join(body(path) for path in files(SAMPLES / source)))
    with Client(service.url, service.tokens["investigator"]) as client:
        sql = "SELECT event_name, _sealed FROM cloudtrail WHERE access_key_id = $key"
        client.save("by-key", sql, parameters=[{"name": "key", "type": "text"}])
        before = _asked(client, sealed=False)
        service.call("POST", "/v1/seal")
        assert _asked(client, sealed=True) == before
    assert before["records"] == 3
    assert before["actions"] == {"iam:CreateAccessKey": 2, "iam:AttachUserPolicy": 1}
    assert before["addresses"] == {"192.0.2.77": 3}
    assert before["hours"] == [("2026-01-31T12:00:00.000000Z", 3)]
    assert sum(map(bool, before["investigations"].values())) >= 5


_CALLS = (("CreateAccessKey", None), ("CreateAccessKey", None), ("AttachUserPolicy", "AccessDenied"))


def _asked(client: Client, *, sealed: bool) -> dict[str, Any]:
    """Everything that is asked, and that it says of itself what is sealed."""
    seen = client.entity("access_key", KEY, unsealed=True)
    assert client.entity("access_key", KEY).records == (3 if sealed else 0)
    chart = client.timeline(entities={"access_key": KEY}, bucket="hour", unsealed=True)
    saved = client.ask("by-key", key=KEY, unsealed=True)
    assert saved.table["_sealed"].to_pylist() == [sealed] * 3
    answers = {}
    for name, item in library().items():
        given = {parameter.name: BLANKS[parameter.name] for parameter in item.parameters if parameter.default is None}
        answer = client.investigate(name, unsealed=True, **given)
        assert [row["_segment"] is None for row in answer.rows()] == [not sealed] * len(answer), name
        answers[name] = sorted(map(repr, answer.table.drop_columns(["_segment", "_row"]).to_pylist()))
    for basis in (seen.basis, chart.basis, saved.basis):
        assert (basis.unsealed > 0) is not sealed
    return {
        "records": seen.records,
        "actions": {item["value"]: item["records"] for item in seen.actions},
        "addresses": {peer["value"]: peer["records"] for peer in seen.peers["address"]},
        "hours": [(bucket["start"], bucket["records"]) for bucket in chart.buckets],
        "investigations": answers,
    }


def _call(number: int, name: str, error: str | None) -> dict[str, Any]:
    return {
        "eventID": f"unsealed-{number}",
        "eventTime": f"2026-01-31T12:0{number}:00Z",
        "eventSource": "iam.amazonaws.com",
        "eventName": name,
        "awsRegion": "eu-west-1",
        "sourceIPAddress": "192.0.2.77",
        "userIdentity": {"type": "IAMUser", "userName": "mallory", "accessKeyId": KEY},
        **({"errorCode": error} if error else {}),
    }


def _push(service: Service, source: str, content: bytes) -> None:
    answer = service.call("POST", f"/v1/ingest/{source}", role="quarantiner", content=content)
    assert answer.status_code == 200, answer.text
