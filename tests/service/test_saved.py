"""Saved questions: versions, owners, blanks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service.conftest import Service

DRAFT = {
    "sql": "SELECT $word || '!' AS said, $times * 2 AS twice",
    "description": "To say something",
    "parameters": [{"name": "word", "type": "text"}, {"name": "times", "type": "integer", "default": 1}],
}


def put(service: Service, name: str, draft: dict[str, Any] = DRAFT, role: str = "investigator") -> Any:
    return service.call("PUT", f"/v1/saved/{name}", role=role, json=draft)


def ask(service: Service, name: str, version: int | None = None, role: str = "auditor", **parameters: Any) -> Any:
    params = {} if version is None else {"version": version}
    return service.call("POST", f"/v1/saved/{name}", role=role, json={"parameters": parameters}, params=params)


def test_a_question_is_kept_in_versions(service: Service) -> None:
    assert put(service, "greeting").json()["version"] == 1
    changed = DRAFT | {"sql": "SELECT $word || '?' AS said, $times AS twice"}
    assert put(service, "greeting", changed).json()["version"] == 2
    now, before = ask(service, "greeting", word="yes", times="3"), ask(service, "greeting", 1, word="yes", times=3)
    assert (now.json()["rows"], now.headers["Strongroom-Saved-Version"]) == ([["yes?", 3]], "2")
    assert (before.json()["rows"], before.headers["Strongroom-Saved-Version"]) == ([["yes!", 6]], "1")
    shown = service.call("GET", "/v1/saved/greeting").json()
    assert [item["sql"] for item in shown["versions"]] == [DRAFT["sql"], changed["sql"]]
    assert "greeting" in {item["name"] for item in service.call("GET", "/v1/saved").json()["saved"]}


def test_only_its_owner_and_administrators_change_it(service: Service) -> None:
    put(service, "mine")
    refused = put(service, "mine", role="auditor")
    assert (refused.status_code, refused.json()["code"]) == (403, "saved-forbidden")
    assert service.call("DELETE", "/v1/saved/mine", role="auditor").status_code == 403
    by_admin = put(service, "mine", role="admin").json()
    assert (by_admin["version"], by_admin["owner"], by_admin["author"]) == (2, "test-investigator", "test-admin")
    assert service.call("DELETE", "/v1/saved/mine", role="investigator").status_code == 200
    assert ask(service, "mine", word="x").status_code == 404


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("UPPER", {}),
        ("..%2f..%2fx", {}),
        ("bad", {"parameters": []}),  # fine: $word is then missing only when it is asked
        ("bad", {"parameters": [{"name": "nowhere", "type": "text"}]}),
        ("bad", {"parameters": [{"name": "word", "type": "text"}] * 2}),
        ("bad", {"parameters": [{"name": "times", "type": "integer", "default": "many"}]}),
        ("bad", {"sql": "SELECT $since WHERE {window}", "parameters": [{"name": "since", "type": "time"}]}),
    ],
    ids=str,
)
def test_what_cannot_be_saved(service: Service, name: str, change: dict[str, Any]) -> None:
    answer = put(service, name, DRAFT | change)
    if change == {"parameters": []}:
        assert answer.status_code == 201
        assert ask(service, name).json()["code"] == "query-invalid"
        service.call("DELETE", f"/v1/saved/{name}", role="investigator")
    else:
        assert answer.status_code in (400, 404), answer.text


def test_blanks_are_checked_and_windows_filled(service: Service) -> None:
    sql = (
        "SELECT count(*) AS n FROM (VALUES (TIMESTAMPTZ '2026-01-31 12:00+00'), (NULL)) AS t(event_time) WHERE {window}"
    )
    put(service, "windowed", {"sql": sql})
    assert ask(service, "windowed").json()["rows"] == [[2]]
    assert ask(service, "windowed", since="2026-01-31").json()["rows"] == [[1]]
    assert ask(service, "windowed", until="2026-01-31T12:00:00Z").json()["rows"] == [[0]]
    put(service, "checked")
    for wrong in ({}, {"word": 1}, {"word": "x", "times": "1.5"}, {"word": "x", "other": 1}):
        assert ask(service, "checked", **wrong).json()["code"] == "parameter-invalid", wrong


def test_values_are_bound_not_pasted(service: Service) -> None:
    put(service, "bound")
    assert ask(service, "bound", word="'; DROP TABLE x --").json()["rows"] == [["'; DROP TABLE x --!", 2]]
