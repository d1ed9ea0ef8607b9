"""Which segments can hold a value: a local index of the entities in them, derived, rebuildable, sound.

A run (runs.py) holds sorted 64-bit words, each the upper 40 bits of a value's hash and, in the lower 24, the number of
a segment that holds the value. A lookup is a binary search in a mapped file.

Soundness: for a covered segment the index has every value of its source's entity columns, so a segment it does not
name for a value holds no row with it (two values may share a hash: then a segment is read in vain). A segment that no
run covers can hold anything.

Beside the entities a segment has the mark BINARY when a record or a context in it is no valid UTF-8: the others' can be
read as text without a check of each.

The hash needs no strength: who can choose values so that they collide can make his own segments be read in vain.
Words are made in the process that may read segments (process/extraction.py).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from hashlib import md5
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from strongroom.query.holdings.runs import Content, Digests, Header, Run, Runs, digest_of
from strongroom.query.holdings.segments import bits_of

FORMAT = "strongroom/index/run/3"
BINARY = ("form", "binary")
SEGMENT_BITS = 24
SEGMENT_MASK = (1 << SEGMENT_BITS) - 1


class _Words(Run):
    """The words of some segments."""

    def __init__(self, path: Path, header: Header, body: memoryview) -> None:
        super().__init__(path, header, body)
        self.words = body.cast("Q")

    def find(self, prefix: int) -> list[int]:
        """Numbers of the segments that hold the value whose hash has the upper bits `prefix`."""
        found = []
        at = bisect_left(self.words, prefix)
        while at < len(self.words) and (word := self.words[at]) & ~SEGMENT_MASK == prefix:
            found.append(word & SEGMENT_MASK)
            at += 1
        return found

    def with_younger(self, younger: Self) -> Content:
        numbers = sorted({*self.header.segments, *younger.header.segments})
        return Content(numbers, _sorted([self.body, younger.body]))


class EntityIndex:
    """The entities of segments, kept in one folder. Thread-safe."""

    def __init__(self, folder: Path, *, digests: Digests, columns: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """`columns`: source -> kind -> its columns of that kind."""
        made_by = {
            source: digest_of({kind: sorted(names) for kind, names in sorted(kinds.items())})
            for source, kinds in columns.items()
        }
        self._runs = Runs(folder, _Words, FORMAT, digests=digests, made_by=made_by)

    @property
    def covered(self) -> int:
        """The segments that the index knows, as a set of bits."""
        return self._runs.covered

    @property
    def size(self) -> int:
        """Bytes of all runs."""
        return self._runs.size

    def find(self, kind: str, values: Iterable[str]) -> int:
        """The segments that can hold one of the values, as bits: those that do, and those not covered are not in it."""
        found: set[int] = set()
        runs = self._runs.all
        for value in values:
            prefix = hashed(kind, value)
            for run in runs:
                found.update(run.find(prefix))
        return bits_of(found)

    def text(self) -> int:
        """The segments known to hold nothing but valid UTF-8."""
        return self.covered & ~self.find(BINARY[0], BINARY[1:])

    def load(self, *, tidy: bool = False) -> None:
        """Take in what other processes indexed, as far as it holds. `tidy`: delete what does not (runs.py)."""
        self._runs.load(tidy=tidy)

    def add(self, segments: Mapping[int, str], words: Iterable[pa.Buffer | bytes]) -> None:
        """Keep the words of `segments` (number -> source). Raises OSError."""
        self._runs.add(Content(sorted(segments), _sorted(list(words))), set(segments.values()))


def hashed(kind: str, value: str) -> int:
    """The word of a value without its segment."""
    digest = md5(f"{kind}:{value}".encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little") & ~SEGMENT_MASK


def words(hashes: Iterable[int], number: int) -> bytes:
    """The words of a segment."""
    return array("Q", (each | number for each in hashes)).tobytes()


def _sorted(parts: Sequence[pa.Buffer | bytes | memoryview]) -> memoryview:
    """All words of several bodies in one, sorted."""
    arrays = [_words(pa.py_buffer(part)) for part in parts]
    joined = pa.concat_arrays(arrays) if arrays else pa.array([], pa.uint64())
    ordered = joined.take(pc.sort_indices(joined))
    return memoryview(ordered.buffers()[1] or b"").cast("B")[: 8 * len(ordered)]


def _words(buffer: pa.Buffer) -> pa.Array:
    return pa.Array.from_buffers(pa.uint64(), buffer.size // 8, [None, buffer])
