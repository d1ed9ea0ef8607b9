"""docs/notebook.md is true: its blocks run in order, against a real service with real logs."""

from __future__ import annotations

import os
import re
import signal
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from strongroom.client import AnswerBroken, Client, Forbidden, JobFailed, NotFound, Refused, Unavailable, Unreachable
from tests.ingest.samples import SAMPLES, body, files
from tests.service.conftest import REPOSITORY, Service, make_tokens, start_service

_BLOCKS = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("notebook")
    tokens = make_tokens(folder)
    running = start_service(folder)
    running.tokens = tokens
    content = b"\n".join(body(path) for path in files(SAMPLES / "cloudtrail"))
    running.call("POST", "/v1/ingest/cloudtrail", role="quarantiner", content=content, params={"wait": "sealed"})
    yield running
    running.stop()


@pytest.fixture
def archive(logs: Service) -> Iterator[Client]:
    with Client(logs.url, logs.tokens["investigator"]) as client:
        yield client


def test_the_notebook_runs(logs: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = _BLOCKS.findall((REPOSITORY / "docs" / "notebook.md").read_text())
    names: dict[str, Any] = {"url": logs.url, "token": logs.tokens["investigator"]}
    for block in blocks:
        exec(compile(block, "docs/notebook.md", "exec"), names)
    assert names["rows"] > 400 and names["denied"].rows() and names["person"].records > 0
    assert len(names["answer"]) == int(names["made"]["records"]) > 0
    with zipfile.ZipFile("case-2026-4711.zip") as bundle:
        assert "custody.json" in " ".join(bundle.namelist())


def test_types_and_truncation(archive: Client) -> None:
    answer = archive.query(
        "SELECT 1::SMALLINT AS a, [1.5] AS b, TIMESTAMPTZ '2026-01-31 12:00+00' AS c FROM range(9)", limit=4
    )
    assert (len(answer), answer.truncated) == (4, "rows")
    assert [str(kind) for kind in answer.table.schema.types] == [
        "int16",
        "list<l: decimal128(2, 1)>",
        "timestamp[us, tz=UTC]",
    ]
    assert archive.query("SELECT ?::INT + ? AS n", [1, 2]).rows() == [{"n": 3}]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_when_installed(archive: Client, library: str) -> None:
    pytest.importorskip(library)
    answer = archive.query("SELECT 42 AS n, TIMESTAMPTZ '2026-01-31 12:00+00' AS at")
    frame = answer.to_pandas() if library == "pandas" else answer.to_polars()
    assert list(frame["n"]) == [42] and str(frame["at"][0]).startswith("2026-01-31 12:00:00")


def test_search_goes_on_over_pages(archive: Client) -> None:
    hits = list(archive.search(sources=["cloudtrail"]))
    assert len(hits) == archive.query("SELECT count(*) AS n FROM cloudtrail").rows()[0]["n"]
    assert [hit.address for hit in archive.search(sources=["cloudtrail"], limit=7)] == [hit.address for hit in hits[:7]]
    assert all(
        "StopLogging" in (hit.raw or "") for hit in archive.search("StopLogging", sources=["cloudtrail"], raw=True)
    )


def test_problems_carry_what_was_said(logs: Service, archive: Client) -> None:
    with pytest.raises(Refused) as refused:
        archive.query("SELECT *\nFROM cloudtrial")
    assert refused.value.code == "query-refused" and "cloudtrail" in refused.value.hint
    assert refused.value.position and refused.value.position["line"] == 2
    with pytest.raises(NotFound):
        archive.ask("nothing-of-the-kind")
    with pytest.raises(Forbidden), Client(logs.url, "sr_00000000_x") as stranger:
        stranger.catalog()
    with pytest.raises(Unreachable), Client("http://127.0.0.1:9", "x", timeout_seconds=1) as nobody:
        nobody.catalog()


def test_a_job_that_fails_says_why(archive: Client) -> None:
    with pytest.raises(JobFailed) as failed:
        archive.submit("SELECT nonsense FROM cloudtrail").wait(30)
    assert failed.value.problem["code"] == "query-invalid"


WIDE = "SELECT repeat('x', 1000) || i AS x FROM range(1000000) t(i)"


def test_an_answer_whose_process_is_killed_is_never_half(logs: Service, archive: Client) -> None:
    with pytest.raises(AnswerBroken), archive.stream(WIDE, limit=1_000_000) as stream:
        batches = iter(stream)
        next(batches)
        kill_workers(logs)
        for _ in batches:
            pass
    # The service goes on; of the processes that rested, which were killed as well, at most one costs a second try.
    with Client(logs.url, logs.tokens["investigator"], patience_seconds=20) as patient:
        assert patient.query("SELECT 1 AS n").rows() == [{"n": 1}]


@pytest.mark.parametrize("coding", ["identity", "zstd"])
@pytest.mark.parametrize("media", ["application/json", "application/x-ndjson", "text/csv", "application/vnd.apache.*"])
def test_in_any_format_a_killed_process_breaks_the_connection(logs: Service, media: str, coding: str) -> None:
    """What came looks like no whole answer to any HTTP client: it ends without the last chunk."""
    headers = {"Authorization": f"Bearer {logs.tokens['auditor']}", "Accept-Encoding": coding}
    headers["Accept"] = media.replace("apache.*", "apache.arrow.stream")
    question = {"sql": f"{WIDE} -- {media} {coding}", "limit": 1_000_000}
    with httpx.stream("POST", f"{logs.url}/v1/query", headers=headers, json=question, timeout=30) as response:
        assert response.status_code == 200
        pieces = response.iter_raw()
        next(pieces)
        kill_workers(logs)
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            for _ in pieces:
                pass
    with Client(logs.url, logs.tokens["auditor"], patience_seconds=20) as patient:
        deadline_query(patient)
    logs.call("POST", "/v1/seal")
    ended = (
        "SELECT e.outcome, e.detail->>'$.error' FROM audit s JOIN audit e ON s.detail->>'$.act' = e.detail->>'$.act' "
        "WHERE s.detail->>'$.sql' = $sql AND e.outcome <> 'started'"
    )
    assert logs.rows(ended, {"sql": question["sql"]}) == [["failure", "query-failed"]]


def test_who_leaves_frees_his_place(archive: Client) -> None:
    for _ in range(4):  # more than one user may have at once
        with archive.stream(WIDE, limit=1_000_000) as stream:
            next(iter(stream))
        # The service notices when it next writes.
        deadline_query(archive)


ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a.range, b.range) = 7"


def test_who_leaves_before_the_first_row_frees_his_place_too(logs: Service) -> None:
    for _ in range(3):
        with pytest.raises(Unreachable), Client(logs.url, logs.tokens["auditor"], timeout_seconds=0.5) as impatient:
            impatient.query(ENDLESS)
    with Client(logs.url, logs.tokens["auditor"]) as client:
        deadline_query(client)  # long before the questions would have run into their limit


def deadline_query(archive: Client) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            archive.query("SELECT 1")
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def kill_workers(service: Service) -> None:
    """SIGKILL to every process that runs SQL for this service."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == service.process.pid and b"strongroom.query.process.worker" in command:
            os.kill(int(entry.name), signal.SIGKILL)
