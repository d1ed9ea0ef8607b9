"""The log for outsiders: checkpoints, entries and proofs, exactly as RFC 6962 and C2SP define them.

The checkpoint is public: it discloses a size and a hash, and its use is to be copied to places the archive's
administrators don't reach.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from strongroom.archive.errors import ObjectMissing
from strongroom.service.auth import Requires
from strongroom.service.errors import NoSuchProof
from strongroom.service.routes.answers import Json, node_of

router = APIRouter(tags=["log"])

READERS = Depends(Requires("investigator", "auditor", "admin"))


@router.get("/v1/checkpoint", summary="The newest signed checkpoint (public)", response_class=PlainTextResponse)
async def checkpoint(request: Request) -> PlainTextResponse:
    """A C2SP signed note of three lines: origin, size, root."""
    note = await run_in_threadpool(node_of(request).writer.checkpoint)
    return PlainTextResponse(note, headers={"Cache-Control": "no-cache"})


@router.get("/v1/entries/{index}", summary="One entry's exact bytes", dependencies=[READERS])
async def entry(request: Request, index: Annotated[int, Path(ge=0)]) -> Response:
    """The stored bytes, whose hash is a leaf of the log."""
    data = await run_in_threadpool(node_of(request).log.entry_bytes, index)
    return Response(data, media_type="application/json", headers={"Cache-Control": "private, immutable"})


@router.get("/v1/proofs/inclusion", summary="That an entry is in a tree", dependencies=[READERS])
async def inclusion(
    request: Request,
    entry: Annotated[int, Query(ge=0, description="Index of the entry.")],
    size: Annotated[int | None, Query(ge=1, description="Tree size; the newest by default.")] = None,
) -> Json:
    """An RFC 6962 inclusion proof (PATH), hex, lowest sibling first."""
    log = node_of(request).log
    tree = log.size if size is None else size
    if entry >= log.size:
        raise ObjectMissing(f"no entry {entry}: the log has {log.size}")
    try:
        path = log.inclusion_proof(entry, tree)
        root = log.root(tree)
    except ValueError as error:
        raise NoSuchProof(f"entry {entry} in a tree of {tree}: {error}") from None
    return Json({"entry": entry, "size": tree, "root": root.hex(), "path": [node.hex() for node in path]})


@router.get("/v1/proofs/consistency", summary="That one tree extends another", dependencies=[READERS])
async def consistency(
    request: Request,
    old: Annotated[int, Query(ge=1, description="The smaller tree size.")],
    new: Annotated[int | None, Query(ge=1, description="The larger tree size; the newest by default.")] = None,
) -> Json:
    """An RFC 6962 consistency proof (PROOF), hex."""
    log = node_of(request).log
    tree = log.size if new is None else new
    try:
        proof = log.consistency_proof(old, tree)
        roots = log.root(old).hex(), log.root(tree).hex()
    except ValueError as error:
        raise NoSuchProof(f"from {old} to {tree}: {error}") from None
    return Json({"old": old, "new": tree, "roots": roots, "proof": [node.hex() for node in proof]})
