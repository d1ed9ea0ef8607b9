"""Derived files that say which segments they were made of, and are believed only while that is so.

An index is a folder of *runs*. A run is written once, of some segments, and never changed; small ones are merged. Its
header states the SHA-256 over the digests of the segments it covers, what it was made by (their sources' columns, say),
and a checksum of its body. A run about which any of this is not so any more is deleted, and its segments are indexed
again. Segments are named by their numbers in the catalog, which only grows.

Of two runs being merged a crash may leave all three files: they say the same, and `load` drops what others cover.

Several processes may share a folder. They take turns at writing (indexing.py), and whoever has his turn takes in first
what the others have written, so that no segment is indexed twice. Runs that others merged meanwhile go on being read,
from files that have no name any more, until what replaced them is taken in.
"""

from __future__ import annotations

import os
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import msgspec
import pyarrow as pa

from strongroom.query.holdings.segments import bits_of

MAX_RUN_BYTES = 64 << 20
"""Runs are merged up to this size: a lookup looks into each run, merging reads and writes them whole."""
_ALIGN = 8

Digests = Callable[[Sequence[int]], list[str] | None]
"""SHA-256 of the segments of these numbers, None when the catalog lacks one."""


class Header(msgspec.Struct, frozen=True):
    """What a run is about. `made_of`: source -> digest of what its part was made by; `layout`: the body's parts."""

    format: str
    segments: list[int]
    covered: str
    made_of: dict[str, str]
    layout: list[int]
    checksum: str


_headers = msgspec.json.Decoder(Header)


@dataclass(frozen=True, slots=True)
class Content:
    """What a run holds, of `segments` in this order."""

    segments: Sequence[int]
    body: bytes | memoryview
    layout: Sequence[int] = ()


class Run(ABC):
    """One file, mapped. Kinds of index have runs of their own."""

    def __init__(self, path: Path, header: Header, body: memoryview) -> None:
        self.path, self.header, self.body = path, header, body
        self.segments = bits_of(header.segments)

    @abstractmethod
    def with_younger(self, younger: Self) -> Content:
        """What one run in place of the two has to hold."""


R = TypeVar("R", bound=Run)


class Runs(Generic[R]):
    """The runs of one index. Thread-safe: readers see the runs of one moment."""

    def __init__(
        self, folder: Path, kind: type[R], format: str, *, digests: Digests, made_by: Mapping[str, str] | None = None
    ) -> None:
        """`format` names the kind of index, ending in `/<version>`; `made_by`: see Header, as it is today."""
        self._folder, self._kind, self._format = folder, kind, format
        self._suffix = f".{format.split('/')[-2]}"
        self._digests, self._made_by = digests, made_by or {}
        self._lock = threading.Lock()
        self._runs: tuple[R, ...] = ()
        self._covered = 0

    @property
    def all(self) -> tuple[R, ...]:
        """The runs there are now. What is `covered` before is in them."""
        return self._runs

    @property
    def covered(self) -> int:
        """The segments that are in a run, as a set of bits."""
        return self._covered

    @property
    def size(self) -> int:
        """Bytes of all runs."""
        return sum(len(run.body) for run in self._runs)

    def load(self, *, tidy: bool = False) -> None:
        """Take in the runs that other processes have written, after checking each. Any number of times.

        `tidy`: delete those that do not hold any more, for whoever has his turn. Raises OSError.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        if tidy:
            for stray in self._folder.glob(f".new-*{self._suffix}"):
                stray.unlink(missing_ok=True)
        runs = list(self._runs)
        for path in sorted({*self._folder.glob(f"*{self._suffix}")} - {run.path for run in runs}):
            try:
                run = self._opened(path)
            except _Ahead:
                continue
            # What others merged into it is read in its place. Nothing else goes: what was covered once stays covered.
            rest = [] if run is None else [old for old in runs if old.segments & ~run.segments or old.path.exists()]
            if run is not None and run.segments & ~_union(rest):
                runs = [*rest, run]
            elif tidy:
                path.unlink(missing_ok=True)
        with self._lock:
            self._runs = tuple(runs)
            self._covered = _union(runs)

    def add(self, content: Content, sources: set[str]) -> None:
        """Keep one more run, of segments of these sources, and merge runs that have become many. Raises OSError."""
        made_of = {source: self._made_by[source] for source in sources if source in self._made_by}
        self._add(self._written(content, made_of))
        while (pair := self._mergeable()) is not None:
            self._merge(*pair)

    def _mergeable(self) -> tuple[R, R] | None:
        """The two youngest runs, when the older is not much larger."""
        if len(self._runs) < 2:
            return None
        older, younger = self._runs[-2:]
        alike = len(older.body) <= 2 * len(younger.body)
        return (older, younger) if alike and len(older.body) + len(younger.body) <= MAX_RUN_BYTES else None

    def _merge(self, older: R, younger: R) -> None:
        merged = self._written(older.with_younger(younger), older.header.made_of | younger.header.made_of)
        with self._lock:
            self._runs = (*self._runs[:-2], merged)
        for run in (older, younger):
            if run.path != merged.path:
                run.path.unlink(missing_ok=True)

    def _add(self, run: R) -> None:
        with self._lock:
            self._runs = (*self._runs, run)
            self._covered |= run.segments

    def _written(self, content: Content, made_of: dict[str, str]) -> R:
        """A new run's file. One that a crash leaves half written has another name and is deleted by `load`."""
        numbers, layout = list(content.segments), list(content.layout)
        checksum = sha256(content.body).hexdigest()
        header = Header(self._format, numbers, self._covering(numbers) or "", made_of, layout, checksum)
        encoded = msgspec.json.encode(header)
        encoded += b" " * (-(len(encoded) + _ALIGN) % _ALIGN)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        descriptor, name = tempfile.mkstemp(dir=self._folder, prefix=".new-", suffix=self._suffix)
        with os.fdopen(descriptor, "wb") as file:
            file.write(len(encoded).to_bytes(_ALIGN, "little") + encoded)
            file.write(content.body)
        path = self._folder / f"{sha256(encoded).hexdigest()[:32]}{self._suffix}"
        Path(name).replace(path)
        return self._kind(path, header, _mapped(path, len(encoded) + _ALIGN))

    def _opened(self, path: Path) -> R | None:
        """Another process's run; None unless everything about it is as it states. Raises _Ahead."""
        with suppress(OSError, msgspec.DecodeError, ValueError, pa.ArrowException):
            with path.open("rb") as file:
                length = int.from_bytes(file.read(_ALIGN), "little")
                header = _headers.decode(file.read(length))
            current = all(self._made_by.get(source) == made for source, made in header.made_of.items())
            if header.format != self._format or not current:
                return None
            covering = self._covering(header.segments)
            if covering is None:
                raise _Ahead
            if covering != header.covered:
                return None
            body = _mapped(path, length + _ALIGN)
            if sha256(body).hexdigest() == header.checksum:
                return self._kind(path, header, body)
        return None

    def _covering(self, numbers: Sequence[int]) -> str | None:
        digests = self._digests(numbers)
        return None if digests is None else sha256("\n".join(digests).encode()).hexdigest()


class _Ahead(Exception):
    """A run is of segments that this process has not heard of yet."""


def _union(runs: Sequence[Run]) -> int:
    covered = 0
    for run in runs:
        covered |= run.segments
    return covered


def digest_of(made_by: Any) -> str:
    """What runs made by this are known by: anything that has a form in JSON."""
    return sha256(msgspec.json.encode(made_by)).hexdigest()


def _mapped(path: Path, offset: int) -> memoryview:
    """The body of a file, in memory as it is needed."""
    if path.stat().st_size <= offset:
        return memoryview(b"")
    with pa.memory_map(str(path)) as file:
        whole = file.read_buffer()
    return memoryview(whole).cast("B")[offset:]
