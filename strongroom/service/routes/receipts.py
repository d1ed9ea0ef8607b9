"""Receipts later: where a batch is sealed, with proof, and what became of the promise that a receipt is."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool

from strongroom.ingest import receipts
from strongroom.ingest.errors import ReceiptInvalid, UnknownBatch
from strongroom.service.auth import Requires
from strongroom.service.errors import Forbidden
from strongroom.service.proving.promises import Standing
from strongroom.service.routes.answers import Json, node_of
from strongroom.service.tokens import Principal

router = APIRouter(tags=["receipts"])

MAY_ASK = Requires("forwarder", "investigator", "auditor", "admin")

MAX_RECORDS = 10_000
MAX_RECEIPT_BYTES = 64 << 10
_RECEIPT = (
    "strongroom receipt v1\norigin logs.example.gov/archive\nbatch 5f…\nsource cloudtrail\nsha256 2c…\nbytes 51423\n"
    "received_at 2026-01-31T12:00:00.000000Z\nwriter w1 1 17\n\n— logs.example.gov/archive/receipts Gd…=\n"
)


@router.get("/v1/receipts/{batch}", summary="Where a batch is sealed, with proof")
async def receipt(
    request: Request,
    principal: Annotated[Principal, Depends(MAY_ASK)],
    batch: str,
    records: Annotated[
        int, Query(ge=0, le=MAX_RECORDS, description="List the addresses of so many of its records.")
    ] = 0,
    after: Annotated[int, Query(ge=-1, description="… beyond this ordinal of the batch.")] = -1,
    details: Annotated[bool, Query(description="Send the details object too, which names the whole commit.")] = False,
) -> Json:
    """The receipt again, and what it came to: the entry with its inclusion proof and checkpoint, and the segments.

    `details`, whose SHA-256 the entry states, shows offline that the entry is about this batch; it also names the
    other batches of the commit, so forwarders don't get it. Each record's address leads to its own proof.
    """
    if details and principal.role == "forwarder":
        raise Forbidden("a forwarder may not see other senders' batches", hint="leave out `details`")
    standing = await run_in_threadpool(
        node_of(request).promises.standing, batch, records=records, after=after, details=details
    )
    _must_concern(principal, standing.source, batch)
    return Json(_shown(standing))


@router.post(
    "/v1/receipts/check",
    summary="What became of a receipt",
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "A receipt: the signed note that the answer to a delivery carries",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": _RECEIPT}},
        }
    },
)
async def check(request: Request, principal: Annotated[Principal, Depends(MAY_ASK)]) -> Json:
    """`verdict` is *sealed*, *spooled*, *contradicted*, *lost* or *foreign*; `meaning` says what that means.

    *lost* and *contradicted* are evidence against this archive: the receipt proves that the batch was acknowledged.
    """
    body = b""
    async for chunk in request.stream():
        body = (body + chunk)[: MAX_RECEIPT_BYTES + 1]
    try:
        text = body[:MAX_RECEIPT_BYTES].decode()
    except UnicodeDecodeError:
        raise ReceiptInvalid("not a receipt: not UTF-8 text") from None
    stated = receipts.parse(text)
    _must_concern(principal, stated.source, stated.batch)
    return Json(_shown(await run_in_threadpool(node_of(request).promises.check, text)))


def _must_concern(principal: Principal, source: str, batch: str) -> None:
    if principal.role == "forwarder" and not principal.may_ingest(source):
        # As if it were not there: a forwarder learns nothing about other sources.
        raise UnknownBatch(f"no batch {batch}")


def _shown(standing: Standing) -> dict[str, Any]:
    """A standing as answered: bytes in base64, hashes in hexadecimal."""
    shown = {name: value for name, value in asdict(standing).items() if name != "seal"}
    seal = standing.seal
    if seal is None:
        return shown | {"sealed": None}
    entry = seal.entry
    found: dict[str, Any] = {
        "entry": entry.index,
        "sealed_at": entry.written_at,
        "sequence": seal.facts.sequence,
        "records": seal.facts.records,
        "accepted": seal.facts.accepted,
        "quarantined": seal.facts.quarantined,
        "segments": [
            {
                "entry": part.entry,
                "segment": part.position,
                "key": part.segment.key,
                "records": part.records,
                "rows": [part.first, part.last],
            }
            for part in seal.parts
        ],
        "details": {"key": entry.details.key, "sha256": entry.details.sha256} if entry.details else None,
        "proof": None,
    }
    if seal.content is not None and entry.details:
        found["details"] |= {"raw": b64encode(seal.content).decode()}
    if seal.proof is not None:
        found["proof"] = {
            "entry": b64encode(seal.proof.entry).decode(),
            "path": [node.hex() for node in seal.proof.path],
            "size": seal.proof.head.size,
            "checkpoint": seal.proof.note.decode(),
            "witnessed": seal.proof.witnessed,
        }
    if seal.records:
        found["record_addresses"] = [asdict(address) for address in seal.records]
    return shown | {"sealed": found}
