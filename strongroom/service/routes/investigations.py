"""Ready investigations over HTTP: the library, and asking one of its questions (query/investigations)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from strongroom.query.investigations import investigation, library
from strongroom.service.answers import answering
from strongroom.service.answers.answering import Asker, Asking
from strongroom.service.routes.answers import Json, node_of
from strongroom.service.routes.query import MAY_ASK, AcceptHeader
from strongroom.service.tokens import Principal

router = APIRouter(tags=["investigations"])

_Value = str | int | float | bool | None


class Blanks(BaseModel):
    """Values for an investigation's parameters."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"parameters": {"since": "2023-07-10", "until": "2023-07-11"}}]},
    )

    parameters: dict[str, _Value] = Field({}, description="By name; those that are left out take their defaults.")
    limit: int | None = Field(None, ge=1, description="Most rows wanted; the answer says when it was cut.")
    as_of: int | None = Field(None, ge=1, description="Tree size of an earlier answer's snapshot, to repeat it.")
    unsealed: bool = Field(
        False, description="Read what is acknowledged and not sealed yet, too; such records have no address."
    )


@router.get("/v1/investigations", summary="The ready investigations", dependencies=[Depends(MAY_ASK)])
async def investigations() -> Json:
    """What each asks, shows and takes; docs/investigations.md is the same for people."""
    return Json({"investigations": [_shown(item.public()) for item in library().values()]})


@router.get("/v1/investigations/{name}", summary="One ready investigation", dependencies=[Depends(MAY_ASK)])
async def one_investigation(name: Annotated[str, Path(examples=["defence-evasion"])]) -> Json:
    """All of it: parameters, columns, follow-ups, and its SQL to build on."""
    return Json(investigation(name).public())


@router.post(
    "/v1/investigations/{name}",
    summary="Ask a ready investigation",
    responses={200: {"content": answering.OPENAPI_CONTENT, "description": "The rows"}},
)
async def investigate(
    request: Request,
    principal: Annotated[Principal, Depends(MAY_ASK)],
    name: Annotated[str, Path(examples=["defence-evasion"])],
    blanks: Blanks | None = None,
    accept: AcceptHeader = "*/*",
) -> Response:
    """Answers like /v1/query. Every row carries `_segment` and `_row`, the address of the record it rests on."""
    blanks = blanks or Blanks()
    format = answering.negotiate(accept)
    given = {key: value for key, value in blanks.parameters.items() if value is not None}
    question = investigation(name).prepare(given)
    asking = await Asking.begin(
        node_of(request),
        Asker.of(request, principal),
        "investigation",
        target=name,
        as_of=blanks.as_of,
        unsealed=blanks.unsealed,
        parameters=given,
        format=format,
    )
    answer = await asking.run(question, format=format, limit=blanks.limit)
    return answering.answered(request, asking, answer, format)


def _shown(public: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in public.items() if key not in ("sql", "columns")}
