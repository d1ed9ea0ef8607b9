"""Routes that refuse in their own protocol's words, whatever went wrong, and leave a trace of what they refused.

A problem document would be the right answer for a person; a forwarder looks for what its protocol says, and what it
can't read makes some of them drop a batch. So every error of such a route, foreseen or not, becomes a `Refusal` and is
put into words by the protocol. Nothing but 4xx and 503 leaves here.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from strongroom.archive.errors import StrongroomError
from strongroom.ingest.protocols import Reply
from strongroom.service import problems
from strongroom.service.errors import LimitReached, TokenMissing
from strongroom.service.receiving.refusals import Kind, Refusals
from strongroom.service.routes.answers import address_of
from strongroom.service.tokens import Principal

log = structlog.get_logger(__name__)

_MAX_RETRY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is wrong, for a protocol to say. `retry_after`: seconds, with 503 alone."""

    status: int
    title: str
    code: str
    message: str
    hint: str = ""
    retry_after: int = 0
    token_missing: bool = False

    @property
    def text(self) -> str:
        """For where there is one line."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


Refuse = Callable[[Request, Refusal], Response | Awaitable[Response]]


def speaking(refuse: Refuse) -> type[APIRoute]:
    """The class of routes whose errors `refuse` puts into words."""

    class Speaking(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def spoken(request: Request) -> Response:
                try:
                    return await handle(request)
                except ClientDisconnect:
                    return Response(status_code=503)  # nobody hears it; nothing of the request counts
                except Exception as error:
                    refusal = _refusal(error, request)
                    if refusal.status < 500:
                        _leave_trace(request, self.path, refusal)
                    said = refuse(request, refusal)
                    return said if isinstance(said, Response) else await said

            return spoken

    return Speaking


def response(reply: Reply, refusal: Refusal | None = None, *, challenge: str = "Bearer") -> Response:
    """A protocol's reply as HTTP; 503 with Retry-After, 401 with a challenge."""
    headers = dict(reply.headers)
    if refusal is not None and reply.status == 503:
        headers["Retry-After"] = str(refusal.retry_after)
    if reply.status == 401:
        headers["WWW-Authenticate"] = challenge
    return Response(reply.body, reply.status, headers, reply.media_type)


def as_problem(request: Request, refusal: Refusal) -> Response:
    """A refusal where there is no protocol but HTTP."""
    return problems.problem(
        refusal.status,
        refusal.title,
        refusal.message,
        code=refusal.code,
        hint=refusal.hint,
        instance=request.url.path,
        headers={"Retry-After": str(refusal.retry_after)} if refusal.status == 503 else {},
    )


def _refusal(error: Exception, request: Request) -> Refusal:
    if isinstance(error, StrongroomError):
        status, title = problems.status_of(error)
        wait: float = problems.RETRY_AFTER_SECONDS
        if isinstance(error, LimitReached):
            wait = min(max(1, math.ceil(error.retry_after)), _MAX_RETRY_SECONDS)
        if status >= 500:
            status = 503
            log.warning("not taken", path=request.url.path, code=error.code, detail=error.message)
        return Refusal(status, title, error.code, error.message, error.hint, int(wait), isinstance(error, TokenMissing))
    if isinstance(error, RequestValidationError):
        faults = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors())
        return Refusal(400, "The request is not valid", "bad-request", faults)
    if isinstance(error, HTTPException) and error.status_code < 500:
        return Refusal(error.status_code, "The request is refused", "http", str(error.detail))
    log.error("request failed", path=request.url.path, exc_info=error)
    detail = "nothing was acknowledged; try again"
    return Refusal(
        503, "The service failed unexpectedly", "unexpected", detail, retry_after=problems.RETRY_AFTER_SECONDS
    )


def _leave_trace(request: Request, path: str, refusal: Refusal) -> None:
    principal: Principal | None = getattr(request.state, "principal", None)
    refusals: Refusals = request.app.state.refusals
    refusals.note(
        Kind(
            actor=principal.label if principal else "unauthenticated",
            role=principal.role if principal else "",
            address=address_of(request),
            target=path,
            code=refusal.code,
            status=refusal.status,
        )
    )
