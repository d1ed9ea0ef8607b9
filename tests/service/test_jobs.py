"""Jobs: asked now, fetched later, in every format; cancelled, lost at a restart, expired, dropped for room."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strongroom.service.answers.jobs import Job, Jobs
from strongroom.service.errors import UnknownJob
from tests.service.conftest import QUIET, Service, make_tokens, start_service

ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a.range, b.range) = 7"
ANSWER = """SELECT i, 'x' || i AS text, sum(i) OVER (ORDER BY i) AS running, TIMESTAMPTZ '2026-01-31 12:00+00' AS at
    FROM range(3000) t(i)"""


def submit(service: Service, *, role: str = "investigator", **work: Any) -> dict[str, Any]:
    answer = service.call("POST", "/v1/queries", role=role, json=work)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/v1/queries/{answer.json()['id']}"
    job: dict[str, Any] = answer.json()
    return job


def until(service: Service, job: dict[str, Any], *states: str, role: str = "investigator") -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found: dict[str, Any] = service.call("GET", f"/v1/queries/{job['id']}", role=role).json()
        if found["state"] in states:
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def result(service: Service, job: dict[str, Any], accept: str) -> bytes:
    path = f"/v1/queries/{job['id']}/result"
    answer = service.call("GET", path, role="investigator", headers={"Accept": accept})
    assert answer.status_code == 200, answer.text
    return answer.content


def test_an_answer_is_fetched_in_every_format(service: Service) -> None:
    job = submit(service, sql=ANSWER, limit=2500)
    assert job["state"] in ("queued", "running")
    done = until(service, job, "done")
    assert (done["rows"], done["truncated"]) == (2500, "rows")
    assert done["expires"] and done["bytes"] > 0 and done["snapshot"]["root"]
    direct = service.call("POST", "/v1/query", json={"sql": ANSWER, "limit": 2500, "as_of": done["snapshot"]["size"]})
    assert json.loads(result(service, job, "application/json")) == direct.json()
    csv = service.call("POST", "/v1/query", json={"sql": ANSWER, "limit": 2500}, headers={"Accept": "text/csv"})
    assert result(service, job, "text/csv") == csv.content
    assert len(result(service, job, "application/x-ndjson").splitlines()) == 2501
    arrow = pa.ipc.open_stream(result(service, job, "application/vnd.apache.arrow.stream")).read_all()
    parquet = pq.read_table(io.BytesIO(result(service, job, "application/vnd.apache.parquet")))
    assert arrow.to_pydict() == parquet.to_pydict()
    assert (
        service.call("GET", f"/v1/queries/{job['id']}/segments", role="investigator").json()["segments"]["names"] == []
    )


def test_investigations_and_saved_questions_as_jobs(service: Service) -> None:
    service.call(
        "PUT",
        "/v1/saved/as-a-job",
        json={"sql": "SELECT $n + 1 AS n", "parameters": [{"name": "n", "type": "integer"}]},
    )
    saved = submit(service, saved="as-a-job", parameters={"n": 41})
    ready = submit(service, investigation="root-use", parameters={"since": "2020-01-01"})
    until(service, saved, "done")
    assert json.loads(result(service, saved, "application/json"))["rows"] == [[42]]
    assert until(service, ready, "done")["asked"]["investigation"] == "root-use"
    for wrong in ({}, {"sql": "SELECT 1", "saved": "as-a-job"}, {"saved": "as-a-job", "parameters": [1]}):
        assert service.call("POST", "/v1/queries", json=wrong).status_code == 400


def test_a_failure_is_told_with_its_reason(service: Service) -> None:
    failed = until(service, submit(service, sql="SELECT nothing FROM cloudtrail"), "failed")
    assert failed["problem"]["code"] == "query-invalid" and "nothing" in failed["problem"]["detail"]
    answer = service.call("GET", f"/v1/queries/{failed['id']}/result", role="investigator")
    assert (answer.status_code, answer.json()["code"]) == (409, "job-not-done")


def test_a_job_is_cancelled_and_removed(service: Service) -> None:
    job = submit(service, sql=ENDLESS)
    until(service, job, "running")
    assert service.call("DELETE", f"/v1/queries/{job['id']}", role="investigator").json()["state"] == "cancelled"
    assert until(service, job, "cancelled")["state"] == "cancelled"
    assert service.call("DELETE", f"/v1/queries/{job['id']}", role="investigator").json() == {"removed": job["id"]}
    assert service.call("GET", f"/v1/queries/{job['id']}", role="investigator").status_code == 404


def test_jobs_leave_room_for_questions_and_wait_for_each_other(service: Service) -> None:
    jobs = [submit(service, sql=ENDLESS) for _ in range(4)]
    until(service, jobs[0], "running")
    assert service.query("SELECT 1")["rows"] == [[1]]
    states = [service.call("GET", f"/v1/queries/{job['id']}", role="investigator").json()["state"] for job in jobs]
    assert states.count("running") <= 2 and "queued" in states
    for job in jobs:
        service.call("DELETE", f"/v1/queries/{job['id']}", role="investigator")


def test_a_job_is_its_owners(service: Service) -> None:
    job = submit(service, sql="SELECT 1")
    path = f"/v1/queries/{job['id']}"
    assert service.call("GET", path, role="auditor").status_code == 404
    assert service.call("DELETE", path, role="auditor").status_code == 404
    assert service.call("GET", path, role="admin").status_code == 200
    assert job["id"] not in str(service.call("GET", "/v1/queries", role="auditor").json())
    assert job["id"] in str(service.call("GET", "/v1/queries", role="investigator").json())


def test_a_restart_knows_what_it_lost_and_keeps_what_was_done(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path)
    first = start_service(tmp_path, **QUIET)
    first.tokens = tokens
    done, lost = submit(first, sql="SELECT 42 AS n"), submit(first, sql=ENDLESS)
    until(first, done, "done")
    until(first, lost, "running")
    first.stop(signal.SIGKILL)
    second = start_service(tmp_path, **QUIET)
    second.tokens = tokens
    try:
        found = until(second, lost, "lost")
        assert found["problem"]["hint"] == "ask again"
        assert json.loads(result(second, done, "application/json"))["rows"] == [[42]]
    finally:
        second.stop()


def kept(folder: Path, name: str, at: datetime, size: int) -> None:
    job = Job(id=name, owner="o", state="done", created=at, ended=at, asked={}, snapshot_size=1, bytes=size)
    (folder / f"{name}.json").write_bytes(json.dumps(job_json(job)).encode())
    (folder / f"{name}.parquet").write_bytes(b"x" * size)


def job_json(job: Job) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(job)
    return found


def test_results_expire(tmp_path: Path) -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)

    async def check() -> None:
        kept(tmp_path, "old", now - timedelta(seconds=11), 10)
        kept(tmp_path, "new", now - timedelta(seconds=9), 10)
        jobs = Jobs(tmp_path, places=1, per_owner=1, keep_seconds=10, limit_bytes=100, clock=lambda: now)
        jobs.start()
        assert [job.id for job in jobs.visible(None)] == ["new"]
        with pytest.raises(UnknownJob):
            jobs.get("old", None)

    asyncio.run(check())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.json", "new.parquet"]


def test_a_new_result_drops_the_oldest(tmp_path: Path) -> None:
    async def check() -> None:
        now = datetime(2026, 1, 31, tzinfo=UTC)
        for number in range(4):
            kept(tmp_path, f"job{number}", now - timedelta(seconds=9 - number), 30)
        jobs = Jobs(tmp_path, places=1, per_owner=1, keep_seconds=10, limit_bytes=100, clock=lambda: now)
        jobs.start()
        (tmp_path / "newest.parquet").write_bytes(b"x" * 35)
        newest = Job(id="newest", owner="o", state="running", created=now, asked={}, snapshot_size=1)
        jobs._make_room(newest)
        assert [job.id for job in jobs.visible(None)] == ["job3", "job2"]

    asyncio.run(check())
