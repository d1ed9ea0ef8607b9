"""What must hold for an entry to follow the entries before it. A state machine over stored bytes, free of IO.

Rules, in the order they are checked (docs/format.md §4):

1. The bytes decode as a canonical entry.
2. `index` is the entry's place, `origin` the log's.
3. `prev` is the SHA-256 of the bytes of the entry before; for index 0, of archive.json.
4. A writer's ranges are contiguous: within an epoch each range starts where the last one ended; the parts of one
   commit follow one another; a later epoch starts at 0; an earlier epoch never returns.

The log and the signer refuse to go on at the first violation. Verification notes it and goes on, and after damage it
lets the writers' ranges start afresh, so that one changed byte is reported once and not as all that follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.archive import entry as entries
from strongroom.archive.entry import Entry, WriterRange
from strongroom.archive.errors import FormatError


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule an entry breaks: the finding code, what was expected, what was found."""

    code: str
    expected: str
    actual: str


@dataclass(frozen=True, slots=True)
class _Position:
    """Where a writer stands: the epoch, the next batch number, and the commit under way if it has several parts."""

    epoch: int
    next: int
    unfinished: WriterRange | None


class Chain:
    """Follows a log entry by entry."""

    def __init__(self, origin: str, identity: bytes) -> None:
        """`identity`: the stored bytes of archive.json, which entry 0 commits to."""
        self.origin = origin
        self.size = 0
        self.prev = entries.digest(identity)
        self._writers: dict[str, _Position] = {}
        self._damaged = False

    def follow(self, data: bytes) -> tuple[Entry | None, list[Violation]]:
        """Take the next entry's stored bytes and say which rules it breaks.

        The state always moves on by one. The entry is None when nothing can be decoded.
        """
        index, expected_prev = self.size, self.prev
        self.size += 1
        self.prev = entries.digest(data)
        try:
            entry = entries.decode(data)
        except FormatError as error:
            self._lose_track()
            return None, [Violation("ENTRY_NOT_CANONICAL", "a canonical entry", error.message)]
        if (entry.index, entry.origin) != (index, self.origin):
            self._lose_track()
            return entry, [
                Violation(
                    "ENTRY_OUT_OF_PLACE", f"entry {index} of {self.origin}", f"entry {entry.index} of {entry.origin}"
                )
            ]
        violations = []
        if expected_prev and entry.prev != expected_prev:
            violations.append(Violation("ENTRY_CHAIN", expected_prev, entry.prev))
            self._lose_track()  # what the entry before said of its writer may be what was changed
        if entry.writer is not None:
            violations += self._follow_writer(entry.writer)
        return entry, violations

    def skip(self, index: int) -> None:
        """There are no entries up to `index`: go on there, without knowing what its `prev` should be."""
        self.size = index
        self.prev = ""
        self._lose_track()

    def copy(self) -> Chain:
        """The same state, to try an entry on before it is committed."""
        twin = Chain(self.origin, b"")
        twin.size, twin.prev, twin._damaged = self.size, self.prev, self._damaged
        twin._writers = dict(self._writers)
        return twin

    def next_of(self, writer: str) -> tuple[int, int] | None:
        """(epoch, next batch number) of a writer, None when the log does not know it."""
        position = self._writers.get(writer)
        return None if position is None else (position.epoch, position.next)

    def _lose_track(self) -> None:
        self._damaged = True
        self._writers.clear()

    def _follow_writer(self, new: WriterRange) -> list[Violation]:
        known = self._writers.get(new.id)
        self._writers[new.id] = _Position(new.epoch, new.last + 1, None if new.complete else new)
        if known is None:
            # After damage the writer's history is unknown; in a sound log an unknown writer starts at 0.
            return (
                []
                if self._damaged
                else _expect(f"{new.id}: epoch ≥ 1 from batch 0", new, new.first == 0 and new.part == 1)
            )
        if new.epoch > known.epoch:
            return _expect(f"{new.id}: epoch {new.epoch} from batch 0", new, new.first == 0 and new.part == 1)
        if new.epoch < known.epoch:
            return [Violation("WRITER_OVERLAP", f"{new.id}: epoch {known.epoch} or later", _say(new))]
        if known.unfinished is not None:
            before = known.unfinished
            follows = (new.first, new.last, new.parts, new.part) == (
                before.first,
                before.last,
                before.parts,
                before.part + 1,
            )
            return _expect(
                f"{new.id}: part {before.part + 1} of {before.parts} of {before.first}..{before.last}", new, follows
            )
        code = "WRITER_OVERLAP" if new.first < known.next else "WRITER_GAP"
        return _expect(f"{new.id}: from batch {known.next}", new, new.first == known.next and new.part == 1, code)


def _expect(expected: str, found: WriterRange, holds: bool, code: str = "WRITER_GAP") -> list[Violation]:
    return [] if holds else [Violation(code, expected, _say(found))]


def _say(found: WriterRange) -> str:
    part = f", part {found.part} of {found.parts}" if found.parts > 1 else ""
    return f"{found.id}: epoch {found.epoch}, batches {found.first}..{found.last}{part}"
