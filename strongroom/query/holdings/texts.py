"""Which segments can hold a text: a local index of the grams of their records, derived, rebuildable, sound.

A run (runs.py) holds one filter a segment (grams.py), end to end. A lookup goes through the filters of the segments in
question gram by gram, as far as segments are left, so that what is in few segments is known after a few bits of each.

Soundness: for a covered segment the filter has every gram of its records' text as views show it (`raw`), or lets
everything through: that is so where a record is no valid UTF-8, which views show otherwise than it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from strongroom.query.holdings import grams
from strongroom.query.holdings.runs import Content, Digests, Header, Run, Runs

FORMAT = "strongroom/index/text/1"


class _Filters(Run):
    """The filters of some segments. `layout`: the bytes of each, which are a power of two."""

    def __init__(self, path: Path, header: Header, body: memoryview) -> None:
        super().__init__(path, header, body)
        lengths = np.array(header.layout, np.int64)
        self._bytes = np.frombuffer(body, np.uint8)
        self._numbers = np.array(header.segments, np.int64)
        self._starts = np.cumsum(lengths) - lengths
        # A place in a table of 2^n bits is the upper n bits of a hash, so it is a shift to the right by 64 - n.
        self._shifts = np.array([65 - (8 * length).bit_length() for length in header.layout], np.uint64)

    def holding(self, hashes: NDArray[np.uint64], among: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The numbers of the segments `among` (a flag for each number) whose filters have all of the grams."""
        left = np.flatnonzero(among[self._numbers])
        for each in hashes:
            if not len(left):
                break
            places = (each >> self._shifts[left]).astype(np.int64)
            bits = self._bytes[self._starts[left] + (places >> 3)] >> (places & 7).astype(np.uint8)
            left = left[(bits & 1).astype(bool)]
        return self._numbers[left]

    def with_younger(self, younger: Self) -> Content:
        one, two = self.header, younger.header
        return Content([*one.segments, *two.segments], bytes(self.body) + bytes(younger.body), one.layout + two.layout)


class TextIndex:
    """The grams of segments' records, kept in one folder. Thread-safe."""

    def __init__(self, folder: Path, *, digests: Digests) -> None:
        self._runs = Runs(folder, _Filters, FORMAT, digests=digests)

    @property
    def covered(self) -> int:
        """The segments that the index knows, as a set of bits."""
        return self._runs.covered

    @property
    def size(self) -> int:
        """Bytes of all runs."""
        return self._runs.size

    def find(self, pieces: Iterable[str], among: int) -> int:
        """The covered segments `among` that can hold a record with all of the texts, as bits.

        `pieces` are texts that such a record contains, in small letters as grams.py knows them.
        """
        hashes, runs = grams.hashes(pieces), self._runs.all
        length = max((run.segments.bit_length() for run in runs), default=0) // 8 + 1
        among &= (1 << 8 * length) - 1
        flags = np.unpackbits(np.frombuffer(among.to_bytes(length, "little"), np.uint8), bitorder="little") > 0
        found = np.zeros(len(flags), np.uint8)
        for run in runs:
            if run.segments & among:
                found[run.holding(hashes, flags)] = 1
        return int.from_bytes(np.packbits(found, bitorder="little").tobytes(), "little")

    def load(self, *, tidy: bool = False) -> None:
        """Take in what other processes indexed, as far as it holds. `tidy`: delete what does not (runs.py)."""
        self._runs.load(tidy=tidy)

    def add(self, filters: Mapping[int, bytes]) -> None:
        """Keep the filters of segments (number -> filter). Raises ValueError for what is no filter, OSError."""
        lengths = [len(packed) for packed in filters.values()]
        if any(length.bit_count() != 1 for length in lengths):
            raise ValueError("a filter's length is a power of two")
        self._runs.add(Content(list(filters), b"".join(filters.values()), lengths), set())
