"""Jobs: questions asked now and fetched later (service/answers/jobs.py)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from starlette.responses import FileResponse, Response

from strongroom.query import results
from strongroom.query.engine import Answer
from strongroom.query.investigations import investigation
from strongroom.query.process import convert
from strongroom.query.questions.prepared import Prepared
from strongroom.service.answers import answering
from strongroom.service.answers.answering import Asker, Asking
from strongroom.service.answers.jobs import Job
from strongroom.service.node import Node
from strongroom.service.routes.answers import Json, act_of, node_of
from strongroom.service.routes.query import MAY_ASK, AcceptHeader
from strongroom.service.tokens import Principal

router = APIRouter(tags=["jobs"])

JobId = Annotated[str, Path(description="The job's id.")]

_JOB: dict[str, Any] = {
    "id": "5f0c…",
    "owner": "Alice",
    "state": "running",
    "created": "2026-01-31T12:00:00Z",
    "asked": {"sql": "SELECT …", "parameters": None, "limit": None},
    "snapshot": {"size": 42, "root": "9c1d…"},
    "reading": {"total": 200, "read": 31, "records": 2031616, "bytes": 105906176},
    "rows": 0,
    "bytes": 4194304,
    "truncated": None,
    "seconds": 12.5,
    "expires": None,
}
_ONE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The job", "content": {"application/json": {"example": _JOB}}}
}


class Work(BaseModel):
    """A question to be answered in its own time: SQL, a ready investigation, or a saved question."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"sql": "SELECT source_address, sum(bytes) FROM vpcflow GROUP BY ALL ORDER BY 2 DESC"},
                {"investigation": "rejected-scans", "parameters": {"least": 20}},
            ]
        },
    )

    sql: str | None = Field(None, min_length=1, description="One SELECT, as in /v1/query.")
    investigation: str | None = Field(None, description="Name of a ready investigation.")
    saved: str | None = Field(None, description="Name of a saved question; its newest version.")
    parameters: list[Any] | dict[str, Any] | None = Field(None, description="As the question takes them.")
    limit: int | None = Field(None, ge=1, description="Most rows wanted; by default as many as an answer may have.")
    as_of: int | None = Field(None, ge=1, description="Tree size of an earlier answer's snapshot.")
    unsealed: Literal[False] = Field(False, description="Never: a kept answer must be one that can be asked again.")

    @field_validator("unsealed", mode="before")
    @classmethod
    def _only_sealed(cls, value: Any) -> Any:
        if value is True:
            raise ValueError("only what is sealed can be asked here: use /v1/query")
        return value

    @model_validator(mode="after")
    def _one_question(self) -> Work:
        if sum(item is not None for item in (self.sql, self.investigation, self.saved)) != 1:
            raise ValueError("give one of sql, investigation, saved")
        if self.sql is None and isinstance(self.parameters, list):
            raise ValueError("parameters of an investigation or a saved question go by name")
        return self

    def prepare(self, node: Node) -> Prepared:
        """Raises ParameterInvalid, InvestigationUnknown, UnknownSaved."""
        if self.sql is not None:
            return Prepared(self.sql, self.parameters)
        given = self.parameters if isinstance(self.parameters, dict) else {}
        if self.investigation is not None:
            return investigation(self.investigation).prepare(given)
        return node.saved.get(self.saved or "").prepare(given)

    def facts(self) -> dict[str, Any]:
        """The question in words, for the audit and for its owner."""
        return self.model_dump(exclude_none=True, exclude={"as_of", "unsealed"})


@router.post("/v1/queries", summary="Ask, and fetch the answer later", status_code=202, responses={202: _ONE[200]})
async def submit(request: Request, principal: Annotated[Principal, Depends(MAY_ASK)], work: Work) -> Response:
    """A job: it waits for a place, may run longer than a query, and its result is kept for a while."""
    node = node_of(request)
    question = work.prepare(node)
    limit = node.engine.limits.rows if work.limit is None else work.limit
    asking = await Asking.begin(node, Asker.of(request, principal), "job", as_of=work.as_of, **work.facts())

    async def run(asking: Asking, question: Prepared) -> Answer:
        return await asking.run(
            question,
            format="parquet",
            limit=limit,
            user=f"{principal.token}/jobs",  # not in the way of what the same person asks meanwhile
            seconds=node.settings.job_seconds,
            patient=True,
        )

    try:
        job = node.jobs.submit(principal.name, asking, question, work.facts(), run)
    except BaseException as error:
        asking.failed(error)
        raise
    headers = {"Location": f"/v1/queries/{job.id}", "Cache-Control": "no-store"}
    return Json(node.jobs.shown(job), status_code=202, headers=headers)


@router.get("/v1/queries", summary="Your jobs")
async def jobs(request: Request, principal: Annotated[Principal, Depends(MAY_ASK)]) -> Json:
    """The newest first; an administrator sees everybody's."""
    node = node_of(request)
    return Json({"jobs": [node.jobs.shown(job) for job in node.jobs.visible(_owner(principal))]})


@router.get("/v1/queries/{job}", summary="One job and its progress", responses=_ONE)
async def job_state(request: Request, principal: Annotated[Principal, Depends(MAY_ASK)], job: JobId) -> Json:
    """`state` is queued, running, done, failed, cancelled or lost (the service stopped meanwhile: ask again)."""
    node = node_of(request)
    return Json(node.jobs.shown(node.jobs.get(job, _owner(principal))))


@router.get("/v1/queries/{job}/segments", summary="The segments a job's answer was read from")
async def job_segments(request: Request, principal: Annotated[Principal, Depends(MAY_ASK)], job: JobId) -> Json:
    """Every name; each was checked against its entry before it was read."""
    node = node_of(request)
    found = node.jobs.get(job, _owner(principal))
    return Json(
        {"segments": {"read": found.reading.get("read", 0), "verified": True, "names": node.jobs.segments(found)}}
    )


@router.get(
    "/v1/queries/{job}/result",
    summary="A job's answer",
    responses={200: {"content": answering.OPENAPI_CONTENT, "description": "The rows"}},
)
async def job_result(
    request: Request, principal: Annotated[Principal, Depends(MAY_ASK)], job: JobId, accept: AcceptHeader = "*/*"
) -> Response:
    """In any format of /v1/query, as often as you like until it expires."""
    node = node_of(request)
    format = answering.negotiate(accept)
    found = node.jobs.get(job, _owner(principal))
    file = node.jobs.result(found)
    # It discloses what the question did, maybe to somebody else: recorded before.
    await node.audit.record(act_of(request, principal, "job.result", target=job, outcome="started", format=format))
    headers = {
        "Strongroom-Snapshot-Size": str(found.snapshot_size),
        "Strongroom-Snapshot-Root": found.snapshot_root,
        "Strongroom-Segments": str(found.reading.get("read", 0)),
        "Strongroom-Verified": "true",
        "Cache-Control": "no-store",
    }
    if format == "parquet":
        return FileResponse(file, media_type=results.CONTENT_TYPES[format], headers=headers)
    return answering.streamed(request, _converted(file, format, found), results.CONTENT_TYPES[format], headers)


@router.delete("/v1/queries/{job}", summary="Cancel or remove a job")
async def end_job(request: Request, principal: Annotated[Principal, Depends(MAY_ASK)], job: JobId) -> Json:
    """Cancels a job that waits or runs; removes one that has ended, and its result."""
    node = node_of(request)
    found = node.jobs.get(job, _owner(principal))
    ended = found.ended is not None
    await node.audit.record(
        act_of(request, principal, "job.remove" if ended else "job.cancel", target=job, outcome="started")
    )
    if ended:
        node.jobs.forget(found)
        return Json({"removed": job})
    return Json(node.jobs.shown(node.jobs.cancel(found)))


def _converted(file: FilePath, format: str, job: Job) -> AsyncIterator[bytes]:
    return convert.converted(file, format, (job.snapshot_size, job.snapshot_root), job.truncated)


def _owner(principal: Principal) -> str | None:
    """Whose jobs somebody may see; None: everybody's."""
    return None if principal.role == "admin" else principal.name
