"""OpenTelemetry logs over HTTP: `POST /v1/logs`, where every exporter sends them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from strongroom.ingest.protocols import otlp
from strongroom.service.auth import Pushes
from strongroom.service.receiving.reception import destination, receiving
from strongroom.service.routes.speaking import Refusal, response, speaking
from strongroom.service.tokens import Principal

MAY_PUSH = Pushes("bearer", "basic")


def _encoding(request: Request) -> str:
    return otlp.media_type(request.headers.get("content-type", ""))


def _refuse(request: Request, refusal: Refusal) -> Response:
    return response(otlp.refused(_encoding(request), refusal.status, refusal.text), refusal)


router = APIRouter(route_class=speaking(_refuse), tags=["push"])


@router.post("/v1/logs", summary="OpenTelemetry logs (OTLP/HTTP)")
@router.post("/otlp/v1/logs", include_in_schema=False)
async def push(request: Request, principal: Annotated[Principal, Depends(MAY_PUSH)]) -> Response:
    """An ExportLogsServiceRequest, protobuf or JSON, into source `otlp`."""
    source = destination(principal, "otlp")
    async with receiving(request, principal, "otlp") as reception:
        coding = request.headers.get("content-encoding", "auto")
        accepted = await reception.deliver(reception.stream(), source=source, coding=coding)
    warning = "kept in quarantine: it could not be decoded" if "undecodable" in accepted.flags else ""
    return response(otlp.taken(_encoding(request), warning))
