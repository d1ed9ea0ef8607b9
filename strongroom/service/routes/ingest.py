"""Deliveries in: push a body, learn what became of it, seal now.

The body is read as raw chunks and never by a typed model: what a model refuses would be lost at the sender. The answer
200 means that the batch is durable; everything before that moment is answered so that a forwarder sends again.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from pydantic import BaseModel

from strongroom.ingest.errors import UnknownBatch
from strongroom.ingest.intake import BatchState
from strongroom.service.auth import Pushes, Requires
from strongroom.service.node import Node
from strongroom.service.receiving.reception import must_be_allowed, receiving
from strongroom.service.routes.answers import Json, act_of, node_of
from strongroom.service.routes.speaking import as_problem, speaking
from strongroom.service.tokens import Principal

router = APIRouter()
pushing = APIRouter(route_class=speaking(as_problem))

MAY_INGEST = Pushes("bearer", "basic")
MAY_LOOK_UP = Requires("forwarder", "investigator", "auditor", "admin")
MAY_SEAL = Requires("admin")


class Acknowledgement(BaseModel):
    """The batch is durable. `receipt` is a signed note that says so. With `?wait=sealed` the BatchState follows."""

    batch: str
    sequence: int
    source: str
    duplicate: bool
    flags: list[str]
    received_at: str
    sha256: str
    bytes: int
    receipt: str


class State(BaseModel):
    """What became of a batch. The counts are null until it is sealed; records = accepted + quarantined."""

    batch: str
    writer: str
    sequence: int
    source: str
    state: Literal["spooled", "sealed"]
    received_at: str
    bytes: int
    records: int | None
    accepted: int | None
    quarantined: int | None
    duplicates: int
    entry: int | None
    flags: list[str]


class Sealed(BaseModel):
    """The log's size after sealing."""

    size: int


@pushing.post(
    "/v1/ingest/{source}",
    tags=["ingest"],
    summary="Push one batch",
    responses={200: {"model": Acknowledgement}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {},
                    "examples": {
                        "json": {
                            "summary": "any JSON (source json)",
                            "value": [{"time": "2026-01-31T12:00:00Z", "user": "alice", "action": "login"}],
                        },
                        "cloudtrail": {
                            "summary": "a CloudTrail file (source cloudtrail)",
                            "value": {
                                "Records": [
                                    {
                                        "eventVersion": "1.08",
                                        "eventID": "0b7ee7b6-5b3b-4a3b-8f4a-6b5a4c3d2e1f",
                                        "eventTime": "2026-01-31T12:00:00Z",
                                        "eventSource": "iam.amazonaws.com",
                                        "eventName": "CreateUser",
                                        "awsRegion": "us-east-1",
                                        "sourceIPAddress": "198.51.100.7",
                                        "userIdentity": {"type": "Root", "accountId": "123456789012"},
                                    }
                                ]
                            },
                        },
                    },
                },
                "text/plain": {"schema": {"type": "string"}},
                "application/gzip": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
)
@pushing.put("/v1/ingest/{source}", include_in_schema=False)
async def ingest(
    request: Request,
    principal: Annotated[Principal, Depends(MAY_INGEST)],
    source: Annotated[str, Path(description="Kind of log, such as `cloudtrail`; `auto` recognises it.")],
    wait: Annotated[
        Literal["sealed"] | None, Query(description="`sealed`: answer after sealing, with counts and entry.")
    ] = None,
    name: Annotated[str, Query(description="File or object name, kept with the batch.", max_length=1024)] = "",
    idempotency_key: Annotated[
        str | None, Header(description="The same key with the same content again is answered as a duplicate.")
    ] = None,
    content_encoding: Annotated[
        str, Header(description="gzip, zstd or identity. Absent: recognised by the first bytes.")
    ] = "auto",
) -> Json:
    """Take a CloudTrail file, a JSON array, NDJSON, or text lines; plain, gzip or zstd. 200 means: it is on disk."""
    must_be_allowed(principal, source)
    node = node_of(request)
    async with receiving(request, principal, "http") as reception:
        accepted = await reception.deliver(
            reception.stream(),
            source=source,
            coding=content_encoding.strip().lower(),
            key=idempotency_key,
            name=name,
            quarantine=principal.quarantine_undecodable,
        )
    answer = asdict(accepted)
    if wait == "sealed":
        answer |= state_facts(await _sealed_or_not(node, accepted.batch))
    return Json(answer)


@pushing.get("/v1/ingest/{source}", include_in_schema=False)
@pushing.head("/v1/ingest/{source}", include_in_schema=False)
async def probe(principal: Annotated[Principal, Depends(MAY_INGEST)], source: str) -> Json:
    """Some forwarders ask whether anybody is there before they send."""
    must_be_allowed(principal, source)
    return Json({"source": source})


router.include_router(pushing)


@router.get("/v1/batches/{batch}", tags=["ingest"], summary="What became of a batch", responses={200: {"model": State}})
async def batch_state(request: Request, principal: Annotated[Principal, Depends(MAY_LOOK_UP)], batch: str) -> Json:
    """State and counts of a batch, at any time after its acknowledgement."""
    state = node_of(request).intake.batch(batch)
    if principal.role == "forwarder" and not principal.may_ingest(state.source):
        # As if it were not there: a forwarder learns nothing about other sources.
        raise UnknownBatch(f"no batch {batch}")
    return Json(state_facts(state))


@router.post("/v1/seal", tags=["ingest"], summary="Seal what is spooled now", responses={200: {"model": Sealed}})
async def seal(request: Request, principal: Annotated[Principal, Depends(MAY_SEAL)]) -> Json:
    """Seal at once instead of at the next size or age limit. Answers with the log's size."""
    node = node_of(request)
    await node.audit.record(act_of(request, principal, "seal", outcome="success"))
    size = await node.intake.seal()
    await node.engine.refresh()
    return Json({"size": size})


def state_facts(state: BatchState) -> dict[str, Any]:
    """A batch's state as answered."""
    return asdict(state)


async def _sealed_or_not(node: Node, batch: str) -> BatchState:
    """The state once sealed, or as it is when that takes too long: 200 stays true, the batch is durable."""
    patience = 2 * node.settings.seal_age_seconds + 30
    try:
        return await node.intake.wait_sealed(batch, patience)
    except TimeoutError:
        return node.intake.batch(batch)
