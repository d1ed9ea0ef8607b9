"""What of a text is kept to know which texts it can contain: a Bloom filter of its grams. Pure.

A *gram* is five bytes in a row, none of them a space, of the text in small letters. Whoever contains a text contains
its grams; so a filter that lacks one of a text's grams says that no record behind it contains that text. It may be
wrong the other way round.

Small letters: ASCII's, and three characters that are letters of ASCII to those who ignore case (the Kelvin sign is a k
to ILIKE, the long s an s to a regular expression). Everything else stays as it is. So for a search that minds case, a
record's text contains the text looked for only if the same holds of both in small letters; for one that does not, as
far as what is looked for is ASCII.

A filter is a table of 2^n bits with one hash function. Where a record's grams are new, its compressed bytes are, too:
five random letters cost three bytes of segment. That is why a table of at most SHARE of the segment's bytes is about
half full at worst, and every gram that is looked for halves the number of segments read in vain. More hash functions,
or more bits, buy less than they cost. Tables that stay emptier are halved.

What this costs decides whether it can be done at all: it is a few operations on whole arrays for every eighth byte,
eight times over, some 6 ns a byte. Spaces in a text are what its grams are cut at in a record that is rebuilt from its
columns (archive/rebuilding.py): there the columns' values are enough, each once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

GRAM = 5
SHARE = 0.15
MIN_BITS, MAX_BITS = 1 << 8, 1 << 24
MOST_LOOKED_UP = 256
"""Grams of one search: more of them do not make it more certain."""
_ROOMY = 0.25
_CHUNK = 1 << 16  # bytes at once: what is computed on the way stays in the processor's cache
_PADDING = b"\0" * 8
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_CUT = np.uint64(8 * (8 - GRAM))
_LETTERS = (("\u212a".encode(), b"k"), ("\u0130".encode(), b"i"), ("\u017f".encode(), b"s"))

# Eight bytes at once, of which the upper five are a gram: which of them is a space?
_SPACES, _ONES, _TOPS = (np.uint64(int.from_bytes(bytes([byte]) * 8) << 24 & (1 << 64) - 1) for byte in (32, 1, 128))
_ZERO = np.uint64(0)


class Filter:
    """Gathers the grams of one segment's records, which is of `stored_bytes`."""

    def __init__(self, stored_bytes: int) -> None:
        bits = int(8 * SHARE * stored_bytes)
        self._table = np.zeros(min(max(1 << bits.bit_length() >> 1, MIN_BITS), MAX_BITS), np.uint8)
        self._anything = False

    def add(self, text: bytes) -> None:
        """Records end to end, or values with spaces between them. (Grams across two records do no harm.)"""
        small = folded(text)
        shift = np.uint64(65 - len(self._table).bit_length())
        for grams in _grams(small, spaced=32 * small.count(b" ") > len(small)):
            grams *= _MULTIPLIER
            grams >>= shift
            self._table[grams.view(np.int64)] = 1

    def add_anything(self) -> None:
        """There are records that can't be told by their bytes: the filter must let every search through."""
        self._anything = True

    def packed(self) -> bytes:
        """The filter: a bit for each place in the table, least significant first; one byte of ones for anything."""
        table = self._table
        if self._anything:
            return b"\xff"
        while len(table) > MIN_BITS and table.mean() < _ROOMY:
            table = table.reshape(-1, 2).max(axis=1)
        return np.packbits(table, bitorder="little").tobytes()


def hashes(pieces: Iterable[str]) -> NDArray[np.uint64]:
    """The hashes of the grams of texts, each once: in a table of 2^n bits a gram's place is the upper n of its hash."""
    found: dict[bytes, None] = {}
    for piece in pieces:
        small = folded(piece.encode("utf-8", "surrogatepass"))[: GRAM * MOST_LOOKED_UP]
        grams = (small[start : start + GRAM] for start in range(len(small) - GRAM + 1))
        found.update(dict.fromkeys(gram for gram in grams if b" " not in gram))
        if len(found) > MOST_LOOKED_UP:
            break
    values = [int.from_bytes(gram, "little") for gram in [*found][:MOST_LOOKED_UP]]
    return (np.array(values, np.uint64) << _CUT) * _MULTIPLIER


def folded(text: bytes) -> bytes:
    """A text (UTF-8) in small letters, as told above."""
    small = text.lower()
    if not small.isascii():
        for letter, plain in _LETTERS:
            small = small.replace(letter, plain)
    return small


def _grams(text: bytes, *, spaced: bool) -> Iterator[NDArray[np.uint64]]:
    """All grams of a text, as the upper five bytes of integers; with `spaced`, without those that have a space.

    Read as integers of eight bytes, a text begins at each of eight places; together they have every gram. Where there
    are few spaces, to leave their grams out costs more than to keep them.
    """
    padded, count = text + _PADDING, len(text) - GRAM + 1
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        for first in range(start, min(start + 8, stop)):
            grams = np.frombuffer(padded, "<u8", (stop - first + 7) // 8, first) << _CUT
            if spaced:
                apart = grams ^ _SPACES
                marks = apart - _ONES
                marks &= ~apart
                marks &= _TOPS
                grams = grams[marks == _ZERO]
            yield grams
