"""A stored object as a local file, for readers that need one: the object's own file, or a copy fetched for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from hashlib import file_digest, sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from strongroom.archive.stores.store import ObjectStore

_IN_MEMORY_BYTES = 8 << 20


@contextmanager
def local_file(store: ObjectStore, key: str, version: str = "") -> Iterator[Path]:
    """The object's bytes in a file that must not be written to, as long as the context lasts.

    Raises ObjectMissing, StoreUnavailable.
    """
    path = store.local_path(key)
    if path is not None:
        store.head(key)
        yield path
        return
    with _fetched(store, key, version) as path:
        yield path


def stored_digest(store: ObjectStore, key: str, version: str = "", *, size: int) -> str:
    """SHA-256 (hex) of the object's stored bytes, in bounded memory; `size` is how many it should have.

    Raises ObjectMissing, StoreUnavailable.
    """
    own = store.local_path(key)
    if own is None and size <= _IN_MEMORY_BYTES:
        return sha256(store.get(key, version)).hexdigest()
    with nullcontext(own) if own is not None else _fetched(store, key, version) as path, path.open("rb") as file:
        return file_digest(file, sha256).hexdigest()


@contextmanager
def _fetched(store: ObjectStore, key: str, version: str) -> Iterator[Path]:
    with TemporaryDirectory(prefix="strongroom-") as folder:
        path = Path(folder) / "object"
        store.fetch(key, path, version)
        yield path
