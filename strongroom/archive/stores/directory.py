"""An object store in a local directory: the embedded default.

A new object is written to `.tmp/`, fsynced, made read-only, and given its name with link(2), which fails when the name
is taken: that is create-if-absent, and no reader can see half an object. Then the folders that gained a name are
fsynced. A crash before the link leaves a file in `.tmp/` that no one reads; a crash after it leaves the object, whole.

This store makes tampering evident, not impossible: whoever administers the machine can change its files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from strongroom.archive import durable
from strongroom.archive.errors import ObjectExists, ObjectMissing, StoreUnavailable
from strongroom.archive.stores.store import ObjectInfo, checked_key

_TEMPORARY = ".tmp"


class DirectoryStore:
    """Objects as files under `root`. Several processes may use one directory at once."""

    def __init__(self, root: Path, *, create: bool = False) -> None:
        """Open the store. Raises StoreUnavailable when the directory is missing and `create` is not set."""
        self.root = root.absolute()
        if create:
            (self.root / _TEMPORARY).mkdir(parents=True, exist_ok=True, mode=0o750)
        elif not self.root.is_dir():
            raise StoreUnavailable(f"no archive directory {self.root}", hint="check the path")

    @property
    def description(self) -> str:
        """What this store is and what it can't promise."""
        return f"directory {self.root} (tamper-evident, not tamper-proof: its administrator can change files)"

    def create(self, key: str, content: bytes | Path, *, retain_until: datetime | None = None) -> ObjectInfo:
        """See ObjectStore.create. A `Path` on the same file system is linked, not copied: give it up afterwards."""
        target = self._path(key)
        try:
            self._make_folders(target.parent)
            with self._staged(content) as staged:
                os.link(staged, target)
                size = target.stat().st_size
            durable.sync_folder(target.parent)
        except FileExistsError:
            # Whoever adopts the object relies on its name, which its creator may not have made durable before a crash.
            durable.sync_folder(target.parent)
            raise ObjectExists(f"{key} exists") from None
        except OSError as error:
            raise StoreUnavailable(
                f"can't create {key}: {error.strerror}", hint="check space and permissions"
            ) from error
        return ObjectInfo(key, size)

    def get(self, key: str, version: str = "") -> bytes:
        """See ObjectStore.get."""
        with _reading(key):
            return self._path(key).read_bytes()

    def fetch(self, key: str, path: Path, version: str = "") -> None:
        """See ObjectStore.fetch."""
        with _reading(key), self._path(key).open("rb") as stored, path.open("xb") as copy:
            shutil.copyfileobj(stored, copy, 1 << 20)

    def head(self, key: str, version: str = "") -> ObjectInfo:
        """See ObjectStore.head."""
        with _reading(key):
            return ObjectInfo(key, self._path(key).stat().st_size)

    def list(self, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """See ObjectStore.list."""
        start = self.root / prefix.rpartition("/")[0]
        yield from (info for info in self._walk(start) if info.key.startswith(prefix) and info.key > start_after)

    def local_path(self, key: str) -> Path | None:
        """The object's file."""
        return self._path(key)

    def _walk(self, folder: Path) -> Iterator[ObjectInfo]:
        try:
            # A folder sorts by its name with the slash, as the names of the objects in it do.
            found = sorted(os.scandir(folder), key=lambda item: item.name + "/" * item.is_dir(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return
        for item in found:
            if item.is_dir(follow_symlinks=False):
                if not (folder == self.root and item.name == _TEMPORARY):
                    yield from self._walk(Path(item.path))
            else:
                key = Path(item.path).relative_to(self.root).as_posix()
                # A broken or looping link has no size to tell; it is still listed, so that verification reports it.
                with contextlib.suppress(FileNotFoundError):
                    yield ObjectInfo(key, item.stat(follow_symlinks=False).st_size)

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    @contextlib.contextmanager
    def _staged(self, content: bytes | Path) -> Iterator[Path]:
        """A durable, read-only file with `content`, in the store's file system; gone afterwards."""
        staged = self.root / _TEMPORARY / secrets.token_hex(12)
        try:
            if not (isinstance(content, Path) and _linked(content, staged)):
                with staged.open("xb") as file:
                    if isinstance(content, Path):
                        with content.open("rb") as origin:
                            shutil.copyfileobj(origin, file, 1 << 20)
                    else:
                        file.write(content)
            _make_durable(staged)
            yield staged
        finally:
            staged.unlink(missing_ok=True)

    def _make_folders(self, folder: Path) -> None:
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir(mode=0o750, exist_ok=True)
            durable.sync_folder(parent.parent)


def _linked(content: Path, staged: Path) -> bool:
    """Whether `content` got the second name `staged`.

    It can't across file systems, nor across two mounts of one file system (two container volumes), nor for a file of
    somebody else's.
    """
    try:
        os.link(content, staged)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK):
            return False
        raise
    return True


@contextlib.contextmanager
def _reading(key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ObjectMissing(f"no object {key}") from None
    except OSError as error:
        raise StoreUnavailable(f"can't read {key}: {error.strerror}") from error


def _make_durable(path: Path) -> None:
    path.chmod(0o440)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
