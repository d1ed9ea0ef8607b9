"""Whether the log's own objects are protected as their entries promise: entries, checkpoints and what belongs to them.

No entry names these objects one by one, so which promise binds each follows from its name: an entry's is its own, that
of a checkpoint, cosignature, timestamp or tile is the newest entry's under it, archive.json's is entry 0's. One request
an object, several at once; none is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from strongroom.archive import layout, tiles
from strongroom.archive.errors import FormatError, ObjectMissing, StoreUnavailable
from strongroom.archive.stores.store import LockingStore
from strongroom.archive.verification import safeguards
from strongroom.archive.verification.findings import Finding
from strongroom.archive.verification.safeguards import Expected

_AHEAD = 1000  # requests waiting at once


class LogLocks:
    """Looks at the log's objects in `store`.

    `expected`: index of an entry -> how the entry itself, and how the log's other objects of that index, should be
    protected. Objects of other indices are passed over.
    """

    def __init__(
        self, store: LockingStore, expected: Mapping[int, tuple[Expected, Expected]], now: datetime, threads: int
    ) -> None:
        self._store, self._expected, self._now, self._threads = store, expected, now, threads
        self.unread: list[str] = []
        self.looked = 0

    def check(self, keys: Iterable[str]) -> Iterator[Finding]:
        """What is wrong with the protection of these objects; names of other kinds are passed over."""
        wanted = [(key, index) for key in keys if (index := entry_of(key)) is not None and index in self._expected]
        with ThreadPoolExecutor(self._threads, "locks") as pool:
            for start in range(0, len(wanted), _AHEAD):
                for found in pool.map(self._look, wanted[start : start + _AHEAD]):
                    yield from found

    def _look(self, item: tuple[str, int]) -> list[Finding]:
        key, index = item
        self.looked += 1
        try:
            found = self._store.protection(key)
        except ObjectMissing:
            return []  # gone since it was listed; that it is missing is found where it is read
        except StoreUnavailable as error:
            self.unread.append(f"not read: {key}: {error.message}")
            return []
        itself, others = self._expected[index]
        expected = itself if key.startswith(layout.ENTRIES) else others
        return list(safeguards.judge(key, expected, found, self._now, index=index))


def entry_of(key: str) -> int | None:
    """The index of the entry whose promise binds an object of the log, None for any other name."""
    if key == layout.IDENTITY:
        return 0
    if (number := layout.index_of(key)) is not None:
        return number if key.startswith(layout.ENTRIES) else number - 1
    if (size := layout.size_of_statement(key)) is not None:
        return size - 1
    if key.startswith(layout.TILES):
        try:
            tile = tiles.parse_path(key.removeprefix(layout.TILES))
        except FormatError:
            return None
        if tile.level is None:
            return None
        return int((tile.number * tiles.TILE_WIDTH + tile.width) * tiles.TILE_WIDTH**tile.level - 1)
    return None
