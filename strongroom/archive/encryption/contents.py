"""What entries name, as content: the one place that knows how to read it.

An object is fetched, compared with the SHA-256 its entry states, and, if its name says that it is an envelope, opened
with the archive's keys. The name decides, because the entry commits to it: an object that should be an envelope and is
not, or the other way round, is damage.

Where the store is local and the object is no envelope, `file` gives its own file, unread: whoever parses a segment
holds its records against the entry's roots, which is more. Everywhere else the file is a copy that is gone afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from strongroom.archive import layout
from strongroom.archive.encryption.encryption import Encryption
from strongroom.archive.encryption.envelope import FileFacts
from strongroom.archive.errors import FormatError
from strongroom.archive.segment import file_digest
from strongroom.archive.stores.copies import local_file
from strongroom.archive.stores.store import ObjectStore


class Reference(Protocol):
    """What an entry says of an object (entry.ObjectRef, entry.SegmentRef, and what is made from them)."""

    @property
    def key(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...


class Contents:
    """The contents of one archive's objects. Thread-safe; can be sent to another process when the store can."""

    def __init__(self, store: ObjectStore, encryption: Encryption) -> None:
        self.store, self.encryption = store, encryption

    def read(self, reference: Reference) -> bytes:
        """The content of an object an entry names.

        Raises ObjectMissing, FormatError when it is not what the entry states, StoreUnavailable, KeyWithheld.
        """
        stored = self.store.get(reference.key, reference.version)
        _compare(reference, len(stored), sha256(stored).hexdigest())
        return self.unseal(reference.key, stored)

    @contextmanager
    def file(self, reference: Reference) -> Iterator[Path]:
        """The content as a file that must not be written to, as long as the context lasts. Raises as `read` does."""
        if not is_envelope(reference.key):
            with local_file(self.store, reference.key, reference.version) as path:
                yield path
            return
        with TemporaryDirectory(prefix="strongroom-") as folder:
            path = Path(folder) / "content"
            self.fetch(reference, path)
            yield path

    def fetch(self, reference: Reference, path: Path) -> FileFacts:
        """Write the content to the new file `path`; its length and SHA-256. Raises as `read` does, OSError."""
        if is_envelope(reference.key):
            with local_file(self.store, reference.key, reference.version) as stored:
                _compare(reference, stored.stat().st_size, file_digest(stored))
                return self.encryption.open_file(reference.key, stored, path)
        self.store.fetch(reference.key, path, reference.version)
        try:
            _compare(reference, path.stat().st_size, file_digest(path))
        except FormatError:
            path.unlink()
            raise
        return FileFacts(reference.bytes, reference.sha256)

    def unseal(self, name: str, stored: bytes) -> bytes:
        """The content of stored bytes that need no comparing. Raises FormatError, KeyUnavailable, KeyWithheld."""
        return self.encryption.open_bytes(name, stored) if is_envelope(name) else stored

    def seal(self, name: str, content: bytes) -> bytes:
        """The bytes to store as `name`: an envelope if the name says so. Raises KeyUnavailable, KeyWithheld."""
        return self.encryption.seal_bytes(name, content) if is_envelope(name) else content


def is_envelope(name: str) -> bool:
    """Whether the object of that name is to be an envelope."""
    return name.endswith(layout.ENCRYPTED)


def _compare(reference: Reference, size: int, digest: str) -> None:
    if (size, digest) != (reference.bytes, reference.sha256):
        raise FormatError(
            f"{reference.key}: {size} bytes with SHA-256 {digest}, its entry states {reference.bytes} bytes with "
            f"SHA-256 {reference.sha256}",
            hint="run `strongroom verify`",
        )
