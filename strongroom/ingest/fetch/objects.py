"""One S3 object as a delivery: its address, its name in the archive, and what makes it the same delivery again. Pure.

An object version never changes, so bucket, key and version are a perfect idempotency key. Where a bucket keeps no
versions, the ETag stands in: it changes with the content. Pull and backfill use the same names, so that an object
which one has taken is known to the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256

from strongroom.ingest.errors import OutsidePerimeter

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_ACCOUNT = re.compile(r"\d{12}")
_VERSION = "?versionId="
MAX_KEY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class S3Object:
    """An object that was announced or listed.

    `version` is "" where the bucket keeps none, or the announcement names none; `etag` comes without quotes, "" when
    unknown; `size` in bytes, None when unknown.
    """

    bucket: str
    key: str
    version: str = ""
    etag: str = ""
    size: int | None = None

    @property
    def fixed(self) -> bool:
        """Whether `version` names content that can't be replaced ("null" is the version of an unversioned object)."""
        return self.version not in ("", "null")

    @property
    def name(self) -> str:
        """Its name in the archive: `s3://bucket/key`, with the version behind it."""
        return f"s3://{self.bucket}/{self.key}" + (f"{_VERSION}{self.version}" if self.fixed else "")

    @property
    def forwarder(self) -> str:
        """Whom its delivery is filed under: the bucket, whoever fetched it."""
        return f"s3://{self.bucket}"

    @property
    def idempotency_key(self) -> str:
        """Equal for two deliveries of the same content under the same key."""
        return f"{self.bucket}/{self.key}/{self.version if self.fixed else 'etag:' + self.etag}"

    @property
    def hashed_key(self) -> str:
        """The idempotency key as the log's details keep it (details.BatchFacts.key)."""
        return sha256(self.idempotency_key.encode()).hexdigest()

    @property
    def holds_nothing(self) -> bool:
        """Folder markers and the empty probes that AWS services write to see whether they may."""
        return self.size == 0


def is_address(bucket: str, key: str) -> bool:
    """Whether bucket and key could be an object's, as far as their form says."""
    try:
        return bool(_BUCKET.fullmatch(bucket)) and 0 < len(key.encode()) <= MAX_KEY_BYTES
    except UnicodeEncodeError:
        return False


def bucket_and_key(name: str) -> tuple[str, str] | None:
    """Bucket and key that an object's name in the archive carries, None for any other name."""
    if not name.startswith("s3://"):
        return None
    bucket, _, key = name.removeprefix("s3://").partition("/")
    key = key.rpartition(_VERSION)[0] or key if _VERSION in key else key
    return (bucket, key) if bucket and key else None


@dataclass(frozen=True, slots=True)
class Perimeter:
    """The buckets that may be read, each with the account that must own it (""; whoever does).

    A queue's policy says who may send; this says what a message may make us read.
    """

    buckets: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Perimeter:
        """`name` or `name=account`, separated by commas; `*` in a name stands for anything. Raises ValueError."""
        buckets = []
        for item in filter(None, (part.strip() for part in text.split(","))):
            name, _, account = item.partition("=")
            if not _BUCKET.fullmatch(name.replace("*", "xxx")) or (account and not _ACCOUNT.fullmatch(account)):
                raise ValueError(f"{item!r} is no bucket, or no bucket=account")
            buckets.append((name, account))
        return cls(tuple(buckets))

    def owner(self, bucket: str) -> str:
        """The account that must own `bucket`, "" for whichever does. Raises OutsidePerimeter."""
        for name, account in self.buckets:
            if fnmatchcase(bucket, name):
                return account
        raise OutsidePerimeter(
            f"bucket {bucket} is outside the perimeter", hint="add it to pull_buckets if it is yours"
        )
