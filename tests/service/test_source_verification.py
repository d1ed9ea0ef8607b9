"""`strongroom verify --source cloudtrail`, from the trail to the attestation in the archive."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from strongroom.archive.log import Log
from strongroom.archive.stores import DirectoryStore
from strongroom.ingest.trails.cloudtrail_keys import pem
from strongroom.ingest.trails.digests import PublicKey
from strongroom.service.alerts.alert import Alert
from strongroom.service.alerts.dispatch import Alerts
from strongroom.service.checking import attestations
from strongroom.service.checking.source_watch import SourceWatch
from strongroom.service.node import ArchiveWriter, intake_limits
from strongroom.service.settings import load
from tests.ingest.test_digests import copied, name
from tests.ingest.trails import DER, FINGERPRINT, KEY, START, Trail, a_day, sign
from tests.service.conftest import strongroom

PERIOD = ["--since", "2024-05-06", "--until", "2024-05-06T06:30Z"]


class House:
    """An archive into which the copies of a trail were ingested."""

    def __init__(self, folder: Path, trail: Trail) -> None:
        self.folder, self.trail = folder, trail
        copied(folder / "copies", [trail])
        self.places = ["--archive", folder / "archive", "--state", folder / "state"]
        (folder / "keys.pem").write_text(pem(PublicKey("", DER)))

    def ingest(self, which: str = "") -> None:
        """What was copied, or only the folders of one kind."""
        folders = [*(self.folder / "copies").rglob(which)] if which else [self.folder / "copies"]
        assert strongroom("ingest", *folders, *self.places).returncode == 0

    def verify(self, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
        given = ["verify", "--source", "cloudtrail", "--json", *PERIOD, "--keys", self.folder / "keys.pem"]
        done = strongroom(*given, *arguments, *self.places)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def log(self) -> Log:
        return Log.open(DirectoryStore(self.folder / "archive"))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    made = House(tmp_path_factory.mktemp("trail"), a_day())
    made.ingest()
    return made


def found(report: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((finding["code"], name(finding["object"])) for finding in report["findings"])


def test_a_period_is_complete_and_the_archive_says_so(house: House) -> None:
    code, report = house.verify("--digests", house.folder / "copies", "--attest")
    assert (code, report["verdict"], report["findings"], report["incomplete"]) == (0, "complete", [], [])
    assert report["files"] == {"named": 10, "there": 10, "missing": 0, "altered": 0}
    (document,) = attestations.read(house.log())
    assert [digest["state"] for digest in document["digests"]] == ["valid"] * 6
    assert document["keys"] == [{"Fingerprint": "", "Value": base64.b64encode(DER).decode()}]
    for digest in document["digests"]:
        text = f"{digest['end']}\n{digest['bucket']}/{digest['key']}\n{digest['sha256']}\n{digest['before']}"
        assert digest["signature"] == sign(text, KEY), "the attestation alone shows what was signed"
    # The archive with it is sound, and with the signatures it keeps the digests sealed here need no other place.
    assert strongroom("verify", "--level", "deep", *house.places).returncode == 0
    code, again = house.verify()
    assert (code, again["digests"], again["files"]) == (0, report["digests"], report["files"])
    entry = house.log().entry(report["attested"][0])
    assert entry.kind == "source-digest" and entry.details is not None
    stored = house.folder / "archive" / entry.details.key
    original = stored.read_bytes()
    stored.chmod(0o600)
    stored.write_bytes(original.replace(b'"valid"', b'"VALID"', 1))
    done = strongroom("verify", "--json", *house.places)
    assert found(json.loads(done.stdout)) == [("REPORT_CHANGED", name(entry.details.key))]
    stored.write_bytes(original)


def test_what_never_came_and_what_came_otherwise_is_found(tmp_path: Path) -> None:
    trail = a_day()
    lost, altered = trail.files_of(trail.digests[1])
    original = dict(trail.objects)
    made = House(tmp_path, trail)
    (tmp_path / "copies" / lost).unlink()
    trail.change(altered, b"GetObject", b"PutObject")
    (tmp_path / "copies" / altered).write_bytes(trail.objects[altered].body)
    made.ingest()
    code, report = made.verify("--digests", tmp_path / "copies")
    assert (code, report["verdict"]) == (1, "incomplete source")
    assert found(report) == [("SOURCE_FILE_ALTERED", name(altered)), ("SOURCE_FILE_MISSING", name(lost))]
    assert original.keys() == trail.objects.keys()
    # Those sealed here say the same, but for the newest hour, whose signature nobody kept.
    code, report = made.verify()
    assert found(report) == [("SOURCE_FILE_ALTERED", name(altered)), ("SOURCE_FILE_MISSING", name(lost))]
    assert report["digests"] == {"valid": 5, "forged": 0, "unproven": 1}
    shown = strongroom("verify", "--source", "cloudtrail", *PERIOD, "--keys", tmp_path / "keys.pem", *made.places)
    assert "1 altered, 1 missing" in shown.stdout
    assert "SOURCE_FILE_MISSING" in shown.stdout


def test_copies_are_verified_where_they_lie_and_need_no_archive(tmp_path: Path) -> None:
    trail = a_day()
    made = House(tmp_path, trail)
    beside = ["--digests", tmp_path / "copies", "--files", "place", "--journal", tmp_path / "journal"]
    code, report = made.verify(*beside)
    assert (code, report["files"]["there"], (tmp_path / "archive").exists()) == (0, 10, False)
    (tmp_path / "copies" / trail.digests[2]).unlink()
    code, report = made.verify(*beside)
    assert (code, found(report)) == (1, [("DIGEST_MISSING", name(trail.digests[2]))])


def test_without_evidence_nothing_is_called_complete(house: House, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.json").write_text(json.dumps([{"Fingerprint": "00", "Value": base64.b64encode(DER).decode()}]))
    code, report = house.verify("--digests", tmp_path / "empty", "--files", "place")
    assert (code, report["verdict"]) == (2, "incomplete check")
    # Log files are sealed, and no digest speaks of them.
    assert found(house.verify("--digests", tmp_path / "empty")[1]) == [
        ("DIGEST_MISSING", "account 111122223333, region eu-west-1")
    ]
    code, report = house.verify("--digests", house.folder / "copies", "--keys", tmp_path / "other.json")
    assert (code, report["digests"]["unproven"], report["files"]["named"]) == (2, 6, 0)
    assert FINGERPRINT in report["incomplete"][0]


class Heard:
    """A sink that keeps what it is told."""

    name = "heard"

    def __init__(self) -> None:
        self.alerts: list[Alert] = []

    async def send(self, alert: Alert) -> None:
        self.alerts.append(alert)


def test_a_service_attests_period_by_period_and_tells_what_is_missing(tmp_path: Path) -> None:
    trail = Trail()
    for number in range(30):
        trail.hour(number, 1 if number in (1, 3, 20, 27) else 0, restart=number == 0)
    made = House(tmp_path, trail)
    gone = [trail.files_of(trail.digests[number])[0] for number in (3, 27)]
    for key in gone:
        (tmp_path / "copies" / key).unlink()
    made.ingest("CloudTrail")
    settings = load(None, {"archive": str(tmp_path / "archive"), "state": tmp_path / "state",
                           "cloudtrail_digests": str(tmp_path / "copies")})  # fmt: skip
    shutil.copy(tmp_path / "keys.pem", tmp_path / "state" / "verifier" / "cloudtrail-keys.json")
    writer = ArchiveWriter(settings, intake_limits(settings))
    heard = Heard()
    alerts = Alerts([heard], tmp_path / "told.json", 86_400)

    def watch() -> SourceWatch:
        return SourceWatch(settings, writer.log, writer.sign_checkpoint, writer.name, alerts)

    async def days() -> list[list[tuple[str, str]]]:
        found = []
        for hours in (25.5, 25.6, 31):
            report = await watch().once(START + timedelta(hours=hours))
            found.append([(f.code, name(f.object)) for f in report.findings] if report else [])
        return found

    # The middle one has nothing to do: an hour has not passed.
    expected = [[("SOURCE_FILE_MISSING", name(gone[0]))], [], [("SOURCE_FILE_MISSING", name(gone[1]))]]
    assert asyncio.run(days()) == expected
    told = [(alert.kind, alert.level, alert.severity) for alert in heard.alerts]
    assert told == [("verdict", "cloudtrail", "error")] * 2
    first, second = attestations.read(writer.log)
    assert first["until"] == second["since"]
    assert strongroom("verify", *made.places).returncode == 0
    (tmp_path / "copies").rename(tmp_path / "away")
    watching = watch()
    assert asyncio.run(watching.once(START + timedelta(hours=40))) is None
    assert (watching.failures, heard.alerts[-1].kind) == (1, "failed")


@pytest.mark.parametrize("arguments", [["--since", "2024-05-07"], ["--until", "soon"], ["--keys", "/no/such/file"]])
def test_what_can_not_be_asked_is_said_in_one_line(house: House, arguments: list[str]) -> None:
    done = strongroom("verify", "--source", "cloudtrail", *PERIOD, *arguments, *house.places)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
