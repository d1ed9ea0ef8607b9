"""Makes folds of small segments in the background, and larger folds of small folds. What a fold is: folds.py.

Segments, and folds, of one source that read alike (shape, and whether all is text) are a *family*. FAN pieces of a
family make a fold, FAN folds a larger one, until it is LARGE: then opening it costs little beside reading it. Pieces
are of one event date as far as that fills folds, so that a question about some days finds whole folds; what is left of
dates that are over is folded with its neighbours. So a query opens less than FAN files a family and size, and few more
at the edges of the time it asks about, where it falls back to smaller folds: those stay until the room is needed.

A segment is folded once its file is here, was checked, and is indexed, for the index says whether it is text. One
process at a time makes folds in a folder (a lock), of pieces that are held meanwhile; it is a child with the lowest
priority, walled in (process/fold_writer.py). When a fold can't be made its segments stay as they are.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import groupby

import msgspec
import structlog

from strongroom.archive import rebuilding
from strongroom.archive.errors import FormatError, StrongroomError
from strongroom.archive.locks import attempted
from strongroom.query.holdings.cache import SegmentCache, Shape
from strongroom.query.holdings.catalog import Catalog
from strongroom.query.holdings.folds import ABOUT, FORMAT, About, Fold, Folds, as_bytes
from strongroom.query.holdings.segments import Segment, bits_of, numbers_of
from strongroom.query.process.fold_maker import FoldMaker
from strongroom.query.process.fold_writer import Job

FAN = 16
LARGE_BYTES, LARGE_RECORDS = 16 << 20, 131_072
PAUSE_SECONDS = 60.0
"""Between looks: what came meanwhile is folded by one process, whose start costs as much as a small fold."""
LOOK_AT = 1_024
"""Segments that are taken up at once, the newest first."""

log = structlog.get_logger(__name__)

Family = tuple[str, Shape, bool]
"""Source, shape, and whether all records are text."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment or a fold that could be folded; `numbers` are of its segments, `date` is the latest of theirs."""

    what: Segment | Fold
    family: Family
    numbers: tuple[int, ...]
    date: str
    records: int
    bytes: int

    @property
    def small(self) -> bool:
        """Whether opening it costs much, compared with reading it."""
        return self.bytes < LARGE_BYTES and self.records < LARGE_RECORDS


def plan(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """Which of these to fold together, the newest first. All pieces in a run are of one family, and of one kind."""
    runs: list[list[Piece]] = []
    for _, alike in groupby(sorted(pieces, key=_kind), key=_kind):
        runs += _runs(sorted(alike, key=lambda piece: (piece.date, piece.numbers)))
    return sorted(runs, key=lambda run: -run[-1].numbers[-1])


def _kind(piece: Piece) -> tuple[str, int, bool, int]:
    source, shape, text = piece.family
    return source, hash(shape), text, _size_class(len(piece.numbers))


def _size_class(segments: int) -> int:
    """How often pieces were folded: 0 for segments; a fold of folds has FAN times as many."""
    count = 0
    while segments > 1:
        segments = -(-segments // FAN)
        count += 1
    return count


def _runs(ordered: list[Piece]) -> Iterator[list[Piece]]:
    left: list[Piece] = []
    newest = ordered[-1].date
    for date, same in groupby(ordered, key=lambda piece: piece.date):
        of_date = list(same)
        whole = len(of_date) // FAN * FAN
        yield from _cut(of_date[:whole])
        left += of_date[whole:] if date < newest else []
    yield from _cut(left[: len(left) // FAN * FAN])


def _cut(pieces: list[Piece]) -> Iterator[list[Piece]]:
    yield from (pieces[start : start + FAN] for start in range(0, len(pieces), FAN))


class Folder:
    """Folds what is worth folding. `start`, then `stop`; in between a thread of its own works."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        cache: SegmentCache,
        folds: Folds,
        indexed: Callable[[], int],
        text: Callable[[], int],
        here: Callable[[], int],
    ) -> None:
        """`indexed`, `text`: segments that the index knows, and those of them without a record that is no text.

        `here`: the segments whose files are here. All as choices.
        """
        self._catalog, self._cache, self._folds = catalog, cache, folds
        self._indexed, self._text, self._here = indexed, text, here
        self._passed = 0
        self._pieces: dict[int, Piece] = {}  # segments that wait for others of their family
        self._thread = ThreadPoolExecutor(1, "folding")
        self._task: asyncio.Task[None] | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin, on the running loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the process that makes a fold, and wait for the thread."""
        self._stopping.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)

    async def catch_up(self) -> None:
        """Fold everything that can be folded now. Raises StrongroomError, OSError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._catch_up)

    async def _run(self) -> None:
        while True:
            try:
                await self.catch_up()
            except (StrongroomError, OSError) as error:
                log.warning("folding failed", detail=str(error))
            await asyncio.sleep(PAUSE_SECONDS)

    def _catch_up(self) -> None:
        with attempted(self._folds.directory / "folding.lock") as alone:
            self._folds.look(alone=alone, stopping=self._stopping.is_set)
            self._folds.drop(self._catalog.gone(self._catalog.size))
            if alone:
                with FoldMaker([*self._cache.roots, self._folds.root], self._stopping) as maker:
                    while self._fold_some(maker):
                        pass

    def _fold_some(self, maker: FoldMaker) -> bool:
        """What can be folded as things stand; says whether anything was."""
        self._take_up()
        covered = self._folds.covered()
        waiting = [piece for number, piece in self._pieces.items() if not covered >> number & 1]
        some = False
        for run in plan([*waiting, *self._foldable()]):
            if self._stopping.is_set():
                return False
            if not self._folds.has_room(sum(piece.bytes for piece in run), run[-1].numbers[-1]):
                continue
            try:
                self._make(run, maker)
                some = True
            except (StrongroomError, OSError) as error:
                self._leave_out(run)
                if not self._stopping.is_set():
                    log.info("segments are not folded", source=run[0].family[0], detail=str(error))
        return some

    def _take_up(self) -> None:
        """Segments that came since: their files are checked, and they wait as pieces."""
        gone = self._catalog.gone(self._catalog.size)
        done = self._folds.covered() | self._passed | gone | bits_of(self._pieces)
        fresh = numbers_of(self._here() & self._indexed() & ~done)[-LOOK_AT:]
        if not fresh or not self._folds.has_room(LARGE_BYTES, fresh[-1]):
            return
        text = self._text()
        for number in reversed(fresh):
            segment = self._catalog.table[number]
            piece = None
            if segment.bytes < LARGE_BYTES and segment.records < LARGE_RECORDS and self._cache.has(segment):
                with suppress(StrongroomError):
                    with self._cache.holding([segment]):
                        self._cache.ensure([segment])
                    family = (segment.source, self._cache.shape(segment), bool(text >> number & 1))
                    piece = Piece(segment, family, (number,), segment.date, segment.records, segment.bytes)
            if piece is None:
                self._passed |= 1 << number
            else:
                self._pieces[number] = piece

    def _foldable(self) -> list[Piece]:
        """Folds that are small, and not in a larger one already."""
        pieces, passed = list[Piece](), as_bytes(self._passed)
        larger = bytearray(len(self._catalog.table) // 8 + 1)
        for made in self._folds.all():  # those of most segments first
            about = made.about
            if not made.among(larger) and not made.among(passed):
                family = (about.source, made.shape, about.text)
                piece = Piece(made, family, about.numbers, about.date, about.records, made.size)
                pieces += [piece] if piece.small else []
            here = larger[made.place]
            larger[made.place] = (int.from_bytes(here, "little") | made.mask).to_bytes(len(here), "little")
        return pieces

    def _leave_out(self, run: Sequence[Piece]) -> None:
        for piece in run:
            self._passed |= bits_of(piece.numbers)
            for number in piece.numbers:
                self._pieces.pop(number, None)

    def _make(self, run: Sequence[Piece], maker: FoldMaker) -> None:
        """Fold a run. Raises StrongroomError, OSError."""
        segments = [piece.what for piece in run if isinstance(piece.what, Segment)]
        folds = [piece.what for piece in run if isinstance(piece.what, Fold)]
        about = self._about(run)
        with ExitStack() as stack:
            stack.enter_context(self._cache.holding(segments))
            stack.enter_context(self._folds.holding(folds))
            files = [*self._cache.ensure(segments), *(made.path for made in folds)]
            root = files[0].as_posix().removesuffix(segments[0].key).rstrip("/") if segments else ""
            staged = self._folds.staged(secrets.token_hex(8))
            metadata = {ABOUT: msgspec.json.encode(about).decode()}
            try:
                digest = maker.make(Job([path.as_posix() for path in files], root, metadata), staged)
                self._cache.ensure(segments)  # what was read is what was checked
                self._folds.put(staged, digest, about)
            finally:
                staged.unlink(missing_ok=True)
        for number in about.numbers:
            self._pieces.pop(number, None)

    def _about(self, run: Sequence[Piece]) -> About:
        source, shape, text = run[0].family
        numbers = tuple(sorted(number for piece in run for number in piece.numbers))
        covered = self._folds.covering(numbers)
        if covered is None:
            raise FormatError("fold: of segments that nobody knows")
        return About(
            format=FORMAT,
            source=source,
            date=max(piece.date for piece in run),
            numbers=numbers,
            covered=covered,
            names=tuple(sorted(shape.names)),
            columns=shape.columns,
            forms=rebuilding.encode(shape.forms) if shape.forms else "",
            text=text,
            records=sum(piece.records for piece in run),
        )
