"""Amazon Data Firehose: `POST /v1/firehose/{source}`, the URL of an HTTP endpoint destination."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from strongroom.ingest.decode import coding_named, decode_whole
from strongroom.ingest.protocols import firehose
from strongroom.service.auth import Pushes
from strongroom.service.receiving.reception import must_be_allowed, receiving
from strongroom.service.routes.answers import node_of
from strongroom.service.routes.speaking import Refusal, response, speaking
from strongroom.service.tokens import Principal

MAY_PUSH = Pushes(firehose.KEY_HEADER)


def _refuse(request: Request, refusal: Refusal) -> Response:
    id = request.headers.get(firehose.ID_HEADER, "")
    return response(firehose.refused(id, _now(), refusal.status, refusal.text), refusal)


router = APIRouter(route_class=speaking(_refuse), tags=["push"])


@router.post("/v1/firehose/{source}", summary="Amazon Data Firehose, HTTP endpoint delivery")
async def push(request: Request, principal: Annotated[Principal, Depends(MAY_PUSH)], source: str) -> Response:
    """Access key: a token. `source` as in `/v1/ingest/{source}`; `cwlogs` for what CloudWatch Logs sends."""
    must_be_allowed(principal, source)
    settings, headers = node_of(request).settings, request.headers
    coding = coding_named(headers.get("content-encoding", ""))
    async with receiving(request, principal, "firehose") as reception:
        body = await reception.whole(settings.max_body_bytes)
        batch = await run_in_threadpool(
            lambda: firehose.read(
                decode_whole(body, coding, settings.max_expanded_bytes),
                id=headers.get(firehose.ID_HEADER, ""),
                arn=headers.get(firehose.ARN_HEADER, ""),
                limit=settings.max_expanded_bytes,
            )
        )
        for delivery in batch.deliveries:
            await reception.deliver_whole(delivery, source)
    return response(firehose.accepted(batch.id, _now()))


def _now() -> int:
    return time.time_ns() // 1_000_000
