"""A store that counts what is read through it: verification says what it cost.

What a store can do shows in its methods (a `LockingStore` has more of them), so there is one class for each kind, and
`metered` picks.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from strongroom.archive.stores.store import LockingStore, ObjectInfo, ObjectStore, ObjectVersion, Protection


class MeteredStore:
    """`store`, with the bytes that `get` and `fetch` gave in `bytes_read`; what is read by `local_path` is not seen."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.bytes_read = 0

    @property
    def description(self) -> str:
        return self._store.description

    def create(self, key: str, content: bytes | Path, *, retain_until: datetime | None = None) -> ObjectInfo:
        return self._store.create(key, content, retain_until=retain_until)

    def get(self, key: str, version: str = "") -> bytes:
        content = self._store.get(key, version)
        self.bytes_read += len(content)
        return content

    def fetch(self, key: str, path: Path, version: str = "") -> None:
        self._store.fetch(key, path, version)
        self.bytes_read += path.stat().st_size

    def head(self, key: str, version: str = "") -> ObjectInfo:
        return self._store.head(key, version)

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        return self._store.list(prefix, start_after)

    def local_path(self, key: str) -> Path | None:
        return self._store.local_path(key)


class MeteredLockingStore(MeteredStore):
    """The same over a store that locks; what it says about versions costs no bytes."""

    def __init__(self, store: LockingStore) -> None:
        super().__init__(store)
        self._locking = store

    def keeps_versions(self) -> bool:
        return self._locking.keeps_versions()

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        return self._locking.versions(prefix)

    def protection(self, key: str, version: str = "") -> Protection:
        return self._locking.protection(key, version)

    def extend(self, key: str, version: str, until: datetime) -> None:
        self._locking.extend(key, version, until)

    def hold(self, key: str, version: str, on: bool) -> None:
        self._locking.hold(key, version, on)


def metered(store: ObjectStore) -> MeteredStore:
    """`store`, counted, with all it can do."""
    return MeteredLockingStore(store) if isinstance(store, LockingStore) else MeteredStore(store)
