"""Whether the archive is sound: verify, watch it run, and read what was found before.

All of it rests on this node's own trust file. Who does not trust this node runs `strongroom verify` against a copy.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, Response

from strongroom.archive import canonical
from strongroom.archive.errors import ObjectMissing
from strongroom.archive.verification.findings import Level
from strongroom.service.acts import act
from strongroom.service.auth import Requires
from strongroom.service.checking import report_page
from strongroom.service.checking.runs import Run
from strongroom.service.errors import VerificationError
from strongroom.service.node import Node
from strongroom.service.routes.answers import Json, address_of, node_of
from strongroom.service.tokens import Principal

router = APIRouter(tags=["verification"])

MAY_VERIFY = Requires("auditor", "admin")
MAY_READ = Depends(Requires("investigator", "auditor", "admin"))

# The page runs nothing and fetches nothing; a browser is told to see to that.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


@router.post("/v1/verify", summary="Verify the archive")
async def verify(
    request: Request,
    principal: Annotated[Principal, Depends(MAY_VERIFY)],
    level: Annotated[Level, Query(description="quick, inventory, complete, sampled or deep")] = "quick",
) -> Json:
    """Run one verification in a process of its own and answer with its report, sound or not.

    The report is also filed in the archive (`entry` names it) and told to whom alerts go. A client that leaves does not
    stop it.
    """
    node = node_of(request)
    who: dict[str, Any] = {"actor": principal.label, "role": principal.role, "address": address_of(request)}
    asked = act("verify", **who, outcome="started", level=level)
    await node.audit.record(asked)
    try:
        report = await node.verifier.run(level)
    except VerificationError as error:
        node.audit.record_soon(act("verify", **who, outcome="failure", id=asked.id, level=level, error=error.code))
        raise
    found = [f"{finding['code']} {finding['object']}" for finding in report["findings"]][:100]
    outcome = "success" if report["sound"] else "failure"
    facts = {"level": level, "run": report["run"], "verdict": report["verdict"], "findings": found}
    node.audit.record_soon(act("verify", **who, outcome=outcome, id=asked.id, **facts))
    return Json(report)


@router.get("/v1/verify/runs", summary="Verifications of this node", dependencies=[MAY_READ])
async def runs(request: Request, limit: Annotated[int, Query(ge=1, le=500, description="Most runs.")] = 50) -> Json:
    """The newest first, with progress while they run, and when the next of each level is due here."""
    node = node_of(request)
    known = node.verifier.runs.all()[:limit]
    return Json({"runs": [_shown(node, run) for run in known], "due": node.schedule.due})


@router.get("/v1/verify/runs/{run}", summary="One verification and its progress", dependencies=[MAY_READ])
async def one_run(request: Request, run: str) -> Json:
    """States: running, filing (the report is on its way into the archive), finished, failed."""
    node = node_of(request)
    found = node.verifier.runs.get(run)
    if found is None:
        raise ObjectMissing(f"no run {run} on this node", hint="GET /v1/reports lists those of all nodes")
    return Json(_shown(node, found))


@router.get("/v1/reports", summary="Reports in the archive", dependencies=[MAY_READ])
async def reports(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most reports.")] = 100,
    before: Annotated[int | None, Query(ge=0, description="Only of entries before this index.")] = None,
) -> Json:
    """Of all nodes, the newest first. `signed` says whether a checkpoint covers the report's entry."""
    node = node_of(request)
    found = await run_in_threadpool(node.verifier.reports.list, limit, before)
    signed = node.writer.signed
    size = signed.size if signed else 0
    return Json({"reports": [filed.to_json() | {"signed": filed.entry < size} for filed in found]})


@router.get("/v1/reports/{report}.html", summary="One report as a page", dependencies=[MAY_READ])
async def report_html(request: Request, report: str) -> HTMLResponse:
    """One file that needs nothing else; print it, or keep it."""
    node = node_of(request)
    filed, content = await run_in_threadpool(node.verifier.reports.read, report)
    signed = node.writer.signed
    page = report_page.render(canonical.decode(content), filed, signed.size if signed else 0)
    return HTMLResponse(page, headers=_PAGE_HEADERS)


@router.get("/v1/reports/{report}", summary="One report's exact bytes", dependencies=[MAY_READ])
async def report_json(request: Request, report: str) -> Response:
    """The stored bytes, whose SHA-256 the entry commits to; headers name both."""
    filed, content = await run_in_threadpool(node_of(request).verifier.reports.read, report)
    headers = {"Strongroom-Entry": str(filed.entry), "Strongroom-SHA256": filed.object.sha256}
    return Response(content, media_type="application/json", headers=headers)


def _shown(node: Node, run: Run) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(run)
    return shown | {"progress": node.verifier.progress(run)}
