"""Evidence out: the proof of one record, and bundles of many, for people who don't trust this service.

Both are acts: recorded before anything is disclosed, and a bundle's act is sealed before the bundle is made
(service/proving/exporting.py).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from itertools import groupby
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response, StreamingResponse

from strongroom.service.auth import Requires
from strongroom.service.proving.evidence import Question, Selection, named, selected
from strongroom.service.proving.exporting import Bundle, Proof
from strongroom.service.routes.answers import act_of, node_of
from strongroom.service.tokens import Principal

router = APIRouter(tags=["evidence"])

MAY_PROVE = Requires("investigator", "auditor", "admin")
MAY_EXPORT = Requires("investigator", "auditor")

MAX_ROWS_NAMED = 100_000
_SEGMENT = "segments/source=cloudtrail/date=2026-01-31/w1-1-00000000000000000000-00000000000000000000.parquet"
_PROOF_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The proof (docs/format.md §10): keep these bytes as they are, `verify.py` checks them",
        "content": {
            "application/json": {
                "example": {
                    "format": "strongroom/proof/1",
                    "record": {"raw": "eyJ…", "nonce": "0f…", "row": 17, "path": ["ab…"]},
                    "segment": {"position": 0, "key": _SEGMENT, "records": 590, "root": "cd…"},
                    "entry": {"index": 12, "raw": "eyJ…", "path": ["ef…"]},
                    "checkpoint": "logs.example.gov/archive\n13\nq2…=\n\n— logs.example.gov/archive Gd…=\n",
                }
            }
        },
    }
}


class Row(BaseModel):
    """A record's address, as a query's `_segment` and `_row` give it."""

    model_config = ConfigDict(extra="forbid")

    segment: str = Field(max_length=512)
    row: int = Field(ge=0)


class Wanted(BaseModel):
    """Records to be exported: those a question answers with, or those named one by one."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "sql": "SELECT _segment, _row FROM cloudtrail WHERE access_key_id = $key",
                    "parameters": {"key": "AKIAIOSFODNN7EXAMPLE"},
                    "case": "2026-4711",
                    "purpose": "Use of a leaked key, for the prosecutor",
                },
                {
                    "rows": [{"segment": _SEGMENT, "row": 17}],
                    "case": "2026-4711",
                    "purpose": "The event itself",
                },
            ]
        },
    )

    sql: str | None = Field(None, min_length=1, description="One SELECT that answers with `_segment` and `_row`.")
    parameters: list[Any] | dict[str, Any] | None = Field(None, description="As in /v1/query.")
    as_of: int | None = Field(None, ge=1, description="Tree size of an earlier answer's snapshot.")
    limit: int | None = Field(None, ge=1, description="Most records; without it, a cut answer is refused.")
    rows: list[Row] | None = Field(None, min_length=1, max_length=MAX_ROWS_NAMED)
    case: str = Field(min_length=1, max_length=200, description="The case the evidence is for.")
    purpose: str = Field(min_length=1, max_length=1000, description="What it is for, in words.")
    checkpoint: int | None = Field(None, ge=1, description="Tree size to prove from; the newest signed by default.")

    @model_validator(mode="after")
    def _one_way_of_choosing(self) -> Wanted:
        if (self.sql is None) == (self.rows is None):
            raise ValueError("give either sql or rows")
        if self.rows is not None and (self.parameters or self.as_of or self.limit):
            raise ValueError("parameters, as_of and limit belong to sql")
        return self


@router.get("/v1/proof", summary="Prove one record by its address", responses=_PROOF_ANSWER)
async def proof_of_row(
    request: Request,
    principal: Annotated[Principal, Depends(MAY_PROVE)],
    segment: Annotated[str, Query(description="`_segment` of a query's row.", examples=[_SEGMENT], max_length=512)],
    row: Annotated[int, Query(ge=0, description="`_row` of a query's row.")],
) -> Response:
    """A JSON document that shows the record, and nothing else of the archive; it is checked before it is sent."""
    await _recorded(request, principal, f"{segment}:{row}")
    return _proof(await node_of(request).exporter.proof(segment, row))


@router.get("/v1/proof/{entry}/{segment:path}/{row}", summary="Prove one record by its place", responses=_PROOF_ANSWER)
async def proof_at_place(
    request: Request,
    principal: Annotated[Principal, Depends(MAY_PROVE)],
    entry: Annotated[int, Path(ge=0, description="Index of the entry that names the segment.")],
    segment: Annotated[str, Path(description="The segment's position in the entry, or its name.")],
    row: Annotated[int, Path(ge=0, description="The record's row in the segment.")],
) -> Response:
    """As /v1/proof?segment=…&row=…."""
    await _recorded(request, principal, f"{entry}/{segment}:{row}")
    return _proof(await node_of(request).exporter.proof_at(entry, segment, row))


@router.post(
    "/v1/evidence",
    summary="Export records with their proofs",
    responses={200: {"content": {"application/zip": {}}, "description": "A bundle (docs/evidence.md)"}},
)
async def export(request: Request, principal: Annotated[Principal, Depends(MAY_EXPORT)], wanted: Wanted) -> Response:
    """One file for a court: records, proofs, checkpoint, custody, cover page, and a verifier that needs none of us."""
    node = node_of(request)
    await node.engine.refresh()
    snapshot = None if wanted.sql is None else wanted.as_of or node.log.size
    asked = act_of(
        request,
        principal,
        "evidence",
        target=wanted.case,
        outcome="started",
        purpose=wanted.purpose,
        **(
            {"rows": [f"{row.segment}:{row.row}" for row in wanted.rows]}
            if wanted.rows
            else {"sql": wanted.sql, "parameters": wanted.parameters, "limit": wanted.limit, "snapshot": snapshot}
        ),
    )
    batch = await node.audit.record(asked)

    def conclude(outcome: str, **facts: Any) -> None:
        node.audit.record_soon(
            act_of(
                request,
                principal,
                "evidence",
                target=wanted.case,
                outcome=outcome,
                id=asked.id,
                **facts,
            )
        )

    try:
        selection = await _selection(request, principal, wanted, snapshot)
        bundle = await node.exporter.bundle(
            selection, asked, batch, case=wanted.case, purpose=wanted.purpose, size=wanted.checkpoint
        )
    except BaseException as error:
        conclude("failure", error=getattr(error, "code", type(error).__name__), message=str(error))
        raise
    summary = bundle.summary
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted.case).strip("-.")[:80] or "evidence"
    headers = {
        "Content-Disposition": f'attachment; filename="{name}.zip"',
        "Content-Length": str(summary.bytes),
        "Cache-Control": "no-store",
        "Strongroom-Audit-Batch": batch,
        "Strongroom-Bundle-SHA256": summary.sha256,
        "Strongroom-Records": str(summary.records),
        "Strongroom-Checkpoint-Size": str(summary.size),
        "Strongroom-Witnessed": str(bundle.anchor.witnessed).lower(),
    }
    return StreamingResponse(_stream(bundle, conclude), headers=headers, media_type="application/zip")


async def _selection(request: Request, principal: Principal, wanted: Wanted, snapshot: int | None) -> Selection:
    if wanted.sql is not None:
        question = Question(wanted.sql, wanted.parameters, snapshot, wanted.limit)
        return await selected(node_of(request).engine, question, user=principal.token)
    by_segment = groupby(wanted.rows or (), key=lambda row: row.segment)
    return named((segment, [row.row for row in rows]) for segment, rows in by_segment)


async def _stream(bundle: Bundle, conclude: Callable[..., None]) -> AsyncIterator[bytes]:
    """The bundle's bytes; when they end, in whatever way, the outcome is recorded."""
    summary = bundle.summary
    facts = {"bundle": summary.sha256, "records": summary.records, "checkpoint": summary.size}
    try:
        async for chunk in bundle.chunks():
            yield chunk
    except BaseException as error:
        conclude("failure", error=type(error).__name__, message=str(error), **facts)
        raise
    finally:
        bundle.discard()
    conclude("success", bytes=summary.bytes, **facts)


async def _recorded(request: Request, principal: Principal, target: str) -> None:
    """A proof discloses a record, as an answer does: what can't be recorded is not disclosed."""
    await node_of(request).audit.record(
        act_of(
            request,
            principal,
            "proof",
            target=target,
            outcome="started",
        )
    )


def _proof(made: Proof) -> Response:
    headers = {
        "Cache-Control": "no-store",
        "Strongroom-Checkpoint-Size": str(made.size),
        "Strongroom-Witnessed": str(made.witnessed).lower(),
    }
    return Response(made.content, media_type="application/json", headers=headers)
