"""A bucket as an S3 Inventory report describes it: for archives too large to ask about every object.

S3 writes such a report once a day or once a week: one row a version, with size, delete markers, lock mode, date and
legal hold. Verification then asks S3 about nothing but the log, and about what came after the report. Rules:

1. Data files must have the MD5 the manifest states, and the manifest that of `manifest.checksum` beside it, where that
   is there. MD5 is what S3 gives; it finds damage, not malice: whoever may write the report's bucket can lie in it.
   Keep reports where the archive's administrators can't.
2. A report is of one moment. What is not in it is asked of the bucket itself, entries and checkpoints always.
3. A report holds no checksums: contents are not compared (`complete` does).
4. These fields must be in it, of all versions: Size, LastModifiedDate, ObjectLockMode, ObjectLockRetainUntilDate,
   ObjectLockLegalHoldStatus. EncryptionStatus is used where it is there. CSV and Parquet are read, ORC is not.

Source: Amazon S3 user guide, "Amazon S3 Inventory list", "Locating your inventory list".
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import md5
from io import BytesIO
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from strongroom.archive import layout
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.stores.location import Bucket, parse
from strongroom.archive.stores.s3 import S3Store
from strongroom.archive.stores.store import ObjectInfo, ObjectVersion, Protection

# Field of the manifest -> our column. In Parquet files the same fields are spelt with underscores.
_FIELDS = {
    "Bucket": "bucket",
    "Key": "key",
    "VersionId": "version_id",
    "IsLatest": "is_latest",
    "IsDeleteMarker": "is_delete_marker",
    "Size": "size",
    "LastModifiedDate": "last_modified_date",
    "ObjectLockMode": "object_lock_mode",
    "ObjectLockRetainUntilDate": "object_lock_retain_until_date",
    "ObjectLockLegalHoldStatus": "object_lock_legal_hold_status",
}
_ENCRYPTION = ("EncryptionStatus", "encryption_status")
_LIVE = (layout.ENTRIES, layout.CHECKPOINTS)

Read = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class Inventory:
    """The versions of one bucket at one moment, by name, newest first."""

    bucket: str
    created: datetime
    rows: pa.Table


def read(location: str, store: S3Store) -> Inventory:
    """The report whose `manifest.json` is at `location`: a file, or `s3://…`, reached as `store` is.

    Raises FormatError, ObjectMissing, StoreUnavailable, OSError.
    """
    if not location.endswith("manifest.json"):
        raise FormatError(f"{location}: name the report's manifest.json")
    place = parse(location)
    if isinstance(place, Bucket):
        return _read(S3Store(place.name, options=store.options).get, place.prefix)
    return _read(lambda key: _local(place, key), str(place))


class ReportedStore:
    """`store`, with what `inventory` says of its versions. Can be sent to another process."""

    def __init__(self, store: S3Store, inventory: Inventory) -> None:
        """Raises FormatError when the report is of another bucket."""
        if inventory.bucket != store.bucket:
            raise FormatError(f"the report is of bucket {inventory.bucket}, not of {store.bucket}")
        self.store, self.inventory = store, inventory
        names = inventory.rows.column("key")
        self._rows = inventory.rows.filter(pc.starts_with(names, store.prefix)) if store.prefix else inventory.rows
        self._names = self._rows.column("key").combine_chunks()

    @property
    def description(self) -> str:
        when = f"{self.inventory.created:%Y-%m-%d %H:%M}Z"
        return f"{self.store.description}, {self._rows.num_rows:,} versions as S3 Inventory listed them at {when}"

    def create(self, key: str, content: bytes | Path, *, retain_until: datetime | None = None) -> ObjectInfo:
        return self.store.create(key, content, retain_until=retain_until)

    def get(self, key: str, version: str = "") -> bytes:
        return self.store.get(key, version)

    def fetch(self, key: str, path: Path, version: str = "") -> None:
        self.store.fetch(key, path, version)

    def head(self, key: str, version: str = "") -> ObjectInfo:
        return self.store.head(key, version)

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        return self.store.list(prefix, start_after)

    def local_path(self, key: str) -> Path | None:
        return None

    def keeps_versions(self) -> bool:
        return self.store.keeps_versions()

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        """As the report lists them; of entries and checkpoints as the bucket does now."""
        if prefix in _LIVE:
            yield from self.store.versions(prefix)
            return
        start = self._first(prefix)
        for row in range(start, len(self._names)):
            facts = self._facts(row)
            if not facts["key"].startswith(self.store.prefix + prefix):
                return
            yield ObjectVersion(
                key=facts["key"].removeprefix(self.store.prefix),
                version=facts["version_id"] or "null",
                bytes=facts["size"] or 0,
                latest=facts["is_latest"],
                marker=facts["is_delete_marker"],
                modified=facts["last_modified_date"],
            )

    def protection(self, key: str, version: str = "") -> Protection:
        """As the report says, of the oldest version when none is named; else as the bucket says now."""
        found = None
        for row in range(self._first(key), len(self._names)):
            facts = self._facts(row)
            if facts["key"] != self.store.prefix + key:
                break
            if not facts["is_delete_marker"] and version in ("", facts["version_id"]):
                found = facts
        if found is None:
            return self.store.protection(key, version)
        return Protection(
            bytes=found["size"],
            mode=cast(Any, (found["object_lock_mode"] or "").upper()),
            retain_until=found["object_lock_retain_until_date"],
            held=(found["object_lock_legal_hold_status"] or "").upper() == "ON",
            encryption=found[_ENCRYPTION[1]] or "",
        )

    def extend(self, key: str, version: str, until: datetime) -> None:
        self.store.extend(key, version, until)

    def hold(self, key: str, version: str, on: bool) -> None:
        self.store.hold(key, version, on)

    def _first(self, key: str) -> int:
        """The first row whose name is not before `key`."""
        name = self.store.prefix + key
        return bisect_left(range(len(self._names)), name, key=lambda row: self._names[row].as_py())

    def _facts(self, row: int) -> dict[str, Any]:
        return {name: self._rows.column(name)[row].as_py() for name in self._rows.column_names}


def _local(manifest: Path, key: str) -> bytes:
    """A report that was copied to disk: its data files lie where the bucket had them, or beside the manifest."""
    name = Path(key).name
    for path in (Path(key), manifest.parent / name, manifest.parent.parent / "data" / name):
        if path.is_file():
            return path.read_bytes()
    raise ObjectMissing(f"no file {name} beside {manifest}", hint="copy the report with its data files")


def _read(get: Read, key: str) -> Inventory:
    data = get(key)
    try:
        stated = get(key.removesuffix(".json") + ".checksum").decode().strip()
    except ObjectMissing:
        stated = ""
    if stated and stated != _md5(data):
        raise FormatError(f"{key}: its MD5 is not what manifest.checksum states")
    try:
        manifest = json.loads(data)
        form, schema = manifest["fileFormat"], [name.strip() for name in manifest["fileSchema"].split(",")]
        created = datetime.fromtimestamp(int(manifest["creationTimestamp"]) / 1000, UTC)
        bucket, files = str(manifest["sourceBucket"]), [(str(f["key"]), f["MD5checksum"]) for f in manifest["files"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{key}: no manifest of an S3 Inventory report: {error!r}") from None
    if form not in ("CSV", "Parquet"):
        raise FormatError(f"{key}: {form} reports are not read", hint="configure the inventory as CSV or Parquet")
    if form == "CSV" and (lacking := sorted(_FIELDS.keys() - set(schema))):
        raise FormatError(f"{key}: the report lacks {', '.join(lacking)}", hint="add these fields, of all versions")
    tables = []
    for name, checksum in files:
        content = get(name)
        if _md5(content) != checksum:
            raise FormatError(f"{name}: its MD5 is not what the manifest states")
        tables.append(_csv(content, schema) if form == "CSV" else _parquet(name, content))
    if not tables:
        raise FormatError(f"{key}: the report has no data files")
    order = [("key", "ascending"), ("is_latest", "descending"), ("last_modified_date", "descending")]
    return Inventory(bucket, created, pa.concat_tables(tables).sort_by(order))


def _csv(content: bytes, schema: list[str]) -> pa.Table:
    """Without a header; names are URL-encoded, everything is text."""
    stream = pa.CompressedInputStream(BytesIO(content), "gzip")
    wanted = [*_FIELDS, *(name for name in _ENCRYPTION[:1] if name in schema)]
    table = pyarrow.csv.read_csv(
        stream,
        pyarrow.csv.ReadOptions(column_names=schema),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=True
        ),
    )
    columns = {name: table.column(name) for name in wanted}
    columns["Key"] = pa.chunked_array([pa.array(map(unquote_plus, columns["Key"].to_pylist()), pa.string())])
    return _typed({_FIELDS.get(name, _ENCRYPTION[1]): column for name, column in columns.items()})


def _parquet(name: str, content: bytes) -> pa.Table:
    table = pyarrow.parquet.read_table(BytesIO(content))
    if lacking := sorted(set(_FIELDS.values()) - set(table.column_names)):
        raise FormatError(f"{name}: the report lacks {', '.join(lacking)}", hint="add these fields, of all versions")
    known = [*_FIELDS.values(), *(field for field in _ENCRYPTION[1:] if field in table.column_names)]
    return _typed({field: table.column(field) for field in known})


def _typed(columns: dict[str, pa.ChunkedArray]) -> pa.Table:
    """The columns in the types they are used in; times in UTC."""
    empty = pa.nulls(len(columns["key"]), pa.string())
    typed = {}
    for name in (*_FIELDS.values(), _ENCRYPTION[1]):
        column = columns.get(name, empty)
        if name in ("is_latest", "is_delete_marker"):
            column = pc.fill_null(column.cast(pa.bool_()), False)
        elif name == "size":
            column = column.cast(pa.int64())
        elif name.endswith("_date"):
            column = _times(column)
        else:
            column = column.cast(pa.string())
        typed[name] = column
    return pa.table(typed)


def _times(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_timestamp(column.type) or pa.types.is_integer(column.type):
        return column.cast(pa.timestamp("ms")).cast(pa.timestamp("ms", tz="UTC"))
    return pc.replace_substring(column, "Z", "").cast(pa.timestamp("ms")).cast(pa.timestamp("ms", tz="UTC"))


def _md5(data: bytes) -> str:
    return md5(data, usedforsecurity=False).hexdigest()
