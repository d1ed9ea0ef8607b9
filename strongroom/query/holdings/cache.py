"""No byte is queried before its hash was checked.

A segment is checked, length and SHA-256 against its entry, the first time a query needs it. Where the store is local
the file is used in place; the check is remembered by (inode, length, mtime, ctime) and made anew when one of them
changes. Elsewhere, or where it is encrypted, the segment is fetched to the cache folder, several at once, checked (and
opened) *before* it gets its name there, and made read-only. The least recently used copies go when the folder outgrows
its bound, but never one that a running query holds, be it another process's (query/holdings/shelf.py).

Copies that an earlier process left are checked once more before use (`check`): by their hash ("hash"), or by their
stamp alone ("stat"), which trusts that nobody who can write to the folder means ill. The hash of an encrypted segment's
plain copy is stated by no entry; with "hash" it is fetched anew.

A mismatch is IntegrityFailure: the query is refused as a whole, because an answer without the segment would look
complete. The cache never repairs and never deletes anything in the store.

What this cannot see: a change made by whoever can write the file between the check and the query reading it. Remembered
checks narrow that window to files whose ctime did not move; verification (archive/verification/verify.py) does not rest
on it.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from strongroom.archive import layout
from strongroom.archive.encryption.contents import is_envelope
from strongroom.archive.encryption.envelope import FileFacts
from strongroom.archive.errors import FormatError, ObjectMissing, StoreUnavailable
from strongroom.archive.readahead import in_order
from strongroom.archive.rebuilding import Form
from strongroom.archive.segment import forms_of
from strongroom.archive.stores.store import ObjectStore
from strongroom.query.errors import IntegrityFailure
from strongroom.query.holdings.segments import Segment
from strongroom.query.holdings.shelf import STAGED, Copy, Shelf, Stamp, stamp_of

Fetch = Callable[[Segment, Path], FileFacts]
"""Writes a segment's content to a new file, once it was found to be what the entry states (Contents.fetch)."""

Check = Literal["hash", "stat"]

LOCAL_THREADS, REMOTE_THREADS = 2, 8
_TURNS = 64


@dataclass(frozen=True, slots=True)
class Shape:
    """What segments that read alike have in common: columns with their types, as text, and how records are rebuilt."""

    names: frozenset[str]
    columns: str
    forms: tuple[Form, ...]


class SegmentCache:
    """Checked files of segments. Thread-safe; its methods block."""

    def __init__(
        self,
        store: ObjectStore,
        directory: Path,
        *,
        fetch: Fetch,
        max_bytes: int,
        threads: int = REMOTE_THREADS,
        check: Check = "hash",
        in_place: bool = True,
    ) -> None:
        """`threads`: segments fetched at once. `check`: see above.

        `in_place`: use a local store's own files. Without it every segment has a copy, so that all files lie under one
        folder by their segments' names, also where only some are encrypted.
        """
        # Asking the store for a path costs more than looking at the file, and a question may need a thousand.
        self._in_place = in_place and store.local_path(layout.SEGMENTS.rstrip("/")) is not None
        self._store, self._directory, self._max_bytes = store, directory, max_bytes
        self._fetch_from_store = fetch
        self._trusts_stamps = check == "stat"
        self._threads = threads
        self._lock = threading.Lock()
        # One thread at a time for one segment: two queries that need it fetch it once.
        self._turns = tuple(threading.Lock() for _ in range(_TURNS))
        self._opened: Shelf | None = None
        self._reader: ThreadPoolExecutor | None = ThreadPoolExecutor(1, "ahead")
        self._checked: dict[str, tuple[Path, Stamp]] = {}
        self._copied: dict[str, FileFacts] = {}  # what this process has fetched, as it must still be
        self._shapes: dict[str, Shape] = {}

    def close(self) -> None:
        """Stop reading ahead, and let other processes evict what this one held."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

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
        return self._own(segment) or self._directory / segment.key

    @contextmanager
    def holding(self, segments: Sequence[Segment]) -> Iterator[None]:
        """Keep the copies of `segments` from being evicted while the context lasts."""
        copies = [segment.key for segment in segments if not self._is_own(segment)]
        if not copies:
            yield
            return
        with self._shelf.holding(copies):
            yield

    def ensure(self, segments: Sequence[Segment]) -> list[Path]:
        """The checked files of `segments`, in their order.

        Raises IntegrityFailure for the first that is missing or differs, StoreUnavailable when one can't be fetched.
        """
        paths, unchecked = list[Path](), list[tuple[Segment, Path]]()
        for segment in segments:
            path = self._known(segment)
            if path is None:
                path = self.path(segment)
                unchecked.append((segment, path))
            paths.append(path)
        copies = [segment for segment, _ in unchecked if not self._is_own(segment)]
        for _ in in_order(self._check, unchecked, threads=self._threads if copies else LOCAL_THREADS):
            pass
        if copies:
            self._shelf.evict()
        return paths

    def vouch(self, segments: Sequence[Segment]) -> None:
        """Those of `segments` that are stored here must be what was sealed, though they are read elsewhere.

        Raises IntegrityFailure for the first that is missing or differs.
        """
        self.ensure([segment for segment in segments if self._is_own(segment)])

    def has(self, segment: Segment) -> bool:
        """Whether the segment's file is here, checked or not."""
        return self.path(segment).exists()

    def ahead(self, segments: Sequence[Segment]) -> None:
        """Fetch these in the background, one at a time; what of it fails, fails again when it is needed.

        No more than a quarter of the folder's bound at once: what queries use now must not go for it.
        """
        room = self._max_bytes // 4
        for segment in segments:
            if not self._is_own(segment) and segment.bytes <= room and self._reader is not None:
                room -= segment.bytes
                self._reader.submit(self._fetch_ahead, segment)

    def _fetch_ahead(self, segment: Segment) -> None:
        with suppress(IntegrityFailure, StoreUnavailable, OSError), self.holding([segment]):
            self.ensure([segment])

    def shape(self, segment: Segment) -> Shape:
        """The shape of a segment that `ensure` has let through."""
        return self._shapes[segment.key]

    @property
    def _shelf(self) -> Shelf:
        """Where the copies are. Opened when the first one is asked for: a local store has none."""
        with self._lock:
            if self._opened is None:
                self._directory.mkdir(parents=True, exist_ok=True, mode=0o750)
                self._opened = Shelf(self._directory, self._max_bytes)
            return self._opened

    def _known(self, segment: Segment) -> Path | None:
        """The segment's file, if it was checked and has not changed since."""
        path, stamp = self._checked.get(segment.key, (None, None))
        return path if path is not None and stamp_of(path) == stamp else None

    def _is_own(self, segment: Segment) -> bool:
        """Whether the stored object is a file that can be read as it is."""
        return self._in_place and not is_envelope(segment.key)

    def _own(self, segment: Segment) -> Path | None:
        return self._store.local_path(segment.key) if self._is_own(segment) else None

    def _check(self, item: tuple[Segment, Path]) -> None:
        segment, path = item
        with self._turns[hash(segment.key) % _TURNS]:
            if self._known(segment) is not None:  # by another query, while this one waited
                return
            local = self._is_own(segment)
            if not local and not self._is_kept(segment, path):
                self._accept(segment, path, self._fetch(segment, path))
            else:
                self._must_be_sound(segment, path, local=local)

    def _is_kept(self, segment: Segment, path: Path) -> bool:
        """Whether there is a copy that `_must_be_sound` can judge."""
        name, stamp = segment.key, stamp_of(path)
        if stamp is None:
            return False
        if not is_envelope(segment.key):
            return True
        copy = self._shelf.get(name)
        if name not in self._copied and self._trusts_stamps and copy is not None and copy.stamp == stamp:
            self._copied[name] = FileFacts(stamp[1], copy.sha256)
        return name in self._copied

    def _must_be_sound(self, segment: Segment, path: Path, *, local: bool) -> None:
        for _ in range(3):  # a file that changes while it is read is read again, then given up
            stamp = stamp_of(path)
            if stamp is None:
                raise _failure(segment, "no such object")
            try:
                digest = self._compare(segment, path, stamp, local=local)
            except IntegrityFailure:
                if not local:
                    self._shelf.remove(segment.key)  # a spoiled copy, not the store's object: fetched anew next time
                raise
            self._shapes[segment.key] = _shape(segment, path)
            if stamp == stamp_of(path):
                self._checked[segment.key] = path, stamp
                if not local:
                    self._shelf.put(Copy(segment.key, digest, stamp))
                return
        raise _failure(segment, "bytes that change while they are read")

    def _accept(self, segment: Segment, path: Path, digest: str) -> None:
        """Take in a copy that was checked before it got its name."""
        stamp = stamp_of(path)
        if stamp is None:  # another process found no room for it; nobody held it
            raise _failure(segment, "a copy that is gone again")
        self._shapes[segment.key] = _shape(segment, path)
        self._shelf.put(Copy(segment.key, digest, stamp))
        self._checked[segment.key] = path, stamp

    def _fetch(self, segment: Segment, path: Path) -> str:
        """Fetch a copy and give it its name; its SHA-256 (hex)."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        staged = self._directory / f"{STAGED}{secrets.token_hex(8)}"
        try:
            facts = self._fetch_from_store(segment, staged)
            staged.chmod(0o400)
            staged.replace(path)
            self._copied[segment.key] = facts
            return facts.sha256
        except ObjectMissing:
            raise _failure(segment, "no such object") from None
        except FormatError as error:
            raise _failure(segment, error.message) from None
        finally:
            staged.unlink(missing_ok=True)

    def _compare(self, segment: Segment, path: Path, stamp: Stamp, *, local: bool) -> str:
        """The file's SHA-256 (hex), once it is what the entry states. Raises IntegrityFailure."""
        sound = FileFacts(segment.bytes, segment.sha256)
        if is_envelope(segment.key):
            sound = self._copied[segment.key]
        if stamp[1] != sound.bytes:
            raise _failure(segment, f"{stamp[1]} bytes", expected=f"{sound.bytes} bytes")
        if not local and self._trusts_stamps and self._shelf.get(segment.key) == Copy(segment.key, sound.sha256, stamp):
            return sound.sha256
        try:
            with path.open("rb") as file:
                digest = file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _failure(segment, f"a file that can't be read: {error.strerror}") from error
        if digest != sound.sha256:
            raise _failure(segment, f"SHA-256 {digest}")
        return digest


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
