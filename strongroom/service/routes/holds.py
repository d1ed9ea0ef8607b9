"""Legal holds by case: what must not go, whatever its retention says.

Every order is an administrative act, recorded before it takes effect.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from strongroom.archive.retention.orders import Case
from strongroom.service.auth import Requires
from strongroom.service.keeping.holding import SEGMENTS, Given
from strongroom.service.routes.answers import Json, act_of, node_of
from strongroom.service.tokens import Principal

router = APIRouter(tags=["holds"])

MAY_READ = Requires("auditor", "admin")
MAY_HOLD = Requires("admin")


class HoldWanted(BaseModel):
    """A case to be opened or widened."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"case": "2026-17", "where": "source = 'cloudtrail' AND date >= '2026-01-01'"},
                {"case": "2026-17", "view": "events", "where": "account = '111122223333'"},
            ]
        },
    )

    case: str = Field(description="The case's name.")
    where: str = Field(description="SQL condition on the view: which segments, or which records' segments.")
    view: str = Field(SEGMENTS, description="`segments`, or a view of records: every segment with a match is held.")


@router.get("/v1/holds", summary="All cases and what they hold", dependencies=[Depends(MAY_READ)])
async def list_holds(request: Request) -> Json:
    """Open ones and released ones, by name."""
    holding = node_of(request).holding
    return Json({"enforced": holding.enforced, "cases": [shown(case) for case in await holding.cases()]})


@router.post("/v1/holds", summary="Open or widen a case", status_code=201)
async def place_hold(request: Request, principal: Annotated[Principal, Depends(MAY_HOLD)], wanted: HoldWanted) -> Json:
    """Holds every segment that matches, with the entries and details that prove it; later ones follow by themselves."""
    order = node_of(request).holding.place(wanted.case, wanted.where, principal.label, wanted.view)
    given = await _recorded(request, principal, "hold.place", wanted.case, order, wanted=wanted.model_dump())
    return Json(given.to_json(), status_code=201)


@router.delete("/v1/holds/{case:path}", summary="Release a case")
async def release_hold(request: Request, principal: Annotated[Principal, Depends(MAY_HOLD)], case: str) -> Json:
    """Frees what no other open case holds."""
    order = node_of(request).holding.release(case, principal.label)
    return Json((await _recorded(request, principal, "hold.release", case, order)).to_json())


def shown(case: Case) -> dict[str, Any]:
    """A case for machines."""
    facts: dict[str, Any] = msgspec.to_builtins(case)
    questions = [{"view": view, "where": where} for view, where in case.questions]
    return facts | {"questions": questions, "segments": sorted(case.segments)}


async def _recorded(
    request: Request, principal: Principal, action: str, case: str, order: Awaitable[Given], **facts: Any
) -> Given:
    """Give an order between its two records."""
    audit = node_of(request).audit
    begun = act_of(request, principal, action, outcome="started", target=case, **facts)
    await audit.record(begun)
    given = await order
    await audit.record(
        act_of(request, principal, action, outcome="success", target=case, id=begun.id, order=given.to_json())
    )
    return given
