"""An encrypted archive on the command line: nothing readable in the store, everything as ever with its keys."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import zipfile
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from strongroom.archive.encryption import envelope
from strongroom.archive.encryption.wrapping import LocalWrapper, WrappingKeys
from strongroom.archive.entry import Draft, ObjectRef
from strongroom.archive.log import Log
from strongroom.archive.stores import DirectoryStore
from tests.buckets import REGION, S3
from tests.service.conftest import SAMPLES, Done, strongroom
from tests.service.test_evidence import standalone

boto3 = pytest.importorskip("boto3")

NOBODY = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
TRAILS = sorted(SAMPLES.glob("*CloudTrail*"))


def key_file(folder: Path, name: str, byte: bytes) -> str:
    path = folder / name
    path.write_bytes(byte * 32)
    path.chmod(0o600)
    return f"local:{path}"


class Place:
    """An archive, its state, and a wrapping key beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = key_file(folder, "wrap.key", b"1")
        self.store = folder / "archive"

    def run(self, *arguments: str | Path, key: str | None = None, old: str = "") -> Done:
        environment = {"STRONGROOM_ENCRYPTION_KEY": self.key if key is None else key}
        return strongroom(
            *arguments, "--archive", self.store, "--state", self.folder / "state",
            **environment, STRONGROOM_ENCRYPTION_KEYS_OLD=old,
        )  # fmt: skip

    def verify(self, level: str, **keys: str) -> tuple[int, dict[str, Any]]:
        done = self.run("verify", "--level", level, "--json", **keys)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def objects(self) -> dict[str, bytes]:
        found = (path for path in self.store.rglob("*") if path.is_file())
        return {path.relative_to(self.store).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("encrypted"))
    done = made.run("ingest", *TRAILS)
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def copy(place: Place, tmp_path: Path) -> Place:
    """The same archive, to be changed."""
    shutil.copytree(place.folder, tmp_path / "copy", symlinks=True)
    made = Place.__new__(Place)
    made.folder, made.key, made.store = tmp_path / "copy", place.key, tmp_path / "copy" / "archive"
    return made


def codes(report: dict[str, Any]) -> set[str]:
    return {finding["code"] for finding in report["findings"]}


def test_nothing_of_a_record_or_its_sender_is_in_the_store(place: Place) -> None:
    plain = "\n".join(gzip.decompress(path.read_bytes()).decode() for path in TRAILS)
    markers = set(re.findall(r"\b\d{12}\b", plain)) | set(re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", plain))
    markers |= set(re.findall(r"AKIA\w+|AROA\w+|\d+\.\d+\.\d+\.\d+", plain)) | {"eventSource", "userIdentity"}
    markers |= {path.name for path in TRAILS} | {str(TRAILS[0].parent), "sourceIPAddress"}
    assert len(markers) > 20
    objects = place.objects()
    assert sum(name.startswith("segments/") for name in objects) and sum(
        name.startswith("details/") for name in objects
    )
    for name, content in objects.items():
        found = [marker for marker in markers if marker.encode() in content]
        assert not found, (name, found)
        if name.startswith(("segments/", "details/", "reports/", "orders/", "spool/")):
            assert name.endswith(".enc") and content.startswith(envelope.MAGIC), name
        else:  # text, or hashes: nothing that is compressed and hides what it holds
            assert not content.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1", b"PK")), name


def test_questions_and_evidence_are_as_ever(place: Place, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    assert strongroom("ingest", *TRAILS, "--archive", plain / "a", "--state", plain / "s").returncode == 0
    sql = "SELECT event_id, source_address, raw FROM cloudtrail ORDER BY event_id"
    expected = strongroom("query", sql, "-f", "ndjson", "--archive", plain / "a", "--state", plain / "s")
    answer = place.run("query", sql, "-f", "ndjson")
    assert answer.returncode == 0 and answer.stdout == expected.stdout and answer.stdout, answer.stderr
    bundle = tmp_path / "bundle.zip"
    export = place.run("evidence", "export", "--out", bundle, "--case", "1", "--purpose", "a test", "--sql",
                       "SELECT * FROM cloudtrail", "--limit", "2")  # fmt: skip
    assert export.returncode == 0, export.stderr
    with zipfile.ZipFile(bundle) as opened:
        assert b'"eventID"' in opened.read("records/000001")  # the export is the disclosure
        verifier = Path(opened.extract("verify.py", tmp_path))
    policy = place.folder / "state" / "verifier" / "policy"
    checked = strongroom("evidence", "verify", bundle, "--policy", policy)  # no archive, no keys
    assert checked.returncode == 0, checked.stdout + checked.stderr
    alone = standalone(verifier, bundle, "--policy", policy)
    assert alone.returncode == 0, alone.stdout + alone.stderr


@pytest.mark.parametrize("level", ["quick", "inventory", "complete", "deep"])
def test_verification_with_keys_is_sound(place: Place, level: str) -> None:
    code, report = place.verify(level)
    assert (code, report["verdict"], report["notes"]) == (0, "sound", []), report


def test_without_keys_hashes_are_checked_and_records_are_said_not_to_be(place: Place) -> None:
    code, report = place.verify("complete", key="")
    assert (code, report["verdict"]) == (0, "sound")
    assert "no key is at hand here" in report["notes"][0]
    code, report = place.verify("deep", key="")
    assert (code, report["verdict"], codes(report)) == (2, "incomplete check", set())
    assert any("segments/source=cloudtrail" in line and "is not known here" in line for line in report["incomplete"])


def test_a_lost_key_is_one_finding_at_every_level(place: Place, tmp_path: Path) -> None:
    other = key_file(tmp_path, "other.key", b"2")
    for level in ("quick", "complete", "deep"):
        code, report = place.verify(level, key=other)
        assert (code, [finding["code"] for finding in report["findings"]]) == (1, ["KEY_UNAVAILABLE"]), level
        assert report["findings"][0]["where"]["key"] == LocalWrapper(b"1" * 32).key_id


def test_a_question_without_the_key_says_which_key_and_object(place: Place, tmp_path: Path) -> None:
    for key in ("", key_file(tmp_path, "other.key", b"2")):
        answer = place.run("query", "SELECT 1 FROM cloudtrail", key=key)
        assert answer.returncode != 0
        said = answer.stderr.replace("\n", " ")
        assert f"wrapping key {LocalWrapper(b'1' * 32).key_id} is not known here" in said and ".json.enc" in said


def test_a_writer_without_a_key_does_not_start(place: Place) -> None:
    before = place.objects()
    done = place.run("ingest", *TRAILS, key="")
    assert done.returncode != 0 and "encrypted from entry 2 on" in done.stderr.replace("\n", " "), done.stderr
    assert place.objects() == before


def test_a_key_file_that_is_gone_is_named(place: Place) -> None:
    done = place.run("query", "SELECT 1", key="local:/nowhere/wrap.key")
    assert done.returncode != 0 and "/nowhere/wrap.key" in done.stderr


def test_the_doctor_looks_at_the_keys(place: Place) -> None:
    def said(key: str | None) -> list[tuple[str, str]]:
        done = place.run("doctor", "--json", key=key)
        return [(line["verdict"], line["found"]) for line in json.loads(done.stdout) if line["check"] == "encryption"]

    (verdict, found), *more = said(None)
    assert (verdict, more) == ("ok", []) and found.endswith("unwraps; in a file")
    assert {verdict for verdict, _ in said("")} == {"failure"}


def test_rotation_reads_old_and_new_while_the_old_key_is_known(copy: Place, tmp_path: Path) -> None:
    new = key_file(tmp_path, "new.key", b"3")
    records = copy.folder / "late.json"
    records.write_text(gzip.decompress(TRAILS[0].read_bytes()).decode().replace("eventID", "eventId"))
    assert copy.run("ingest", records, "--source", "json", key=new, old=copy.key).returncode == 0
    code, report = copy.verify("deep", key=new, old=copy.key)
    assert (code, report["verdict"]) == (0, "sound"), report
    counted = copy.run("query", "SELECT count(*) AS n FROM cloudtrail", "-f", "ndjson", key=new, old=copy.key)
    assert json.loads(counted.stdout)["n"] > 0
    listed = json.loads(copy.run("keys", "encryption", "--json", key=new).stdout)
    assert [item["key"] for item in listed] == [LocalWrapper(b * 32).key_id for b in (b"1", b"3")]
    assert "is not known here" in listed[0]["standing"] and listed[1]["standing"].startswith("unwraps")
    assert codes(copy.verify("quick", key=new)[1]) == {"KEY_UNAVAILABLE"}


def test_a_plain_object_in_an_encrypted_archive_is_found(copy: Place) -> None:
    store = DirectoryStore(copy.store)
    log = Log.open(store)
    log._wrapping_keys.clear()  # a writer of other software
    content = b"{}"
    store.create("details/w9/1/x.json", content)
    reference = ObjectRef("details/w9/1/x.json", "", len(content), sha256(content).hexdigest())
    log.append(Draft("incident", datetime.now(UTC), details=reference, data={"what": "test"}))
    code, report = copy.verify("quick")
    assert "PLAINTEXT_OBJECT" in codes(report) and code == 1


def test_an_envelope_under_another_name_is_found(copy: Place) -> None:
    """By whoever has the keys: its hash is right, its entry too."""
    store = DirectoryStore(copy.store)
    log = Log.open(store, WrappingKeys(LocalWrapper(b"1" * 32)))
    content = log.contents.seal("details/w9/1/another.json.enc", b"{}")
    store.create("details/w9/1/x.json.enc", content)
    reference = ObjectRef("details/w9/1/x.json.enc", "", len(content), sha256(content).hexdigest())
    log.append(Draft("incident", datetime.now(UTC), details=reference, data={"what": "test"}))
    assert "ENVELOPE_MISMATCH" not in codes(copy.verify("complete")[1])
    assert "ENVELOPE_MISMATCH" in codes(copy.verify("deep")[1])


def test_a_changed_envelope_is_a_changed_segment(copy: Place) -> None:
    path = next(copy.store.rglob("*.parquet.enc"))
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    for level in ("complete", "deep"):
        assert codes(copy.verify(level)[1]) == {"SEGMENT_CHANGED"}
    answer = copy.run("query", "SELECT count(*) FROM cloudtrail")
    assert answer.returncode != 0 and "is not what was sealed" in answer.stderr.replace("\n", " ")


def test_in_a_bucket_under_a_key_in_kms(s3: S3, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    kms = boto3.client("kms", endpoint_url=s3.url, region_name=REGION, **NOBODY)
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    environment = s3.environment | {"STRONGROOM_ENCRYPTION_KEY": f"kms:{arn}", "AWS_ENDPOINT_URL_KMS": s3.url}
    places: list[str | Path] = ["--archive", f"s3://{bucket}/logs", "--state", tmp_path / "state"]
    done = strongroom("ingest", TRAILS[0], *places, **environment)
    assert done.returncode == 0, done.stderr
    answer = strongroom("query", "SELECT count(*) AS n FROM cloudtrail", "-f", "ndjson", *places, **environment)
    assert answer.returncode == 0 and json.loads(answer.stdout)["n"] > 0, answer.stderr
    done = strongroom("verify", "--level", "deep", "--json", *places, **environment)
    assert (done.returncode, json.loads(done.stdout)["findings"]) == (0, []), done.stdout + done.stderr
    plain = gzip.decompress(TRAILS[0].read_bytes()).decode()
    markers = {TRAILS[0].name, *re.findall(r"\b\d{12}\b", plain), *re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", plain)}
    for item in s3.client.list_objects_v2(Bucket=bucket)["Contents"]:
        content = s3.client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        assert not [marker for marker in markers if marker.encode() in content], item["Key"]
        assert content.startswith(envelope.MAGIC) == item["Key"].endswith(".enc")
    other = strongroom("query", "SELECT 1 FROM cloudtrail", *places, **environment | {"STRONGROOM_ENCRYPTION_KEY": ""})
    assert other.returncode != 0 and f"kms:{arn.rpartition('/')[2]} is not known here" in other.stderr.replace(
        "\n", " "
    )
