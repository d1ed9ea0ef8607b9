"""Where an archive is, as people write it: a folder, or `s3://bucket/prefix`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from strongroom.archive.errors import FormatError
from strongroom.archive.stores.directory import DirectoryStore
from strongroom.archive.stores.s3 import S3Store
from strongroom.archive.stores.s3client import S3Options
from strongroom.archive.stores.store import ObjectStore, checked_key

SCHEME = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket, and the prefix that all of the archive's names have there ("" for none)."""

    name: str
    prefix: str


def parse(location: str) -> Path | Bucket:
    """The folder or bucket that `location` names. Raises FormatError."""
    if not location.startswith(SCHEME):
        if "://" in location:
            raise FormatError(f"{location!r}: an archive is a folder or s3://<bucket>[/<prefix>]")
        return Path(location)
    name, _, prefix = location.removeprefix(SCHEME).rstrip("/").partition("/")
    if not _BUCKET.fullmatch(name):
        raise FormatError(f"{location!r}: {name!r} is no bucket name")
    return Bucket(name, checked_key(prefix) if prefix else "")


def open_store(location: str, options: S3Options, *, create: bool = False) -> ObjectStore:
    """The store there. `create` makes a missing folder; a bucket is never made by opening it.

    Raises FormatError, StoreUnavailable, StoreRefused.
    """
    place = parse(location)
    if isinstance(place, Path):
        return DirectoryStore(place, create=create)
    return S3Store.open(place.name, place.prefix, options=options)
