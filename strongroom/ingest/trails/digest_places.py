"""Where CloudTrail digests and the log files they name are read: a bucket, or a folder of copies.

A place is walked by its AWSLogs layout, so that of all services only `CloudTrail-Digest` is listed, and of that only
the days wanted. What a digest's own name at the place says (trail, account, region, hour) must be what is signed inside
it; otherwise one hour's good digest could stand in for another's. Copies may lie under another prefix: log files are
looked for where they lay in relation to the digest.

A digest's signature is metadata of its object. Beside a file in a folder it may lie as `<name>.metadata.json`, as
`aws s3api head-object` prints it; without it the next digest's word is taken. Methods block and are thread-safe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Protocol

from strongroom.archive.errors import FormatError
from strongroom.ingest.decode import Decoder, decode_whole
from strongroom.ingest.errors import DeliveryRefused, ObjectGone
from strongroom.ingest.fetch import awslogs
from strongroom.ingest.fetch.awslogs import DigestName
from strongroom.ingest.fetch.buckets import Buckets
from strongroom.ingest.fetch.objects import S3Object
from strongroom.ingest.trails import digests
from strongroom.ingest.trails.digests import Judged, LogFile

_MAX_BYTES = 256 << 20
_CHUNK = 1 << 20
_LEADS = re.compile(r"(?:.*/)?AWSLogs/(?:o-[a-z0-9]+/)?\d{12}/(?P<service>[^/]+)/")


class Reading(Protocol):
    """An object being read (buckets.Download)."""

    def read(self, size: int) -> bytes:
        """The next bytes, b"" at the end."""
        ...

    def close(self) -> None:
        """Give it back."""
        ...


class Place(Protocol):
    """Somewhere digests and log files lie under the names AWS gave them, below some prefix."""

    @property
    def description(self) -> str:
        """For people."""
        ...

    def name_of(self, key: str) -> str:
        """What to call an object of this place."""
        ...

    def level(self, folder: str) -> tuple[list[str], list[str]]:
        """(folders, keys) directly below `folder`; all keys below it where it is a leaf (awslogs.is_leaf)."""
        ...

    def open(self, key: str) -> tuple[Reading, str]:
        """An object and its signature ("" when that is not there). Raises ObjectGone."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """A digest as it is named at a place."""

    key: str
    name: DigestName


class S3Place:
    """A prefix of a bucket; of each key the newest version."""

    def __init__(self, buckets: Buckets, bucket: str, prefix: str) -> None:
        self._buckets, self._bucket, self.prefix = buckets, bucket, prefix

    @property
    def description(self) -> str:
        """See Place.description."""
        return f"s3://{self._bucket}/{self.prefix}"

    def name_of(self, key: str) -> str:
        """See Place.name_of."""
        return f"s3://{self._bucket}/{key}"

    def level(self, folder: str) -> tuple[list[str], list[str]]:
        """See Place.level."""
        folders: list[str] = []
        keys: dict[str, None] = {}
        for page in self._buckets.pages(self._bucket, folder, below=awslogs.is_leaf(folder)):
            folders += page.folders
            keys.update((item.key, None) for item in page.objects)
        return folders, list(keys)

    def open(self, key: str) -> tuple[Reading, str]:
        """See Place.open."""
        download = self._buckets.open(S3Object(self._bucket, key))
        return download, download.metadata.get("signature", "")


class FolderPlace:
    """A folder of copies."""

    prefix = ""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def description(self) -> str:
        """See Place.description."""
        return str(self._root)

    def name_of(self, key: str) -> str:
        """See Place.name_of."""
        return str(self._root / key)

    def level(self, folder: str) -> tuple[list[str], list[str]]:
        """See Place.level."""
        here = self._root / folder
        if awslogs.is_leaf(folder):
            return [], sorted(path.relative_to(self._root).as_posix() for path in here.rglob("*") if path.is_file())
        found = sorted(here.iterdir()) if here.is_dir() else []
        return [f"{folder}{path.name}/" for path in found if path.is_dir()], [
            f"{folder}{path.name}" for path in found if path.is_file()
        ]

    def open(self, key: str) -> tuple[Reading, str]:
        """See Place.open."""
        path = self._root / key
        # A key comes out of a digest, and a digest out of who knows where.
        if not path.resolve().is_relative_to(self._root.resolve()) or not path.is_file():
            raise ObjectGone(f"{path} is not there")
        return path.open("rb"), _metadata(path.with_name(path.name + ".metadata.json"))


def walk(place: Place, prefix: str, since: date, until: date, executor: Executor) -> Iterator[Found]:
    """The digests of the days since … until below a prefix, in no order. Raises what the place raises."""
    folders = [prefix]
    while folders:
        below: list[str] = []
        for found, keys in executor.map(place.level, folders):
            below += [name for name in found if _leads_to_digests(name) and awslogs.is_within(name, since, until)]
            for key in keys:
                name = awslogs.digest_name(key)
                if name is not None and since <= name.end.date() <= until:
                    yield Found(key, name)
        folders = below


def read(place: Place, found: Found) -> Judged | str | None:
    """The digest, unjudged; why what lies under that name is none; or None: nothing does (it was deleted).

    Raises BucketUnavailable, BucketRefused.
    """
    try:
        reading, signature = place.open(found.key)
        try:
            body = b"".join(_chunks(reading))
        finally:
            reading.close()
        digest = digests.parse(decode_whole(body, "gzip", _MAX_BYTES) if body[:2] == b"\x1f\x8b" else body)
    except ObjectGone:
        return None
    except (FormatError, DeliveryRefused) as error:
        return error.message
    if digest.key.rpartition("/")[2] != found.key.rpartition("/")[2]:
        return f"it is the digest {digest.name}, under another one's name"
    return Judged(digest, signature, place.name_of(found.key), found.key)


def place_of_file(found_at: str, digest_key: str, file: LogFile) -> str:
    """Where a log file lies at a place, given where its digest does: the same way from their roots."""
    at, stated = awslogs.digest_name(found_at), awslogs.digest_name(digest_key)
    if at is None or stated is None or not file.key.startswith(stated.root):
        return file.key
    return at.root + file.key.removeprefix(stated.root)


def content_hash(place: Place, key: str) -> str:
    """SHA-256 (hex) of a log file's uncompressed content. Raises ObjectGone, and DeliveryRefused if it has none."""
    reading, _ = place.open(key)
    decoder = Decoder("auto", _MAX_BYTES)
    try:
        for chunk in _chunks(reading):
            decoder.feed(chunk)
    finally:
        reading.close()
    return decoder.finish().sha256


def _leads_to_digests(folder: str) -> bool:
    match = _LEADS.match(folder)
    return match is None or match["service"] == "CloudTrail-Digest"


def _chunks(reading: Reading) -> Iterable[bytes]:
    while chunk := reading.read(_CHUNK):
        yield chunk


def _metadata(path: Path) -> str:
    """The signature in a head-object answer, or in its Metadata alone; "" where there is none."""
    try:
        value: Any = json.loads(path.read_bytes())
        metadata = value.get("Metadata", value)
        return str(metadata.get("signature", ""))
    except (OSError, ValueError, AttributeError):
        return ""
