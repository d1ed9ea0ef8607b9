"""Many small segments in one larger file: what folds there are, and which of them a query can read.

Sealing often makes small segments, and opening a file costs a query more than reading a small one. A *fold* is a local
file with all columns of some segments of one source and, beside each row, its address (`_segment`, `_row`): whatever is
found through it leads to the locked original and its proof. It is derived: the originals never change, and a fold may
be deleted at any time. folding.py makes them.

* A fold is made of checked bytes only. It is known by its SHA-256, which is on the shelf (shelf.py) beside it: one that
  an earlier process left is held against it, or against its stamp, before any query reads it (the setting is the
  cache's); a damaged one is deleted.
* A query reads a fold only in place of segments that were all chosen for it; so what an answer says of its segments,
  snapshot and pruning is the same with folds and without. A segment that is stored here must still be what was sealed,
  also where a fold stands for it: the engine sees to that.
* A fold of a segment that was removed after its retention is read no more, for no snapshot, and deleted.
* It states the digests of its segments. Of another log, it is deleted.

Folds overlap where small ones were folded again; a query takes the largest it can.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from strongroom.archive import rebuilding
from strongroom.archive.errors import FormatError
from strongroom.query.holdings.cache import Check, Shape
from strongroom.query.holdings.segments import bits_of
from strongroom.query.holdings.shelf import STAGED, Copy, Shelf, Stamp, stamp_of
from strongroom.query.views import Files

FORMAT = "strongroom/fold/1"
ABOUT = "strongroom.fold"
"""Where a fold's footer says what it is."""
ADDRESS = ("_segment", "_row")
_FOLDER = "folds"
_NAMES = "files/"


class About(msgspec.Struct, frozen=True):
    """What a fold is of: the segments' numbers, ascending, and a digest over theirs; the rest they have in common.

    `columns`, `names`, `forms`: their shape. `text`: all records are known to be valid UTF-8. `date`: of the latest.
    """

    format: str
    source: str
    date: str
    numbers: tuple[int, ...]
    covered: str
    names: tuple[str, ...]
    columns: str
    forms: str
    text: bool
    records: int


msgspec.json.Decoder(About)  # learnt here: see archive/details.py
_abouts = msgspec.json.Decoder(About)


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold that may be read, as it was when it was checked.

    Its segments are the bits of `mask`, from byte `start` on of a choice of segments.
    """

    name: str
    path: Path
    about: About
    shape: Shape
    stamp: Stamp
    start: int
    mask: int

    @property
    def size(self) -> int:
        """Length of the file."""
        return self.stamp[1]

    @property
    def place(self) -> slice:
        """The bytes of a choice that its segments are in."""
        return slice(self.start, self.start + (self.mask.bit_length() + 7) // 8)

    def among(self, choice: bytes | bytearray) -> int:
        """Those of its segments that are in a choice, which is given as bytes (`as_bytes`)."""
        return int.from_bytes(choice[self.place], "little") & self.mask


def as_bytes(choice: int) -> bytes:
    """A choice of segments so that a fold can look at its place in it, however many there are."""
    return choice.to_bytes((choice.bit_length() + 7) // 8, "little")


class Folds:
    """The folds in a folder that any number of processes share. Thread-safe; methods block."""

    def __init__(
        self, directory: Path, *, max_bytes: int, check: Check, digests: Callable[[Sequence[int]], list[str] | None]
    ) -> None:
        """`max_bytes`: of all together, 0 for no folds. `digests`: SHA-256 of segments, None when one is unknown."""
        self.directory, self._max_bytes = directory / _FOLDER, max_bytes
        self._digests, self._trusts_stamps = digests, check == "stat"
        self._lock = threading.Lock()
        self._shelf: Shelf | None = None
        self._known: dict[str, Fold] = {}  # those of most segments first; replaced as a whole
        self._covered: int | None = None  # to be computed
        self._unwanted = 0

    @property
    def root(self) -> Path:
        """The folder that folds are in, for the processes that read them. Made when missing."""
        folder = self.directory / _NAMES
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        return folder

    def all(self) -> list[Fold]:
        """Those that may be read now."""
        return list(self._known.values())

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            shelf, self._shelf = self._shelf, None
            self._known = {}
        if shelf is not None:
            shelf.close()

    def look(self, *, alone: bool = False, stopping: Callable[[], bool] = lambda: False) -> None:
        """Take in what there is: folds that other processes made since, or earlier ones left. Forget what is gone.

        `alone`: nobody else is making one, so what is not written down was left behind by a crash. `stopping`: when
        true, the rest is left for another time. Raises OSError.
        """
        shelf = self._opened()
        shelf.evict()
        names = shelf.names()
        for name in self._known.keys() - set(names):
            self._forget(name)
        for name in reversed(names):
            if name in self._known or stopping():
                continue
            copy = shelf.get(name)
            if copy is not None and (copy.sha256 or alone):
                self._take_in(shelf, copy)

    @contextmanager
    def reading(self, chosen: int, gone: int) -> Iterator[list[Fold]]:
        """Folds to read in place of the segments they are of, all among `chosen` and none in two of them.

        They stay as long as the context lasts. None that has a segment of `gone`.
        """
        with ExitStack() as stack:
            while picked := self._pick(chosen, gone):
                shelf = self._shelf
                assert shelf is not None
                stack.enter_context(shelf.holding([fold.name for fold in picked]))
                changed = [fold for fold in picked if stamp_of(fold.path) != fold.stamp]
                if not changed:
                    break
                for fold in changed:  # to be judged by `look`, if it is still there
                    self._forget(fold.name)
                stack.pop_all().close()
            yield picked

    @contextmanager
    def holding(self, folds: Sequence[Fold]) -> Iterator[None]:
        """Keep folds from being evicted."""
        with self._opened().holding([fold.name for fold in folds]):
            yield

    def put(self, staged: Path, digest: str, about: About) -> Fold:
        """Take in a file that was just made. `digest`: its SHA-256 (hex). Raises FormatError, OSError."""
        if _about(staged) != about:
            raise FormatError("fold: not what was to be made")
        name = f"{_NAMES}{about.source}-{sha256(msgspec.json.encode(about)).hexdigest()[:32]}.parquet"
        path = self.directory / name
        staged.chmod(0o400)
        staged.replace(path)
        stamp = stamp_of(path)
        if stamp is None:
            raise FormatError("fold: gone again")
        shelf = self._opened()
        shelf.put(Copy(name, digest, stamp))
        fold = self._remember(name, path, about, stamp)
        shelf.evict()
        return fold

    def staged(self, token: str) -> Path:
        """A name for a file that is being made."""
        return self.directory / f"{STAGED}{token}"

    def has_room(self, size: int, newest: int) -> bool:
        """Whether a fold of that size, of segments up to number `newest`, should be made.

        When others would have to go for it, then only those of older segments: else the same would be made again and
        again.
        """
        shelf = self._opened()
        excess = shelf.size + size - self._max_bytes
        for name in shelf.names() if excess > 0 else []:
            fold = self._known.get(name)
            if fold is None or fold.about.numbers[-1] >= newest:
                return False
            excess -= fold.size
            if excess <= 0:
                return True
        return excess <= 0

    def drop(self, segments: int) -> None:
        """Read no fold of any of these segments any more, and delete those that nobody is reading, now or later."""
        self._unwanted |= segments
        unwanted = as_bytes(segments)
        for fold in self.all() if segments else []:
            if fold.among(unwanted):
                self._forget(fold.name)
                if self._shelf is not None:
                    self._shelf.discard(fold.name)

    def covered(self) -> int:
        """The segments that are in folds, as bits."""
        with self._lock:
            if self._covered is None:
                self._covered = bits_of(number for fold in self._known.values() for number in fold.about.numbers)
            return self._covered

    def covering(self, numbers: Sequence[int]) -> str | None:
        """What segments of these numbers are known by, None when one is not known."""
        digests = self._digests(numbers)
        return None if digests is None else sha256("\n".join(digests).encode()).hexdigest()

    def _opened(self) -> Shelf:
        with self._lock:
            if self._shelf is None:
                self._shelf = Shelf(self.directory, self._max_bytes, names=_NAMES)
            return self._shelf

    def _pick(self, chosen: int, gone: int) -> list[Fold]:
        count = chosen.bit_count()
        left, lost = bytearray(as_bytes(chosen)), as_bytes(gone)
        picked = []
        for fold in self._known.values():
            if len(fold.about.numbers) <= count and fold.among(left) == fold.mask and not fold.among(lost):
                here = left[fold.place]
                left[fold.place] = (int.from_bytes(here, "little") & ~fold.mask).to_bytes(len(here), "little")
                picked.append(fold)
        return picked

    def _take_in(self, shelf: Shelf, copy: Copy) -> None:
        """A fold that this process has not made: checked, then remembered; deleted when it is not what it should be."""
        path = self.directory / copy.name
        stamp = stamp_of(path)
        try:
            if stamp is None or not copy.sha256 or not self._is_sound(path, stamp, copy):
                raise FormatError("fold: damaged")
            about = _about(path)
            covering = self.covering(about.numbers)
            if covering is None:
                return  # of segments that this process has not heard of yet
            if about.format != FORMAT or covering != about.covered or stamp != stamp_of(path):
                raise FormatError("fold: of other segments")
            if bits_of(about.numbers) & self._unwanted:
                raise FormatError("fold: of a segment that is gone")
            self._remember(copy.name, path, about, stamp)
        except (FormatError, OSError):
            shelf.discard(copy.name)

    def _is_sound(self, path: Path, stamp: Stamp, copy: Copy) -> bool:
        if self._trusts_stamps:
            return stamp == copy.stamp
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest() == copy.sha256

    def _remember(self, name: str, path: Path, about: About, stamp: Stamp) -> Fold:
        shape = Shape(frozenset(about.names), about.columns, rebuilding.decode(about.forms) if about.forms else ())
        start = about.numbers[0] // 8
        mask = bits_of(number - 8 * start for number in about.numbers)
        fold = Fold(name, path, about, shape, stamp, start, mask)
        with self._lock:
            self._covered = None if self._covered is None else self._covered | mask << 8 * start
            known = {**self._known, name: fold}
            self._known = dict(sorted(known.items(), key=lambda item: -len(item[1].about.numbers)))
        return fold

    def _forget(self, name: str) -> None:
        with self._lock:
            self._covered = None
            self._known = {known: fold for known, fold in self._known.items() if known != name}


def folded_files(folds: Sequence[Fold]) -> dict[str, list[Files]]:
    """What the views of each source read of these."""
    alike: dict[tuple[str, Shape, bool], list[Path]] = {}
    for fold in folds:
        alike.setdefault((fold.about.source, fold.shape, fold.about.text), []).append(fold.path)
    found: dict[str, list[Files]] = {}
    for (source, shape, text), paths in alike.items():
        found.setdefault(source, []).append(Files(shape.names, shape.forms, paths, text, folded=True))
    return found


def _about(path: Path) -> About:
    """What a fold's file says it is. Raises FormatError when it says something else, or nothing."""
    with suppress(pa.ArrowException, OSError, KeyError, msgspec.DecodeError), pq.ParquetFile(path) as file:
        about = _abouts.decode((file.metadata.metadata or {})[ABOUT.encode()])
        if file.metadata.num_rows == about.records and {*about.names, *ADDRESS} == set(file.schema_arrow.names):
            return about
    raise FormatError(f"fold: {path.name} is none")
