"""Canonical JSON, entries and details: one value, one encoding; anything else is refused."""

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.archive import canonical, details, entry
from strongroom.archive.details import BatchFacts, Details, SegmentSummary
from strongroom.archive.entry import Draft, ObjectRef, SegmentRef, WriterRange
from strongroom.archive.errors import FormatError
from tests.archive.conftest import VECTORS

text = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | text,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(max_codepoint=127)), inner),
)


@given(values)
def test_canonical_round_trip(value: object) -> None:
    assert canonical.decode(canonical.encode(value)) == value


def test_rfc8785_vector() -> None:
    stored = (VECTORS / "jcs_unicode.json").read_bytes()
    assert canonical.encode(canonical.decode(stored)) == stored


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}', b'{"b":1,"a":1}', b'{"a": 1}', b"1.0", b"1e3", b"null", b"NaN", b'"\\u0041"', b"01", b"\xff",
        b"{}\n", b"[" * 100_000,
    ],
)  # fmt: skip
def test_not_canonical(data: bytes) -> None:
    with pytest.raises(FormatError):
        canonical.decode(data)


DIGEST = "ab" * 32
DRAFT = Draft(
    "segment",
    datetime(2026, 11, 24, tzinfo=UTC),
    writer=WriterRange("w1", 1, 10, 19, 1, 2),
    retain_until=datetime(2033, 11, 24, tzinfo=UTC),
    segments=(SegmentRef("segments/x", "", 100, DIGEST, 3, DIGEST, (DIGEST,)),),
    details=ObjectRef("details/x", "v1", 7, DIGEST),
    data={"note": "a"},
)
ENTRY = entry.place(DRAFT, origin="log", index=4, prev=DIGEST)
STORED = entry.encode(ENTRY)


def test_entry_round_trip() -> None:
    assert entry.decode(STORED) == ENTRY


@given(st.integers(0, len(STORED) - 1), st.binary(min_size=1, max_size=1))
def test_a_changed_entry_never_decodes_to_the_same(place: int, byte: bytes) -> None:
    changed = STORED[:place] + byte + STORED[place + 1 :]
    with contextlib.suppress(FormatError):
        assert entry.decode(changed) != ENTRY or changed == STORED


@pytest.mark.parametrize(
    "change",
    [
        {"index": -1}, {"index": True}, {"kind": "other"}, {"prev": "AB" * 32}, {"writer": {"id": "w"}}, {"more": 1},
        {"origin": 7}, {"written_at": "yesterday"}, {"segments": [{"key": "x"}]}, {"format": "strongroom/entry/2"},
        {"data": []},
        {"writer": {"id": "w", "epoch": 1, "first": 5, "last": 3, "part": 1, "parts": 1}},
        {"writer": {"id": "w", "epoch": 1, "first": 5, "last": 5, "part": 3, "parts": 2}},
    ],
)  # fmt: skip
def test_malformed_entries(change: dict) -> None:
    with pytest.raises(FormatError):
        entry.decode(canonical.encode({**canonical.decode(STORED), **change}))


def test_an_entry_never_exceeds_a_tile_bundle() -> None:
    big = Draft("segment", DRAFT.written_at, data={"x": "y" * entry.MAX_ENTRY_BYTES})
    with pytest.raises(FormatError, match="limit"):
        entry.encode(entry.place(big, origin="log", index=0, prev=DIGEST))


def test_details_round_trip() -> None:
    batch = BatchFacts(
        1, DIGEST, "cloudtrail", DIGEST, 10, 2, 1, 1, "t", "f", "http", "127.0.0.1", "", "ä.json", ("x",)
    )
    summary = SegmentSummary("k", "cloudtrail", "2026-11-24", 1, None, None, {"": 1}, {"account": ("1", "2")})
    stated = Details("00", WriterRange("w1", 1, 0, 0), (batch,), (summary,))
    assert details.decode(details.encode(stated)) == stated
    with pytest.raises(FormatError):
        details.decode(canonical.encode({**canonical.decode(details.encode(stated)), "more": 1}))
