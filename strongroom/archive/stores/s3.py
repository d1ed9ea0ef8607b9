"""An object store in one versioned S3 bucket with Object Lock: the archive's place in production.

Rules:

1. **Create-if-absent** is `If-None-Match: *`. Each put carries a random mark as metadata: when the name turns out to be
   taken, the object's mark tells whether it was this very put, whose answer was lost, or somebody else's.
2. **Every put states** its SHA-256, which S3 checks; the lock mode and retain-until date, at least what the options and
   the bucket's default rule say; the KMS key, where one is set. Files over `S3Options.multipart_bytes` go up in parts:
   their checksum is a composite one, per part (s3parts.py).
3. **The object of a name is its oldest version.** Object Lock protects versions, not names: whoever may write can put a
   newer version or a delete marker on top. Listing gives each name with its oldest version, which no marker hides;
   reading by a reference's version is not affected; reading by name alone looks below a marker. All of it is
   found by verification (`versions`). What a marker can do is let the *next* create of its name succeed: such a version
   is a later one, and found as well.
4. **A read that does not match** the checksum S3 keeps is StoreUnavailable, not content.
5. No part of ARNs, regions or endpoints is assumed: partitions, FIPS and S3-compatible endpoints are options.

Only `extend` (a later date) and `hold` change anything about an object, and neither its bytes. The store can be sent to
another process: a client is made where it is used. Source: Amazon S3 user guide, "Object Lock", "Conditional writes",
"Checking object integrity".
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import file_digest, sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from strongroom.archive import layout
from strongroom.archive.errors import FormatError, ObjectExists, ObjectMissing, StoreRefused, StoreUnavailable
from strongroom.archive.stores import s3parts
from strongroom.archive.stores.s3client import LockMode, S3Options, code_of, make_client, translated
from strongroom.archive.stores.store import ObjectInfo, ObjectVersion, Protection, checked_key

Result = TypeVar("Result")

_MARK = "strongroom-put"
_READS = 3  # tries of a read whose body broke off or was damaged; boto3 retries requests, not bodies
_CONFLICTS = 6
_CHUNK = 1 << 20
_STRICTNESS = {"": 0, "GOVERNANCE": 1, "COMPLIANCE": 2}


@dataclass(frozen=True, slots=True)
class BucketRule:
    """The bucket's default retention; mode "" and 0 days where it has none."""

    mode: LockMode = ""
    days: int = 0


class S3Store:
    """Objects under `s3://bucket/prefix`. Any number of processes may use one bucket at once."""

    def __init__(self, bucket: str, prefix: str = "", *, options: S3Options, rule: BucketRule | None = None) -> None:
        """Asks nobody; `S3Store.open` checks the bucket and learns its `rule`. `prefix`: no slash at its ends."""
        self.bucket = bucket
        self.prefix = f"{checked_key(prefix)}/" if prefix else ""
        self.options = options
        self.rule = rule or BucketRule()
        self._making = threading.Lock()
        self._made: Any = None

    @classmethod
    def open(cls, bucket: str, prefix: str = "", *, options: S3Options) -> S3Store:
        """The store, when the bucket is in an allowed Region and can lock what it is asked to lock.

        Raises StoreRefused, StoreUnavailable.
        """
        store = cls(bucket, prefix, options=options)
        store._check_region()
        store.rule = store.read_rule()
        return store

    def __getstate__(self) -> tuple[str, str, S3Options, BucketRule]:
        return self.bucket, self.prefix.rstrip("/"), self.options, self.rule

    def __setstate__(self, state: tuple[str, str, S3Options, BucketRule]) -> None:
        bucket, prefix, options, rule = state
        self.__init__(bucket, prefix, options=options, rule=rule)  # type: ignore[misc]

    @property
    def location(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def description(self) -> str:
        """What this store is and what it can't promise."""
        mode, days = self.least
        endpoint = f" at {self.options.endpoint_url}" if self.options.endpoint_url else ""
        lock = f"locked: {mode}, {days} days or longer" if mode else "NOT LOCKED: whoever may delete versions can"
        return f"bucket {self.location}{endpoint} ({lock})"

    @property
    def client(self) -> Any:
        """The boto3 client, made on first use in this process."""
        with self._making:
            if self._made is None:
                self._made = make_client(self.options)
            return self._made

    def create(self, key: str, content: bytes | Path, *, retain_until: datetime | None = None) -> ObjectInfo:
        """See ObjectStore.create. Raises StoreRefused as well."""
        where = self.place(key)
        mark = secrets.token_hex(16)
        headers = {"Metadata": {_MARK: mark}, **self._lock(key, retain_until), **self.encryption}
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        for attempt in range(_CONFLICTS):
            try:
                with translated(key):
                    answer = self._put(where, content, size, headers)
                if (version := _version(answer)) or not self.least[0]:
                    return ObjectInfo(key, size, version)
                # Where objects are locked they have versions: the answer was cut, so ask what became of the put.
                if (ours := self._put_with(key, mark)) is not None:
                    return ours
                raise StoreUnavailable(f"{key}: the answer to its put lacks the version", hint="try again")
            except ObjectExists:
                if (ours := self._put_with(key, mark)) is not None:
                    return ours
                raise
            except StoreUnavailable as error:
                # 409: another create of this name is under way. Who wins is known in a moment.
                if _code(error) != "ConditionalRequestConflict" or attempt == _CONFLICTS - 1:
                    raise
                time.sleep(random.uniform(0.05, 0.2) * 2**attempt)  # noqa: S311
        raise AssertionError("unreachable")

    def get(self, key: str, version: str = "") -> bytes:
        """See ObjectStore.get."""
        return self._read(key, version, lambda version: self._get(key, version))

    def fetch(self, key: str, path: Path, version: str = "") -> None:
        """See ObjectStore.fetch. Large objects come as parallel ranges of one version."""
        path.open("xb").close()
        try:
            self._read(key, version, lambda version: self._fetch(key, path, version))
        except BaseException:
            path.unlink()
            raise

    def head(self, key: str, version: str = "") -> ObjectInfo:
        """See ObjectStore.head."""
        answer = self._read(key, version, lambda version: self._head(key, version))
        return ObjectInfo(key, answer["ContentLength"], _version(answer))

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """See ObjectStore.list. Each name with its oldest version, whatever was put on top."""
        oldest: ObjectInfo | None = None
        for item in self._pages(prefix, start_after):
            if item.marker or item.key <= start_after:
                continue
            if oldest is not None and oldest.key != item.key:
                yield oldest
            oldest = ObjectInfo(item.key, item.bytes, "" if item.version == "null" else item.version)
        if oldest is not None:
            yield oldest

    def local_path(self, key: str) -> Path | None:
        """None: objects must be fetched."""
        return None

    def keeps_versions(self) -> bool:
        """See LockingStore.keeps_versions. S3 itself refuses to suspend versioning once Object Lock is on."""
        with _of_bucket(self.bucket):
            return bool(self.client.get_bucket_versioning(Bucket=self.bucket).get("Status") == "Enabled")

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        """See LockingStore.versions."""
        return self._pages(prefix, "")

    def protection(self, key: str, version: str = "") -> Protection:
        """See LockingStore.protection. Without s3:GetObjectRetention and s3:GetObjectLegalHold S3 leaves it out."""
        answer = self._read(key, version, lambda version: self._head(key, version))
        checksum = "" if _is_composite(answer) else str(answer.get("ChecksumSHA256", ""))
        until = answer.get("ObjectLockRetainUntilDate")
        return Protection(
            bytes=answer["ContentLength"],
            mode=answer.get("ObjectLockMode", ""),
            retain_until=until.astimezone(UTC) if until else None,
            held=answer.get("ObjectLockLegalHoldStatus") == "ON",
            sha256=b64decode(checksum).hex(),
            encryption=" ".join(
                str(answer[name]) for name in ("ServerSideEncryption", "SSEKMSKeyId") if answer.get(name)
            ),
        )

    def extend(self, key: str, version: str, until: datetime) -> None:
        """See LockingStore.extend. What S3 itself would allow in GOVERNANCE mode, shortening, is not asked of it."""
        now = self.protection(key, version)
        if now.retain_until is not None and until < now.retain_until:
            raise FormatError(f"{key} is locked until {now.retain_until:%Y-%m-%d}: retention is never shortened")
        mode = max(now.mode, self.least[0], key=_STRICTNESS.__getitem__)
        if not mode:
            raise StoreRefused(
                f"{key}: no lock mode is set", hint="set s3_lock_mode, or the bucket's default retention"
            )
        with translated(key):
            self.client.put_object_retention(
                **self.place(key, version), Retention={"Mode": mode, "RetainUntilDate": _whole_seconds(until)}
            )

    def hold(self, key: str, version: str, on: bool) -> None:
        """See LockingStore.hold."""
        with translated(key):
            self.client.put_object_legal_hold(**self.place(key, version), LegalHold={"Status": "ON" if on else "OFF"})

    def region(self) -> str:
        """The bucket's Region as it says itself, "" when it doesn't. Raises StoreRefused, StoreUnavailable."""
        with _of_bucket(self.bucket):
            answer = self.client.head_bucket(Bucket=self.bucket)
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        return str(answer.get("BucketRegion") or headers.get("x-amz-bucket-region", ""))

    def read_rule(self) -> BucketRule:
        """The bucket's default retention, asked anew. Raises StoreRefused when the bucket can't lock and must."""
        try:
            with translated(f"bucket {self.bucket}: its Object Lock configuration"):
                answer = self.client.get_object_lock_configuration(Bucket=self.bucket)
        except StoreRefused as error:
            if _code(error) != "ObjectLockConfigurationNotFoundError":
                raise
            if self.options.lock_mode:
                raise StoreRefused(
                    f"bucket {self.bucket} has no Object Lock, s3_lock_mode asks for {self.options.lock_mode}",
                    hint="make the bucket with Object Lock; see docs/s3.md",
                ) from None
            return BucketRule()
        default = answer["ObjectLockConfiguration"].get("Rule", {}).get("DefaultRetention", {})
        return BucketRule(default.get("Mode", ""), int(default.get("Days", 0)) + 366 * int(default.get("Years", 0)))

    def _check_region(self) -> None:
        region = self.region()
        own = (self.options.region,) if self.options.region and region else ()
        allowed = self.options.allowed_regions or own
        if allowed and region not in allowed:
            raise StoreRefused(
                f"bucket {self.bucket} is in Region {region or 'unknown'!r}, allowed: {', '.join(allowed)}",
                hint="the archive must not leave its Regions: name another bucket, or change s3_allowed_regions",
            )

    @property
    def least(self) -> tuple[LockMode, int]:
        """Mode and days that no object here goes below: the stricter of the options' and the bucket's."""
        mode = max(self.options.lock_mode, self.rule.mode, key=_STRICTNESS.__getitem__)
        return mode, max(self.options.retain_days, self.rule.days)

    def _lock(self, key: str, retain_until: datetime | None) -> dict[str, Any]:
        mode, days = self.least
        if (rule := self.options.retention.rule_of(key)) is not None:
            mode, days = max(mode, rule.mode, key=_STRICTNESS.__getitem__), max(days, rule.days)
        if key.startswith(layout.SPOOL) and retain_until is not None:
            days = 0  # no part of the archive once it is sealed: its writer says how long
        until = [datetime.now(UTC) + timedelta(days=days)] if days else []
        until += [retain_until] if retain_until is not None else []
        if not mode or not until:
            return {}
        return {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": _whole_seconds(max(until))}

    @property
    def encryption(self) -> dict[str, Any]:
        """What every put says about its server-side encryption, as boto3 takes it."""
        if not self.options.kms_key:
            return {}
        return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.options.kms_key}

    def _put(self, where: dict[str, str], content: bytes | Path, size: int, headers: dict[str, Any]) -> Any:
        if isinstance(content, bytes):
            checksum = _base64(sha256(content).digest())
            return self._put_whole(where, content, checksum, headers)
        if size > self.options.multipart_bytes:
            return s3parts.put(self.client, self.options, where, content, headers)
        with content.open("rb") as file:
            checksum = _base64(file_digest(file, sha256).digest())
            file.seek(0)
            return self._put_whole(where, file, checksum, headers)

    def _put_whole(self, where: dict[str, str], body: Any, checksum: str, headers: dict[str, Any]) -> Any:
        return self.client.put_object(
            **where, Body=body, IfNoneMatch="*", ChecksumAlgorithm="SHA256", ChecksumSHA256=checksum, **headers
        )

    def _put_with(self, key: str, mark: str) -> ObjectInfo | None:
        """The object, when it was put with this mark."""
        answer = self._read(key, "", lambda version: self._head(key, version))
        if answer.get("Metadata", {}).get(_MARK) != mark:
            return None
        return ObjectInfo(key, answer["ContentLength"], _version(answer))

    def _read(self, key: str, version: str, read: Callable[[str], Result]) -> Result:
        """`read` of the version, or of the newest one; of the oldest when the newest is a delete marker."""
        for attempt in range(_READS):
            try:
                with translated(key):
                    return read(version)
            except ObjectMissing as missing:
                if version or (version := self._below_marker(key, missing)) == "":
                    raise ObjectMissing(f"no object {key} in {self.location}") from None
            except ObjectExists:  # ranges are of one ETag
                raise StoreUnavailable(f"{key} was overwritten while it was read", hint="try again") from None
            except StoreRefused:
                raise
            except KeyError as missing:  # headers that the end of a plain HTTP connection cut off
                if attempt == _READS - 1:
                    raise StoreUnavailable(f"{key}: the answer lacks {missing}", hint="try again") from None
            except StoreUnavailable:
                if attempt == _READS - 1:
                    raise
        raise StoreUnavailable(f"{key} could not be read", hint="it may pass: try again")

    def _get(self, key: str, version: str) -> bytes:
        answer = self._asked_for(key, version)
        with closing(answer["Body"]) as body:  # its own context would give the bare stream, unchecked
            if answer["ContentLength"] <= self.options.multipart_bytes:
                return bytes(body.read())
        with TemporaryDirectory(prefix="strongroom-") as folder:
            path = Path(folder) / "object"
            self._fetch_ranges(key, path, answer)
            return path.read_bytes()

    def _fetch(self, key: str, path: Path, version: str) -> None:
        answer = self._asked_for(key, version)
        with closing(answer["Body"]) as body:  # its own context would give the bare stream, unchecked
            if answer["ContentLength"] <= self.options.multipart_bytes:
                with path.open("wb") as file:
                    file.writelines(body.iter_chunks(_CHUNK))
                return
        self._fetch_ranges(key, path, answer)

    def _asked_for(self, key: str, version: str) -> dict[str, Any]:
        """S3's answer with the body still to be read, which boto3 holds against the checksum that came with it."""
        answer: dict[str, Any] = self.client.get_object(**self.place(key, version), ChecksumMode="ENABLED")
        return answer

    def _fetch_ranges(self, key: str, path: Path, facts: Mapping[str, Any]) -> None:
        """The very object that `facts` are about, range by range, then held against its checksum."""
        where = self.place(key, _version(facts))
        s3parts.fetch(self.client, self.options, where, facts["ETag"], facts["ContentLength"], path)
        self._check_parts(key, path, where, facts)

    def _check_parts(self, key: str, path: Path, where: dict[str, str], facts: Mapping[str, Any]) -> None:
        """Ranges come without a checksum: hold the whole against the one S3 keeps. Raises StoreUnavailable."""
        stated = facts.get("ChecksumSHA256", "").partition("-")[0]
        if not stated:
            return
        if _is_composite(facts):
            part_bytes = self.client.head_object(**where, PartNumber=1)["ContentLength"]
            found = s3parts.composite(path, part_bytes).partition("-")[0]
        else:
            with path.open("rb") as file:
                found = _base64(file_digest(file, sha256).digest())
        if found != stated:
            raise StoreUnavailable(f"{key}: what came is not what its checksum in S3 says", hint="try again")

    def _head(self, key: str, version: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.head_object(**self.place(key, version), ChecksumMode="ENABLED")
        return answer | {"ContentLength": int(answer["ContentLength"])}

    def _below_marker(self, key: str, missing: ObjectMissing) -> str:
        """The oldest version of a name that has a delete marker on top, "" for a name that never was."""
        # A missing name is asked for all the time (is there a next entry?), so it should cost no more than it must: AWS
        # says in its answer that a marker hides the object; compatible stores don't all say it, and are asked.
        answer = getattr(missing.__cause__, "response", {}).get("ResponseMetadata", {})
        if not self.options.endpoint_url and answer.get("HTTPHeaders", {}).get("x-amz-delete-marker") != "true":
            return ""
        found = [item.version for item in self._pages(key, "") if item.key == key and not item.marker]
        return found[-1] if found else ""

    def _pages(self, prefix: str, start_after: str) -> Iterator[ObjectVersion]:
        """Versions and markers by name, newest first; names up to `start_after` may be left out."""
        marks = {"KeyMarker": self.prefix + start_after} if start_after > prefix else {}
        while True:
            with translated(f"the list of {self.location}/{prefix}"):
                page = self.client.list_object_versions(Bucket=self.bucket, Prefix=self.prefix + prefix, **marks)
            found = [self._item(item, marker=False) for item in page.get("Versions", [])]
            found += [self._item(item, marker=True) for item in page.get("DeleteMarkers", [])]
            # The answer lists versions and markers apart, each newest first; sorting is stable. Times are in seconds: a
            # version and a marker of the same one may change places, but which version is the oldest never changes.
            found.sort(key=lambda item: item.modified, reverse=True)
            found.sort(key=lambda item: (item.key, not item.latest))
            yield from found
            if not page.get("IsTruncated"):
                return
            marks = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}

    def _item(self, item: dict[str, Any], *, marker: bool) -> ObjectVersion:
        return ObjectVersion(
            key=item["Key"].removeprefix(self.prefix),
            version=item["VersionId"],
            bytes=int(item.get("Size", 0)),
            latest=bool(item["IsLatest"]),
            marker=marker,
            modified=item["LastModified"].astimezone(UTC),
        )

    def place(self, key: str, version: str = "") -> dict[str, str]:
        """The bucket, key and version of an object, as boto3 takes them."""
        where = {"Bucket": self.bucket, "Key": self.prefix + checked_key(key)}
        return where | {"VersionId": version} if version else where


@contextmanager
def _of_bucket(bucket: str) -> Iterator[None]:
    try:
        with translated(f"bucket {bucket}"):
            yield
    except ObjectMissing:
        raise StoreRefused(f"no bucket {bucket}", hint="check the name, the account and the endpoint") from None


def _version(answer: Mapping[str, Any]) -> str:
    """The version id, "" in a bucket that keeps none."""
    version = str(answer.get("VersionId") or "")
    return "" if version == "null" else version


def _is_composite(answer: Mapping[str, Any]) -> bool:
    """Whether the object was put in parts, so that its checksum is one over theirs."""
    return "-" in answer.get("ChecksumSHA256", "") or "-" in answer.get("ETag", "")


def _code(error: StoreUnavailable) -> str:
    return code_of(error.__cause__)[0]


def _base64(digest: bytes) -> str:
    return b64encode(digest).decode()


def _whole_seconds(moment: datetime) -> datetime:
    """S3 keeps seconds: rounded up, so that nothing is locked for less than was asked."""
    return moment.replace(microsecond=0) + timedelta(seconds=bool(moment.microsecond))
