"""Verification that runs by itself in a real service: it must not cry wolf, must go on after kills, and must bark."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system import stepping
from tests.system.conftest import NewService
from tests.system.process import Service
from tests.system.test_kill import Forwarder

pytestmark = [pytest.mark.system, pytest.mark.adversarial]

STOPS = int(os.environ.get("STRONGROOM_TEST_KILLS", "1"))
EVERY_SECOND = "* * * * * *"
OFF: dict[str, Any] = {"verify_quick": "", "verify_complete": "", "verify_sampled": "", "verify_jitter_seconds": 0}
BUSY: dict[str, Any] = {"seal_age_seconds": 0.05, "seal_bytes": 20_000, "heartbeat_seconds": 1}


def until(condition: Callable[[], Any], seconds: float = 60.0, say: Callable[[], Any] = lambda: "") -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, say()
        time.sleep(0.1)
    return found


def reports(service: Service, token: str) -> list[dict[str, Any]]:
    with service.client(token) as client:
        found: list[dict[str, Any]] = client.get("/v1/reports", params={"limit": 1000}).json()["reports"]
        return found


def runs(service: Service, token: str) -> list[dict[str, Any]]:
    with service.client(token) as client:
        found: list[dict[str, Any]] = client.get("/v1/verify/runs").json()["runs"]
        return found


def must_not_have_cried(service: Service, token: str) -> None:
    for report in reports(service, token):
        if report["verdict"] != "sound":
            with service.client(token) as client:
                pytest.fail(client.get(f"/v1/reports/{report['report']}").text)
    problems = [run for run in runs(service, token) if run["state"] == "failed"]
    assert not problems, problems


def test_deliveries_restarts_and_kills_never_produce_a_finding(new_service: NewService) -> None:
    service = new_service(**BUSY | OFF | {"verify_quick": EVERY_SECOND, "verify_complete": "*/3 * * * * *"})
    chance = random.Random(1)
    service.start()
    token, admin = service.token("forwarder", "--source", "*"), service.token("admin")
    forwarder = Forwarder(service, token, range(100_000))
    forwarder.start()
    for stop in STOPS * [service.kill] + [service.stop]:
        time.sleep(chance.uniform(1.5, 3.0))
        stop()
        service.start()
        assert service.url, service.log
    until(lambda: {r["level"] for r in reports(service, admin)} == {"quick", "complete"}, say=lambda: service.log)
    until(lambda: not [r for r in runs(service, admin)[5:] if r["state"] in ("running", "filing")])
    forwarder.halt.set()
    forwarder.join(20)
    must_not_have_cried(service, admin)
    service.stop()
    final = service.verify("deep")
    assert final["sound"], json.dumps(final["findings"], indent=1)
    assert len(forwarder.acknowledged) > 20


def test_a_clock_that_is_set_never_produces_a_finding_nor_silences_it(new_service: NewService, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    os.environ[stepping.VARIABLE] = str(clock)
    try:
        service = new_service(**BUSY | OFF | {"verify_quick": EVERY_SECOND})
        service.start((sys.executable, str(Path(stepping.__file__))))
    finally:
        del os.environ[stepping.VARIABLE]
    assert service.url, service.log
    token, admin = service.token("forwarder", "--source", "*"), service.token("admin")
    forwarder = Forwarder(service, token, range(100_000))
    forwarder.start()
    for step in (86_400, -3_600):
        before = len(reports(service, admin))
        clock.write_text(str(step))
        # One may have been on its way when the clock was set.
        until(lambda before=before: len(reports(service, admin)) > before + 1, say=lambda: service.log)
    forwarder.halt.set()
    forwarder.join(20)
    must_not_have_cried(service, admin)
    assert "did not run" not in service.log


def test_a_killed_verification_is_gone_on_with(new_service: NewService) -> None:
    """The node dies in the middle of a run: the run is finished under its own name, and only once."""
    service = new_service(**BUSY | OFF)
    service.start()
    admin = service.token("admin")
    with service.client(admin) as client:
        for number in range(3):
            client.post("/v1/ingest/json?wait=sealed", content=b'{"n": %d}\n' % number)

        def ask() -> None:
            with contextlib.suppress(httpx.HTTPError):
                client.post("/v1/verify?level=deep", timeout=30)

        asking = threading.Thread(target=ask)
        asking.start()
        [run] = until(lambda: [r for r in runs(service, admin) if r["announced"] and r["state"] == "running"])
        children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")  # type: ignore[union-attr]
        verifiers = [
            pid for pid in children.read_text().split() if b"verify" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        niceness = [int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[16]) for pid in verifiers]
        service.kill()
        asking.join()
        assert niceness == [15], "verification must not take the processor from deliveries"
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in verifiers), say=lambda: "the child must end too")
    service.start()
    found = until(lambda: [r for r in reports(service, admin) if r["report"] == run["id"]], say=lambda: service.log)
    assert [r["verdict"] for r in found] == ["sound"]
    service.stop()
    assert service.verify("complete")["sound"]


def test_damage_is_found_told_and_its_repair_too(new_service: NewService) -> None:
    service = new_service(**BUSY | OFF | {"verify_complete": "*/2 * * * * *"})
    service.start()
    admin = service.token("admin")
    with service.client(admin) as client:
        client.post("/v1/ingest/json?wait=sealed", content=b'{"n": 1}\n')
        until(lambda: reports(service, admin))
        damaged = next(service.archive.glob("segments/source=json/**/*.parquet"))
        content = damaged.read_bytes()
        damaged.chmod(0o600)
        damaged.write_bytes(content[:-30] + b"\x00" + content[-29:])
        until(lambda: "tampered" in {r["verdict"] for r in reports(service, admin)}, say=lambda: service.log)
        until(lambda: "complete verification of" in service.log)
        found = next(r for r in reports(service, admin) if r["verdict"] == "tampered")
        stored = client.get(f"/v1/reports/{found['report']}").json()
        key = damaged.relative_to(service.archive).as_posix()
        assert [(f["code"], f["object"]) for f in stored["findings"]] == [("SEGMENT_CHANGED", key)]
        assert 'strongroom_verify_findings{code="SEGMENT_CHANGED",level="complete"}' in _metrics(client)
        damaged.write_bytes(content)
        until(lambda: "kind=recovered" in service.log, say=lambda: service.log)
    told = [line for line in service.log.splitlines() if "kind=verdict" in line]
    assert len(told) == 1, "the same trouble is told once"


def _metrics(client: httpx.Client) -> str:
    text = client.get("/metrics").text
    return text.replace('level="complete",code="SEGMENT_CHANGED"', 'code="SEGMENT_CHANGED",level="complete"')


def test_two_replicas_never_run_the_same_one(new_service: NewService) -> None:
    first = new_service("a", **BUSY | OFF | {"verify_quick": EVERY_SECOND})
    first.start()
    second = new_service("b", **BUSY | OFF | {"verify_quick": EVERY_SECOND})
    # A replica: the same archive and keys, a writer of its own.
    shutil.copytree(first.state, second.state, ignore=shutil.ignore_patterns("writers", "runs", "*.lock"))
    node = json.loads((second.state / "node.json").read_text())
    (second.state / "node.json").write_text(json.dumps(node | {"writer": "replica"}))
    shutil.rmtree(second.archive, ignore_errors=True)
    second.archive.symlink_to(first.archive)
    second.start()
    assert second.url, second.log
    admin = first.token("admin")
    until(lambda: len({r["by"] for r in reports(first, admin)}) == 2, say=lambda: second.log)
    until(lambda: len(reports(first, admin)) >= 5)
    entries = [json.loads(path.read_bytes()) for path in sorted(first.archive.glob("log/entry/*"))]
    told = [entry["data"] for entry in entries if entry["kind"] == "report"]
    finished = {data["report"] for data in told if data["state"] == "finished"}
    due = [data["due"] for data in told if data["state"] == "started" and data["report"] in finished]
    assert len(due) == len(set(due)) > 3, "a time is run once"
    open_by: set[str] = set()
    for data in told:
        if data["state"] == "started" and data["report"] in finished:
            assert not open_by, "one at a time"
            open_by.add(data["report"])
        open_by.discard(data["report"] if data["state"] != "started" else "")
    must_not_have_cried(first, admin)
