"""What the routes share: reaching the node, compact JSON answers, and acts of whoever asks.

JSON carries no white space (some forwarders search answers for literal text) and always a Content-Length.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
from fastapi import Request
from starlette.responses import Response

from strongroom.service.acts import Act, act
from strongroom.service.node import Node
from strongroom.service.tokens import Principal


class Json(Response):
    """A compact JSON answer; datetimes become RFC 3339."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def node_of(request: Request) -> Node:
    """The node this application serves."""
    return cast(Node, request.app.state.node)


def address_of(request: Request) -> str:
    """The peer's address as the socket says; forwarded-for headers are anybody's claim."""
    return request.client.host if request.client else ""


def act_of(request: Request, principal: Principal, action: str, *, outcome: str, **facts: Any) -> Act:
    """An act of this moment by the holder of the request's token (see service/acts.py)."""
    return act(
        action, actor=principal.label, role=principal.role, address=address_of(request), outcome=outcome, **facts
    )
