"""Grafana Loki's push API, at its own paths."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from strongroom.ingest.protocols import loki
from strongroom.service.auth import Pushes
from strongroom.service.receiving.reception import destination, receiving
from strongroom.service.routes.speaking import Refusal, response, speaking
from strongroom.service.tokens import Principal

MAY_PUSH = Pushes("bearer", "basic")


def _refuse(request: Request, refusal: Refusal) -> Response:
    return response(loki.refused(refusal.status, refusal.text), refusal, challenge='Basic realm="strongroom"')


router = APIRouter(route_class=speaking(_refuse), tags=["push"])


@router.post("/loki/api/v1/push", summary="Grafana Loki, push")
@router.post("/api/prom/push", include_in_schema=False)
async def push(request: Request, principal: Annotated[Principal, Depends(MAY_PUSH)]) -> Response:
    """Streams, JSON or snappy protobuf, into source `loki`. The tenant is kept as the batch's name."""
    source, headers = destination(principal, "loki"), request.headers
    async with receiving(request, principal, "loki") as reception:
        await reception.deliver(
            reception.stream(),
            source=source,
            coding=loki.coding(headers.get("content-type", ""), headers.get("content-encoding", "")),
            name=headers.get("x-scope-orgid", ""),
        )
    return response(loki.taken())
