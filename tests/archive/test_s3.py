"""What the bucket store does beyond the contract: locks, versions, markers, checksums, faults on the way, Regions."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.stub import ANY, Stubber

from strongroom.archive.errors import FormatError, ObjectExists, ObjectMissing, StoreRefused, StoreUnavailable
from strongroom.archive.stores import S3Options, S3Store
from strongroom.archive.stores.location import Bucket, parse
from strongroom.archive.stores.s3client import make_client
from strongroom.archive.stores.store import LockingStore, ObjectVersion
from tests.buckets import S3
from tests.faults import FaultProxy, Odds

PART = 5 << 20
pytestmark = pytest.mark.system


@pytest.fixture
def store(s3: S3) -> S3Store:
    return s3.new_store(prefix="logs", lock_mode="GOVERNANCE", retain_days=3, multipart_bytes=PART)


@pytest.fixture
def proxy(s3: S3) -> Iterator[FaultProxy]:
    with FaultProxy(s3.url) as running:
        yield running


@pytest.fixture
def faulty(store: S3Store, proxy: FaultProxy) -> S3Store:
    """`store`, reached through the proxy."""
    options = replace(store.options, endpoint_url=proxy.url, timeout_seconds=2)
    return S3Store(store.bucket, "logs", options=options)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of two parts and a bit."""
    path = tmp_path_factory.mktemp("large") / "file"
    path.write_bytes(os.urandom(2 * PART + 7))
    return path


def versions_of(store: LockingStore, key: str) -> list[ObjectVersion]:
    return [item for item in store.versions(key) if item.key == key]


def test_every_put_is_locked_and_has_its_checksum(store: S3Store, s3: S3) -> None:
    s3.needs("checksums")
    assert isinstance(store, LockingStore)
    now = datetime.now(UTC)
    info = store.create("a/b", b"bytes")
    found = store.protection("a/b", info.version)
    assert (found.mode, found.held, found.sha256) == ("GOVERNANCE", False, hashlib.sha256(b"bytes").hexdigest())
    assert found.retain_until is not None and timedelta(days=3) <= found.retain_until - now < timedelta(days=3.01)
    # A longer promise counts, a shorter one does not.
    until = (now + timedelta(days=9)).replace(microsecond=1)
    longer = store.create("a/c", b"", retain_until=until)
    assert store.protection("a/c", longer.version).retain_until == until.replace(microsecond=0) + timedelta(seconds=1)
    store.create("a/d", b"", retain_until=now + timedelta(days=1))
    assert (store.protection("a/d").retain_until or now) >= now + timedelta(days=3)
    with pytest.raises(Exception, match="AccessDenied"):
        s3.client.delete_object(Bucket=store.bucket, Key="logs/a/b", VersionId=info.version)


def test_the_buckets_own_rule_is_never_undercut(s3: S3) -> None:
    bucket = s3.new_bucket()
    rule = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 5}}}
    s3.client.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=rule)
    store = S3Store.open(bucket, options=replace(s3.options, lock_mode="GOVERNANCE", retain_days=1))
    store.create("a", b"", retain_until=datetime.now(UTC) + timedelta(days=2))
    found = store.protection("a")
    assert found.mode == "COMPLIANCE"
    assert (found.retain_until or datetime.now(UTC)) > datetime.now(UTC) + timedelta(days=4.9)
    assert "COMPLIANCE, 5 days" in store.description


def test_encrypted_with_the_key_that_is_set(s3: S3) -> None:
    s3.needs("kms")
    key = "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    store = s3.new_store(kms_key=key)
    store.create("a", b"x")
    assert store.protection("a").encryption == f"aws:kms {key}"


def test_retention_grows_and_holds_come_and_go(store: S3Store) -> None:
    version = store.create("a", b"x").version
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    store.extend("a", version, later)
    store.hold("a", version, True)
    found = store.protection("a", version)
    assert (found.mode, found.retain_until, found.held) == ("GOVERNANCE", later, True)
    with pytest.raises(FormatError, match="never shortened"):
        store.extend("a", version, later - timedelta(days=1))
    store.hold("a", version, False)
    assert not store.protection("a", version).held


def test_large_files_go_up_and_come_down_in_parts(s3: S3, store: S3Store, large: Path, tmp_path: Path) -> None:
    s3.needs("conditions")
    info = store.create("large", large)
    store.fetch("large", tmp_path / "copy", info.version)
    assert (tmp_path / "copy").read_bytes() == large.read_bytes() == store.get("large")
    assert store.protection("large").sha256 == ""  # a composite checksum is not the object's
    with pytest.raises(ObjectExists):
        store.create("large", large)
    assert [item.version for item in versions_of(store, "large")] == [info.version]
    assert "Uploads" not in store.client.list_multipart_uploads(Bucket=store.bucket)


def test_a_failed_upload_leaves_nothing(faulty: S3Store, proxy: FaultProxy, large: Path) -> None:
    for _ in range(3):
        proxy.next("error", method="PUT", path="partNumber=2")
    with pytest.raises(StoreUnavailable):
        faulty.create("large", large)
    assert "Uploads" not in faulty.client.list_multipart_uploads(Bucket=faulty.bucket)
    assert faulty.create("large", large).bytes == large.stat().st_size


@pytest.mark.parametrize("fault", ["lost-answer", "wrong-error", "half-answer", "late"])
def test_a_lost_answer_is_no_other_writer(s3: S3, faulty: S3Store, proxy: FaultProxy, fault: str) -> None:
    s3.needs("conditions")
    proxy.next(fault, method="PUT")  # type: ignore[arg-type]
    info = faulty.create("a", b"ours")
    assert [item.version for item in versions_of(faulty, "a")] == [info.version]
    with pytest.raises(ObjectExists):  # the same bytes, put by somebody else
        faulty.create("a", b"ours")


def test_a_lost_answer_to_the_last_part_of_an_upload(s3: S3, faulty: S3Store, proxy: FaultProxy, large: Path) -> None:
    s3.needs("conditions")
    proxy.next("lost-answer", method="POST", path="uploadId=")
    info = faulty.create("large", large)
    assert [item.version for item in versions_of(faulty, "large")] == [info.version]


def test_what_may_pass_is_tried_again_and_what_will_not_is_not(faulty: S3Store, proxy: FaultProxy) -> None:
    faulty.create("a", b"x")
    for fault in ("slow-down", "error", "lost-request"):
        proxy.next(fault, method="GET")  # type: ignore[arg-type]
        assert faulty.get("a") == b"x"
    for _ in range(3 * faulty.options.attempts):
        proxy.next("slow-down", method="PUT")
    before = len(proxy.requests)
    with pytest.raises(StoreUnavailable, match="SlowDown") as caught:
        faulty.create("b", b"x")
    assert not isinstance(caught.value, StoreRefused)
    assert len(proxy.requests) - before == faulty.options.attempts
    proxy.calm()
    before = len(proxy.requests)
    with pytest.raises(StoreRefused, match="NoSuchBucket"):
        S3Store("no-such-bucket", options=faulty.options).create("a", b"")
    assert len(proxy.requests) - before == 1


def test_an_answer_without_its_headers_is_none(faulty: S3Store, proxy: FaultProxy, tmp_path: Path) -> None:
    """A list that was cut off is not empty, a lock that was cut off is not missing."""
    hasty = S3Store(faulty.bucket, "logs", options=replace(faulty.options, attempts=2))
    version = hasty.create("a", b"ours").version
    asked: dict[str, Callable[[], object]] = {
        "get": lambda: hasty.get("a"),
        "fetch": lambda: hasty.fetch("a", tmp_path / "copy"),
        "head": lambda: hasty.head("a"),
        "protection": lambda: hasty.protection("a", version),
        "list": lambda: list(hasty.list("")),
        "region": hasty.region,
        "create": lambda: [item.version for item in versions_of(hasty, hasty.create("b", b"ours").key)],
    }
    for name, ask in asked.items():
        whole = [version] if name == "create" else ask()
        (tmp_path / "copy").unlink(missing_ok=True)
        proxy.next("half-head")
        found = ask()
        assert found == whole or (name == "create" and len(found) == 1), name  # type: ignore[arg-type]
        (tmp_path / "copy").unlink(missing_ok=True)
    proxy.odds = Odds(half_head=1.0)
    for name, ask in asked.items():
        with pytest.raises(StoreUnavailable):
            ask()
        assert not (tmp_path / "copy").exists(), name


def test_a_version_that_is_not_told_is_asked_for(store: S3Store) -> None:
    with Stubber(store.client) as stub:
        stub.add_response("put_object", {"ETag": "e"})
        for _ in range(3):
            stub.add_response("head_object", {"Metadata": {}})
        with pytest.raises(StoreUnavailable, match="lacks 'ContentLength'"):
            store.create("a", b"x")
        stub.add_response("put_object", {"ETag": "e"})
        stub.add_response("head_object", {"ContentLength": 1, "Metadata": {}})
        with pytest.raises(StoreUnavailable, match="lacks the version"):
            store.create("a", b"x")


def test_a_create_under_way_elsewhere_is_waited_for(store: S3Store) -> None:
    with Stubber(store.client) as stub:
        stub.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)
        stub.add_response("put_object", {"VersionId": "v"})
        assert store.create("a", b"x").version == "v"
        stub.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)
        stub.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
        stub.add_response(
            "head_object", {"ContentLength": 1, "Metadata": {}}, {"Bucket": ANY, "Key": ANY, "ChecksumMode": ANY}
        )
        with pytest.raises(ObjectExists):
            store.create("a", b"x")


def test_what_does_not_match_its_checksum_is_not_given(store: S3Store, s3: S3, large: Path, tmp_path: Path) -> None:
    """moto keeps any checksum it is told, which S3 would refuse: a way to have damage on the store's side."""
    s3.needs("checksums")
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    for key, content in (("logs/small", b"content"), ("logs/large", large.read_bytes())):
        s3.client.put_object(
            Bucket=store.bucket, Key=key, Body=content, ChecksumAlgorithm="SHA256", ChecksumSHA256=wrong
        )
    for key in ("small", "large"):
        with pytest.raises(StoreUnavailable):
            store.get(key)
        with pytest.raises(StoreUnavailable):
            store.fetch(key, tmp_path / key)
        assert not (tmp_path / key).exists()


def test_a_body_that_breaks_off_is_read_again(faulty: S3Store, proxy: FaultProxy, large: Path, tmp_path: Path) -> None:
    faulty.create("small", b"x" * 100_000)
    faulty.create("large", large)
    proxy.next("half-answer", method="GET", path="small")
    proxy.next("half-answer", method="GET", path="large")
    assert faulty.get("small") == b"x" * 100_000
    faulty.fetch("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()


def test_a_marker_hides_nothing_and_a_newer_version_is_not_the_object(store: S3Store, s3: S3) -> None:
    ours = store.create("log/1", b"ours")
    store.create("log/2", b"next")
    s3.client.delete_object(Bucket=store.bucket, Key="logs/log/1")
    assert (store.get("log/1"), store.head("log/1")) == (b"ours", ours)
    assert [info.key for info in store.list("log/")] == ["log/1", "log/2"]
    s3.client.put_object(Bucket=store.bucket, Key="logs/log/1", Body=b"forged")
    assert store.get("log/1", ours.version) == b"ours"
    assert next(store.list("log/")) == ours
    seen = [(item.marker, item.latest, item.bytes) for item in versions_of(store, "log/1")]
    # Times of a list have whole seconds: within one, nobody can say which came first, marker or version.
    assert seen[0] == (False, True, 6)
    assert sorted(seen[1:]) == [(False, False, 4), (True, False, 0)]
    with pytest.raises(ObjectMissing):
        store.get("log/1", "0" * 32)


def test_many_names_are_listed_page_by_page(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    store = s3.new_store()
    names = [f"a/{number:02}" for number in range(9)]
    for name in names:
        store.create(name, b"x")
    s3.client.delete_object(Bucket=store.bucket, Key=names[4])
    whole = store.client.list_object_versions
    monkeypatch.setattr(store.client, "list_object_versions", lambda **asked: whole(**asked, MaxKeys=2))
    assert [info.key for info in store.list("a/")] == names
    assert [info.key for info in store.list("a/", names[3])] == names[4:]
    assert len(list(store.versions("a/"))) == 10


def test_refused_when_opened(s3: S3) -> None:
    s3.needs("regions")
    bucket = s3.new_bucket()
    S3Store.open(bucket, options=replace(s3.options, allowed_regions=("us-gov-west-1", "eu-central-1")))
    for options in ({"allowed_regions": ("us-gov-west-1",)}, {"region": "us-west-2"}):
        with pytest.raises(StoreRefused, match="is in Region 'eu-central-1'"):
            S3Store.open(bucket, options=replace(s3.options, **options))  # type: ignore[arg-type]
    with pytest.raises(StoreRefused, match="no bucket"):
        S3Store.open("no-such-bucket", options=s3.options)
    with pytest.raises(StoreRefused, match="no Object Lock"):
        s3.new_store(lock=False, lock_mode="COMPLIANCE")
    assert "NOT LOCKED" in s3.new_store(lock=False).description


@pytest.mark.parametrize(
    ("options", "address"),
    [
        (S3Options("eu-central-1"), "https://bucket.s3.eu-central-1.amazonaws.com/key"),
        (S3Options("eu-central-1", path_style=True), "https://s3.eu-central-1.amazonaws.com/bucket/key"),
        (S3Options("us-gov-west-1"), "https://bucket.s3.us-gov-west-1.amazonaws.com/key"),
        (S3Options("us-gov-east-1", fips=True), "https://bucket.s3-fips.us-gov-east-1.amazonaws.com/key"),
        (S3Options("us-iso-east-1"), "https://bucket.s3.us-iso-east-1.c2s.ic.gov/key"),
        (S3Options("eu-central-1", "https://s3.example.org"), "https://bucket.s3.example.org/key"),
    ],
)
def test_partitions_and_endpoints(s3: S3, options: S3Options, address: str) -> None:
    client = make_client(options)
    sent: list[str] = []
    client.meta.events.register("before-send.s3", lambda request, **_: sent.append(request.url) or _no_network())
    with pytest.raises(ConnectionError):
        client.get_object(Bucket="bucket", Key="key")
    assert sent[0] == address


def _no_network() -> None:
    raise ConnectionError("not in a test")


def test_locations() -> None:
    assert parse("s3://my-bucket/a/b/") == Bucket("my-bucket", "a/b")
    assert parse("s3://my-bucket") == Bucket("my-bucket", "")
    assert parse("var/archive") == Path("var/archive")
    for wrong in ("s3://", "s3://B", "s3://bucket/../x", "gs://bucket", "s3://bucket//x"):
        with pytest.raises(FormatError):
            parse(wrong)
