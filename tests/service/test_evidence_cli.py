"""Evidence on the command line, with no service: made, checked, and held against an archive that was rewritten."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import SAMPLES, Done, strongroom
from tests.service.test_evidence import standalone

WHY = ["--case", "4711", "--purpose", "a test"]
TRAILS = sorted(SAMPLES.glob("*CloudTrail*"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with its state, made by `strongroom ingest`."""
    made = tmp_path_factory.mktemp("evidence-cli")
    done = strongroom("ingest", *TRAILS, *places(made))
    assert done.returncode == 0, done.stderr
    return made


def places(folder: Path) -> list[str | Path]:
    return ["--archive", folder / "archive", "--state", folder / "state"]


def addresses(folder: Path) -> list[dict[str, Any]]:
    done = strongroom("query", "SELECT _segment, _row FROM cloudtrail ORDER BY 1, 2", "-f", "ndjson", *places(folder))
    return [json.loads(line) for line in done.stdout.splitlines()]


def export(folder: Path, out: Path, *arguments: str | Path) -> Done:
    return strongroom("evidence", "export", "--out", out, *WHY, *arguments, *places(folder))


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    """Three records, chosen by a question."""
    sql = "SELECT * FROM cloudtrail WHERE event_name <> $name ORDER BY _segment, _row"
    done = export(folder, folder / "bundle.zip", "--sql", sql, "-p", "name=None", "--limit", "3")
    assert (done.returncode, done.stdout.startswith("3 records")) == (0, True), done.stderr
    return folder / "bundle.zip"


def test_a_bundle_by_question_names_the_person_here(folder: Path, bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as opened:
        custody = json.loads(opened.read("custody.json"))
        opened.extract("verify.py", tmp_path)
    assert (custody["role"], custody["case"], custody["records"]) == ("local", "4711", 3)
    assert "@" in custody["exported_by"]
    assert custody["question"]["parameters"] == '{"name":"None"}'
    acts = [json.loads(path.read_text()) for path in sorted((folder / "state" / "acts").iterdir())]
    mine = [act for act in acts if act["detail"]["act"] == custody["audit"]["act"]]
    assert [(act["action"], act["outcome"]) for act in mine] == [("evidence", "started"), ("evidence", "success")]
    trust = folder / "state" / "verifier" / "policy"
    ours = strongroom("evidence", "verify", bundle, "--policy", trust)
    theirs = standalone(tmp_path / "verify.py", bundle, "--policy", trust)
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert ours.stdout.endswith("PROVEN\n")
    told = json.loads(strongroom("evidence", "verify", bundle, "--policy", trust, "--json").stdout)
    assert told == json.loads(standalone(tmp_path / "verify.py", bundle, "--policy", trust, "--json").stdout)


def test_rows_by_address_and_a_bare_copy(folder: Path, tmp_path: Path) -> None:
    row = addresses(folder)[4]
    shutil.copytree(folder / "archive", tmp_path / "archive")
    trust = folder / "state" / "verifier" / "policy"
    chosen = ["--row", f"{row['_segment']}:{row['_row']}", "--row", f"{row['_segment']}:0-2"]
    without = export(tmp_path, tmp_path / "b.zip", *chosen)
    assert (without.returncode, "--policy" in without.stderr) == (2, True)
    done = export(tmp_path, tmp_path / "b.zip", *chosen, "--policy", trust, "--json")
    told = json.loads(done.stdout)
    assert told["records"] == len({row["_row"], 0, 1, 2})
    assert strongroom("evidence", "verify", tmp_path / "b.zip", "--policy", trust).returncode == 0
    assert not (tmp_path / "state").exists()
    again = export(tmp_path, tmp_path / "b.zip", *chosen, "--policy", trust)
    assert (again.returncode, "never overwritten" in again.stderr) == (2, True)


def test_a_proof_on_standard_output(folder: Path, tmp_path: Path) -> None:
    row = addresses(folder)[7]
    made = strongroom("evidence", "proof", row["_segment"], str(row["_row"]), *places(folder))
    (tmp_path / "proof.json").write_text(made.stdout)
    done = strongroom("evidence", "verify", tmp_path / "proof.json", "--policy", folder / "state/verifier/policy")
    assert (done.returncode, f"row {row['_row']} of" in done.stdout) == (0, True)
    assert strongroom("evidence", "proof", "segments/none", "0", *places(folder)).returncode == 2
    assert strongroom("evidence", "proof", row["_segment"], "999999", *places(folder)).returncode == 2


def test_every_exit_code_of_verify(folder: Path, bundle: Path, tmp_path: Path) -> None:
    trust = folder / "state" / "verifier" / "policy"
    (tmp_path / "cut.zip").write_bytes(bundle.read_bytes()[:-100])
    stranger = tmp_path / "stranger"
    assert strongroom("ingest", TRAILS[0], *places(stranger)).returncode == 0
    codes = {
        (bundle, trust): 0,
        (bundle, None): 3,
        (tmp_path / "cut.zip", trust): 1,
        (tmp_path / "cut.zip", None): 1,
        (bundle, stranger / "state" / "verifier" / "policy"): 1,
        (tmp_path / "nothing.zip", trust): 2,
        (bundle, tmp_path / "no-policy"): 2,
        (bundle, bundle): 2,
    }
    for (file, rules), code in codes.items():
        done = strongroom("evidence", "verify", file, *(["--policy", rules] if rules else []))
        assert done.returncode == code, (file.name, rules, done.stdout, done.stderr)


@pytest.mark.parametrize(
    "chosen",
    [
        [],
        ["--sql", "SELECT 1", "--row", "a:0"],
        ["--sql", "SELECT event_id FROM cloudtrail"],
        ["--row", "a"],
        ["--row", "a:x"],
        ["--row", "segments/none:0"],
        ["--sql", "SELECT _segment, _row FROM cloudtrail WHERE false"],
    ],
    ids=str,
)
def test_what_can_not_be_exported_leaves_no_file(folder: Path, tmp_path: Path, chosen: list[str]) -> None:
    done = export(folder, tmp_path / "b.zip", *chosen)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert not (tmp_path / "b.zip").exists()


@pytest.mark.adversarial
def test_an_old_bundle_contradicts_an_insider(folder: Path, bundle: Path, tmp_path: Path) -> None:
    """He has the keys and the machine. He makes the archive anew without one trail and signs it; verification finds it
    sound, the state folder shows no trace. The bundle that the court has does not fit."""
    held = ["evidence", "compare", bundle, "--policy", folder / "state" / "verifier" / "policy"]
    assert strongroom(*held, *places(folder)).returncode == 0
    forged = tmp_path / "forged"
    shutil.copytree(folder / "state", forged / "state")
    for memory in ("signer", "writers", "acts"):
        shutil.rmtree(forged / "state" / memory)
    (forged / "state" / "verifier" / "policy.memory.json").unlink(missing_ok=True)
    for kept in (TRAILS[1], *SAMPLES.glob("*vpcflow*"), SAMPLES / "PROVENANCE.md"):
        assert strongroom("ingest", kept, *places(forged)).returncode == 0
    sound = strongroom("verify", "--level", "deep", *places(forged))
    assert sound.returncode == 0, sound.stdout
    done = strongroom(*held, "--json", *places(forged))
    (finding,) = json.loads(done.stdout)["findings"]
    assert (done.returncode, finding["code"]) == (1, "HISTORY_REWRITTEN")
    assert finding["code"] in strongroom(*held, *places(forged)).stdout
    (tmp_path / "cut.zip").write_bytes(bundle.read_bytes()[:-100])
    broken = strongroom("evidence", "compare", tmp_path / "cut.zip", *places(folder))
    assert (broken.returncode, "proves nothing" in broken.stderr) == (2, True)
