"""Errors as problem details: no status leaves this service that makes a forwarder drop what could be kept."""

from __future__ import annotations

import asyncio
import http.client
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from strongroom.archive.errors import StrongroomError
from strongroom.ingest import errors as ingest
from strongroom.service import problems
from strongroom.service.drain import Drain
from tests.service.conftest import Service


def every(kind: type[StrongroomError]) -> list[type[StrongroomError]]:
    return [kind, *(deeper for below in kind.__subclasses__() for deeper in every(below))]


@pytest.mark.parametrize("kind", every(ingest.IngestError), ids=lambda kind: kind.code)
def test_an_error_of_ingest_says_whether_to_send_again(kind: type[ingest.IngestError]) -> None:
    status, _ = problems.status_of(kind("what"))
    if kind.transient:
        assert status == 503
    else:
        # 429, 500, 502, 504, 408, 410 and 422 each make some forwarder lose data.
        assert status in (400, 403, 404, 413, 415, 503)


def test_a_problem_has_every_member() -> None:
    response = problems.answer(ingest.SpoolFull("the spool is full", hint="wait"), "/v1/ingest/json")
    assert response.media_type == "application/problem+json"
    assert response.headers["Retry-After"] == "5"
    assert bytes(response.body) == (
        b'{"type":"urn:strongroom:problem:spool-full","title":"The service can\'t do this now","status":503,'
        b'"detail":"the spool is full","code":"spool-full","hint":"wait","instance":"/v1/ingest/json"}'
    )


def test_413_is_not_to_be_retried() -> None:
    assert "Retry-After" not in problems.answer(ingest.BodyTooLarge("too large")).headers


async def post(app: FastAPI, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.post(path)


def test_what_nobody_foresaw_is_503_and_tells_no_secrets() -> None:
    app = FastAPI()
    app.add_middleware(problems.LastResort)
    problems.install(app)

    @app.post("/breaks")
    async def breaks() -> None:
        raise ZeroDivisionError("internal detail")

    answer = asyncio.run(post(app, "/breaks"))
    assert (answer.status_code, answer.json()["code"]) == (503, "unexpected")
    assert answer.headers["Retry-After"] == "5"
    assert "internal detail" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/ingest/json?wait=forever", 400, "bad-request"),
        ("POST", "/v1/ingest/nonsense", 404, "unknown-source"),
        ("POST", "/v1/query", 400, "bad-request"),
        ("GET", "/v1/entries/minus", 400, "bad-request"),
        ("GET", "/v1/entries/999999999", 404, "object-missing"),
        ("GET", "/v1/batches/unknown", 404, "unknown-batch"),
        ("GET", "/v1/proofs/inclusion?entry=0&size=999999999", 400, "no-such-proof"),
        ("DELETE", "/v1/tokens/ffffffff", 404, "unknown-token"),
        ("GET", "/v1/typo", 404, "no-such-path"),
        ("DELETE", "/v1/status", 405, "method-not-allowed"),
    ],
)
def test_refusals_are_problems(service: Service, method: str, path: str, status: int, code: str) -> None:
    answer = service.call(method, path, content=b"[1]" if method == "POST" else None)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert answer.json()["detail"]


def test_a_refused_body_is_read_to_its_end(service: Service) -> None:
    """A client that sends everything before it reads gets the status, not a reset; and the connection lives on."""
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=30)
    connection.request("POST", "/v1/ingest/json", body=bytes(24 << 20))
    with connection.getresponse() as answer:
        assert answer.status == 401
        answer.read()
    socket = connection.sock
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    assert connection.sock is socket
    connection.close()


def test_draining_ends_at_its_bound() -> None:
    sent: list[dict[str, object]] = []

    async def refuse(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})  # type: ignore[operator]

    async def endless() -> dict[str, object]:
        return {"type": "http.request", "body": bytes(1 << 20), "more_body": True}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    asyncio.run(Drain(refuse, cap=8 << 20)({"type": "http"}, endless, send))  # type: ignore[arg-type]
    assert sent[0]["headers"] == [(b"connection", b"close")]
