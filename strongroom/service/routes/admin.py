"""Running the node: what it does, and who may come in.

Every administrative act is recorded before it takes effect.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from strongroom.service.auth import Requires
from strongroom.service.routes.answers import Json, act_of, node_of
from strongroom.service.tokens import Principal, Role

router = APIRouter(tags=["admin"])

MAY_WATCH = Requires("investigator", "auditor", "admin")
MAY_ADMINISTER = Requires("admin")


class TokenWanted(BaseModel):
    """A token to be made."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"role": "forwarder", "name": "trail-shipper", "sources": ["cloudtrail"]},
                {"role": "investigator", "name": "alice", "expires": "2027-01-01T00:00:00Z"},
            ]
        },
    )

    role: Role
    name: str = Field(description="Who or what will hold it. Deliveries are filed under this name.")
    sources: list[str] = Field(default_factory=list, description="A forwarder's sources, or `*`.")
    quarantine_undecodable: bool = Field(
        False, description="Keep what can't be decoded in quarantine and answer 200, for forwarders that drop on a 4xx."
    )
    expires: AwareDatetime | None = None


@router.get("/v1/status", summary="Counters and state of this node", dependencies=[Depends(MAY_WATCH)])
async def status(request: Request) -> Json:
    """Batches and records: received = sealed + quarantined + duplicate, once nothing is pending."""
    return Json(node_of(request).status())


@router.get("/v1/tokens", summary="All tokens, without their secrets", dependencies=[Depends(MAY_ADMINISTER)])
async def list_tokens(request: Request) -> Json:
    """Ids, names, roles, sources and times."""
    return Json({"tokens": [token.public() for token in node_of(request).tokens.tokens()]})


@router.post("/v1/tokens", summary="Make a token", status_code=201)
async def create_token(
    request: Request, principal: Annotated[Principal, Depends(MAY_ADMINISTER)], wanted: TokenWanted
) -> Json:
    """The answer shows the token's text; it is stored nowhere."""
    node = node_of(request)
    await node.audit.record(
        act_of(request, principal, "token.create", outcome="started", wanted=wanted.model_dump(mode="json"))
    )
    token, text = await run_in_threadpool(
        node.tokens.create,
        wanted.role,
        name=wanted.name,
        now=datetime.now(UTC),
        expires=wanted.expires,
        sources=wanted.sources,
        quarantine_undecodable=wanted.quarantine_undecodable,
    )
    await node.audit.record(
        act_of(request, principal, "token.create", outcome="success", target=token.id, token=token.public())
    )
    return Json({"token": text, **token.public()}, status_code=201)


@router.delete("/v1/tokens/{token_id}", summary="Revoke a token")
async def revoke_token(
    request: Request, principal: Annotated[Principal, Depends(MAY_ADMINISTER)], token_id: str
) -> Json:
    """The token is dead when this answers."""
    node = node_of(request)
    await node.audit.record(act_of(request, principal, "token.revoke", outcome="started", target=token_id))
    token = await run_in_threadpool(node.tokens.revoke, token_id)
    await node.audit.record(
        act_of(request, principal, "token.revoke", outcome="success", target=token_id, token=token.public())
    )
    return Json({"revoked": token.public()})
