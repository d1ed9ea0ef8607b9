"""Splunk HTTP Event Collector, at the paths Splunk has it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from strongroom.ingest.errors import DeliveryRefused
from strongroom.ingest.intake import Accepted
from strongroom.ingest.protocols import hec
from strongroom.service.auth import Pushes
from strongroom.service.node import Node
from strongroom.service.receiving.reception import destination, destination_of_lines, receiving
from strongroom.service.routes.answers import node_of
from strongroom.service.routes.speaking import Refusal, response, speaking
from strongroom.service.tokens import Principal

MAY_PUSH = Pushes("splunk", "basic", "bearer")
PUBLIC = frozenset({"/services/collector/health", "/services/collector/health/1.0"})
_MAX_QUERY_BYTES = 4 << 20


class _NoData(DeliveryRefused):
    """A request without a body."""

    code = "no-data"


def _refuse(request: Request, refusal: Refusal) -> Response:
    said = hec.refused(refusal.status, token_missing=refusal.token_missing, empty=refusal.code == _NoData.code)
    return response(said, refusal, challenge='Basic realm="strongroom"')


router = APIRouter(route_class=speaking(_refuse), tags=["push"])
Pusher = Annotated[Principal, Depends(MAY_PUSH)]


@router.post("/services/collector", summary="Splunk HEC, events")
@router.post("/services/collector/event", include_in_schema=False)
@router.post("/services/collector/event/1.0", include_in_schema=False)
async def event(request: Request, principal: Pusher) -> Response:
    """Envelopes, concatenated, one a line or in an array, into source `hec`."""
    return await _take(request, principal, destination(principal, "hec"))


@router.post("/services/collector/raw", summary="Splunk HEC, lines")
@router.post("/services/collector/raw/1.0", include_in_schema=False)
async def raw(request: Request, principal: Pusher) -> Response:
    """Lines, into the one source of the token; with a token for any, into the one they look like."""
    return await _take(request, principal, destination_of_lines(principal, "hec"))


@router.post("/services/collector/ack", summary="Splunk HEC, which deliveries are sealed")
@router.post("/services/collector/ack/1.0", include_in_schema=False)
async def ack(request: Request, principal: Pusher) -> Response:
    """Ids are true once what they stand for is sealed, unknown ones never; any channel will do."""
    node = node_of(request)
    async with receiving(request, principal, "hec") as reception:
        ids = hec.asked(await reception.whole(_MAX_QUERY_BYTES))
        return response(await run_in_threadpool(hec.acks, ids, lambda ack: _sealed(node, ack)))


@router.get("/services/collector/health", summary="Splunk HEC, whether deliveries would be accepted")
@router.get("/services/collector/health/1.0", include_in_schema=False)
async def health(request: Request) -> Response:
    """Open to everybody, as with Splunk."""
    return response(hec.healthy(node_of(request).not_ready()))


async def _take(request: Request, principal: Principal, source: str) -> Response:
    async with receiving(request, principal, "hec") as reception:
        accepted = await reception.deliver(
            reception.stream(empty=_NoData("there is no body")),
            source=source,
            coding=request.headers.get("content-encoding", "auto"),
            name=request.query_params.get("source", ""),
        )
    channel = request.headers.get(hec.CHANNEL_HEADER) or request.query_params.get("channel")
    return response(hec.taken(_ack(node_of(request), accepted) if channel else None))


def _ack(node: Node, accepted: Accepted) -> int | None:
    return hec.ack_id(node.intake.batch(accepted.batch).epoch, accepted.sequence)


def _sealed(node: Node, ack: int) -> bool:
    state = node.intake.batch_at(*hec.place_of(ack))
    return state is not None and state.state == "sealed"
