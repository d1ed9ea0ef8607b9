"""Every route against every role: the table here is written by hand, so that a change of a rule must be meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from strongroom.service.app import API_PAGE, PUBLIC, create_app
from strongroom.service.auth import refuse_unguarded, routes_of, rule_of
from strongroom.service.node import Node
from strongroom.service.settings import load
from tests.service.conftest import Service

EVERYBODY = {"forwarder", "investigator", "auditor", "admin"}
READERS = {"investigator", "auditor", "admin"}

# (method, path template) -> (roles, a request that is harmless when let through)
RULES: dict[tuple[str, str], set[str]] = {
    ("POST", "/v1/ingest/{source}"): {"forwarder", "admin"},
    ("PUT", "/v1/ingest/{source}"): {"forwarder", "admin"},
    ("GET", "/v1/ingest/{source}"): {"forwarder", "admin"},
    ("HEAD", "/v1/ingest/{source}"): {"forwarder", "admin"},
    ("POST", "/v1/firehose/{source}"): {"forwarder", "admin"},
    ("POST", "/v1/eventbridge/{source}"): {"forwarder", "admin"},
    **{
        ("POST", path): {"forwarder", "admin"}
        for path in (
            *("/v1/sns", "/v1/logs", "/otlp/v1/logs", "/loki/api/v1/push", "/api/prom/push", "/upload"),
            *("/services/collector", "/services/collector/event", "/services/collector/event/1.0"),
            *("/services/collector/raw", "/services/collector/raw/1.0"),
            *("/services/collector/ack", "/services/collector/ack/1.0"),
        )
    },
    **{
        (method, path): {"forwarder", "admin"}
        for path in ("/elastic/_bulk", "/elastic/{index}/_bulk", "/_bulk")
        for method in ("POST", "PUT")
    },
    **{
        ("GET", path): {"forwarder", "admin"}
        for path in (
            *("/elastic", "/elastic/", "/elastic/_license", "/elastic/_cluster/health"),
            *("/elastic/_cat/health", "/_cat/health"),
            *("/elastic/_index_template/{name}", "/elastic/_ilm/policy/{name}"),
        )
    },
    **{
        (method, path): {"forwarder", "admin"}
        for method, path in (
            *(("HEAD", "/elastic"), ("HEAD", "/elastic/"), ("HEAD", "/elastic/_index_template/{name}")),
            *(("PUT", "/elastic/_index_template/{name}"), ("PUT", "/elastic/_ilm/policy/{name}")),
        )
    },
    ("GET", "/v1/batches/{batch}"): EVERYBODY,
    ("GET", "/v1/receipts/{batch}"): EVERYBODY,
    ("POST", "/v1/receipts/check"): EVERYBODY,
    ("POST", "/v1/seal"): {"admin"},
    ("POST", "/v1/query"): READERS,
    ("POST", "/v1/query/estimate"): READERS,
    ("GET", "/v1/search"): READERS,
    ("GET", "/v1/timeline"): READERS,
    ("GET", "/v1/entities/{kind}/{value:path}"): READERS,
    ("GET", "/v1/investigations"): READERS,
    ("GET", "/v1/investigations/{name}"): READERS,
    ("POST", "/v1/investigations/{name}"): READERS,
    ("POST", "/v1/queries"): READERS,
    ("GET", "/v1/queries"): READERS,
    ("GET", "/v1/queries/{job}"): READERS,
    ("GET", "/v1/queries/{job}/segments"): READERS,
    ("GET", "/v1/queries/{job}/result"): READERS,
    ("DELETE", "/v1/queries/{job}"): READERS,
    ("GET", "/v1/saved"): READERS,
    ("GET", "/v1/saved/{name}"): READERS,
    ("PUT", "/v1/saved/{name}"): READERS,
    ("DELETE", "/v1/saved/{name}"): READERS,
    ("POST", "/v1/saved/{name}"): READERS,
    ("GET", "/v1/catalog"): READERS,
    ("GET", "/v1/proof"): READERS,
    ("GET", "/v1/proof/{entry}/{segment:path}/{row}"): READERS,
    ("POST", "/v1/evidence"): {"investigator", "auditor"},
    ("GET", "/v1/entries/{index}"): READERS,
    ("GET", "/v1/proofs/inclusion"): READERS,
    ("GET", "/v1/proofs/consistency"): READERS,
    ("GET", "/tlog/tile/entries/{path:path}"): READERS,
    ("GET", "/v1/status"): READERS,
    ("POST", "/v1/verify"): {"auditor", "admin"},
    ("GET", "/v1/verify/runs"): READERS,
    ("GET", "/v1/verify/runs/{run}"): READERS,
    ("GET", "/v1/reports"): READERS,
    ("GET", "/v1/reports/{report}"): READERS,
    ("GET", "/v1/reports/{report}.html"): READERS,
    ("GET", "/v1/holds"): {"auditor", "admin"},
    ("POST", "/v1/holds"): {"admin"},
    ("DELETE", "/v1/holds/{case:path}"): {"admin"},
    ("GET", "/v1/tokens"): {"admin"},
    ("POST", "/v1/tokens"): {"admin"},
    ("DELETE", "/v1/tokens/{token_id}"): {"admin"},
    ("GET", "/metrics"): {"auditor", "admin"},
}
# Chosen so that whoever is let in does no harm and the request ends quickly.
FILLED = {
    "{source}": "no_such_source",
    "{batch}": "0" * 64,
    "{name}": "none",
    "{index}/_bulk": "none/_bulk",
    "{index}": "0",
    "{run}": "none",
    "{report}": "none",
    "{token_id}": "ffffffff",
    "{path:path}": "000.p/1",
    "{entry}/{segment:path}/{row}": "0/0/0",
}
QUERIES = {"/v1/proofs/inclusion": "?entry=0", "/v1/proofs/consistency": "?old=1", "/v1/verify": "?level=none"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    folder = tmp_path_factory.mktemp("app")
    return create_app(Node(load(overrides={"archive": folder / "archive", "state": folder / "state"})))


def guarded(app: FastAPI) -> dict[tuple[str, str], set[str]]:
    return {
        (method, route.path): set(rule_of(route) or ())
        for route in routes_of(app.routes)
        if isinstance(route, APIRoute) and route.path not in PUBLIC | API_PAGE
        for method in route.methods
    }


def test_the_rules_are_exactly_these(app: FastAPI) -> None:
    assert guarded(app) == RULES


@pytest.mark.parametrize(("method", "path"), RULES, ids=lambda value: value)
def test_each_role_is_let_in_or_refused(service: Service, method: str, path: str) -> None:
    target = path
    for name, value in FILLED.items():
        target = target.replace(name, value)
    target += QUERIES.get(path, "")
    assert service.call(method, target, role=None).status_code == 401
    key = "X-Amz-Firehose-Access-Key"
    nonsense = "sr_00000000_nonsense"
    bad = service.call(method, target, role=None, headers={"Authorization": f"Bearer {nonsense}", key: nonsense})
    if path.startswith("/services/collector"):
        assert (bad.status_code, bad.json()["code"]) == (403, 4)  # as Splunk says it
    else:
        assert bad.status_code == 401
        assert bad.headers["WWW-Authenticate"].split()[0] in ("Bearer", "Basic")
    for role in EVERYBODY:
        status = service.call(method, target, role=role, headers={key: service.tokens[role]}).status_code
        if role in RULES[method, path] and "source" not in path and "/raw" not in path:
            assert status not in (401, 403), f"{role} must be let in"
        elif role not in RULES[method, path]:
            assert status == 403, f"{role} must be refused"


def test_public_paths_need_no_token(service: Service) -> None:
    tile = "/tlog/tile/{path:path}"
    for path in (*PUBLIC - {tile, "/tlog/cosignatures"}, "/tlog/tile/0/000.p/1", "/docs", "/openapi.json"):
        assert service.call("GET", path, role=None).status_code == 200, path
    size = service.call("GET", "/tlog/checkpoint", role=None).text.split("\n")[1]
    left = service.call("POST", f"/tlog/cosignatures?size={size}", role=None, content=b"nonsense")
    assert (left.status_code, left.json()["code"]) == (400, "cosignature-refused")


def test_a_route_without_a_rule_stops_the_application(app: FastAPI) -> None:
    extended = FastAPI(openapi_url=None)
    router = APIRouter()

    @router.get("/v1/forgotten")
    async def forgotten() -> None: ...

    extended.include_router(router)
    with pytest.raises(RuntimeError, match="/v1/forgotten"):
        refuse_unguarded(extended, PUBLIC)


def test_a_forwarder_is_held_to_its_sources(service: Service) -> None:
    body = b'{"a": 1}\n'
    assert service.call("POST", "/v1/ingest/json", role="forwarder", content=body).status_code == 200
    for source in ("guardduty", "auto", "audit", "quarantine"):
        refused = service.call("POST", f"/v1/ingest/{source}", role="forwarder", content=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), source


@pytest.mark.parametrize("role", ["quarantiner", "admin"])
@pytest.mark.parametrize("source", ["audit", "quarantine"])
def test_nobody_forges_what_the_service_writes(service: Service, role: str, source: str) -> None:
    assert service.call("POST", f"/v1/ingest/{source}", role=role, content=b"{}").status_code == 403


def test_a_forwarder_sees_no_batch_of_foreign_sources(service: Service) -> None:
    pushed = service.call("POST", "/v1/ingest/text", role="quarantiner", content=b"a line\n").json()
    path = f"/v1/batches/{pushed['batch']}"
    assert service.call("GET", path, role="forwarder").status_code == 404
    assert service.call("GET", path, role="investigator").json()["source"] == "text"


def test_an_unreadable_token_store_is_503_and_heals(service: Service) -> None:
    path: Path = service.folder / "state" / "tokens.json"
    good = path.read_bytes()
    try:
        path.write_bytes(b"{")
        refused = service.call("GET", "/v1/status")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert refused.json()["code"] == "tokens-unavailable"
        path.unlink()
        assert service.call("GET", "/v1/status").status_code == 503
    finally:
        path.write_bytes(good)
        path.chmod(0o600)
    assert service.call("GET", "/v1/status").status_code == 200
