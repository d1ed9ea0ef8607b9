"""The protocol between the archive and its storage. See the package docstring for the contract."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from strongroom.archive.errors import FormatError

_KEY = re.compile(r"[A-Za-z0-9_=.\-]+(/[A-Za-z0-9_=.\-]+)*")


def checked_key(key: str) -> str:
    """`key`, when it is an object name: the same names in every store. Raises FormatError."""
    if not _KEY.fullmatch(key) or any(part in (".", "..") for part in key.split("/")):
        raise FormatError(f"{key!r} is not an object name")
    return key


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says about one object. `version` is "" where the store keeps no versions."""

    key: str
    bytes: int
    version: str = ""


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of a name in a versioned store; `marker` is a delete marker, which hides the versions below it."""

    key: str
    version: str
    bytes: int
    latest: bool
    marker: bool
    modified: datetime


@dataclass(frozen=True, slots=True)
class Protection:
    """How one stored version, `bytes` long, is protected, as the store itself says.

    `sha256` (hex) is the checksum the store keeps beside the object, "" when it keeps none over the whole object;
    `encryption` names the server-side encryption and its key, "" when there is none.
    """

    bytes: int
    mode: Literal["", "GOVERNANCE", "COMPLIANCE"]
    retain_until: datetime | None
    held: bool
    sha256: str = ""
    encryption: str = ""


class ObjectStore(Protocol):
    """A create-only store of named byte strings. Methods block; all are safe to call from several threads."""

    @property
    def description(self) -> str:
        """One line for people: what and where this store is, and what it can't promise."""
        ...

    def create(self, key: str, content: bytes | Path, *, retain_until: datetime | None = None) -> ObjectInfo:
        """Make `content` (bytes, or a local file's content) durable as `key`.

        Where the store locks objects, this one is locked until `retain_until` (None: as long as the store's own rule
        says). Raises ObjectExists when the name is taken, StoreUnavailable when the outcome is unknown.
        """
        ...

    def get(self, key: str, version: str = "") -> bytes:
        """The whole object, in the given version where there are versions. Raises ObjectMissing, StoreUnavailable."""
        ...

    def fetch(self, key: str, path: Path, version: str = "") -> None:
        """Write the object to the new file `path`, in bounded memory. Raises ObjectMissing, StoreUnavailable."""
        ...

    def head(self, key: str, version: str = "") -> ObjectInfo:
        """Facts about the object without its content. Raises ObjectMissing, StoreUnavailable."""
        ...

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose name starts with `prefix` and sorts after `start_after`, in byte order of the names."""
        ...

    def local_path(self, key: str) -> Path | None:
        """The object's own file when the store is local (never to be written), None where it must be fetched."""
        ...


@runtime_checkable
class LockingStore(ObjectStore, Protocol):
    """A store that keeps every version of a name and locks versions against everybody (S3 Object Lock)."""

    def keeps_versions(self) -> bool:
        """Whether what is put now on a taken name becomes a version of its own, as it must be at all times."""
        ...

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        """Every version and delete marker of names with `prefix`, by name, newest first."""
        ...

    def protection(self, key: str, version: str = "") -> Protection:
        """How a version is protected. Raises ObjectMissing, StoreUnavailable."""
        ...

    def extend(self, key: str, version: str, until: datetime) -> None:
        """Lock a version until a later moment. Never shortens: an earlier one raises FormatError."""
        ...

    def hold(self, key: str, version: str, on: bool) -> None:
        """Set or lift the legal hold on a version. Raises ObjectMissing, StoreUnavailable."""
        ...
