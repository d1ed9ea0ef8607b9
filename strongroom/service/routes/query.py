"""Questions: SQL over the sealed records, on a snapshot that the answer names.

The order of effects: the question is recorded durably, then it runs, then its outcome is recorded. A question that
can't be recorded does not run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from strongroom.ingest import receipts
from strongroom.query.engine import Answer
from strongroom.service.auth import Requires
from strongroom.service.errors import NotAcceptable, NotSealedYet
from strongroom.service.node import Node
from strongroom.service.routes.answers import Json, act_of, node_of
from strongroom.service.tokens import Principal

router = APIRouter(tags=["query"])

MAY_ASK = Requires("investigator", "auditor", "admin")

# Media type -> the engine's name of the format. The first is the default.
FORMATS = {
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "text/csv": "csv",
    "application/vnd.apache.arrow.stream": "arrow",
}

READ_YOUR_WRITE_SECONDS = 60.0


class Question(BaseModel):
    """One SELECT statement and the values of its parameters."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "sql": "SELECT event_time, actor, action, target FROM events "
                    "WHERE outcome = 'denied' ORDER BY event_time LIMIT 20"
                },
                {
                    "sql": "SELECT event_time, event_name, source_address FROM cloudtrail "
                    "WHERE access_key_id = $key ORDER BY event_time",
                    "parameters": {"key": "AKIAIOSFODNN7EXAMPLE"},
                },
            ]
        },
    )

    sql: str = Field(min_length=1, description="One SELECT, in DuckDB's dialect; GET /v1/catalog shows the tables.")
    parameters: list[Any] | dict[str, Any] | None = Field(
        None, description="Values for `?` or `$1` (list), or `$name` (object); bound, never pasted."
    )
    limit: int | None = Field(None, ge=1, description="Most rows wanted; the answer says when it was cut.")
    as_of: int | None = Field(None, ge=1, description="Tree size of an earlier answer's snapshot, to repeat it.")


@router.post(
    "/v1/query",
    summary="Ask in SQL",
    responses={200: {"content": {media: {} for media in FORMATS}, "description": "The rows"}},
)
async def query(
    request: Request,
    principal: Annotated[Principal, Depends(MAY_ASK)],
    question: Question,
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
    at_least: Annotated[
        str | None, Query(description="Batch id or receipt: wait until that batch is sealed and visible.")
    ] = None,
) -> Response:
    """Run one SELECT. `Accept` chooses JSON, NDJSON, CSV or an Arrow stream; the snapshot stands in the headers too."""
    node = node_of(request)
    format = _negotiate(accept)
    if at_least is not None:
        await _see(node, at_least)
    await node.engine.refresh()
    size = node.log.size if question.as_of is None else question.as_of
    asked = act_of(
        request,
        principal,
        "query",
        outcome="started",
        sql=question.sql,
        parameters=question.parameters,
        snapshot=size,
        format=format,
    )
    await node.audit.record(asked)
    begun = perf_counter()

    def conclude(outcome: str, **facts: Any) -> None:
        node.audit.record_soon(
            act_of(
                request,
                principal,
                "query",
                outcome=outcome,
                id=asked.id,
                seconds=f"{perf_counter() - begun:.3f}",
                **facts,
            )
        )

    try:
        answer = await node.engine.run(
            question.sql,
            question.parameters,
            format=format,
            user=principal.token,
            limit=question.limit,
            as_of=size,
        )
    except BaseException as error:
        conclude("failure", error=getattr(error, "code", type(error).__name__), message=str(error))
        raise
    headers = {
        "Strongroom-Snapshot-Size": str(answer.snapshot.size),
        "Strongroom-Snapshot-Root": answer.snapshot.root,
        "Strongroom-Segments": str(len(answer.segments)),
        "Cache-Control": "no-store",
    }
    return StreamingResponse(_stream(answer, conclude), headers=headers, media_type=answer.content_type)


@router.get("/v1/catalog", summary="Tables, columns, ranges, counts", dependencies=[Depends(MAY_ASK)])
async def catalog(request: Request) -> Json:
    """What can be asked: every view with its columns, and what the segments behind it hold."""
    node = node_of(request)
    await node.engine.refresh()
    return Json(node.engine.catalog())


async def _stream(answer: Answer, conclude: Callable[..., None]) -> AsyncIterator[bytes]:
    """The answer's body; when it ends, in whatever way, its outcome is recorded and its place freed."""
    try:
        async for chunk in answer.body:
            yield chunk
        outcome = await answer.finished
        if outcome.error is not None:
            raise outcome.error  # it was closed for being read too slowly: what was sent is not the whole answer
    except BaseException as error:
        # The status is out already: a broken connection is what tells the client that the answer is not whole.
        conclude("failure", error=getattr(error, "code", type(error).__name__), message=str(error))
        raise
    finally:
        await answer.body.aclose()
    conclude("success", rows=outcome.rows, bytes=outcome.bytes, truncated=outcome.truncated)


async def _see(node: Node, batch_or_receipt: str) -> None:
    """Wait until a batch is sealed. Raises UnknownBatch, ReceiptInvalid, NotSealedYet."""
    batch = batch_or_receipt
    if batch.startswith("strongroom receipt "):
        batch = receipts.verify(batch, [node.identity.receipts_signer.key]).batch
    patience = node.settings.seal_age_seconds + READ_YOUR_WRITE_SECONDS
    try:
        await node.intake.wait_sealed(batch, patience)
    except TimeoutError:
        raise NotSealedYet(
            f"batch {batch} was not sealed within {patience:g} seconds", hint="ask again; the batch itself is durable"
        ) from None


def _negotiate(accept: str) -> str:
    """The format of the first media range that names one (weights aside: nobody needs them here)."""
    for offer in accept.lower().split(","):
        media = offer.partition(";")[0].strip()
        if media in FORMATS:
            return FORMATS[media]
        if media in ("*/*", "application/*", ""):
            return "json"
        if media == "text/*":
            return "csv"
    raise NotAcceptable(f"no format among {accept}", hint=f"there is {', '.join(FORMATS)}")
