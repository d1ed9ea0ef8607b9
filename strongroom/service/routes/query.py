"""Questions in SQL over the sealed records, on a snapshot that the answer names (service/answers/answering.py)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from strongroom.ingest import receipts
from strongroom.query.questions.prepared import Prepared
from strongroom.service.answers import answering
from strongroom.service.answers.answering import Asker, Asking
from strongroom.service.auth import Requires
from strongroom.service.errors import NotSealedYet
from strongroom.service.node import Node
from strongroom.service.routes.answers import Json, node_of
from strongroom.service.tokens import Principal

router = APIRouter(tags=["query"])

MAY_ASK = Requires("investigator", "auditor", "admin")

READ_YOUR_WRITE_SECONDS = 60.0

AcceptHeader = Annotated[str, Header(include_in_schema=False)]


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
    unsealed: bool = Field(
        False,
        description="Read what this node acknowledged and did not seal yet, too. Such rows have `_sealed` = false, no "
        "address and no proof yet, and no `as_of` brings them back.",
    )


@router.post(
    "/v1/query",
    summary="Ask in SQL",
    responses={200: {"content": answering.OPENAPI_CONTENT, "description": "The rows"}},
)
async def query(
    request: Request,
    principal: Annotated[Principal, Depends(MAY_ASK)],
    question: Question,
    accept: AcceptHeader = "*/*",
    at_least: Annotated[
        str | None, Query(description="Batch id or receipt: wait until that batch is sealed and visible.")
    ] = None,
    segments: Annotated[bool, Query(description="JSON only: name every segment that was read.")] = False,
) -> Response:
    """Run one SELECT. `Accept` chooses JSON, NDJSON, CSV, an Arrow stream or Parquet; headers name the snapshot too."""
    node = node_of(request)
    format = answering.negotiate(accept)
    if at_least is not None:
        await see(node, at_least)
    asking = await Asking.begin(
        node,
        Asker.of(request, principal),
        "query",
        as_of=question.as_of,
        unsealed=question.unsealed,
        sql=question.sql,
        parameters=question.parameters,
        format=format,
    )
    answer = await asking.run(Prepared(question.sql, question.parameters), format=format, limit=question.limit)
    named = {"segments": answering.basis(answer, names=True)["segments"]} if segments else {}
    return answering.answered(request, asking, answer, format, members=named)


@router.get("/v1/catalog", summary="Tables, columns, ranges, counts", dependencies=[Depends(MAY_ASK)])
async def catalog(request: Request) -> Json:
    """What can be asked: every view with its columns, and what the segments behind it hold."""
    node = node_of(request)
    await node.engine.refresh()
    return Json(node.engine.catalog())


async def see(node: Node, batch_or_receipt: str) -> None:
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
