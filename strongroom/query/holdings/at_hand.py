"""From the segments chosen for a question to the files it reads: folds where there are any, else the segments' own.

All of them were checked, and stay as long as the question needs them. A segment that is stored here is held against its
entry also where a fold stands for it, so that a question is refused for a damaged archive whatever else lies on this
machine; where the archive is elsewhere, a fold makes the segments' copies unnecessary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from strongroom.query.errors import IntegrityFailure
from strongroom.query.holdings.cache import SegmentCache, Shape
from strongroom.query.holdings.catalog import Catalog
from strongroom.query.holdings.folds import Folds, folded_files
from strongroom.query.holdings.segments import Segment, bits_of, numbers_of
from strongroom.query.views import Files


@dataclass(frozen=True, slots=True)
class AtHand:
    """What the view of each source reads. Segments' own files are under `root`, the folder of object names."""

    root: Path
    files: dict[str, list[Files]]


class Provider:
    """Provides files. `text`: the segments known to hold nothing but valid UTF-8. `everything`: all files are here."""

    def __init__(
        self, catalog: Catalog, cache: SegmentCache, folds: Folds, text: Callable[[], int], *, everything: bool
    ) -> None:
        self._catalog, self._cache, self._folds, self._text = catalog, cache, folds, text
        self._everything = everything
        self._fetched = 0

    def here(self) -> int:
        """The segments whose own files are here, as a choice: all, or those that questions fetched."""
        known = (1 << len(self._catalog.table)) - 1
        return known if self._everything else known & self._fetched

    async def provide(self, chosen: int, segments: Sequence[Segment], until: ExitStack) -> AtHand:
        """The files of the chosen segments, held until `until` is closed. `segments`: the same, in order.

        Raises IntegrityFailure, StoreUnavailable.
        """
        numbered = dict(zip(numbers_of(chosen), segments, strict=True))
        folds = until.enter_context(self._folds.reading(chosen, self._catalog.gone(self._catalog.size)))
        folded = bits_of(number for fold in folds for number in fold.about.numbers)
        alone = {number: numbered[number] for number in numbers_of(chosen & ~folded)}
        until.enter_context(self._cache.holding([*alone.values()]))
        paths = await asyncio.to_thread(
            self._checked, [*alone.values()], [numbered[number] for number in numbers_of(folded)]
        )
        first = next(iter(alone.values()), None)
        root = Path("/") if first is None else Path(paths[0].as_posix().removesuffix(first.key))
        files = folded_files(folds)
        for source, found in self._own_files(alone, paths).items():
            files.setdefault(source, []).extend(found)
        self._fetched |= chosen & ~folded
        return AtHand(root, files)

    def _checked(self, alone: Sequence[Segment], folded: Sequence[Segment]) -> list[Path]:
        """The files of the segments that are read alone; those that folds stand for are vouched for."""
        paths = self._cache.ensure(alone)
        try:
            self._cache.vouch(folded)
        except IntegrityFailure as failure:
            number = self._catalog.table.number(failure.segment)
            self._folds.drop(0 if number is None else 1 << number)
            raise
        return paths

    def _own_files(self, segments: Mapping[int, Segment], paths: Sequence[Path]) -> dict[str, list[Files]]:
        text, groups = self._text(), dict[str, dict[tuple[Shape, bool], list[Path]]]()
        for (number, segment), path in zip(segments.items(), paths, strict=True):
            alike = self._cache.shape(segment), bool(text >> number & 1)
            groups.setdefault(segment.source, {}).setdefault(alike, []).append(path)
        return {
            source: [Files(shape.names, shape.forms, found, plain) for (shape, plain), found in shapes.items()]
            for source, shapes in groups.items()
        }
