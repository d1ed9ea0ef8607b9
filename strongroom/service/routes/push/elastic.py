"""Elasticsearch's bulk API for shippers, under `/elastic`, and at the root for those that can't be told a path."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from strongroom.ingest.decode import coding_named, coding_of, decode_whole
from strongroom.ingest.errors import DeliveryRefused
from strongroom.ingest.protocols import Reply, elastic
from strongroom.service.auth import Pushes
from strongroom.service.receiving.connections import ABORT
from strongroom.service.receiving.reception import destination, receiving
from strongroom.service.routes.answers import node_of
from strongroom.service.routes.speaking import Refusal, response, speaking
from strongroom.service.tokens import Principal

MAY_PUSH = Pushes("basic", "apikey", "bearer")
_CLUSTER = "strongroom-log-archive"
"""Stands where Elasticsearch has an identifier of 22 characters."""
_RESET_SECONDS = 1.0
"""How long a client that comes back at once is kept waiting for its broken connection."""


async def _refuse(request: Request, refusal: Refusal) -> Response:
    agent, kind = (request.headers.get(name, "") for name in ("user-agent", "content-type"))
    abort = request.scope.get(ABORT)
    if refusal.status == 503 and abort is not None and elastic.keeps_only_on_reset(agent, kind):
        await asyncio.sleep(_RESET_SECONDS)
        abort()
    said = elastic.refused(refusal.status, refusal.text)
    return response(said, refusal, challenge='Basic realm="strongroom"')


router = APIRouter(route_class=speaking(_refuse), tags=["push"])
Pusher = Annotated[Principal, Depends(MAY_PUSH)]


@router.post("/elastic/_bulk", summary="Elasticsearch bulk API")
@router.put("/elastic/_bulk", include_in_schema=False)
@router.post("/elastic/{index}/_bulk", include_in_schema=False)
@router.put("/elastic/{index}/_bulk", include_in_schema=False)
@router.post("/_bulk", include_in_schema=False)
@router.put("/_bulk", include_in_schema=False)
async def bulk(request: Request, principal: Pusher, index: str = "") -> Response:
    """Actions and documents into source `bulk`: all of them, or none. An index in the path is the batch's name."""
    begun = time.monotonic()
    source, coding = destination(principal, "bulk"), request.headers.get("content-encoding", "auto")
    body: list[bytes] = []
    async with receiving(request, principal, "elastic") as reception:

        async def kept() -> AsyncIterator[bytes]:
            async for chunk in reception.stream():
                body.append(chunk)
                yield chunk

        accepted = await reception.deliver(kept(), source=source, coding=coding, name=index)
        limit = node_of(request).settings.max_expanded_bytes
        milliseconds = round(1000 * (time.monotonic() - begun))
        return response(await run_in_threadpool(_answer, b"".join(body), coding, limit, accepted.batch, milliseconds))


def _answer(body: bytes, coding: str, limit: int, batch: str, milliseconds: int) -> Reply:
    try:
        known = coding_of(body[:4]) if coding == "auto" else coding_named(coding)
        content = decode_whole(body, known, limit)
    except DeliveryRefused:  # it is in quarantine
        content = b""
    return elastic.taken(content, batch, milliseconds)


@router.get("/elastic", summary="Elasticsearch handshake")
@router.head("/elastic", include_in_schema=False)
@router.get("/elastic/", include_in_schema=False)
@router.head("/elastic/", include_in_schema=False)
async def about(request: Request, principal: Pusher) -> Response:
    """What clients look at before they send."""
    return response(elastic.about(_CLUSTER))


@router.get("/elastic/_license", include_in_schema=False)
async def license(request: Request, principal: Pusher) -> Response:
    """Logstash asks for it."""
    return response(elastic.license(_CLUSTER))


@router.get("/elastic/_cluster/health", include_in_schema=False)
@router.get("/elastic/_cat/health", include_in_schema=False)
@router.get("/_cat/health", include_in_schema=False)
async def health(request: Request, principal: Pusher) -> Response:
    """Whether deliveries would be accepted; Vector asks first, rsyslog after a failure."""
    return response(elastic.health(node_of(request).not_ready()))


@router.put("/elastic/_index_template/{name}", include_in_schema=False)
@router.put("/elastic/_ilm/policy/{name}", include_in_schema=False)
@router.get("/elastic/_index_template/{name}", include_in_schema=False)
@router.get("/elastic/_ilm/policy/{name}", include_in_schema=False)
@router.head("/elastic/_index_template/{name}", include_in_schema=False)
async def prepared(request: Request, principal: Pusher, name: str) -> Response:
    """What Beats set up: there is nothing to set up here."""
    return response(elastic.acknowledged())
