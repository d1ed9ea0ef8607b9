"""systemd-journal-upload: `POST /upload`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from strongroom.ingest.protocols import Delivery, journal
from strongroom.service.auth import Pushes
from strongroom.service.receiving.reception import destination, receiving
from strongroom.service.routes.answers import node_of
from strongroom.service.routes.speaking import Refusal, response, speaking
from strongroom.service.tokens import Principal

MAY_PUSH = Pushes("basic", "bearer")


def _refuse(request: Request, refusal: Refusal) -> Response:
    return response(journal.refused(refusal.status, refusal.text), refusal, challenge='Basic realm="strongroom"')


router = APIRouter(route_class=speaking(_refuse), tags=["push"])


@router.post("/upload", summary="systemd-journal-upload")
async def push(request: Request, principal: Annotated[Principal, Depends(MAY_PUSH)]) -> Response:
    """The journal in its export format, of any length, into source `journal`."""
    source = destination(principal, "journal")
    parts = journal.Parts(node_of(request).settings.max_body_bytes)
    async with receiving(request, principal, "journal") as reception:
        async for chunk in reception.stream():
            for part in parts.feed(chunk):
                await reception.deliver_whole(Delivery(part), source)
                reception.stored()
        if rest := parts.finish():
            await reception.deliver_whole(Delivery(rest), source)
    return response(journal.taken())
