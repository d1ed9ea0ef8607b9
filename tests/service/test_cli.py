"""The command line, run as a person runs it: exit codes, one-line errors, and no service needed."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.service.conftest import REPOSITORY, SAMPLES, STRONGROOM, strongroom

ROWS = 590  # CloudTrail events in the samples


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """An archive with the samples in it, made by `strongroom ingest`."""
    folder = tmp_path_factory.mktemp("cli")
    places: list[str | Path] = ["--archive", folder / "archive", "--state", folder / "state"]
    done = strongroom("ingest", SAMPLES, "--json", *places)
    # PROVENANCE.md lies among the samples and is text.
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["files"], summary["batches"], summary["duplicates"], summary["refused"]) == (4, 4, 0, 0)
    assert summary["records"] == summary["accepted"] > ROWS
    return places


def test_ingest_again_takes_nothing_twice(places: list[str | Path]) -> None:
    done = strongroom("ingest", SAMPLES, "--json", *places)
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["batches"], summary["duplicates"]) == (0, 0, 4)


def test_ingest_says_3_when_something_is_quarantined(places: list[str | Path], tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text('{"good": 1}\n{bad\n')
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b'{"a": 1}' * 100)[:-9])
    done = strongroom("ingest", tmp_path, "--source", "json", "--json", *places)
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["accepted"], summary["quarantined"]) == (3, 1, 2)


def folder_of(root: Path, files: int, records: int) -> Path:
    """Files of numbered records, somewhere below `root`."""
    for number in range(files):
        path = root / f"day={number % 7}" / f"{number}.json.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = (f'{{"time":"2024-05-06T10:00:00Z","n":{number * records + n}}}' for n in range(records))
        path.write_bytes(gzip.compress("\n".join(lines).encode(), 1))
    return root


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_ingest_can_be_stopped_and_repeated(tmp_path: Path, how: signal.Signals) -> None:
    files, records = 240, 40
    logs = folder_of(tmp_path / "logs", files, records)
    places = ["--archive", str(tmp_path / "archive"), "--state", str(tmp_path / "state")]
    command = [*STRONGROOM, "ingest", str(logs), "--source", "json", "--json", *places]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(
        path.stat().st_size > 2000 for path in (tmp_path / "state").rglob("*.spool")
    ):
        time.sleep(0.005)
    process.send_signal(how)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == (-9 if how == signal.SIGKILL else 3), errors
    taken = 0
    if how != signal.SIGKILL:
        stopped = json.loads(output)
        taken = stopped["batches"]
        assert stopped["interrupted"] and taken < files and "repeat it" in errors
    done = strongroom("ingest", logs, "--source", "json", "--json", *places)
    summary = json.loads(done.stdout)
    assert (done.returncode, summary["interrupted"], summary["refused"]) == (0, False, 0), done.stderr
    assert summary["batches"] + summary["duplicates"] == files and summary["duplicates"] >= taken
    rows = strongroom("query", "SELECT count(*), count(DISTINCT raw->>'$.n') FROM json", "-f", "csv", *places).stdout
    assert rows.splitlines()[1] == f"{files * records},{files * records}"


def test_ingest_shows_its_progress_on_a_terminal(tmp_path: Path) -> None:
    logs = folder_of(tmp_path / "logs", 5, 2000)
    places = ["--archive", str(tmp_path / "archive"), "--state", str(tmp_path / "state")]
    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [*STRONGROOM, "ingest", str(logs), *places], stdout=subprocess.PIPE, stderr=theirs, env=environment, text=True
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # what reading a terminal says when its other end is gone
        while piece := os.read(ours, 65_536):
            shown += piece
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    text = shown.decode()
    assert "5 of 5 files" in text and re.search(r"[kMG]?B/s|bytes/s", text) and re.search(r"\d:\d\d:\d\d", text)
    assert "5 files: 5 batches taken" in output and "10,000 accepted" in output and " s; " in output


def test_query_speaks_every_format(places: list[str | Path]) -> None:
    question = ["query", "SELECT count(*) AS n FROM cloudtrail WHERE event_name <> $name", "-p", "name=None"]
    assert f" {ROWS} " in strongroom(*question, *places).stdout
    assert json.loads(strongroom(*question, "-f", "json", *places).stdout)["rows"] == [[ROWS]]
    assert json.loads(strongroom(*question, "-f", "ndjson", *places).stdout) == {"n": ROWS}
    assert list(csv.reader(io.StringIO(strongroom(*question, "-f", "csv", *places).stdout))) == [["n"], [str(ROWS)]]


def test_a_query_says_what_it_would_read(places: list[str | Path], tmp_path: Path) -> None:
    question = ["query", "SELECT * FROM cloudtrail", "--estimate"]
    told = json.loads(strongroom(*question, "-f", "json", *places).stdout)
    assert (told["segments"]["read"], told["records"], told["refused"]) == (told["segments"]["total"], ROWS, False)
    budgeted = strongroom(*question, *places, STRONGROOM_QUERY_READ_BYTES="1")
    assert f"{told['bytes']:,} bytes; refused: it may read 1 bytes" in budgeted.stdout
    assert strongroom(*question[:2], *places, STRONGROOM_QUERY_READ_BYTES="1").returncode == 2


def test_a_table_does_not_let_records_steer_the_terminal(places: list[str | Path]) -> None:
    done = strongroom("query", r"SELECT chr(27) || '[31mred' AS c, '[bold]b' AS m", *places)
    assert "\x1b" not in done.stdout
    assert r"\x1b[31mred" in done.stdout
    assert "[bold]b" in done.stdout


def test_verify_tells_sound_from_changed_from_impossible(places: list[str | Path], tmp_path: Path) -> None:
    sound = strongroom("verify", "--level", "deep", "--json", *places)
    assert (sound.returncode, json.loads(sound.stdout)["findings"]) == (0, [])
    assert (Path(places[3]) / "verifier" / "policy.memory.json").exists()

    copy = tmp_path / "copy"
    shutil.copytree(places[1], copy)
    segment = next(copy.glob("segments/source=vpcflow/**/*.parquet"))
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.chmod(0o600)
    segment.write_bytes(content)
    policy = Path(places[3]) / "verifier" / "policy"
    changed = strongroom("verify", "--json", "--archive", copy, "--trust", policy)
    (finding,) = json.loads(changed.stdout)["findings"]
    assert (changed.returncode, finding["code"]) == (1, "SEGMENT_CHANGED")
    assert finding["object"] == segment.relative_to(copy).as_posix()
    assert finding["object"] in strongroom("verify", "--archive", copy, "--trust", policy).stdout

    nowhere = strongroom("verify", "--archive", tmp_path / "none", "--trust", policy)
    assert (nowhere.returncode, nowhere.stdout) == (2, "")
    untrusted = strongroom("verify", "--archive", copy, "--trust", tmp_path / "none")
    assert (untrusted.returncode, "trust file" in untrusted.stderr) == (2, True)


def test_a_rolled_back_archive_is_noticed(places: list[str | Path], tmp_path: Path) -> None:
    """The signer's memory lies outside the archive: an older copy put in its place is not signed again."""
    old, state = tmp_path / "archive", tmp_path / "state"
    shutil.copytree(places[1], old)
    shutil.copytree(places[3], state)
    newest = sorted((old / "log" / "entry").iterdir())[-1]
    newest.unlink()
    done = strongroom("ingest", SAMPLES, "--archive", old, "--state", state)
    assert (done.returncode, "rollback" in done.stderr) == (2, True)
    examined = json.loads(strongroom("doctor", "--json", "--archive", old, "--state", state).stdout)
    assert ("failure", "signer") in {(result["verdict"], result["check"]) for result in examined}


def test_tokens_by_hand(tmp_path: Path) -> None:
    state = ["--state", tmp_path / "state"]
    made = strongroom(
        "token", "create", "--role", "forwarder", "--name", "f", "--source", "json", "--days", "9", *state
    )
    token = made.stdout.strip()
    assert token.startswith("sr_")
    (listed,) = json.loads(strongroom("token", "list", "--json", *state).stdout)
    assert (listed["role"], listed["sources"], "sha256" in listed) == ("forwarder", ["json"], False)
    assert strongroom("token", "revoke", listed["id"], *state).returncode == 0
    assert json.loads(strongroom("token", "list", "--json", *state).stdout) == []
    acts = [json.loads(path.read_text()) for path in sorted((tmp_path / "state" / "acts").iterdir())]
    assert [act["action"] for act in acts] == ["token.create"] * 2 + ["token.revoke"] * 2
    assert token.split("_", 2)[2] not in json.dumps(acts)


def test_doctor_finds_a_readable_key(places: list[str | Path]) -> None:
    assert strongroom("doctor", *places).returncode == 0
    key = Path(places[3]) / "keys" / "log.pem"
    key.chmod(0o644)
    try:
        done = strongroom("doctor", "--json", *places)
        bad = [result for result in json.loads(done.stdout) if result["verdict"] == "failure"]
        assert (done.returncode, [result["check"] for result in bad]) == (1, ["log.pem"])
        assert "chmod 600" in bad[0]["fix"]
    finally:
        key.chmod(0o600)


@pytest.mark.parametrize(
    "arguments",
    [
        ["ingest", "/no/such/path"],
        ["ingest", ".", "--source", "audit"],
        ["ingest", "README.md", "--source", "nonsense"],
        ["query", "SELECT 1", "--archive", "/no/such/archive"],
        ["token", "create", "--role", "forwarder", "--name", "f"],
        ["token", "revoke", "ffffffff"],
        ["serve", "--listen", "nowhere"],
        ["serve", "--config", "/no/such/file"],
    ],
    ids=" ".join,
)
def test_an_error_is_one_line_and_2(arguments: list[str], tmp_path: Path) -> None:
    state = [] if "serve" in arguments else ["--state", tmp_path / "state"]
    archive = ["--archive", tmp_path / "archive"] if arguments[0] == "ingest" else []
    done = strongroom(*arguments, *state, *archive)
    assert done.returncode in (2, 3), done.stderr
    assert done.stderr.startswith("strongroom: ")
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_searching_and_investigating_without_a_service(tmp_path: Path) -> None:
    places = ["--archive", tmp_path / "archive", "--state", tmp_path / "state"]
    assert strongroom("ingest", SAMPLES, *places).returncode == 0
    found = strongroom("search", "GetBucketAcl", "-e", "address:192.168.10.20", "-f", "ndjson", "--raw", *places)
    hits = [json.loads(line) for line in found.stdout.splitlines()]
    assert hits and all("GetBucketAcl" in hit["raw"] and "192.168.10.20" in hit["raw"] for hit in hits)
    assert "rejected-scans" in strongroom("investigate").stdout
    asked = strongroom("investigate", "rejected-scans", "-p", "least=2", "-f", "ndjson", *places)
    expected = "SELECT source_address FROM vpcflow WHERE action = 'REJECT' GROUP BY 1 HAVING count(DISTINCT {}) >= 2"
    sql = f"({expected.format('destination_port')}) UNION ({expected.format('destination_address')})"
    rows = strongroom("query", sql, "-f", "ndjson", *places).stdout
    assert sorted(json.loads(line)["source_address"] for line in asked.stdout.splitlines()) == sorted(
        json.loads(line)["source_address"] for line in rows.splitlines()
    )
    wrong = strongroom("investigate", "rejected-scans", "-p", "leest=2", *places)
    assert (wrong.returncode, "leest" in wrong.stderr) == (2, True)
    audited = sorted(json.loads(path.read_text())["action"] for path in (tmp_path / "state" / "acts").iterdir())
    assert audited == ["investigation"] * 2 + ["query"] * 2 + ["search"] * 2
