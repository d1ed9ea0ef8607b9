"""Bytes as text, in SQL, held against Python's own tolerant decoder."""

from __future__ import annotations

import json

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.query import decoding

TEXT = f"coalesce({decoding.exact('b')}, {decoding.tolerant('b')})"
# Pieces that meet at every boundary of UTF-8, and what the way through percent-encoding could mistake.
PIECES = (
    *(b"a", b'"', b"'", b"\\", b"\\x41", b"%41", b"%", b"+", b"\n", b"\x00", b"\x7f"),
    *(b"\xc3\xa9", b"\xe2\x82\xac", b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xf0\x9f\x98\x80", b"\xf4\x8f\xbf\xbf"),
    *(b"\xff", b"\x80", b"\xbf", b"\xc0", b"\xc3", b"\xe0", b"\xe0\xa0", b"\xe0\x80", b"\xe2\x82", b"\xed\xa0\x80"),
    *(b"\xf0", b"\xf0\x90", b"\xf0\x9f\x98", b"\xf0\x80", b"\xf1\x80\x80", b"\xf4\x90", b"\xf5"),
)


DATABASE = duckdb.connect()


def texts(rows: list[bytes | None]) -> list[str | None]:
    DATABASE.register("given", pa.table({"b": pa.array(rows, pa.binary())}))
    return [text for (text,) in DATABASE.execute(f"SELECT {TEXT} FROM given").fetchall()]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join) | st.binary(max_size=12), max_size=60))
def test_it_is_the_text_that_a_tolerant_decoder_gives(rows: list[bytes]) -> None:
    assert texts([None, *rows]) == [None, *(row.decode("utf-8", "replace") for row in rows)]


def test_members_of_such_a_record_can_be_asked_for() -> None:
    odd = b'{"eventName":"X","path":"C:\\\\t\\"mp","caf\xc3\xa9":"caf\xe9"}'
    (text,) = texts([odd])
    assert json.loads(text or "") == {"eventName": "X", "path": 'C:\\t"mp', "caf\u00e9": "caf\ufffd"}
    DATABASE.register("given", pa.table({"b": pa.array([odd, b'{"eventName":"Y"}'], pa.binary())}))
    asked = f"SELECT raw->>'$.eventName', raw LIKE '%\"eventName\":\"X\"%' FROM (SELECT {TEXT} AS raw FROM given)"
    assert DATABASE.execute(asked).fetchall() == [("X", True), ("Y", False)]
