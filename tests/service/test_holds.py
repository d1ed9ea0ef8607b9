"""Holds and retention on a real service over a locked bucket: what is held can't go, what is released can."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from strongroom.archive import layout
from strongroom.archive.retention.rules import Promise, Retention
from strongroom.archive.stores.s3 import S3Store
from tests.buckets import S3
from tests.service.conftest import QUIET, SAMPLES, Service, make_tokens, start_service, strongroom

RULES = {"default": "COMPLIANCE 400 days", "vpcflow": "GOVERNANCE 90 days"}
FLOWS = next(SAMPLES.glob("*vpcflow*"))
TRAILS = sorted(SAMPLES.glob("*CloudTrail*"))


@pytest.fixture(scope="module")
def locked(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, S3Store, dict[str, str]]]:
    """A service over a bucket with Object Lock, the bucket, and what commands need to reach it."""
    folder = tmp_path_factory.mktemp("locked")
    store = S3Store(s3.new_bucket(), "archive", options=s3.options)
    environment = s3.environment | QUIET
    environment |= {
        "STRONGROOM_ARCHIVE": store.location,
        "STRONGROOM_RETENTION": json.dumps(RULES),
        "STRONGROOM_HOLD_SECONDS": "1",
    }
    tokens = make_tokens(folder)
    service = start_service(folder, **environment)
    service.tokens = tokens
    push(service, "vpcflow", FLOWS)
    push(service, "cloudtrail", TRAILS[0])
    yield service, store, environment | {"STRONGROOM_STATE": str(folder / "state")}
    service.stop()


def push(service: Service, source: str, path: Path) -> None:
    answer = service.call("POST", f"/v1/ingest/{source}", content=path.read_bytes(), role="admin")
    assert answer.status_code == 200, answer.text
    assert service.call("POST", "/v1/seal").status_code == 200


def segments(store: S3Store, source: str) -> list[str]:
    return [info.key for info in store.list(f"{layout.SEGMENTS}source={source}/")]


def held(store: S3Store) -> set[str]:
    return {info.key for info in store.list("") if store.protection(info.key).held}


def verified(environment: dict[str, str], level: str = "inventory") -> dict[str, Any]:
    done = strongroom("verify", "--level", level, "--live", "--json", **environment)
    report = json.loads(done.stdout)
    assert not report["findings"], report["findings"]
    assert not report["incomplete"], report["incomplete"]
    return report


def test_everything_is_locked_by_its_rule_and_verification_agrees(
    locked: tuple[Service, S3Store, dict[str, str]],
) -> None:
    service, store, environment = locked
    for info in store.list(""):
        told = store.protection(info.key)
        if layout.is_canary(info.key):
            continue
        flows = layout.segment_source(info.key) == "vpcflow"
        assert told.mode == ("GOVERNANCE" if flows else "COMPLIANCE"), info.key
        assert round((told.retain_until - datetime.now(UTC)) / timedelta(days=1)) == (90 if flows else 400), info.key
    assert service.rows("SELECT count(*) FROM entries WHERE retain_until IS NULL") == [[0]]
    verified(environment)


def test_a_case_from_its_opening_to_its_release(locked: tuple[Service, S3Store, dict[str, str]]) -> None:
    service, store, environment = locked
    wanted = {"case": "2026-17", "where": "source = 'cloudtrail'"}
    given = service.call("POST", "/v1/holds", json=wanted).json()
    trails = set(segments(store, "cloudtrail"))
    assert given["enforced"] and given["segments"] == len(trails) > 0
    now_held = held(store)
    assert trails <= now_held
    assert not set(segments(store, "vpcflow")) & now_held
    assert {key.split("/")[0] for key in now_held} == {"segments", "details", "log"}

    # What is sealed while the case is open follows by itself.
    push(service, "cloudtrail", TRAILS[1])
    later = set(segments(store, "cloudtrail")) - trails
    assert later
    deadline = time.monotonic() + 20
    while not later <= held(store) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert later <= held(store)
    verified(environment)

    # A second case over records: their segments stay held when the first is released.
    record = {"case": "ops/7", "view": "cloudtrail", "where": "event_name IS NOT NULL"}
    assert service.call("POST", "/v1/holds", json=record).status_code == 201
    assert service.call("DELETE", "/v1/holds/2026-17").json()["segments"] == 0
    assert trails | later <= held(store)
    released = service.call("DELETE", "/v1/holds/ops/7").json()
    assert released["segments"] == len(trails | later)
    assert not held(store)
    verified(environment)

    cases = {case["name"]: case for case in service.call("GET", "/v1/holds", role="auditor").json()["cases"]}
    assert cases["2026-17"]["released"] and cases["ops/7"]["questions"] == [
        {"view": "cloudtrail", "where": record["where"]}
    ]
    actions = "SELECT DISTINCT action FROM audit WHERE action LIKE 'hold.%' ORDER BY 1"
    assert service.call("POST", "/v1/seal").status_code == 200
    assert service.rows(actions) == [["hold.place"], ["hold.release"]]


def test_orders_disclose_nothing_in_entries(locked: tuple[Service, S3Store, dict[str, str]]) -> None:
    _, store, _ = locked
    for info in store.list(layout.ENTRIES):
        assert b"2026-17" not in store.get(info.key)
    assert any(b"2026-17" in store.get(info.key) for info in store.list(layout.ORDERS))


@pytest.mark.parametrize(
    ("wanted", "status", "code"),
    [
        ({"case": "", "where": "true"}, 400, "order-refused"),
        ({"case": "a", "where": "true", "view": "nothing_here"}, 400, "query-refused"),
        ({"case": "a", "where": "true", "view": "x; DROP"}, 400, "order-refused"),
        ({"case": "a", "where": "true); COPY segments TO '/tmp/x' --"}, 400, "query-invalid"),
        ({"case": "a", "where": "no_such_column = 1"}, 400, "query-invalid"),
        ({"case": "a", "where": "segment IN (SELECT content FROM read_text('/etc/passwd'))"}, 400, "query-refused"),
    ],
)
def test_what_is_no_hold(
    locked: tuple[Service, S3Store, dict[str, str]], wanted: dict[str, str], status: int, code: str
) -> None:
    service, _, _ = locked
    answer = service.call("POST", "/v1/holds", json=wanted)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert service.call("DELETE", "/v1/holds/unknown").json()["code"] == "no-such-case"


def test_retention_is_extended_and_never_shortened(locked: tuple[Service, S3Store, dict[str, str]]) -> None:
    _, store, environment = locked
    far = datetime.now(UTC) + timedelta(days=500)
    near = datetime.now(UTC) + timedelta(days=10)
    day = f"{far:%Y-%m-%d}"
    done = strongroom("retention", "extend", "--source", "vpcflow", "--until", day, "--json", **environment)
    assert done.returncode == 0, done.stderr
    for key in segments(store, "vpcflow"):
        told = store.protection(key)
        assert (told.mode, f"{told.retain_until:%Y-%m-%d}") == ("GOVERNANCE", day)
    shorter = strongroom("retention", "extend", "--source", "vpcflow", "--until", f"{near:%Y-%m-%d}", **environment)
    assert shorter.returncode == 2 and "never shortened" in shorter.stderr
    later = f"{far + timedelta(days=9):%Y-%m-%d}"
    there = [info.key for info in store.list("log/")]  # what the order itself adds keeps to the rules
    whole = strongroom("retention", "extend", "--log", "--until", later, **environment)
    assert whole.returncode == 0, whole.stderr
    assert {f"{store.protection(key).retain_until:%Y-%m-%d}" for key in there} == {later}
    back = strongroom("retention", "extend", "--log", "--until", f"{near:%Y-%m-%d}", **environment)
    assert back.returncode == 0, back.stderr  # whatever is kept longer stays so
    assert {f"{store.protection(key).retain_until:%Y-%m-%d}" for key in there} == {later}
    verified(environment)


def test_in_an_encrypted_folder_it_is_recorded_unreadably_and_not_enforced(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_bytes(bytes(range(32)))
    places = {"STRONGROOM_ARCHIVE": str(tmp_path / "archive"), "STRONGROOM_STATE": str(tmp_path / "state")} | QUIET
    without_key = dict(places)
    places["STRONGROOM_ENCRYPTION_KEY"] = f"local:{key}"
    assert strongroom("ingest", str(FLOWS), **places).returncode == 0
    placed = strongroom("hold", "place", "--case", "Mallory", "--where", "source = 'vpcflow'", **places)
    assert placed.returncode == 0 and "recorded only" in placed.stdout, placed.stderr
    assert [case["name"] for case in json.loads(strongroom("hold", "list", "--json", **places).stdout)] == ["Mallory"]
    stored = [path.read_bytes() for path in (tmp_path / "archive").rglob("*") if path.is_file()]
    assert not any(b"Mallory" in content for content in stored)
    blind = json.loads(strongroom("verify", "--level", "inventory", "--json", **without_key).stdout)
    assert not blind["findings"] and any(note.startswith("order ") for note in blind["notes"])
    assert json.loads(strongroom("retention", "expired", "--json", **places).stdout) == {"there": [], "gone": []}
    assert strongroom("hold", "release", "--case", "2", **places).returncode == 2
    assert strongroom("hold", "release", "--case", "Mallory", **places).returncode == 0
    assert strongroom("verify", **places).returncode == 0
    acts = [json.loads(path.read_bytes()) for path in (tmp_path / "state" / "acts").glob("*.json")]
    assert {(act["action"], act["outcome"]) for act in acts} >= {
        ("hold.place", "success"),
        ("hold.release", "failure"),
        ("hold.release", "success"),
    }


def test_what_has_expired_may_go_and_answers_go_on_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def over(self: Retention, key: str, now: datetime) -> Promise:
        return Promise("GOVERNANCE", now.replace(microsecond=0) - timedelta(days=1))

    monkeypatch.setattr(Retention, "promise", over)
    places = {"STRONGROOM_ARCHIVE": str(tmp_path / "archive"), "STRONGROOM_STATE": str(tmp_path / "state")} | QUIET
    assert strongroom("ingest", str(FLOWS), **places).returncode == 0
    (key,) = json.loads(strongroom("retention", "expired", "--json", **places).stdout)["there"]
    assert strongroom("hold", "place", "--case", "1", "--where", "true", **places).returncode == 0
    assert not json.loads(strongroom("retention", "expired", "--json", **places).stdout)["there"]
    assert strongroom("hold", "release", "--case", "1", **places).returncode == 0
    counting = ("query", "SELECT count(*) AS n FROM vpcflow", "--format", "json")
    (tmp_path / "archive" / key).unlink()
    assert strongroom(*counting, **places).returncode == 2
    pruned = json.loads(strongroom("retention", "prune", "--json", **places).stdout)
    assert pruned["segments"] == 1
    assert json.loads(strongroom(*counting, **places).stdout)["rows"] == [[0]]
    report = json.loads(strongroom("verify", "--json", **places).stdout)
    assert report["sound"] and any("1 are named by a prune" in note for note in report["notes"])


def test_the_canary_is_told_measured_and_recorded(locked: tuple[Service, S3Store, dict[str, str]]) -> None:
    service, _, _ = locked
    locks = service.call("GET", "/v1/status").json()["locks"]
    assert not locks["held"]  # moto lets locks be shortened
    assert {trial["what"] for trial in locks["not_held"]} == {
        "shorten the lock",
        "weaken the lock",
        "find it as it was",
    }
    assert "strongroom_locks_held 0.0" in service.call("GET", "/metrics").text
    assert "THE STORE DOES NOT KEEP ITS LOCKS" in service.log
    assert service.call("POST", "/v1/seal").status_code == 200
    assert service.rows("SELECT outcome FROM audit WHERE action = 'locks.try'") == [["failure"]]


def test_production_does_not_start_on_a_store_that_lets_go(s3: S3, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    environment = s3.environment | {"STRONGROOM_PRODUCTION": "true", "STRONGROOM_STATE": str(tmp_path / "state")}
    place = {"STRONGROOM_ARCHIVE": f"s3://{bucket}", "STRONGROOM_LISTEN": "0.0.0.0:0"}
    done = strongroom("serve", **environment, **place)
    assert done.returncode == 2
    for reason in ("COMPLIANCE is needed", "without TLS", "shorten the lock: allowed"):
        assert reason in done.stderr, done.stderr
    environment |= {"STRONGROOM_ARCHIVE": str(tmp_path / "archive"), "STRONGROOM_LISTEN": "127.0.0.1:0"}
    folder = strongroom("serve", **environment)
    assert folder.returncode == 2 and "is a folder" in folder.stderr
