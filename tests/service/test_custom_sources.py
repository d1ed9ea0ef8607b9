"""Declared sources through every door: pushed, ingested, asked, verified here and by the service's own child."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.ingest.test_sources_custom import DECLARED, DOORS, PAYMENT
from tests.service.conftest import Service, make_tokens, start_service, strongroom
from tests.service.test_ingest import push


def test_pushed_asked_and_verified(tmp_path: Path) -> None:
    declared = tmp_path / "sources.toml"
    declared.write_text(DECLARED)
    tokens = make_tokens(tmp_path)
    service = start_service(tmp_path, STRONGROOM_SOURCES_FILE=str(declared))
    service.tokens = tokens
    try:
        accepted = push(service, "auto", PAYMENT, role="quarantiner")
        assert accepted["source"] == "payments"
        assert service.rows("SELECT txn, amount FROM payments", at_least=accepted["batch"]) == [["t-1", 12.5]]
        assert ["payments", "denied"] in service.rows("SELECT source, outcome FROM events")
        report = service.call("POST", "/v1/verify", json={"level": "deep"}).json()
        assert report["sound"] and not report["notes"], report
    finally:
        service.stop()
    _verify_elsewhere(service, declared)


def _verify_elsewhere(service: Service, declared: Path) -> None:
    doors = service.folder / "doors.log"
    doors.write_bytes(DOORS)
    done = strongroom("ingest", doors, "--json", *service.places, STRONGROOM_SOURCES_FILE=str(declared))
    assert json.loads(done.stdout)["quarantined"] == 1
    deep = ("verify", "--level", "deep", "--json", *service.places)
    known = json.loads(strongroom(*deep, "--sources-file", declared).stdout)
    assert known["sound"] and not known["notes"]
    # Without the declarations, and with others, columns can't be compared; that is said, and no finding.
    without = json.loads(strongroom(*deep).stdout)
    assert without["sound"] and {"payments", "door"} == {note.split("'")[1] for note in without["notes"]}
    declared.write_text(DECLARED.replace('"user.login"', '"user.id"'))
    changed = json.loads(strongroom(*deep, "--sources-file", declared).stdout)
    assert changed["sound"] and [note.split("'")[1] for note in changed["notes"]] == ["payments"]
    asked = strongroom("query", "--format", "ndjson", "SELECT source, actor FROM events ORDER BY 1", *service.places)
    assert {json.loads(line)["source"] for line in asked.stdout.splitlines()} == {"audit"}, "no view, no rows"


@pytest.mark.parametrize("text", ["[[source]]\nname = 1", None])
def test_a_declaration_that_is_wrong_stops_the_start(tmp_path: Path, text: str | None) -> None:
    declared = tmp_path / "sources.toml"
    if text is not None:
        declared.write_text(text)
    places = ("--archive", tmp_path / "archive", "--state", tmp_path / "state")
    done = strongroom("ingest", declared, *places, STRONGROOM_SOURCES_FILE=str(declared))
    assert done.returncode != 0 and "sources_file" in done.stderr
    assert text is None or "source[0]" in done.stderr
    assert not (tmp_path / "archive").exists()
