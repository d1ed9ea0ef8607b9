"""The gate every route stands behind.

Rules, in the order they apply:

1. No route is served without a rule: `refuse_unguarded` stops the application from starting when a route carries
   neither `Requires(...)` nor a place on the list of public paths.
2. No token, or none that is known and alive: 401. A token store that can't be read: 503, never 401, because
   forwarders throw data away on 401 and keep it on 503.
3. A good token of another role: 403. Roles don't include each other silently: each route names the roles it serves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import FastAPI, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.routing import BaseRoute

from strongroom.service.errors import Forbidden, TokenMissing
from strongroom.service.receiving.credentials import token_in
from strongroom.service.tokens import Principal, Role, TokenStore

_SCHEME = HTTPBearer(
    auto_error=False, bearerFormat="sr_<id>_<secret>", description="`strongroom token create` makes one"
)


class Requires:
    """A FastAPI dependency: lets the named roles through and hands the route its Principal."""

    def __init__(self, *roles: Role) -> None:
        self.roles = frozenset(roles)

    async def __call__(
        self, request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_SCHEME)]
    ) -> Principal:
        if credentials is None:
            raise TokenMissing("a bearer token is needed", hint="send `Authorization: Bearer sr_<id>_<secret>`")
        return self.admit(request, credentials.credentials)

    def admit(self, request: Request, token: str) -> Principal:
        """The bearer of `token`. Raises Unauthenticated, Forbidden, TokensUnavailable."""
        tokens: TokenStore = request.app.state.node.tokens
        principal = tokens.authenticate(token, datetime.now(UTC))
        if principal.role not in self.roles:
            wanted = ", ".join(sorted(self.roles))
            raise Forbidden(f"role {principal.role} may not do this", hint=f"needs a token with role {wanted}")
        request.state.principal = principal
        return principal


class Pushes(Requires):
    """The same for those who push, whose protocols put the token elsewhere (service/receiving/credentials.py)."""

    def __init__(self, *places: str) -> None:
        super().__init__("forwarder", "admin")
        self._places = places

    async def __call__(
        self, request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_SCHEME)]
    ) -> Principal:
        # `credentials` is there for the API page, which knows bearer tokens only.
        token = token_in(request.headers, self._places)
        if token is None:
            raise TokenMissing("a token is needed", hint=f"taken here: {', '.join(self._places)}")
        return self.admit(request, token)


def rule_of(route: APIRoute) -> frozenset[Role] | None:
    """The roles a route serves, None when it stands behind no gate."""
    return next((call.roles for call in _calls(route.dependant) if isinstance(call, Requires)), None)


def routes_of(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """Every route, also those that newer FastAPI versions keep inside included routers."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        yield from [route] if inner is None else routes_of(inner.routes)


def refuse_unguarded(app: FastAPI, public: Collection[str]) -> None:
    """Deny by default, at the latest possible moment that is still before serving: raises RuntimeError."""
    for route in routes_of(app.routes):
        path = getattr(route, "path", "")
        if path in public or (isinstance(route, APIRoute) and rule_of(route)):
            continue
        raise RuntimeError(f"route {path} has no access rule: add Requires(...) or name it as public")


def _calls(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for below in dependant.dependencies:
        yield from _calls(below)
