"""CloudTrail digests, made as AWS makes them: a sound trail says nothing, each kind of tampering its own finding."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from strongroom.archive.errors import FormatError
from strongroom.ingest.errors import BucketRefused
from strongroom.ingest.trails import cloudtrail_keys, completeness, digests
from strongroom.ingest.trails.completeness import FilesAtPlace, Outcome, SealedFiles
from strongroom.ingest.trails.digest_places import FolderPlace, Place, S3Place
from strongroom.ingest.trails.digests import PublicKey, PublicKeys
from tests.buckets import S3
from tests.ingest.queueing import Announced
from tests.ingest.trails import DER, FINGERPRINT, KEY, START, Trail, a_day, sign

SHARED = Path(os.environ.get("STRONGROOM_SHARED", Path(__file__).parents[3] / "shared")) / "vectors" / "cloudtrail"
KEYS = PublicKeys([PublicKey(FINGERPRINT, DER)])
UNTIL = START + timedelta(hours=7)


def copied(folder: Path, trails: Iterable[Trail], *, metadata: bool = True, under: str = "") -> FolderPlace:
    """The objects of trails as files, as somebody would copy them."""
    for trail in trails:
        for key, stored in trail.objects.items():
            path = folder / under / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(stored.body)
            if metadata and stored.metadata:
                path.with_name(path.name + ".metadata.json").write_text(json.dumps({"Metadata": stored.metadata}))
    return FolderPlace(folder)


def checked(
    place: Place, keys: PublicKeys = KEYS, since: datetime = START, until: datetime = UNTIL, **options: Any
) -> Outcome:
    with ThreadPoolExecutor(4) as executor:
        found, odd = completeness.digests_at(place, "", since, until, executor)
        files = options.get("files") or FilesAtPlace(place, options.get("journal"))
        outcome = completeness.check(found, keys, files, since, until, executor)
        outcome.verdict.findings += odd
        return outcome


def codes(outcome: Outcome) -> list[tuple[str, str]]:
    return sorted((finding.code, finding.object.rpartition("/")[2]) for finding in outcome.findings)


def name(key: str) -> str:
    return key.rpartition("/")[2]


def test_a_sound_organisation_says_nothing(tmp_path: Path) -> None:
    trails = [a_day(), a_day(account="444455556666"), a_day(region="us-east-1", prefix="logs/")]
    outcome = checked(copied(tmp_path, trails))
    assert (codes(outcome), outcome.verdict.incomplete) == ([], [])
    found = completeness.summary(outcome)
    assert found["digests"] == {"valid": 18, "forged": 0, "unproven": 0}
    assert found["files"] == {"named": 30, "there": 30, "missing": 0, "altered": 0}
    assert [(chain["account"], chain["region"], chain["files"]) for chain in found["chains"]] == [
        ("111122223333", "eu-west-1", 10),
        ("111122223333", "us-east-1", 10),
        ("444455556666", "eu-west-1", 10),
    ]


def test_a_copy_elsewhere_without_metadata_is_proven_but_for_its_newest_hour(tmp_path: Path) -> None:
    """The signature of each digest stands in the next one; bucket and key are those the digest states."""
    outcome = checked(copied(tmp_path, [a_day()], metadata=False, under="copies/of/2024"))
    assert codes(outcome) == []
    assert completeness.summary(outcome)["digests"] == {"valid": 5, "forged": 0, "unproven": 1}
    assert "signature is not at hand" in outcome.verdict.incomplete[0]
    assert completeness.summary(outcome)["files"]["there"] == 8


TAMPERING: dict[str, tuple[Callable[[Trail], object], Callable[[Trail], list[tuple[str, str]]]]] = {
    "a log file altered": (
        lambda trail: trail.change(trail.files_of(trail.digests[1])[0], b"GetObject", b"PutObject"),
        lambda trail: [("SOURCE_FILE_ALTERED", name(trail.files_of(trail.digests[1])[0]))],
    ),
    "a log file that no longer decodes": (
        lambda trail: setattr(trail.objects[trail.files_of(trail.digests[1])[0]], "body", b"\x1f\x8b\x08cut"),
        lambda trail: [("SOURCE_FILE_ALTERED", name(trail.files_of(trail.digests[1])[0]))],
    ),
    "a log file missing": (
        lambda trail: trail.objects.pop(trail.files_of(trail.digests[2])[1]),
        lambda trail: [("SOURCE_FILE_MISSING", name(trail.files_of(trail.digests[2])[1]))],
    ),
    "a digest that leaves a file out": (
        lambda trail: trail.change(trail.digests[2], b'"logFiles":[{', b'"logFiles":[],"x":[{'),
        lambda trail: [("DIGEST_FORGED", name(trail.digests[2]))],
    ),
    "a digest that is none": (
        lambda trail: setattr(trail.objects[trail.digests[2]], "body", gzip.compress(b'{"logFiles": []}')),
        lambda trail: [("DIGEST_FORGED", name(trail.digests[2])), ("DIGEST_MISSING", name(trail.digests[2]))],
    ),
    "the newest digest forged": (
        lambda trail: trail.change(trail.digests[5], b'"logFiles":[{', b'"logFiles":[],"x":[{'),
        lambda trail: [("DIGEST_FORGED", name(trail.digests[5]))],
    ),
    "a digest under another's name": (
        lambda trail: trail.objects.update({trail.digests[2]: trail.objects[trail.digests[3]]}),
        lambda trail: [("DIGEST_FORGED", name(trail.digests[2])), ("DIGEST_MISSING", name(trail.digests[2]))],
    ),
    "a hole in the chain": (
        lambda trail: trail.objects.pop(trail.digests[3]),
        lambda trail: [("DIGEST_MISSING", name(trail.digests[3]))],
    ),
    "the first digest missing": (
        lambda trail: trail.objects.pop(trail.digests[0]),
        lambda trail: [("DIGEST_MISSING", name(trail.digests[0]))],
    ),
    "the newest digests missing": (
        lambda trail: [trail.objects.pop(key) for key in trail.digests[4:]],
        lambda trail: [("DIGEST_MISSING", "account 111122223333, region eu-west-1, trail org-trail of eu-central-1")],
    ),
    "a trail that was stopped and started": (
        lambda trail: trail.hour(9, restart=True),
        lambda trail: [("DIGEST_GAP", name(trail.digests[6]))],
    ),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_each_tampering_has_its_finding_and_no_other(what: str, tmp_path: Path) -> None:
    trail = a_day()
    tamper, expected = TAMPERING[what]
    tamper(trail)
    until = START + timedelta(hours=11) if "stopped" in what else UNTIL
    assert codes(checked(copied(tmp_path, [trail, a_day(account="444455556666")]), until=until)) == [
        *expected(trail),
        *([("DIGEST_MISSING", "account 444455556666, region eu-west-1, trail org-trail of eu-central-1")]
          if "stopped" in what else []),
    ]  # fmt: skip


def test_who_has_no_key_of_amazons_can_not_sign(tmp_path: Path) -> None:
    """A whole chain made by somebody else: forged under the known key's name, not believed under a new one."""
    other = rsa.generate_private_key(65537, 2048)
    trail = a_day()
    for key in trail.digests:
        digest = json.loads(gzip.decompress(trail.objects[key].body))
        trail.put_digest(key, digest, other)
    outcome = checked(copied(tmp_path / "a", [trail]))
    assert completeness.summary(outcome)["digests"]["valid"] == 0
    assert {code for code, _ in codes(outcome)} == {"DIGEST_FORGED"}
    for key in trail.digests:
        digest = json.loads(gzip.decompress(trail.objects[key].body))
        trail.put_digest(key, digest | {"digestPublicKeyFingerprint": "0" * 32}, other)
    outcome = checked(copied(tmp_path / "b", [trail]))
    assert completeness.summary(outcome)["digests"] == {"valid": 0, "forged": 0, "unproven": 6}
    assert all("no public key" in reason for reason in outcome.verdict.incomplete)


def test_backfill_digests_count_and_stand_outside_the_chain(tmp_path: Path) -> None:
    trail = a_day()
    key = trail.hour(2, 1, suffix="_backfill")
    place = copied(tmp_path, [trail])
    assert codes(checked(place)) == []
    lost = trail.files_of(key)[0]
    (tmp_path / lost).unlink()
    # The hour's own digest names the same file: both miss it.
    assert codes(checked(place)) == [("SOURCE_FILE_MISSING", name(lost))] * 2


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    trail = a_day()
    place, journal = copied(tmp_path / "copy", [trail]), tmp_path / "journal"
    assert codes(checked(place, journal=journal)) == []
    assert len(journal.read_text().splitlines()) == 10
    (tmp_path / "copy" / trail.files_of(trail.digests[0])[0]).unlink()
    journal.write_text(journal.read_text() + '{"key": "cut')
    assert codes(checked(place, journal=journal)) == [], "what was hashed is not read again"
    assert codes(checked(place)) != []


def test_files_are_looked_for_among_what_is_sealed(tmp_path: Path) -> None:
    trail = a_day()
    sealed = SealedFiles()
    names = [key for key in trail.objects if "CloudTrail-Digest" not in key]
    for key in names[2:]:
        content = gzip.decompress(trail.objects[key].body)
        sealed.add(f"s3://elsewhere/copy/{key}?versionId=v1", digests.hashlib.sha256(content).hexdigest())
    sealed.add(f"/home/somebody/{names[1]}", "00" * 32)
    outcome = checked(copied(tmp_path, [trail]), files=sealed)
    assert codes(outcome) == [("SOURCE_FILE_ALTERED", name(names[1])), ("SOURCE_FILE_MISSING", name(names[0]))]
    sealed.add(
        "s3://b-1/AWSLogs/999900001111/CloudTrail/eu-west-1/2024/05/06/999900001111_CloudTrail_eu-west-1_20240506T0210Z_x.json.gz",
        "11" * 32,
    )
    (finding,) = completeness.without_digests(sealed, outcome)
    assert (finding.code, finding.object) == ("DIGEST_MISSING", "account 999900001111, region eu-west-1")


def test_digests_are_read_from_a_bucket_with_their_metadata(s3: S3) -> None:
    place = Announced(s3)
    trail = a_day(prefix="lza/", bucket="the-original")
    for key, stored in trail.objects.items():
        s3.client.put_object(Bucket=place.bucket, Key=key, Body=stored.body, Metadata=stored.metadata)
    at = S3Place(place.buckets(), place.bucket, "lza/")
    assert codes(checked(at)) == []
    s3.client.delete_object(Bucket=place.bucket, Key=trail.digests[2])
    s3.client.delete_object(Bucket=place.bucket, Key=trail.files_of(trail.digests[4])[0])
    assert codes(checked(at)) == [
        ("DIGEST_MISSING", name(trail.digests[2])),
        ("SOURCE_FILE_MISSING", name(trail.files_of(trail.digests[4])[0])),
    ]


def test_public_keys_are_asked_for_once_and_kept(tmp_path: Path) -> None:
    trail = a_day()
    asked: list[str] = []

    def ask(region: str, start: datetime, end: datetime) -> list[dict[str, Any]]:
        asked.append(region)
        return [{"Fingerprint": FINGERPRINT, "Value": DER}]

    def away(region: str, start: datetime, end: datetime) -> list[dict[str, Any]]:
        raise BucketRefused("no access")

    with ThreadPoolExecutor(2) as executor:
        found, _ = completeness.digests_at(copied(tmp_path / "c", [trail]), "", START, UNTIL, executor)
    cache = tmp_path / "state" / "keys.json"
    assert cloudtrail_keys.complete(PublicKeys(), found, away, cache) == [
        "public keys of CloudTrail in eu-west-1: no access"
    ]
    keys = PublicKeys()
    assert cloudtrail_keys.complete(keys, found, ask, cache) == []
    assert asked == ["eu-west-1"]
    kept = PublicKeys(cloudtrail_keys.read(cache))
    assert kept.all() == [PublicKey(FINGERPRINT, DER)]
    assert cloudtrail_keys.complete(kept, found, away, cache) == []
    by_pem = PublicKeys(digests.parse_keys(cloudtrail_keys.pem(PublicKey("", DER)).encode()))
    assert codes(checked(FolderPlace(tmp_path / "c"), by_pem)) == []


# -- parsing


CONTENT = gzip.decompress(next(stored.body for key, stored in a_day().objects.items() if "-Digest" in key))


@given(st.binary(max_size=200) | st.integers(0, len(CONTENT) - 1).map(lambda n: CONTENT[:n] + b"x" + CONTENT[n + 1 :]))
def test_any_bytes_are_a_digest_or_refused(content: bytes) -> None:
    try:
        digest = digests.parse(content)
    except FormatError:
        return
    assert digest.sha256 != digests.parse(CONTENT).sha256
    assert KEYS.signer(digest, sign(digests.parse(CONTENT).signed_text)) is None


@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n", b'{"PublicKeyList": [{"Value": 1}]}', b"[1]"]
)
def test_keys_that_are_none_are_refused(content: bytes) -> None:
    with pytest.raises(FormatError):
        PublicKeys(digests.parse_keys(content))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the samples from AWS's user guide")
def test_the_samples_of_the_user_guide() -> None:
    active = digests.parse((SHARED / "sample_digest_active.json").read_bytes())
    assert (active.chain.trail, active.chain.home, len(active.files)) == ("your-trail-name", "us-east-2", 1)
    assert digests.parse((SHARED / "sample_digest_empty_hour.json").read_bytes()).files == ()
    known = json.loads((SHARED / "kat.json").read_text())
    key = PublicKey("31e8", digests.base64.b64decode(known["public_key_encoding_example"]["value"]))
    assert PublicKeys([key]).signer(active, "00" * 256) is None
    # The example string to sign: its parts are those of this form.
    before = active.before.signature if active.before else ""
    assert active.signed_text.splitlines() == [
        "2015-08-17T15:01:31Z", f"S3-bucket-name/{active.key}", active.sha256, before,
    ]  # fmt: skip
    assert KEY.key_size == 2048
