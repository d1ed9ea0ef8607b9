"""The HTTP application: routes behind the gate, errors as problem details, one node underneath.

Middleware, outermost first: Measured counts what was answered; Drain reads refused bodies to their end; LastResort
answers what nobody foresaw with 503. None of them buffers a body.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline

from strongroom import __version__
from strongroom.service import auth, problems
from strongroom.service.drain import Drain
from strongroom.service.metrics import Measured
from strongroom.service.node import Node
from strongroom.service.receiving.fetching import Fetcher
from strongroom.service.receiving.reception import fairness_of
from strongroom.service.receiving.refusals import Refusals
from strongroom.service.routes import (
    admin,
    estimate,
    evidence,
    holds,
    ingest,
    investigations,
    jobs,
    log,
    probes,
    push,
    query,
    receipts,
    saved,
    search,
    tlog,
    verification,
)

DESCRIPTION = """\
A log archive that can prove its contents. Push logs, ask in SQL, verify.

Press **Authorize** and paste a token (`strongroom token create` makes one). Every error is an
[RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem with a stable `code` and a `hint`.
"""

# Everything else needs a token.
PUBLIC = frozenset(
    {
        *("/healthz", "/readyz", "/v1/checkpoint"),
        *push.PUBLIC,
        *("/tlog/checkpoint", "/tlog/tile/{path:path}", "/tlog/submission", "/tlog/cosignatures"),
    }
)
API_PAGE = frozenset({"/docs", "/docs/oauth2-redirect", "/openapi.json", "/static-offline-docs"})


def create_app(node: Node) -> FastAPI:
    """The application over a node, which somebody else starts and stops (service/serving.py)."""
    create: Callable[..., FastAPI] = FastAPI
    pages: dict[str, Any] = {"openapi_url": None, "docs_url": None}
    if node.settings.api_page:
        create = FastAPIOffline
        pages = {"swagger_ui_parameters": {"persistAuthorization": True, "tryItOutEnabled": True}}
    app = create(
        title="Strongroom",
        version=__version__,
        description=DESCRIPTION,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        **pages,
    )
    app.state.node = node
    app.state.fairness = fairness_of(node.settings)
    app.state.refusals = Refusals(node.audit.record_soon)
    app.state.fetch = Fetcher()
    for router in (  # looked through in this order: what is asked most first
        ingest.router,
        query.router,
        *push.ROUTERS,
        receipts.router,
        estimate.router,
        search.router,
        investigations.router,
        jobs.router,
        saved.router,
        evidence.router,
        log.router,
        tlog.router,
        verification.router,
        holds.router,
        admin.router,
        probes.router,
    ):
        app.include_router(router)
    problems.install(app)
    app.add_middleware(problems.LastResort)
    app.add_middleware(Drain, cap=node.settings.max_body_bytes)
    app.add_middleware(Measured, metrics=node.metrics)
    auth.refuse_unguarded(app, PUBLIC | API_PAGE)
    _describe_problems(app)
    return app


def _describe_problems(app: FastAPI) -> None:
    """Every error of every operation is a problem; the 422 that FastAPI would describe never leaves this service."""
    generate = app.openapi

    def described() -> dict[str, Any]:
        schema = generate()
        for operations in schema["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = {
                    "description": "A problem (RFC 9457); docs/http.md lists every code",
                    "content": {problems.MEDIA_TYPE: {"schema": problems.SCHEMA}},
                }
        return schema

    app.openapi = described  # type: ignore[method-assign]


def _operation_id(route: APIRoute) -> str:
    return route.name
