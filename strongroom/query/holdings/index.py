"""Which segments can hold a value: a local index of the entities in them, derived, rebuildable, sound.

A *run* is one file: what it covers, then sorted 64-bit words, each the upper 40 bits of a value's hash and, in the
lower 24, the number of a segment that holds the value. A lookup is a binary search in a mapped file. Runs are written
once, merged when they are small and alike, and never changed.

Soundness: for a covered segment the index has every value of its source's entity columns, so a segment it does not
name for a value holds no row with it (two values may share a hash: then a segment is read in vain). A segment that no
run covers can hold anything. Numbers are positions in the catalog, which only grows; a run states the SHA-256 over the
digests of the segments it covers, and which columns it was made of, and is dropped when either is not so any more.
Its body has a checksum: a damaged run is deleted, and its segments are indexed again.

Beside the entities a segment has the mark BINARY when a record or a context in it is no valid UTF-8: the others' can be
read as text without a check of each.

The hash is the half of MD5 that DuckDB's `md5_number_lower` gives, because that is where the words are computed, in
the process that may read segments (worker.py). It needs no strength: who can choose values so that they collide can
make his own segments be read in vain.
"""

from __future__ import annotations

import os
import tempfile
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import md5, sha256
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from strongroom.query.holdings.segments import bits_of

FORMAT = "strongroom/index/2"
BINARY = ("form", "binary")
SEGMENT_BITS = 24
SEGMENT_MASK = (1 << SEGMENT_BITS) - 1
MAX_RUN_BYTES = 64 << 20
"""Runs are merged up to this size: a lookup looks into each run, merging reads and writes them whole."""
_SUFFIX = ".run"
_ALIGN = 8


class _Header(msgspec.Struct, frozen=True):
    """What a run is about. `columns`: source -> digest of the columns it was made of; `checksum`: of the body."""

    format: str
    segments: list[int]
    covered: str
    columns: dict[str, str]
    checksum: str
    words: int


_headers = msgspec.json.Decoder(_Header)


class _Run:
    """One file, mapped."""

    def __init__(self, path: Path, header: _Header, words: memoryview) -> None:
        self.path, self.header, self.words = path, header, words

    def find(self, prefix: int) -> list[int]:
        """Numbers of the segments that hold the value whose hash has the upper bits `prefix`."""
        found = []
        at = bisect_left(self.words, prefix)
        while at < len(self.words) and (word := self.words[at]) & ~SEGMENT_MASK == prefix:
            found.append(word & SEGMENT_MASK)
            at += 1
        return found


class EntityIndex:
    """The runs in one folder. Thread-safe; `digest` names a covered segment's bytes, `columns` a source's columns."""

    def __init__(
        self,
        folder: Path,
        *,
        digests: Callable[[Sequence[int]], list[str] | None],
        columns: Mapping[str, Mapping[str, Sequence[str]]],
        max_bytes: int,
    ) -> None:
        """`digests`: SHA-256 of the segments of these numbers, None when the catalog lacks one."""
        self._folder, self._digests, self._max_bytes = folder, digests, max_bytes
        self._columns = {source: columns_digest(kinds) for source, kinds in columns.items()}
        self._lock = threading.Lock()
        self._runs: list[_Run] = []
        self._covered = 0

    @property
    def covered(self) -> int:
        """The segments that the index knows, as a set of bits."""
        return self._covered

    @property
    def size(self) -> int:
        """Bytes of all runs."""
        return sum(8 * run.header.words for run in self._runs)

    @property
    def full(self) -> bool:
        """Whether nothing more should be added."""
        return self.size >= self._max_bytes

    def find(self, kind: str, values: Iterable[str]) -> int:
        """The segments that can hold one of the values, as bits: those that do, and those not covered are not in it."""
        found: set[int] = set()
        runs = self._runs
        for value in values:
            prefix = hashed(kind, value)
            for run in runs:
                found.update(run.find(prefix))
        return bits_of(found)

    def text(self) -> int:
        """The segments known to hold nothing but valid UTF-8."""
        return self._covered & ~self.find(BINARY[0], BINARY[1:])

    def load(self) -> None:
        """Take in the runs of an earlier process, after checking each; delete those that do not hold any more."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        for stray in self._folder.glob(".new-*"):
            stray.unlink(missing_ok=True)
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            run = self._opened(path)
            if run is None or bits_of(run.header.segments) & ~self._covered == 0:
                path.unlink(missing_ok=True)
            else:
                self._add(run)

    def add(self, segments: Mapping[int, str], words: Iterable[pa.Buffer | bytes]) -> None:
        """Keep the words of `segments` (number -> source), and merge runs that have become many. Raises OSError."""
        numbers = sorted(segments)
        body = _sorted(list(words))
        columns = {source: self._columns[source] for source in set(segments.values())}
        self._add(self._written(numbers, columns, body))
        while (pair := self._mergeable()) is not None:
            self._merge(*pair)

    def _mergeable(self) -> tuple[_Run, _Run] | None:
        """The two youngest runs, when the older is not much larger."""
        if len(self._runs) < 2:
            return None
        older, younger = self._runs[-2:]
        alike = older.header.words <= 2 * younger.header.words
        return (older, younger) if alike and 8 * (older.header.words + younger.header.words) <= MAX_RUN_BYTES else None

    def _merge(self, older: _Run, younger: _Run) -> None:
        numbers = sorted({*older.header.segments, *younger.header.segments})
        body = _sorted([run.words for run in (older, younger)])
        merged = self._written(numbers, older.header.columns | younger.header.columns, body)
        with self._lock:
            self._runs = [*self._runs[:-2], merged]
        for run in (older, younger):
            run.path.unlink(missing_ok=True)

    def _add(self, run: _Run) -> None:
        with self._lock:
            self._runs = [*self._runs, run]
            self._covered |= bits_of(run.header.segments)

    def _written(self, numbers: list[int], columns: dict[str, str], body: memoryview) -> _Run:
        """A new run's file. One that a crash leaves half written has another name and is deleted by `load`."""
        checksum = sha256(body).hexdigest()
        header = _Header(FORMAT, numbers, self._covering(numbers) or "", columns, checksum, len(body) // 8)
        encoded = msgspec.json.encode(header)
        encoded += b" " * (-(len(encoded) + _ALIGN) % _ALIGN)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        descriptor, name = tempfile.mkstemp(dir=self._folder, prefix=".new-")
        with os.fdopen(descriptor, "wb") as file:
            file.write(len(encoded).to_bytes(_ALIGN, "little") + encoded)
            file.write(body)
        path = self._folder / f"{sha256(encoded).hexdigest()[:32]}{_SUFFIX}"
        Path(name).replace(path)
        return _Run(path, header, _mapped(path, len(encoded) + _ALIGN))

    def _opened(self, path: Path) -> _Run | None:
        """A run of an earlier process; None unless everything about it is as it states."""
        with suppress(OSError, msgspec.DecodeError, ValueError, pa.ArrowException):
            with path.open("rb") as file:
                length = int.from_bytes(file.read(_ALIGN), "little")
                header = _headers.decode(file.read(length))
            current = all(self._columns.get(source) == digest for source, digest in header.columns.items())
            if header.format != FORMAT or not current or self._covering(header.segments) != header.covered:
                return None
            words = _mapped(path, length + _ALIGN)
            if len(words) == header.words and sha256(words).hexdigest() == header.checksum:
                return _Run(path, header, words)
        return None

    def _covering(self, numbers: Sequence[int]) -> str | None:
        digests = self._digests(numbers)
        return None if digests is None else sha256("\n".join(digests).encode()).hexdigest()


def hashed(kind: str, value: str) -> int:
    """The word of a value without its segment: as worker.py computes it in SQL."""
    digest = md5(f"{kind}:{value}".encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little") & ~SEGMENT_MASK


def words_sql(kinds: Mapping[str, Sequence[str]], columns: Mapping[str, str], file: str, number: int) -> str:
    """SQL for the words of one file, sorted: `columns` are those it has, with their types; `file` is read by it."""
    parts = []
    for kind, names in kinds.items():
        for name in names:
            if name in columns:
                quoted = '"' + name.replace('"', '""') + '"'
                value = f"unnest({quoted})" if columns[name].endswith("[]") else quoted
                parts.append(f"SELECT DISTINCT '{kind}:' || CAST({value} AS VARCHAR) AS v FROM {file}")  # noqa: S608
    binary = " OR ".join(f"({name} IS NOT NULL AND TRY(decode({name})) IS NULL)" for name in ("raw", "context"))
    parts.append(f"(SELECT '{BINARY[0]}:{BINARY[1]}' AS v FROM {file} WHERE {binary} LIMIT 1)")  # noqa: S608
    words = f"(md5_number_lower(v) & {(1 << 64) - 1 - SEGMENT_MASK}::UBIGINT) | {number}::UBIGINT"
    return f"SELECT DISTINCT {words} AS w FROM ({' UNION ALL '.join(parts)}) WHERE v IS NOT NULL ORDER BY w"  # noqa: S608


def columns_digest(kinds: Mapping[str, Sequence[str]]) -> str:
    """What an index of these columns is known by."""
    return sha256(msgspec.json.encode({kind: sorted(names) for kind, names in sorted(kinds.items())})).hexdigest()


def _sorted(parts: Sequence[pa.Buffer | bytes | memoryview]) -> memoryview:
    """All words of several bodies in one, sorted, each once."""
    arrays = [_words(pa.py_buffer(part)) for part in parts]
    joined = pa.concat_arrays(arrays) if arrays else pa.array([], pa.uint64())
    ordered = joined.take(pc.sort_indices(joined))
    return memoryview(ordered.buffers()[1] or b"").cast("B")[: 8 * len(ordered)]


def _words(buffer: pa.Buffer) -> pa.Array:
    return pa.Array.from_buffers(pa.uint64(), buffer.size // 8, [None, buffer])


def _mapped(path: Path, offset: int) -> memoryview:
    """The words of a file, in memory as they are needed."""
    if path.stat().st_size <= offset:
        return memoryview(b"").cast("Q")
    with pa.memory_map(str(path)) as file:
        whole = file.read_buffer()
    return memoryview(whole)[offset:].cast("Q")
