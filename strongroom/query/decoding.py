"""Stored bytes as text, in SQL: exact where they are UTF-8, and elsewhere with U+FFFD for what is not. Pure.

DuckDB's `decode` is exact or fails, and its cast of a BLOB escapes everything but printable ASCII (`"` is `\\x22`), so
that neither a member of such a JSON record nor a word in it could be asked for. Here a record of which one byte is not
UTF-8 is shown as any tolerant decoder shows it: every maximal part of an ill-formed sequence becomes one U+FFFD, what
is well-formed stays (The Unicode Standard, "U+FFFD Substitution of Maximal Subparts"; Python's `errors="replace"`).

The way goes through percent-encoding. The cast escapes the backslash too, so `\\x` begins nothing but an escape; with
`%` for `\\x` (and `\\x25` for `%`, before) the text is the bytes, percent-encoded. A pattern cuts it into runs of
well-formed characters and single ill-formed parts; the parts are replaced, and `url_decode` makes it text.
"""

from __future__ import annotations

_TAIL = "%[89AB]."
_CHARACTERS = (
    "[^%]",
    "%[0-7].",
    f"%(?:C[2-9A-F]|D.){_TAIL}",
    f"%E0%[AB].{_TAIL}",
    f"%E[1-9A-CEF]{_TAIL}{_TAIL}",
    f"%ED%[89].{_TAIL}",
    f"%F0%[9AB].{_TAIL}{_TAIL}",
    f"%F[1-3]{_TAIL}{_TAIL}{_TAIL}",
    f"%F4%8.{_TAIL}{_TAIL}",
)
"""Well-formed UTF-8, percent-encoded: The Unicode Standard, table 3-7, a row each."""
_PARTS = (
    "%E0%[AB].",
    f"%E[1-9A-CEF]{_TAIL}",
    "%ED%[89].",
    f"%F0%[9AB].(?:{_TAIL})?",
    f"%F[1-3]{_TAIL}(?:{_TAIL})?",
    f"%F4%8.(?:{_TAIL})?",
    "%[89A-F].",
)
"""What begins like a character and does not end like one, the longest first; in the end any single byte."""


def exact(name: str) -> str:
    """The text of a BLOB column, NULL where it is not valid UTF-8."""
    return f"TRY(decode({name}))"


def tolerant(name: str) -> str:
    """The text of a BLOB column that is not valid UTF-8, NULL only for NULL.

    Costs far more than `exact`, so it is for the rows where that gave nothing; the CASE keeps DuckDB from computing it
    for the others too.
    """
    encoded = rf"replace(replace(CAST({name} AS VARCHAR), '%', '\x25'), '\x', '%')"
    part = "|".join(_PARTS)
    pieces = f"regexp_extract_all({encoded}, '(?:{'|'.join(_CHARACTERS)})+|{part}')"
    mended = f"[CASE WHEN regexp_full_match(piece, '{part}') THEN '%EF%BF%BD' ELSE piece END FOR piece IN {pieces}]"
    return f"CASE WHEN {name} IS NOT NULL THEN url_decode(array_to_string({mended}, '')) END"
