"""Amazon EventBridge API destinations: `POST /v1/eventbridge/{source}`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from strongroom.ingest.protocols import Delivery, eventbridge
from strongroom.service.auth import Pushes
from strongroom.service.receiving.reception import must_be_allowed, receiving
from strongroom.service.routes.speaking import Refusal, response, speaking
from strongroom.service.tokens import Principal

MAY_PUSH = Pushes("bearer", "basic", "x-api-key")
_MAX_EVENT_BYTES = 4 << 20


def _refuse(request: Request, refusal: Refusal) -> Response:
    return response(eventbridge.refused(refusal.status, refusal.text), refusal)


router = APIRouter(route_class=speaking(_refuse), tags=["push"])


@router.post("/v1/eventbridge/{source}", summary="Amazon EventBridge, API destination")
async def push(request: Request, principal: Annotated[Principal, Depends(MAY_PUSH)], source: str) -> Response:
    """One event. `source` as in `/v1/ingest/{source}`: `guardduty`, `securityhub`, `cloudtrail`, `json`, …"""
    must_be_allowed(principal, source)
    async with receiving(request, principal, "eventbridge") as reception:
        body = await reception.whole(_MAX_EVENT_BYTES)
        await reception.deliver_whole(Delivery(body, "auto", eventbridge.key(body)), source)
    return response(eventbridge.taken())
