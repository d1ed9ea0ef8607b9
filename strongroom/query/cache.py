"""No byte is queried before its hash was checked.

A segment is checked, length and SHA-256 against its entry, the first time a query needs it. Where the store is local
the file is used in place; the check is remembered by (inode, length, mtime, ctime) and made anew when one of them
changes. Elsewhere, or where it is encrypted, the segment is fetched to the cache folder, checked (and opened) *before*
it gets its name there, and made read-only; the least recently used copies go when the folder outgrows its bound, but
never one that a running query holds. Copies that an earlier process left are checked once more before use; those of
encrypted segments are plain, no entry states their hash, so they are fetched anew.

A mismatch is IntegrityFailure: the query is refused as a whole, because an answer without the segment would look
complete. The cache never repairs and never deletes anything in the store.

What this cannot see: a change made by whoever can write the file between the check and the query reading it. Remembered
checks narrow that window to files whose ctime did not move; verification (archive/verify.py) does not rest on it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from strongroom.archive import layout
from strongroom.archive.contents import is_envelope
from strongroom.archive.envelope import FileFacts
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.rebuilding import Form
from strongroom.archive.segment import forms_of
from strongroom.archive.stores.store import ObjectStore
from strongroom.query.errors import IntegrityFailure
from strongroom.query.segments import Segment

Fetch = Callable[[Segment, Path], FileFacts]
"""Writes a segment's content to a new file, once it was found to be what the entry states (Contents.fetch)."""

_Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Shape:
    """What segments that read alike have in common: columns with their types, as text, and how records are rebuilt."""

    names: frozenset[str]
    columns: str
    forms: tuple[Form, ...]


class SegmentCache:
    """Checked files of segments. Thread-safe; its methods block."""

    def __init__(self, store: ObjectStore, directory: Path, *, fetch: Fetch, max_bytes: int, threads: int = 2) -> None:
        self._store, self._directory, self._max_bytes = store, directory, max_bytes
        self._fetch_from_store = fetch
        self._copied: dict[str, FileFacts] = {}  # what this process has fetched, as it must still be
        self._threads = threads
        self._lock = threading.Lock()
        self._checked: dict[str, _Stamp] = {}
        self._used: dict[str, float] = {}
        self._shapes: dict[str, Shape] = {}
        self._held: Counter[str] = Counter()

    @property
    def roots(self) -> list[Path]:
        """The folders that segment files may be in: all that a query's process needs to read of the archive.

        Made when missing: a process is walled in to folders that exist, also before the first segment is sealed.
        """
        local = self._store.local_path(layout.SEGMENTS.rstrip("/"))
        folders = [self._directory / layout.SEGMENTS, *([local] if local is not None else [])]
        for folder in folders:
            with suppress(OSError):  # a store that may only be read has what it has
                folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        return folders

    def path(self, segment: Segment) -> Path:
        """Where the segment's file is, or will be."""
        return self._own(segment) or self._directory / _name(segment)

    @contextmanager
    def holding(self, segments: Sequence[Segment]) -> Iterator[None]:
        """Keep the copies of `segments` from being evicted while the context lasts."""
        keys = [_name(segment) for segment in segments]
        with self._lock:
            self._held.update(keys)
            self._used.update(dict.fromkeys(keys, time.monotonic()))
        try:
            yield
        finally:
            with self._lock:
                self._held.subtract(keys)

    def ensure(self, segments: Sequence[Segment]) -> list[Path]:
        """The checked files of `segments`, in their order.

        Raises IntegrityFailure for the first that is missing or differs, StoreUnavailable when one can't be fetched.
        """
        paths = [self.path(segment) for segment in segments]
        unchecked = [
            (segment, path) for segment, path in zip(segments, paths, strict=True) if not self._known(segment, path)
        ]
        if unchecked:
            with ThreadPoolExecutor(self._threads) as pool:
                for _ in pool.map(lambda item: self._check(*item), unchecked):
                    pass
            self._evict()
        return paths

    def shape(self, segment: Segment) -> Shape:
        """The shape of a segment that `ensure` has let through."""
        return self._shapes[segment.key]

    def _known(self, segment: Segment, path: Path) -> bool:
        stamp = _stamp(path)
        return stamp is not None and self._checked.get(_name(segment)) == stamp

    def _own(self, segment: Segment) -> Path | None:
        """The stored file, where it is one and can be read as it is."""
        return None if is_envelope(segment.key) else self._store.local_path(segment.key)

    def _check(self, segment: Segment, path: Path) -> None:
        local = self._own(segment) is not None
        if not local and (not path.exists() or (is_envelope(segment.key) and _name(segment) not in self._copied)):
            self._fetch(segment, path)
        for _ in range(3):  # a file that changes while it is read is read again, then given up
            stamp = _stamp(path)
            if stamp is None:
                raise _failure(segment, "no such object")
            try:
                self._compare(segment, path)
            except IntegrityFailure:
                if not local:
                    path.unlink(missing_ok=True)  # a spoiled copy, not the store's object: the next query fetches anew
                raise
            self._shapes[segment.key] = _shape(segment, path)
            if stamp == _stamp(path):
                self._checked[_name(segment)] = stamp
                return
        raise _failure(segment, "bytes that change while they are read")

    def _fetch(self, segment: Segment, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        staged = self._directory / f".fetch-{secrets.token_hex(8)}"
        try:
            facts = self._fetch_from_store(segment, staged)
            staged.chmod(0o400)
            staged.replace(path)
            self._copied[_name(segment)] = facts
        except ObjectMissing:
            raise _failure(segment, "no such object") from None
        except FormatError as error:
            raise _failure(segment, error.message) from None
        finally:
            staged.unlink(missing_ok=True)

    def _compare(self, segment: Segment, path: Path) -> None:
        sound = FileFacts(segment.bytes, segment.sha256)
        if is_envelope(segment.key):
            sound = self._copied[_name(segment)]
        try:
            size = path.stat().st_size
            if size != sound.bytes:
                raise _failure(segment, f"{size} bytes", expected=f"{sound.bytes} bytes")
            with path.open("rb") as file:
                digest = file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _failure(segment, f"a file that can't be read: {error.strerror}") from error
        if digest != sound.sha256:
            raise _failure(segment, f"SHA-256 {digest}")

    def _evict(self) -> None:
        """Remove least recently used copies until the folder fits. Does nothing where the store is local."""
        folder = self._directory / layout.SEGMENTS
        if not folder.is_dir():
            return
        copies = {path.relative_to(self._directory).as_posix(): path for path in folder.rglob("*.parquet")}
        sizes = {key: path.stat().st_size for key, path in copies.items()}
        total = sum(sizes.values())
        with self._lock:
            for key in sorted(copies, key=lambda key: self._used.get(key, 0.0)):
                if total <= self._max_bytes:
                    return
                if self._held[key] <= 0:
                    self._checked.pop(key, None)
                    copies[key].unlink(missing_ok=True)
                    total -= sizes[key]


def _name(segment: Segment) -> str:
    """The name of a segment's copy, which is never encrypted."""
    return segment.key.removesuffix(layout.ENCRYPTED)


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _shape(segment: Segment, path: Path) -> Shape:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow.remove_metadata()
            return Shape(frozenset(schema.names), str(schema), forms_of(file))
    except (pa.ArrowException, OSError, FormatError) as error:
        raise _failure(segment, f"no readable segment: {error}") from error


def _failure(segment: Segment, actual: str, *, expected: str = "") -> IntegrityFailure:
    expected = expected or f"SHA-256 {segment.sha256}"
    return IntegrityFailure(
        f"segment {segment.key} (entry {segment.entry}) is not what was sealed: expected {expected}, found {actual}",
        hint="the query did not run; run `strongroom verify` to see what is affected",
        segment=segment.key,
        expected=expected,
        actual=actual,
    )
