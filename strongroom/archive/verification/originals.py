"""A versioned store as it was first written: of every name, the version that was there first.

Verification reads through this. What somebody put on top of an object (a newer version, a delete marker) is then one
finding about that name, and not the avalanche that reading it in place of the original would be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from strongroom.archive.stores.store import LockingStore, ObjectInfo, ObjectVersion, Protection


@dataclass(frozen=True, slots=True)
class Originals:
    """`store`, read by `first`: name -> the version it had first, for the names that have several."""

    store: LockingStore
    first: Mapping[str, str]

    @property
    def description(self) -> str:
        return self.store.description

    def create(self, key: str, content: bytes | Path, *, retain_until: datetime | None = None) -> ObjectInfo:
        return self.store.create(key, content, retain_until=retain_until)

    def get(self, key: str, version: str = "") -> bytes:
        return self.store.get(key, self._version(key, version))

    def fetch(self, key: str, path: Path, version: str = "") -> None:
        self.store.fetch(key, path, self._version(key, version))

    def head(self, key: str, version: str = "") -> ObjectInfo:
        return self.store.head(key, self._version(key, version))

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        return self.store.list(prefix, start_after)

    def local_path(self, key: str) -> Path | None:
        return self.store.local_path(key)

    def keeps_versions(self) -> bool:
        return self.store.keeps_versions()

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        return self.store.versions(prefix)

    def protection(self, key: str, version: str = "") -> Protection:
        return self.store.protection(key, self._version(key, version))

    def extend(self, key: str, version: str, until: datetime) -> None:
        self.store.extend(key, self._version(key, version), until)

    def hold(self, key: str, version: str, on: bool) -> None:
        self.store.hold(key, self._version(key, version), on)

    def _version(self, key: str, version: str) -> str:
        return version or self.first.get(key, "")
