"""For machines that watch: alive, ready, numbers."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from strongroom.service.auth import Requires
from strongroom.service.problems import problem
from strongroom.service.routes.answers import Json, node_of

router = APIRouter(tags=["probes"])


@router.get("/healthz", summary="The process answers (public)")
async def healthz() -> Json:
    """Says nothing about the store: a restart would not help there."""
    return Json({"status": "ok"})


@router.get("/readyz", summary="Deliveries would be accepted now (public)")
async def readyz(request: Request) -> Response:
    """503 while starting, stopping, or when the spool can't take more."""
    reason = node_of(request).not_ready()
    if reason:
        return problem(503, "Not ready", reason, code="not-ready", instance="/readyz")
    return Json({"status": "ready"})


@router.get("/metrics", summary="Prometheus metrics", dependencies=[Depends(Requires("auditor", "admin"))])
async def metrics(request: Request) -> Response:
    """Counters of the intake and of this process's requests."""
    return Response(node_of(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)
