"""The log as a C2SP tile log, for foreign auditors and witnesses: `<address>/tlog` is its URL prefix.

Checkpoints, hash tiles and consistency proofs are public: they are hashes, and their use is to be held elsewhere. Entry
bundles need a token: entries name segments, whose names tell sources and dates.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from strongroom.archive import tiles
from strongroom.archive.errors import ObjectMissing
from strongroom.service.auth import Requires
from strongroom.service.errors import NoSuchProof
from strongroom.service.proving.cosigning import MAX_COSIGNATURE_BYTES
from strongroom.service.routes.answers import Json, node_of

router = APIRouter(prefix="/tlog", tags=["tile log"])

_FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}
_FRESH = {"Cache-Control": "no-cache"}


@router.get("/checkpoint", summary="The newest checkpoint (public)", response_class=PlainTextResponse)
async def checkpoint(request: Request) -> PlainTextResponse:
    """As /v1/checkpoint."""
    return PlainTextResponse(await run_in_threadpool(node_of(request).writer.checkpoint), headers=_FRESH)


@router.get(
    "/tile/entries/{path:path}",
    summary="An entry bundle",
    dependencies=[Depends(Requires("investigator", "auditor", "admin"))],
)
async def bundle(request: Request, path: Annotated[str, Path(description="like 000 or x001/067.p/17")]) -> Response:
    """Entries, each after its length as two bytes."""
    name, log = tiles.parse_path(f"entries/{path}"), node_of(request).log
    start = name.number * tiles.TILE_WIDTH
    if start + name.width > log.size:
        raise ObjectMissing(f"no entries up to {start + name.width}: the log has {log.size}")
    indices = range(start, start + name.width)
    data = await run_in_threadpool(lambda: tiles.entry_bundle(log.entry_bytes(index) for index in indices))
    return Response(data, media_type="application/octet-stream", headers={"Cache-Control": "private, immutable"})


@router.get("/tile/{path:path}", summary="A hash tile (public)")
async def tile(request: Request, path: Annotated[str, Path(description="like 0/000 or 1/x001/067.p/17")]) -> Response:
    """Hashes of 256 (or fewer, where the path says so) consecutive subtrees."""
    data = tiles.hash_tile(node_of(request).log, tiles.parse_path(path))
    if data is None:
        raise ObjectMissing(f"no tile {path} yet: the log has {node_of(request).log.size} entries")
    return Response(data, media_type="application/octet-stream", headers=_FOREVER)


@router.get("/submission", summary="An add-checkpoint request for a witness (public)", response_class=PlainTextResponse)
async def submission(
    request: Request,
    old: Annotated[int, Query(ge=0, description="The size the witness cosigned last, 0 for none.")] = 0,
) -> PlainTextResponse:
    """What a witness needs to follow the log from `old` to the newest checkpoint (C2SP tlog-witness)."""
    try:
        made = await run_in_threadpool(node_of(request).cosigning.submission, old)
    except ValueError as error:
        raise NoSuchProof(f"from {old}: {error}") from None
    if made is None:
        raise ObjectMissing("no checkpoint is published yet")
    return PlainTextResponse(made.encode().decode(), headers=_FRESH)


@router.post("/cosignatures", summary="Leave a witness's cosignature (public)")
async def cosignatures(
    request: Request, size: Annotated[int, Query(ge=1, description="Tree size of the checkpoint cosigned.")]
) -> Json:
    """Signature lines over a published checkpoint, by witnesses of this log's policy; others are refused."""
    body = b""
    async for chunk in request.stream():
        body = (body + chunk)[: MAX_COSIGNATURE_BYTES + 1]
    names = await run_in_threadpool(node_of(request).cosigning.accept, size, body[:MAX_COSIGNATURE_BYTES])
    return Json({"size": size, "witnesses": names})
