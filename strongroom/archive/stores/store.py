"""The protocol between the archive and its storage. See the package docstring for the contract."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says about one object. `version` is "" where the store keeps no versions."""

    key: str
    bytes: int
    version: str = ""


class ObjectStore(Protocol):
    """A create-only store of named byte strings. Methods block; all are safe to call from several threads."""

    @property
    def description(self) -> str:
        """One line for people: what and where this store is, and what it can't promise."""
        ...

    def create(self, key: str, content: bytes | Path) -> ObjectInfo:
        """Make `content` (bytes, or a local file's content) durable as `key`.

        Raises ObjectExists when the name is taken, StoreUnavailable when the outcome is unknown.
        """
        ...

    def get(self, key: str) -> bytes:
        """The whole object. Raises ObjectMissing, StoreUnavailable."""
        ...

    def head(self, key: str) -> ObjectInfo:
        """Facts about the object without its content. Raises ObjectMissing, StoreUnavailable."""
        ...

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose name starts with `prefix` and sorts after `start_after`, in byte order of the names."""
        ...

    def local_path(self, key: str) -> Path | None:
        """The object's own file when the store is local (never to be written), None where it must be fetched."""
        ...
