"""Saved questions: keeping, sharing and asking them (service/answers/saved.py)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from strongroom.query.questions.prepared import Parameter, parameters_of
from strongroom.service.answers import answering
from strongroom.service.answers.answering import Asker, Asking
from strongroom.service.answers.saved import Saved
from strongroom.service.routes.answers import Json, act_of, node_of
from strongroom.service.routes.investigations import Blanks
from strongroom.service.routes.query import MAY_ASK, AcceptHeader
from strongroom.service.tokens import Principal

router = APIRouter(tags=["saved questions"])

Name = Annotated[str, Path(description="Lower-case letters, digits and hyphens.", examples=["key-in-region"])]
VersionNumber = Annotated[int | None, Query(ge=1, description="An older version; the newest by default.")]


class Blank(BaseModel):
    """One parameter of a saved question."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=64)
    type: Literal["text", "integer", "number", "boolean", "time"]
    description: str = Field("", max_length=500)
    default: str | int | float | bool | None = None


class Draft(BaseModel):
    """What is saved."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "description": "What a key did in one region",
                    "sql": "SELECT event_time, event_name, error_code, _segment, _row FROM cloudtrail "
                    "WHERE access_key_id = $key AND region = $region AND {window} ORDER BY event_time",
                    "parameters": [
                        {"name": "key", "type": "text"},
                        {"name": "region", "type": "text", "default": "us-east-1"},
                    ],
                }
            ]
        },
    )

    sql: str = Field(
        min_length=1,
        max_length=100_000,
        description="One SELECT; `$name` is a parameter, `{window}` a condition on event_time, by `since` and `until`.",
    )
    description: str = Field("", max_length=2000)
    parameters: list[Blank] = Field([], max_length=50)


@router.get("/v1/saved", summary="Saved questions", dependencies=[Depends(MAY_ASK)])
async def saved_questions(request: Request) -> Json:
    """The newest version of each."""
    found = await asyncio.to_thread(node_of(request).saved.names)
    return Json({"saved": [_shown(item) for item in found]})


@router.get("/v1/saved/{name}", summary="One saved question with its versions", dependencies=[Depends(MAY_ASK)])
async def saved_question(request: Request, name: Name) -> Json:
    """The newest version, and all that were before."""
    found = await asyncio.to_thread(node_of(request).saved.versions, name)
    return Json({**_shown(found[-1]), "versions": [_shown(item) for item in found]})


@router.put("/v1/saved/{name}", summary="Save a question", status_code=201)
async def save_question(
    request: Request, principal: Annotated[Principal, Depends(MAY_ASK)], name: Name, draft: Draft
) -> Json:
    """Keep the next version. The first author's name owns it; he and administrators may add versions."""
    node, admin = node_of(request), principal.role == "admin"
    await asyncio.to_thread(node.saved.may_change, name, principal.name, admin=admin)
    content = draft.model_dump()
    await node.audit.record(act_of(request, principal, "saved.put", target=name, outcome="started", content=content))
    kept = await asyncio.to_thread(
        node.saved.add,
        name,
        author=principal.name,
        admin=admin,
        now=datetime.now(UTC),
        description=draft.description,
        sql=draft.sql,
        parameters=[Parameter(p.name, p.type, p.description, p.default) for p in draft.parameters],
    )
    return Json(_shown(kept), status_code=201)


@router.delete("/v1/saved/{name}", summary="Delete a saved question")
async def delete_question(request: Request, principal: Annotated[Principal, Depends(MAY_ASK)], name: Name) -> Json:
    """All of its versions; by its owner or an administrator."""
    node, admin = node_of(request), principal.role == "admin"
    await asyncio.to_thread(node.saved.get, name)
    await asyncio.to_thread(node.saved.may_change, name, principal.name, admin=admin)
    await node.audit.record(act_of(request, principal, "saved.delete", target=name, outcome="started"))
    gone = await asyncio.to_thread(node.saved.delete, name, principal.name, admin=admin)
    return Json({"deleted": _shown(gone)})


@router.post(
    "/v1/saved/{name}",
    summary="Ask a saved question",
    responses={200: {"content": answering.OPENAPI_CONTENT, "description": "The rows"}},
)
async def ask_saved(
    request: Request,
    principal: Annotated[Principal, Depends(MAY_ASK)],
    name: Name,
    blanks: Blanks | None = None,
    version: VersionNumber = None,
    accept: AcceptHeader = "*/*",
) -> Response:
    """Answers like /v1/query."""
    node = node_of(request)
    blanks = blanks or Blanks()
    format = answering.negotiate(accept)
    found = await asyncio.to_thread(node.saved.get, name, version)
    given = {key: value for key, value in blanks.parameters.items() if value is not None}
    question = found.prepare(given)
    asking = await Asking.begin(
        node,
        Asker.of(request, principal),
        "saved",
        target=name,
        as_of=blanks.as_of,
        unsealed=blanks.unsealed,
        version=found.version,
        sql=found.sql,
        parameters=given,
        format=format,
    )
    answer = await asking.run(question, format=format, limit=blanks.limit)
    return answering.answered(request, asking, answer, format, headers={"Strongroom-Saved-Version": str(found.version)})


def _shown(saved: Saved) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(saved)
    shown["parameters"] = msgspec.to_builtins(parameters_of(saved.sql, saved.parameters))
    return shown
