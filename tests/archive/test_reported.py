"""A bucket as S3 Inventory reports it: the same findings as by asking S3, without a request an object."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet
import pytest

from strongroom.archive import layout
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.retention import rules as retention
from strongroom.archive.stores import reported
from strongroom.archive.stores.reported import ReportedStore
from strongroom.archive.stores.s3 import S3Store
from strongroom.archive.verification.verify import verify
from tests.archive.conftest import Archive
from tests.buckets import S3

RULES = retention.parse({"default": "COMPLIANCE 30"})
FIELDS = [
    *("Bucket", "Key", "VersionId", "IsLatest", "IsDeleteMarker", "Size", "LastModifiedDate", "ETag", "StorageClass"),
    *("EncryptionStatus", "ObjectLockRetainUntilDate", "ObjectLockMode", "ObjectLockLegalHoldStatus"),
]


def rows(store: S3Store) -> list[dict[str, Any]]:
    """What S3 would write down about the bucket now."""
    found = []
    for item in store.versions(""):
        told = None if item.marker or " " in item.key else store.protection(item.key, item.version)
        values = (
            *(store.bucket, store.prefix + item.key, item.version, item.latest, item.marker, item.bytes),
            *(item.modified, '"etag"', "STANDARD", "SSE-S3"),
            *(
                (told.retain_until, told.mode.capitalize(), "On" if told.held else "Off")
                if told
                else (None, None, None)
            ),
        )
        found.append(dict(zip(FIELDS, values, strict=True)))
    return found


def as_csv(found: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    for row in found:
        plain = {name: "" if value is None else value for name, value in row.items()} | {"Key": quote_plus(row["Key"])}
        for name in ("IsLatest", "IsDeleteMarker"):
            plain[name] = str(plain[name]).lower()
        for name in ("LastModifiedDate", "ObjectLockRetainUntilDate"):
            plain[name] = f"{plain[name]:%Y-%m-%dT%H:%M:%S}.000Z" if plain[name] else ""
        writer.writerow(plain.values())
    return gzip.compress(text.getvalue().encode())


def as_parquet(found: list[dict[str, Any]]) -> bytes:
    names = {name: "".join(f"_{c.lower()}" if c.isupper() else c for c in name).strip("_") for name in FIELDS}
    table = pa.Table.from_pylist([{names[name]: value for name, value in row.items()} for row in found])
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


def write(folder: Path, store: S3Store, form: str = "CSV", **changed: Any) -> Path:
    """A report with two data files, laid out as S3 does."""
    found = rows(store)
    made = {"CSV": as_csv, "Parquet": as_parquet}[form]
    files = []
    for number, part in enumerate((found[::2], found[1::2])):
        data = folder / "inv" / store.bucket / "all" / "data" / f"{number}.{form.lower()}"
        data.parent.mkdir(parents=True, exist_ok=True)
        data.write_bytes(made(part))
        key = data.relative_to(folder).as_posix()
        files.append({"key": key, "size": data.stat().st_size, "MD5checksum": md5(data.read_bytes()).hexdigest()})
    manifest = {
        "sourceBucket": store.bucket,
        "destinationBucket": "arn:aws:s3:::reports",
        "version": "2016-11-30",
        "creationTimestamp": str(int(datetime.now(UTC).timestamp() * 1000)),
        "fileFormat": form,
        "fileSchema": ", ".join(FIELDS),
        "files": files,
    } | changed
    path = folder / "inv" / store.bucket / "all" / "2026-11-25T01-00Z" / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))
    path.with_suffix(".checksum").write_text(md5(path.read_bytes()).hexdigest())
    return path


@pytest.fixture(scope="module")
def archive(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Three commits, and on some of their objects what an insider left."""
    folder = tmp_path_factory.mktemp("reported")
    store = s3.new_store(prefix="logs", retention=RULES)
    made = Archive(folder / "archive", folder / "signer.json", store=store, rules=RULES, now=datetime.now(UTC))
    for _ in range(3):
        made.commit()
    return made


@pytest.mark.parametrize("form", ["CSV", "Parquet"])
def test_a_report_says_what_the_bucket_says(
    archive: Archive, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: S3Store = archive.store
    segment, overwritten = (archive.log.entry(number).segments[0].key for number in (1, 2))
    where = {"Bucket": store.bucket, "Key": store.prefix + segment}
    if form == "CSV":  # the second form reads the same bucket
        store.client.delete_object(**where)
        store.client.put_object(Bucket=store.bucket, Key=store.prefix + overwritten, Body=b"x")
        store.client.put_object(Bucket=store.bucket, Key="logs/a b+c", Body=b"x")
    path = write(tmp_path, store, form)
    archive.commit()  # after the report: asked of the bucket itself
    asked: list[str] = []
    protection = S3Store.protection
    monkeypatch.setattr(
        S3Store, "protection", lambda self, key, version="": asked.append(key) or protection(self, key, version)
    )
    listed = ReportedStore(store, reported.read(str(path), store))
    report = verify(listed, archive.trust, "inventory")
    told = {(finding.code, finding.object) for finding in report.findings}
    newest = archive.log.entry(archive.log.size - 1)
    assert set(asked) <= {
        *(newest.segments[0].key, newest.details.key, layout.entry_key(newest.index)),
        layout.checkpoint_key(archive.log.size),
    }
    monkeypatch.undo()
    assert told == {(f.code, f.object) for f in verify(store, archive.trust, "inventory").findings}
    assert told == {("DELETE_MARKER", segment), ("VERSION_EXTRA", overwritten), ("ORPHAN", "a b+c")}
    assert not report.incomplete


def test_what_a_report_says_about_locks_counts(archive: Archive, tmp_path: Path) -> None:
    path = write(tmp_path, archive.store, "CSV")
    inventory = reported.read(str(path), archive.store)
    modes = inventory.rows.column("object_lock_mode").to_pylist()
    weak = pa.array(["Governance" if mode else None for mode in modes])
    place = inventory.rows.column_names.index("object_lock_mode")
    changed = reported.Inventory(
        inventory.bucket, inventory.created, inventory.rows.set_column(place, "object_lock_mode", weak)
    )
    codes = {f.code for f in verify(ReportedStore(archive.store, changed), archive.trust, "inventory").findings}
    assert "LOCK_WEAK" in codes and "LOCK_SHORT" not in codes


Spoil = Callable[[Path], object]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_text("{}"), "manifest.checksum"),
        (lambda path: (path.write_text("[1]"), path.with_suffix(".checksum").unlink()), "no manifest"),
        (lambda path: (path.parents[1] / "data" / "1.csv").write_bytes(b"\x1f\x8b"), "MD5"),
    ],
)
def test_a_damaged_report_is_refused(archive: Archive, tmp_path: Path, spoil: Spoil, said: str) -> None:
    path = write(tmp_path, archive.store)
    spoil(path)
    with pytest.raises(FormatError, match=said):
        reported.read(str(path), archive.store)


def test_a_report_that_does_not_fit_is_refused(archive: Archive, tmp_path: Path, s3: S3) -> None:
    short = write(tmp_path, archive.store, fileSchema="Bucket, Key, Size")
    with pytest.raises(FormatError, match="lacks IsDeleteMarker"):
        reported.read(str(short), archive.store)
    orc = write(tmp_path, archive.store, fileFormat="ORC")
    with pytest.raises(FormatError, match="ORC"):
        reported.read(str(orc), archive.store)
    path = write(tmp_path, archive.store)
    with pytest.raises(FormatError, match="not of"):
        ReportedStore(s3.new_store(), reported.read(str(path), archive.store))
    (path.parents[1] / "data" / "0.csv").unlink()
    with pytest.raises(ObjectMissing, match="beside"):
        reported.read(str(path), archive.store)
    with pytest.raises(FormatError, match=r"manifest\.json"):
        reported.read(str(path.parent), archive.store)


def test_a_report_is_read_from_its_bucket(archive: Archive, tmp_path: Path, s3: S3) -> None:
    path = write(tmp_path, archive.store)
    bucket = s3.new_bucket(lock=False)
    for file in (item for item in tmp_path.rglob("*") if item.is_file()):
        s3.client.put_object(Bucket=bucket, Key=file.relative_to(tmp_path).as_posix(), Body=file.read_bytes())
    place = f"s3://{bucket}/{path.relative_to(tmp_path).as_posix()}"
    there = reported.read(place, archive.store)
    assert there.rows.equals(reported.read(str(path), archive.store).rows)
