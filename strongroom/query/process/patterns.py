"""Which texts must be in whatever a pattern matches: read from LIKE patterns and regular expressions. Pure.

What is read says less than the pattern does, never more. Of a LIKE pattern it is what stands between wildcards. Of a
regular expression, as RE2 (https://github.com/google/re2/wiki/Syntax) understands it, it is runs of plain characters,
also in groups and alternatives, that nothing makes optional; whatever is not known here for certain makes the whole
expression say nothing.

Who ignores case may mean other characters that are capitals of each other: then only ASCII is read (grams.py knows the
exceptions there). In regular expressions that is always so, because they may say `(?i)` anywhere.
"""

from __future__ import annotations

import re

from strongroom.query.holdings.conditions import Condition, Contains, every, some

MAX_LENGTH, MAX_DEPTH = 4096, 16
_OPTIONS = frozenset("cimnps")
_ASIDE = re.compile(r"[dDwWsSbBAz]")
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
_GROUP = re.compile(r"\?(?:P?<[A-Za-z_][A-Za-z0-9_]*>|[imsU-]*:)")
_FLAGS = re.compile(r"\?[imsU-]+\)")
_REPEATED = re.compile(r"(?:(?P<optional>[*?]|\{0+(?:,\d*)?\})|\+|\{\d+(?:,\d*)?\})\??")
_CLASS = re.compile(r"\^?\]?(?:\[:\^?[a-z]+:\]|\\.|[^\]\\])*\]", re.DOTALL)
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def contained(column: str, texts: list[str], *, ignoring_case: bool) -> Condition | None:
    """That `column` contains all of the texts."""
    pieces = [piece for text in texts for piece in (_NOT_ASCII.split(text) if ignoring_case else [text])]
    named = tuple(piece for piece in dict.fromkeys(pieces) if piece)
    return Contains(column, named) if named else None


def like(column: str, pattern: str, escape: str, *, ignoring_case: bool) -> Condition | None:
    """What `column LIKE pattern ESCAPE escape` says; "" escapes nothing."""
    pieces, piece, characters = [], "", iter(pattern)
    for character in characters:
        if escape and character == escape:
            piece += next(characters, "")
        elif character in "%_":
            pieces.append(piece)
            piece = ""
        else:
            piece += character
    return contained(column, [*pieces, piece], ignoring_case=ignoring_case)


def expression(column: str, pattern: str, options: str = "") -> Condition | None:
    """What `regexp_matches(column, pattern, options)` says."""
    if len(pattern) > MAX_LENGTH or not _OPTIONS.issuperset(options):
        return None
    try:
        reader = _Expression(column, pattern)
        found = reader.alternatives(0)
        return found if reader.at == len(pattern) else None
    except _NotKnownError:
        return None


class _NotKnownError(Exception):
    pass


class _Expression:
    """Reads one regular expression from the left."""

    def __init__(self, column: str, pattern: str) -> None:
        self._column, self._pattern = column, pattern
        self.at = 0

    def alternatives(self, depth: int) -> Condition | None:
        """Up to the end of the group, or of everything."""
        if depth > MAX_DEPTH:
            raise _NotKnownError
        branches = [self._sequence(depth)]
        while self._next() == "|":
            self.at += 1
            branches.append(self._sequence(depth))
        return some(branches)

    def _sequence(self, depth: int) -> Condition | None:
        parts: list[Condition | None] = []
        texts, text = [], ""
        while (character := self._next()) not in ("", "|", ")"):
            plain, inner = self._atom(character, depth)
            repeated = _REPEATED.match(self._pattern, self.at)
            if repeated:
                self.at = repeated.end()
                if _REPEATED.match(self._pattern, self.at):
                    raise _NotKnownError
            optional = repeated is not None and repeated["optional"] is not None
            if plain and not optional:
                text += plain
            if not plain or repeated:
                texts.append(text)
                text = ""
            if not optional:
                parts.append(inner)
        return every([*parts, contained(self._column, [*texts, text], ignoring_case=True)])

    def _atom(self, character: str, depth: int) -> tuple[str, Condition | None]:
        """The next thing that can be repeated: a plain character, or "" and what must be in it."""
        self.at += 1
        if character == "(":
            return "", self._group(depth)
        if character == "[":
            self._skip(_CLASS)
            return "", None
        if character == "\\":
            return self._escaped(), None
        if character in "*+?":
            raise _NotKnownError
        return ("" if character in ".^$" else character), None

    def _group(self, depth: int) -> Condition | None:
        if _FLAGS.match(self._pattern, self.at):
            self._skip(_FLAGS)
            return None
        if self._next() == "?":
            self._skip(_GROUP)
        inner = self.alternatives(depth + 1)
        if self._next() != ")":
            raise _NotKnownError
        self.at += 1
        return inner

    def _escaped(self) -> str:
        character = self._next()
        self.at += 1
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character and character.isascii() and not character.isalnum():
            return character
        if _ASIDE.match(character):
            return ""
        raise _NotKnownError

    def _next(self) -> str:
        return self._pattern[self.at : self.at + 1]

    def _skip(self, what: re.Pattern[str]) -> None:
        found = what.match(self._pattern, self.at)
        if not found:
            raise _NotKnownError
        self.at = found.end()
