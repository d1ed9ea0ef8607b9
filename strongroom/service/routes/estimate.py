"""What a question would read, said before it runs: segments, records, bytes, and whether that is allowed.

It comes from what is known about segments (their times, the index of their entities); none is opened. An answer reads
no more than that, as long as nothing is sealed in between: `as_of` the same snapshot fixes that, too.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from strongroom.service.answers import estimates
from strongroom.service.answers.answering import Asker, Asking
from strongroom.service.routes.answers import Json, node_of
from strongroom.service.routes.jobs import Work
from strongroom.service.routes.query import MAY_ASK
from strongroom.service.tokens import Principal

router = APIRouter(tags=["query"])

_EXAMPLE: dict[str, Any] = {
    "snapshot": {"size": 42, "root": "9c1d…"},
    "segments": {"total": 200, "read": 3, "pruned": 197},
    "records": 196608,
    "bytes": 10590617,
    "budget_bytes": 1073741824,
    "refused": False,
}


@router.post(
    "/v1/query/estimate",
    summary="What a question would read",
    responses={200: {"description": "The estimate", "content": {"application/json": {"example": _EXAMPLE}}}},
)
async def estimate(request: Request, principal: Annotated[Principal, Depends(MAY_ASK)], work: Work) -> Json:
    """Takes what `POST /v1/queries` takes. `refused`: more than `budget_bytes` (null: any number) would be read."""
    node = node_of(request)
    question = work.prepare(node)
    asking = await Asking.begin(node, Asker.of(request, principal), "estimate", as_of=work.as_of, **work.facts())
    reading = await asking.estimate(question)
    asking.succeeded()
    snapshot = {"size": asking.size, "root": node.log.root(asking.size).hex()}
    return Json({"snapshot": snapshot, **estimates.told(node.engine, reading)}, headers={"Cache-Control": "no-store"})
