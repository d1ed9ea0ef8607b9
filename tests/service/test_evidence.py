"""Evidence over HTTP, from a real service: what comes out convinces checkers that know nothing of the service."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import uuid
import zipfile
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from strongroom.archive import evidence, policy
from tests.service.conftest import Done, Service, strongroom
from tests.service.test_ingest import push, trail

# Another Python than the one under test where there is one: the stand-alone verifier must need nothing of ours.
OTHER_PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin") or sys.executable


def standalone(verifier: Path, *arguments: str | Path) -> Done:
    """Run a bundle's own verifier, isolated from everything of ours."""
    command = [OTHER_PYTHON, "-I", str(verifier), *(str(argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return Done(done.returncode, done.stdout, done.stderr)


def sealed_row(service: Service) -> tuple[str, int, bytes]:
    """Segment, row and bytes of a fresh record."""
    accepted = push(service, "cloudtrail", trail(5), params={"wait": "sealed"})
    sql = "SELECT _segment, _row, raw FROM cloudtrail WHERE sequence = ? ORDER BY position"
    segment, row, raw = service.rows(sql, [accepted["sequence"]])[2]
    return segment, row, raw.encode()


def export(service: Service, *, role: str = "investigator", **wanted: Any) -> httpx.Response:
    body = {"case": "2026/4711", "purpose": "to see whether this works"} | wanted
    return service.call("POST", "/v1/evidence", role=role, json=body)


@pytest.fixture(scope="module")
def trust(service: Service) -> Path:
    """The policy as somebody outside would have it."""
    return service.folder / "state" / "verifier" / "policy"


@pytest.fixture(scope="module")
def bundle(service: Service, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, httpx.Response]:
    """A bundle of a question's answer, 7 records, on disk."""
    marker = uuid.uuid4().hex
    push(
        service, "json", "\n".join(json.dumps({"marker": marker, "n": n}) for n in range(7)), params={"wait": "sealed"}
    )
    answer = export(
        service,
        sql="SELECT _segment, _row, raw FROM json WHERE TRY(raw->>'$.marker') = $marker",
        parameters={"marker": marker},
    )
    assert answer.status_code == 200, answer.text
    path = tmp_path_factory.mktemp("bundle") / "bundle.zip"
    path.write_bytes(answer.content)
    return path, answer


# -- the proof of one record


def test_a_proof_convinces_by_itself(service: Service, trust: Path, tmp_path: Path) -> None:
    segment, row, raw = sealed_row(service)
    answer = service.call("GET", "/v1/proof", role="investigator", params={"segment": segment, "row": row})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store"), answer.text
    proof = answer.json()
    assert proof["format"] == "strongroom/proof/1"
    assert evidence.check_proof(answer.content, policy.parse(trust.read_text())).status == "proven"
    (tmp_path / "proof.json").write_bytes(answer.content)
    done = strongroom("evidence", "verify", tmp_path / "proof.json", "--policy", trust)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "PROVEN")
    assert b64decode(proof["record"]["raw"]) == raw
    entry, position = proof["entry"]["index"], proof["segment"]["position"]
    for named in (position, segment):
        again = service.call("GET", f"/v1/proof/{entry}/{named}/{row}", role="auditor")
        assert again.json()["record"] == proof["record"], named


def test_what_is_not_there_can_not_be_proven(service: Service) -> None:
    segment, row, _ = sealed_row(service)
    entry = service.call("GET", "/v1/proof", params={"segment": segment, "row": row}).json()["entry"]["index"]
    missing = [
        f"/v1/proof?segment={segment}&row=99999999",
        "/v1/proof?segment=segments/none.parquet&row=0",
        f"/v1/proof/{entry}/77/0",
        f"/v1/proof/{entry}/0/99999999",
        f"/v1/proof/{entry - 1}/{segment}/{row}",
        "/v1/proof/99999999/0/0",
        "/v1/proof/0/0/0",
    ]
    for path in missing:
        answer = service.call("GET", path)
        assert (answer.status_code, answer.json()["code"]) == (404, "object-missing"), path
    for path in ("/v1/proof?row=1", f"/v1/proof?segment={segment}&row=-1", "/v1/proof/x/0/0"):
        assert service.call("GET", path).status_code == 400, path


# -- bundles


def test_a_bundle_convinces_another_python(bundle: tuple[Path, httpx.Response], trust: Path, tmp_path: Path) -> None:
    path, answer = bundle
    with zipfile.ZipFile(path) as opened:
        opened.extract("verify.py", tmp_path)
    done = standalone(tmp_path / "verify.py", path, "--policy", trust)
    assert done.returncode == 0, done.stdout + done.stderr
    ours = strongroom("evidence", "verify", path, "--policy", trust)
    assert (ours.returncode, ours.stdout) == (0, done.stdout)
    assert strongroom("evidence", "verify", path).returncode == standalone(tmp_path / "verify.py", path).returncode == 3
    assert sha256(path.read_bytes()).hexdigest() == answer.headers["Strongroom-Bundle-SHA256"]
    assert (answer.headers["Strongroom-Records"], answer.headers["Cache-Control"]) == ("7", "no-store")


def test_both_verifiers_refuse_a_changed_bundle(
    bundle: tuple[Path, httpx.Response], trust: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(bundle[0]) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
        opened.extract("verify.py", tmp_path)
    members["records/000001"] = members["records/000001"].replace(b'"n": 3', b'"n": 4')
    changed = tmp_path / "changed.zip"
    with zipfile.ZipFile(changed, "w") as made:
        for name, content in members.items():
            made.writestr(name, content)
    ours = strongroom("evidence", "verify", changed, "--policy", trust)
    theirs = standalone(tmp_path / "verify.py", changed, "--policy", trust)
    assert ours.returncode == theirs.returncode == 1
    assert ours.stdout.splitlines()[-1] == theirs.stdout.splitlines()[-1] == "FAILED"
    assert "records/000001" in ours.stdout


def test_the_export_is_an_act_sealed_before(service: Service, bundle: tuple[Path, httpx.Response]) -> None:
    path, answer = bundle
    with zipfile.ZipFile(path) as opened:
        custody = json.loads(opened.read("custody.json"))
        contents = json.loads(opened.read("bundle.json"))
    batch = answer.headers["Strongroom-Audit-Batch"]
    state = service.call("GET", f"/v1/batches/{batch}").json()
    assert custody["audit"] == {"act": custody["audit"]["act"], "batch": batch, "entry": state["entry"]}
    assert state["entry"] < contents["checkpoint"]["size"], "the checkpoint covers the record of its own export"
    assert custody["exported_by"].startswith("test-investigator#")
    assert (custody["case"], custody["records"]) == ("2026/4711", 7)
    assert "raw->>'$.marker'" in custody["question"]["sql"]
    assert json.loads(custody["question"]["parameters"])["marker"]
    service.call("POST", "/v1/seal")
    sql = "SELECT outcome, target, detail FROM audit WHERE detail->>'$.act' = ? ORDER BY event_time"
    rows = service.rows(sql, [custody["audit"]["act"]])
    assert [row[0] for row in rows] == ["started", "success"]
    started, success = (json.loads(row[2]) for row in rows)
    assert (started["purpose"], started["sql"]) == (custody["purpose"], custody["question"]["sql"])
    assert (success["bundle"], success["records"]) == (answer.headers["Strongroom-Bundle-SHA256"], 7)


def test_named_rows_are_exported_once_each(service: Service, trust: Path, tmp_path: Path) -> None:
    segment, row, raw = sealed_row(service)
    rows = [{"segment": segment, "row": row}, {"segment": segment, "row": row}]
    answer = export(service, rows=rows, role="auditor")
    assert (answer.status_code, answer.headers["Strongroom-Records"]) == (200, "1"), answer.text
    (tmp_path / "one.zip").write_bytes(answer.content)
    assert evidence.check(tmp_path / "one.zip", policy.parse(trust.read_text())).status == "proven"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as opened:
        assert raw in opened.read("records/000001")


@pytest.mark.parametrize(
    ("wanted", "status", "code"),
    [
        ({"sql": "SELECT event_id FROM cloudtrail LIMIT 1"}, 400, "no-addresses"),
        ({"sql": "SELECT count(*) AS _segment, 1 AS _row FROM cloudtrail"}, 400, "no-addresses"),
        ({"sql": "SELECT NULL AS _segment, 1 AS _row"}, 400, "no-addresses"),
        ({"sql": "SELECT _segment, _row FROM cloudtrail WHERE false"}, 404, "object-missing"),
        ({"sql": "SELECT 'segments/nowhere' AS _segment, 0 AS _row"}, 404, "object-missing"),
        ({"sql": "SELECT _segment, _row FROM nothing"}, 400, "query-refused"),
        ({"sql": "SELECT 1", "rows": [{"segment": "s", "row": 0}]}, 400, "bad-request"),
        ({}, 400, "bad-request"),
        ({"rows": []}, 400, "bad-request"),
        ({"rows": [{"segment": "s", "row": 0}], "case": ""}, 400, "bad-request"),
        ({"rows": [{"segment": "../../etc/passwd", "row": 0}]}, 404, "object-missing"),
    ],
)
def test_what_can_not_be_exported_says_why(service: Service, wanted: dict[str, Any], status: int, code: str) -> None:
    sealed_row(service)
    answer = export(service, **wanted)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    if code == "no-addresses":
        assert "_segment, _row" in answer.json()["hint"]
    assert not list((service.folder / "state" / "evidence").iterdir())


def test_a_cut_answer_is_evidence_only_when_the_cut_was_asked_for(service: Service) -> None:
    sealed_row(service)
    sql = "SELECT _segment, _row FROM cloudtrail ORDER BY 1, 2"
    answer = export(service, sql=sql, limit=2)
    assert (answer.status_code, answer.headers["Strongroom-Records"]) == (200, "2")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as opened:
        custody = json.loads(opened.read("custody.json"))
    assert custody["question"] == {"sql": sql, "limit": 2, "cut_at_limit": True}


def test_an_earlier_checkpoint_can_be_asked_for(service: Service, trust: Path, tmp_path: Path) -> None:
    segment, row, _ = sealed_row(service)
    size = int(service.call("GET", "/v1/checkpoint", role=None).text.split("\n")[1])
    push(service, "json", b'{"later": 1}', params={"wait": "sealed"})
    answer = export(service, rows=[{"segment": segment, "row": row}], checkpoint=size)
    assert (answer.status_code, answer.headers["Strongroom-Checkpoint-Size"]) == (200, str(size))
    too_early = export(service, rows=[{"segment": segment, "row": row}], checkpoint=1)
    assert (too_early.status_code, too_early.json()["code"]) == (404, "object-missing")
