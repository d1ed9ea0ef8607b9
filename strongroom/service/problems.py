"""The one mapping from error classes to RFC 9457 problem details.

Rules:

1. What may pass (backpressure, a full disk, a store that did not answer, any exception nobody foresaw, shutdown) is
   `503` with `Retry-After`: the one status on which every serious forwarder keeps its data. Never 429, 500, 502 or
   504, on which some drop it.
2. What will never succeed as sent is a 4xx without Retry-After. FastAPI's own 422 never leaves the service: it is
   answered as 400.
3. The body is `application/problem+json`: type, title, status, detail, code, hint, instance. `code` is stable and
   listed in docs/http.md (a test compares).
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from strongroom.archive import errors as archive
from strongroom.ingest import errors as ingest
from strongroom.query import errors as query
from strongroom.service import errors as service

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5

# For the API page.
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {name: {"type": "string"} for name in ("type", "title", "detail", "code", "hint", "instance")}
    | {"status": {"type": "integer"}},
}

log = structlog.get_logger(__name__)

# Error class -> status and title. The nearest class in a raised error's ancestry counts.
STATUS: dict[type[archive.StrongroomError], tuple[int, str]] = {
    archive.StrongroomError: (503, "The service can't do this now"),
    archive.ObjectMissing: (404, "No such object"),
    archive.FormatError: (503, "Stored bytes break the archive format"),
    ingest.DeliveryRefused: (400, "This delivery can't be accepted"),
    ingest.UnsupportedCoding: (415, "No such content coding"),
    ingest.BodyTooLarge: (413, "The body is too large"),
    ingest.ExpandsTooFar: (413, "The body expands too far"),
    ingest.SignatureRefused: (403, "The message is not signed as it must be"),
    ingest.UnknownSource: (404, "No such source"),
    ingest.UnknownBatch: (404, "No such batch"),
    ingest.ReceiptInvalid: (400, "This is no receipt of this archive"),
    query.QueryError: (400, "The query did not run"),
    query.QueryRefused: (400, "The query is not allowed"),
    query.QueryInvalid: (400, "The query is not valid"),
    query.QueryTimeout: (400, "The query took too long"),
    query.QueryOutOfMemory: (400, "The query needs too much memory"),
    query.QueryTooLarge: (413, "The query would read too much"),
    query.QueryBusy: (503, "Every place for queries is taken"),
    query.QueryFailed: (503, "The query's process failed"),
    query.ParameterInvalid: (400, "A parameter is not valid"),
    query.InvestigationUnknown: (404, "No such investigation"),
    query.CursorInvalid: (400, "This cursor does not continue this search"),
    query.SnapshotUnknown: (404, "No such snapshot"),
    # Never to be retried until it goes away: somebody has to look.
    query.IntegrityFailure: (500, "Stored bytes are not what was sealed"),
    service.Unauthenticated: (401, "A valid token is needed"),
    service.Forbidden: (403, "The token does not allow this"),
    service.TokensUnavailable: (503, "The token store can't be read"),
    service.LimitReached: (503, "This token sends more than its share"),
    service.TooSlow: (503, "The request took too long"),
    service.UnknownToken: (404, "No such token"),
    service.BadToken: (400, "No such token can be made"),
    service.NotAcceptable: (406, "No such format"),
    service.NoSuchProof: (400, "No such proof"),
    service.NoAddresses: (400, "The question does not say which records"),
    service.EvidenceCut: (400, "The evidence would not be all of it"),
    service.EvidenceTooLarge: (400, "The bundle would be too large"),
    service.OrderRefused: (400, "The order can't be given"),
    service.NoSuchCase: (404, "No such case"),
    service.UnknownJob: (404, "No such job"),
    service.JobNotDone: (409, "The job has no result"),
    service.JobsFull: (503, "Too many jobs"),
    service.UnknownSaved: (404, "No such saved question"),
    service.SavedForbidden: (403, "The saved question belongs to somebody else"),
    service.SavedInvalid: (400, "The question can't be saved"),
    service.CosignatureRefused: (400, "No cosignature of a known witness"),
}


def status_of(error: archive.StrongroomError) -> tuple[int, str]:
    """The status and title an error is answered with."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def problem(
    status: int,
    title: str,
    detail: str,
    *,
    code: str,
    hint: str = "",
    instance: str = "",
    headers: Mapping[str, str] = {},
    facts: Mapping[str, Any] = {},
) -> Response:
    """A problem details answer with further members `facts`; a 503 carries Retry-After, a 401 the challenge."""
    body: dict[str, Any] = {
        "type": f"urn:strongroom:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if hint:
        body["hint"] = hint
    if instance:
        body["instance"] = instance
    body |= facts
    extra = dict(headers)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        extra.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    if status == HTTPStatus.UNAUTHORIZED:
        extra.setdefault("WWW-Authenticate", "Bearer")
    return Response(msgspec.json.encode(body), status, extra, MEDIA_TYPE)


def answer(error: archive.StrongroomError, instance: str = "") -> Response:
    """The problem details of an error raised on purpose."""
    status, title = status_of(error)
    facts: dict[str, Any] = {}
    if isinstance(error, query.QueryError) and error.position is not None:
        facts["position"] = error.position
    if isinstance(error, query.IntegrityFailure):
        facts |= {"segment": error.segment, "expected": error.expected, "actual": error.actual}
    return problem(status, title, error.message, code=error.code, hint=error.hint, instance=instance, facts=facts)


class LastResort:
    """ASGI middleware: an exception nobody foresaw is logged and answered 503, so that forwarders try again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            if scope["type"] != "http" or started:
                # Half an answer is out: only a broken connection still tells the client that it is not whole.
                raise
            log.exception("request failed", method=scope["method"], path=scope["path"])
            title = "The service failed unexpectedly"
            detail = "nothing was acknowledged; try again"
            await problem(503, title, detail, code="unexpected", instance=scope["path"])(scope, receive, send)


def install(app: FastAPI) -> None:
    """Route every error class to its problem details."""
    app.add_exception_handler(archive.StrongroomError, _raised_on_purpose)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_exception)


async def _raised_on_purpose(request: Request, error: Exception) -> Response:
    assert isinstance(error, archive.StrongroomError)
    response = answer(error, request.url.path)
    report = log.warning if response.status_code >= 500 else log.info
    report("refused", path=request.url.path, status=response.status_code, code=error.code, detail=error.message)
    return response


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
    hint = "the interactive page at /docs shows what this route takes"
    return problem(400, "The request is not valid", faults, code="bad-request", hint=hint, instance=request.url.path)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "no-such-path", 405: "method-not-allowed"}.get(error.status_code, "http")
    title = HTTPStatus(error.status_code).phrase
    return problem(
        error.status_code,
        title,
        f"{request.method} {request.url.path}: {error.detail}",
        code=code,
        instance=request.url.path,
        headers=dict(error.headers or {}),
    )
