"""A JSON body with damage in it: saving every record around the damage, and naming the damage.

Called only for bodies that are not sound as a whole: truncated uploads, flipped bytes, a log line between the JSON. The
aim, in order: no byte vanishes, no undamaged record is lost, no fragment of a damaged record passes for a record.

How it goes:

    1. Lines that begin with `{` and are sound on their own are *anchors*: records of NDJSON. (Unless what stands before
       or after says that they are elements of an array.) Nothing between two anchors can reach across one, so damage in
       NDJSON costs its own lines only.
    2. Between anchors, a scanner that knows only strings and brackets proposes where a value ends; what then proves
       sound is a document (pretty-printed or concatenated ones are found this way).
    3. A damaged document that opens a known container is taken apart into its elements by the same means. When damage
       hides or moves the end of an element, the next one is looked for where `},{` is followed by a key that began an
       element before: fragments from inside the damaged element do not begin so.
    4. The rest is broken, cut at line ends (those that a new document could follow) and where `}{` begins a sound one.

Hostile input must not cost quadratic time: all scanning draws on one budget, proportional to the body. When it is used
up the remaining damage is kept in larger pieces; anchors are found without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from strongroom.ingest.sources.documents import ARRAY, OBJECT, Container, expand, surroundings
from strongroom.ingest.sources.source import Found, Split

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_SPACE = re.compile(rb"\s*+")
_SEPARATORS = re.compile(rb"[\s,]*+")
_STRUCTURE = re.compile(rb"[\s,\]}]*+")
_NEXT_PIECE = re.compile(rb"\n(?=[^\s}\],])|\}\s*(?=\{)")
_NEXT_ELEMENT = re.compile(rb"\}\s*,\s*(?=\{)")
_AFTER_ELEMENT = re.compile(rb"\s*(?:[{\]]|,\s*[{\]]|,?\s*\Z)")
_FIRST_KEY = re.compile(rb'\{\s*"[^"\\\n]{1,200}"')
_PARTNER = {b"}": b"{", b"]": b"["}
_OPEN = {b"[", b",", b":"}  # what an element of an array, or a member's value, stands behind
_CLOSE = {b"]", b",", b"}"}
_LOOKAHEAD = 4
_BUDGET_FACTOR = 4
_ANY: msgspec.json.Decoder[Any] = msgspec.json.Decoder(msgspec.Raw)
_DETAIL = re.compile(r"JSON is malformed: | \(byte \d+\)")  # reasons are to be counted, so they carry no offsets


def split(body: bytes, shape: bytes, containers: Sequence[Container]) -> Split:
    """The records of a damaged body. `shape` has its length and structure (see jsonsplit)."""
    return _Repair(body, shape, containers).split()


class _Repair:
    def __init__(self, body: bytes, shape: bytes, containers: Sequence[Container]) -> None:
        self.body = body
        self.shape = shape
        self.containers = containers
        self.found = Found()
        self.budget = _BUDGET_FACTOR * len(body) + 65_536

    def split(self) -> Split:
        at = 0
        for start, end in self._anchors():
            self._region(at, start)
            self._document(start, end)
            at = end
        self._region(at, len(self.shape))
        return self.found.split()

    # ── step 1 ──

    def _anchors(self) -> Iterator[tuple[int, int]]:
        """Spans of the lines that begin with `{` and are one sound value on their own."""
        at = 0
        before = b""
        while at < len(self.shape):
            end = self.shape.find(b"\n", at)
            end = len(self.shape) if end < 0 else end
            line = self.shape[at:end].rstrip()
            if line.startswith(b"{") and before not in _OPEN and self._fault(at, at + len(line)) is None:
                after = _end(_SPACE, self.shape, end, len(self.shape))
                if self.shape[after : after + 1] not in _CLOSE:
                    yield at, at + len(line)
            before = line[-1:] or before
            at = end + 1

    # ── steps 2 to 4 ──

    def _region(self, at: int, end: int) -> None:
        """Everything in [at, end), which holds no anchor."""
        while not _STRUCTURE.fullmatch(self.shape, at, end):
            at = _end(_SPACE, self.shape, at, end)
            value_end = self._value_end(at, end)
            if value_end is not None and self._stands_alone(at, value_end, end):
                self._document(at, value_end)
                at = value_end
                continue
            opened = self._container_at(at, end)
            at = self._elements(at, end, *opened) if opened else self._broken_piece(at, end)

    def _broken_piece(self, at: int, end: int) -> int:
        """Cut one broken piece off; returns where the next one begins."""
        stop = following = end
        for match in _NEXT_PIECE.finditer(self.shape, at + 1, end):
            candidate = match.end()
            if match.group() == b"\n":
                stop, following = match.start(), candidate
                break
            # `}{` may stand in a string of the damaged document: only a sound document ends the piece.
            value_end = self._value_end(candidate, end)
            if value_end is not None and self._stands_alone(candidate, value_end, end):
                stop, following = match.start() + 1, candidate
                break
        self._broken(at, stop)
        return following

    def _stands_alone(self, at: int, value_end: int, end: int) -> bool:
        """Is this a sound document, and not the sound beginning of a damaged one?"""
        follows = self.shape[value_end : min(value_end + 1, end)]
        return (follows in b"{[" or follows.isspace()) and self._fault(at, value_end) is None

    # ── step 3: containers ──

    def _container_at(self, at: int, end: int) -> tuple[int, Container | None] | None:
        """The offset of the array of records which the damaged document at `at` opens, and the container it is.

        An array of documents, without a name, has no container.
        """
        if self.shape[at] == ARRAY:
            return at, None
        if self.shape[at] != OBJECT:
            return None
        wanted = {c.path: c for c in self.containers if c.many}
        deepest = max(map(len, wanted), default=0)
        path: list[bytes] = []
        name = b""
        for token in self._tokens(at, end):
            mark = token.group()
            if mark in b"{[":
                path.append(name)
                if mark == b"[" and len(path) <= deepest + 1:
                    known = wanted.get(tuple(part.decode("utf-8", "replace") for part in path[1:]))
                    if known is not None:
                        return token.start(), known
            elif mark in b"]}":
                path.pop()
                if not path:
                    return None
            else:
                name = mark[1:-1]
        return None

    def _elements(self, start: int, end: int, opening: int, kind: Container | None) -> int:
        """Take the damaged document at `start` apart, whose array opens at `opening`; returns where it ends."""
        begins: set[bytes] = set()
        pieces: list[tuple[int, int, str | None]] = []
        at = opening + 1
        closed = False
        while True:
            at = _end(_SEPARATORS, self.shape, at, end)
            if at >= end:
                break
            if self.shape[at] == ord("]"):
                at, closed = at + 1, True
                break
            own = _FIRST_KEY.match(self.shape, at, end)
            if own:
                begins.add(own.group())
            stop = self._element_end(at, end, begins, 0 if kind is None else len(kind.path))
            pieces.append((at, stop, self._fault(at, stop)))
            at = stop
        context, at = self._rest(start, opening, at, end, kind) if closed else (None, at)
        if not closed and kind is not None:
            context = surroundings(self.body[start:opening], b"}" * len(kind.path), kind)
        if context is not None and not any(fault is None and self.shape[f] == OBJECT for f, _, fault in pieces):
            self._broken(start, at, next((fault for _, _, fault in pieces if fault), None))
            return at
        for first, stop, fault in pieces:
            if fault is not None:
                self._broken(first, stop, fault)
            elif kind is None:
                self._document(first, stop)
            elif self.shape[first] == OBJECT:
                self.found.record(self.body[first:stop], context)
            else:
                self.found.damaged(self.body[first:stop], "not a JSON object")
        return at

    def _element_end(self, at: int, end: int, begins: set[bytes], depth: int) -> int:
        """Where the element at `at` ends: by its brackets, else where the next element begins, else at the end.

        `depth`: how many objects lie around the array.
        """
        stop = self._value_end(at, end)
        if stop is not None:
            if self._fault(at, stop) is None and _AFTER_ELEMENT.match(self.shape, stop, end):
                return stop
            if self._neighbour(at, stop, begins) is None and self._plausible(stop, end, begins, depth):
                return stop
        neighbour = self._neighbour(at, end, begins)
        return at + len(self.shape[at:end].rstrip()) if neighbour is None else neighbour

    def _plausible(self, at: int, end: int, begins: set[bytes], depth: int) -> bool:
        """Can a damaged element end at `at`? Damage to a bracket moves the end; what follows then makes no sense."""
        for _ in range(_LOOKAHEAD):
            at = _end(_SPACE, self.shape, at, end)
            mark = self.shape[at : at + 1]
            if mark == b"]":
                return self._neighbour(at, end, begins) is None and self._closes(at + 1, end, depth)
            if mark != b",":
                return False
            at = _end(_SPACE, self.shape, at + 1, end)
            key = _FIRST_KEY.match(self.shape, at, end)
            if key and key.group() in begins:
                return True
            stop = self._value_end(at, end)
            if stop is None or self._fault(at, stop) is not None:
                return False
            at = stop
        return True

    def _closes(self, at: int, end: int, depth: int) -> bool:
        """Can the array have ended before `at`? Not when the document around it then ends too early, in front of
        brackets nobody opened: the bracket belonged to the damaged element."""
        stop = self._value_end(at, end, depth) if depth else at
        if stop is None:
            return True
        after = _end(_SPACE, self.shape, stop, end)
        return self.shape[after : after + 1] not in _CLOSE

    def _neighbour(self, at: int, end: int, begins: set[bytes]) -> int | None:
        """Where the damaged element at `at` stops because something that looks like its neighbour follows."""
        position = at
        for match in _NEXT_ELEMENT.finditer(self.shape, at + 1, end):
            self.budget -= match.end() - position
            position = match.end()
            if self.budget < 0:
                return None
            key = _FIRST_KEY.match(self.shape, match.end(), end)
            if key and key.group() in begins:
                return match.start() + 1
        self.budget -= end - position
        return None

    def _rest(
        self, start: int, opening: int, closing: int, end: int, kind: Container | None
    ) -> tuple[bytes | None, int]:
        """What surrounds the array [opening, closing) in its document, and where that document ends."""
        if kind is None:
            return None, closing
        stop = self._value_end(closing, end, depth=len(kind.path))
        document_end = closing if stop is None else stop
        return surroundings(self.body[start:opening], self.body[closing:document_end], kind), document_end

    # ── reading ──

    def _document(self, start: int, end: int) -> None:
        exact = self.body[start:end]
        shape = exact if self.body is self.shape else self.shape[start:end]
        expand(exact, shape, self.containers, self.found)

    def _broken(self, start: int, end: int, reason: str | None = None) -> None:
        raw = self.body[start:end].strip()
        if raw:
            self.found.damaged(raw, reason or self._fault(start, end) or "not a JSON object")

    def _fault(self, start: int, end: int) -> str | None:
        """Why [start, end) is not one sound value; None when it is."""
        try:
            _ANY.decode(self.shape[start:end])
        except RecursionError:
            return "nested too deeply to be read"
        except msgspec.DecodeError as error:
            return "not valid JSON: " + _DETAIL.sub("", str(error)).lower()
        return None

    def _value_end(self, at: int, end: int, depth: int = 0) -> int | None:
        """Where the object or array at `at` closes, by strings and brackets alone; None when it does not.

        With a `depth`, `at` lies inside so many open ones, and the outermost is meant.
        """
        open_ = [b"{"] * depth
        for token in self._tokens(at, end):
            mark = token.group()
            if mark in b"{[":
                open_.append(mark)
            elif mark in b"]}":
                if not open_ or open_.pop() != _PARTNER[mark]:
                    return None
                if not open_:
                    return token.end()
            if not open_:
                return None  # a string on its own
        return None

    def _tokens(self, at: int, end: int) -> Iterator[re.Match[bytes]]:
        """Strings and brackets from `at` on, as far as the budget lasts."""
        position = at
        for token in _TOKEN.finditer(self.shape, at, end):
            self.budget -= token.end() - position
            position = token.end()
            if self.budget < 0:
                return
            yield token


def _end(pattern: re.Pattern[bytes], data: bytes, at: int, end: int) -> int:
    """Where a pattern that may match nothing ends."""
    match = pattern.match(data, at, end)
    return match.end() if match else at
