"""Attempts on a locked bucket: each is refused by the server, or found by verification under its own name and no other.

moto lets retention be shortened and versioning be suspended (real S3 refuses both): here that is the store that does
not enforce, against which verification has to stand alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from strongroom.archive import layout
from strongroom.archive.entry import Draft, ObjectRef, timestamp
from strongroom.archive.retention import orders
from strongroom.archive.retention import rules as retention
from strongroom.archive.retention.orders import Order
from strongroom.archive.retention.rules import Retention
from strongroom.archive.stores import LockingStore
from strongroom.archive.stores.s3 import S3Store
from strongroom.archive.verification import workers
from strongroom.archive.verification.findings import Level, Report
from strongroom.archive.verification.verify import verify
from tests.archive.conftest import Archive
from tests.buckets import S3

pytestmark = pytest.mark.adversarial

RULES = retention.parse({"default": "COMPLIANCE 30 days", "test": "COMPLIANCE 10 days"})


def order(archive: Archive, action: orders.Action, *segments: str, **facts: Any) -> None:
    """Give an order, as the service does."""
    content = orders.encode(Order(secrets.token_hex(32), action, "tester", segments=segments, **facts))
    key = layout.order_key(archive.now.date(), secrets.token_hex(16))
    stored = archive.store.create(key, content)
    reference = ObjectRef(key, stored.version, len(content), sha256(content).hexdigest())
    archive.log.append(Draft(orders.KIND[action], datetime.now(UTC), details=reference))
    archive.signer.sign()


def checked(archive: Archive, level: Level = "inventory") -> Report:
    return verify(archive.store, archive.trust, level, threads=4)


def found(report: Report) -> set[tuple[str, str]]:
    assert not report.incomplete
    return {(finding.code, finding.object) for finding in report.findings}


@pytest.fixture(scope="module")
def bucket(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Archive]:
    """Makes archives of two commits, each in a bucket of its own; the second segment is held for a case."""

    def make(rules: Retention = RULES) -> Archive:
        folder = tmp_path_factory.mktemp("bucket")
        store = s3.new_store(retention=rules)
        archive = Archive(folder / "archive", folder / "signer.json", store=store, rules=rules, now=datetime.now(UTC))
        for _ in range(2):
            archive.commit()
        held = archive.log.entry(2)
        for key in (held.segments[0].key, held.details.key, layout.entry_key(2)):
            store.hold(key, store.head(key).version, True)
        order(archive, "hold", held.segments[0].key, case="2026-17", view="segments", where="true")
        return archive

    return make


@pytest.fixture(scope="module")
def archive(bucket: Callable[[], Archive]) -> Archive:
    """One that tests look at and leave as it was."""
    return bucket()


@pytest.fixture(scope="module")
def ordered(bucket: Callable[[], Archive]) -> Archive:
    """One that tests give orders about, and leave sound; each about an entry of its own."""
    return bucket()


def first(archive: Archive) -> str:
    return archive.log.entry(1).segments[0].key


@pytest.mark.parametrize("level", ["quick", "inventory", "complete", "deep"])
def test_a_locked_and_held_archive_is_sound(archive: Archive, level: Level) -> None:
    report = checked(archive, level)
    assert report.sound, [str(finding) for finding in report.findings]
    assert isinstance(archive.store, LockingStore)
    for info in archive.store.list(""):
        locked = archive.store.protection(info.key)
        days = (locked.retain_until - datetime.now(UTC)) / timedelta(days=1)
        assert locked.mode == "COMPLIANCE"
        assert days == pytest.approx(10 if info.key.startswith(layout.SEGMENTS) else 30, abs=0.1), info.key
        assert locked.sha256 == sha256(archive.store.get(info.key)).hexdigest()


def test_what_the_server_refuses(archive: Archive) -> None:
    store = archive.store
    for key in (first(archive), layout.entry_key(1), layout.checkpoint_key(2)):
        where = {"Bucket": store.bucket, "Key": key}
        version = store.head(key).version
        for attempt in ({}, {"BypassGovernanceRetention": True}):
            with pytest.raises(ClientError, match="AccessDenied"):
                store.client.delete_object(**where, VersionId=version, **attempt)
        with pytest.raises(ClientError, match="PreconditionFailed"):
            store.client.put_object(**where, Body=b"other", IfNoneMatch="*")


def put(store: S3Store, key: str, body: bytes = b"foreign") -> None:
    store.client.put_object(Bucket=store.bucket, Key=key, Body=body, ChecksumAlgorithm="SHA256")


def shorten(store: S3Store, key: str, **lock: Any) -> None:
    until = {"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(days=5)} | lock
    store.client.put_object_retention(Bucket=store.bucket, Key=key, Retention=until)


def unhold(store: S3Store, key: str) -> None:
    store.client.put_object_legal_hold(Bucket=store.bucket, Key=key, LegalHold={"Status": "OFF"})


def segment(archive: Archive, index: int) -> str:
    return archive.log.entry(index).segments[0].key


def delete(store: S3Store, key: str) -> None:
    store.client.delete_object(Bucket=store.bucket, Key=key)


def recreate(store: S3Store, key: str) -> None:
    delete(store, key)
    store.client.put_object(Bucket=store.bucket, Key=key, Body=b"{}", IfNoneMatch="*")


def weaken(store: S3Store, key: str) -> None:
    shorten(store, key, Mode="GOVERNANCE", RetainUntilDate=datetime.now(UTC) + timedelta(days=40))


# Each on objects of an entry of its own: what is done to the store, the object, and the findings it gives.
Attempt = tuple[Callable[[S3Store, str], object], Callable[[Archive, int], str], set[str]]
ATTEMPTS: dict[str, Attempt] = {
    "overwrite a segment": (put, segment, {"VERSION_EXTRA"}),
    "overwrite an entry": (put, lambda a, n: layout.entry_key(n), {"ENTRY_FORK"}),
    "overwrite a checkpoint": (put, lambda a, n: layout.checkpoint_key(n), {"VERSION_EXTRA"}),
    "overwrite the identity": (put, lambda a, n: layout.IDENTITY, {"VERSION_EXTRA"}),
    "delete a segment": (delete, segment, {"DELETE_MARKER"}),
    "delete details": (delete, lambda a, n: a.log.entry(n).details.key, {"DELETE_MARKER"}),
    "delete an entry": (delete, lambda a, n: layout.entry_key(n), {"DELETE_MARKER"}),
    "delete an entry and create it anew": (
        recreate,
        lambda a, n: layout.entry_key(n),
        {"ENTRY_FORK", "DELETE_MARKER"},
    ),
    "put a foreign object": (put, lambda a, n: "segments/source=test/foreign", {"ORPHAN"}),
    "shorten a segment's retention": (shorten, segment, {"LOCK_SHORT"}),
    "shorten an entry's retention": (shorten, lambda a, n: layout.entry_key(n), {"LOCK_SHORT"}),
    "weaken a checkpoint's lock": (weaken, lambda a, n: layout.checkpoint_key(n), {"LOCK_WEAK"}),
    "remove a legal hold from a segment": (unhold, segment, {"HOLD_MISSING"}),
    "remove a legal hold from an entry": (unhold, lambda a, n: layout.entry_key(n), {"HOLD_MISSING"}),
}


def test_what_verification_finds(bucket: Callable[[], Archive]) -> None:
    archive = bucket()
    first_index = archive.log.size
    for _ in ATTEMPTS:
        archive.commit()
    objects = {}
    for index, (name, (_, which, _)) in enumerate(ATTEMPTS.items(), first_index):
        entry = archive.log.entry(index)
        objects[name] = which(archive, index)
        if "hold" in name:
            for key in (segment(archive, index), entry.details.key, layout.entry_key(index)):
                archive.store.hold(key, archive.store.head(key).version, True)
            order(archive, "hold", segment(archive, index), case=name, view="segments", where="true")
    assert checked(archive).sound
    for name, (tamper, _, _) in ATTEMPTS.items():
        tamper(archive.store, objects[name])
    expected = {(code, objects[name]) for name, (_, _, codes) in ATTEMPTS.items() for code in codes}
    assert found(checked(archive)) == expected


def test_a_deleted_end_and_suspended_versioning(bucket: Callable[[], Archive]) -> None:
    archive = bucket()
    newest = layout.entry_key(archive.log.size - 1)
    delete(archive.store, newest)
    assert found(checked(archive)) == {("DELETE_MARKER", newest)}
    suspended = {"Status": "Suspended"}
    archive.store.client.put_bucket_versioning(Bucket=archive.store.bucket, VersioningConfiguration=suspended)
    report = checked(archive)
    report.incomplete.clear()  # moto then no longer gives versions; S3 does
    assert ("VERSIONING_SUSPENDED", "") in found(report)


@pytest.fixture
def store_says(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Lets the store state another checksum of one object."""

    def say(name: str, checksum: str) -> None:
        protection = S3Store.protection

        def other(self: S3Store, key: str, version: str = "") -> Any:
            told = protection(self, key, version)
            return replace(told, sha256=checksum) if key == name else told

        monkeypatch.setattr(S3Store, "protection", other)

    return say


def test_bytes_that_changed_under_the_store_are_found_by_its_own_checksum(
    archive: Archive, store_says: Callable[[str, str], None]
) -> None:
    store_says(first(archive), "0" * 64)
    report = checked(archive)
    assert found(report) == {("SEGMENT_CHANGED", first(archive))}
    assert "as the store keeps it" in report.findings[0].actual


def test_where_the_store_keeps_no_checksum_it_is_said(archive: Archive, store_says: Callable[[str, str], None]) -> None:
    store_says(first(archive), "")  # as of an object that was put in parts
    report = checked(archive)
    assert report.sound
    assert any(note.startswith("1 objects have no SHA-256") for note in report.notes)


def test_a_weak_rule_promises_no_more_than_it_locks(bucket: Callable[[], Archive]) -> None:
    rules = retention.parse({"default": "GOVERNANCE 2"})
    archive = bucket(rules)
    assert checked(archive).sound
    # Whoever has the permission may remove what GOVERNANCE locks: it is then found to be missing.
    where = {"Bucket": archive.store.bucket, "Key": first(archive)}
    version = archive.store.head(first(archive)).version
    archive.store.client.delete_object(**where, VersionId=version, BypassGovernanceRetention=True)
    report = checked(archive)
    assert found(report) == {("SEGMENT_MISSING", first(archive))}
    assert "kept until" in report.findings[0].expected


def test_an_extension_is_a_promise_like_any_other(ordered: Archive) -> None:
    archive = ordered
    until = (datetime.now(UTC) + timedelta(days=100)).replace(microsecond=0)
    entry = archive.log.entry(1)
    order(archive, "extend", first(archive), until=timestamp(until))
    objects = {first(archive), entry.details.key, layout.entry_key(1)}
    assert found(checked(archive)) == {("LOCK_SHORT", key) for key in objects}
    for key in objects:
        archive.store.extend(key, archive.store.head(key).version, until)
    assert checked(archive).sound


# -- retention over, holds and prunes: the same in a folder


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Archive]:
    """An archive in a folder whose segments, sealed 20 days ago, were to be kept for 10 days."""
    now = datetime.now(UTC) - timedelta(days=20)
    archive = Archive(tmp_path / "archive", tmp_path / "signer.json", rules=RULES, now=now)
    for _ in range(3):
        archive.commit()
    yield archive


def remove(archive: Archive, key: str) -> None:
    (archive.root / key).unlink()


def test_an_expired_segment_may_be_gone_and_its_entry_stays(old: Archive) -> None:
    remove(old, first(old))
    for level in ("quick", "inventory", "complete", "deep"):
        report = checked(old, level)  # type: ignore[arg-type]
        assert report.sound
        assert any("1 segments are gone and their retention has ended; 0 are named" in note for note in report.notes)
    order(old, "prune", first(old))
    assert any("ended; 1 are named" in note for note in checked(old).notes)
    remove(old, old.log.entry(2).details.key)
    assert found(checked(old)) == {("DETAILS_MISSING", old.log.entry(2).details.key)}


def test_a_held_or_extended_segment_may_not_be_gone(old: Archive) -> None:
    """In a folder, where orders are only recorded: in a bucket, one that is not carried out is a finding itself."""
    held, extended = old.log.entry(2).segments[0].key, old.log.entry(3).segments[0].key
    assert old.path(held).exists() and old.path(extended).exists()
    order(old, "hold", held, case="a", view="segments", where="true")
    order(old, "extend", extended, until=timestamp(datetime.now(UTC) + timedelta(days=1)))
    assert checked(old).sound
    for key in (held, extended):
        remove(old, key)
    assert found(checked(old)) == {("SEGMENT_MISSING", held), ("SEGMENT_MISSING", extended)}
    order(old, "prune", held)
    assert ("PRUNE_EARLY", held) in found(checked(old))
    order(old, "release", case="a")
    assert found(checked(old)) == {("PRUNE_EARLY", held), ("SEGMENT_MISSING", extended)}


def test_pruning_before_the_time_is_a_finding(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive", tmp_path / "signer.json", rules=RULES, now=datetime.now(UTC))
    archive.commit()
    order(archive, "prune", first(archive))
    remove(archive, first(archive))
    assert found(checked(archive)) == {("PRUNE_EARLY", first(archive)), ("SEGMENT_MISSING", first(archive))}


def test_an_order_that_was_changed_or_removed_is_found(old: Archive) -> None:
    order(old, "hold", first(old), case="a", view="segments", where="true")
    key = old.log.entry(old.log.size - 1).details.key
    path = old.path(key)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"a"', b'"b"'))
    report = checked(old, "complete")
    assert found(report) == {("ORDER_CHANGED", key)}
    assert any("SHA-256 is not what the entry states" in note for note in report.notes)
    path.unlink()
    assert found(checked(old)) == {("ORDER_MISSING", key)}


def test_a_case_released_while_verification_looks_is_no_finding(
    ordered: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = ordered
    held = archive.log.entry(2)
    take = workers.Workers.take

    def release_first(self: workers.Workers) -> Any:
        monkeypatch.setattr(workers.Workers, "take", take)
        order(archive, "release", case="2026-17")
        return take(self)

    for key in (held.segments[0].key, held.details.key, layout.entry_key(2)):
        unhold(archive.store, key)
    assert {code for code, _ in found(checked(archive))} == {"HOLD_MISSING"}
    monkeypatch.setattr(workers.Workers, "take", release_first)
    assert checked(archive).sound
