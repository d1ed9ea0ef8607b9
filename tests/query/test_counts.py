"""Counts that the log commits to are silent where they can't be relied on; buckets, cursors and blanks, at random."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.query.errors import CursorInvalid, ParameterInvalid
from strongroom.query.questions import timeline
from strongroom.query.questions.counts import HourlyCounts
from strongroom.query.questions.prepared import Parameter, prepare
from strongroom.query.questions.search import Cursor, Filters, read_cursor
from tests.query.conftest import Archive

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def test_details_that_do_not_add_up_answer_nothing(archive: Archive) -> None:
    # These archives' details state no hours, though their segments have records.
    counts = HourlyCounts(archive.log)
    assert counts.of(1, {"app"}) == {}
    assert counts.of(archive.log.size, {"app"}) is None
    assert counts.of(1, {"app"}) == {}


@pytest.mark.parametrize("error", [ObjectMissing("gone"), FormatError("changed")], ids=str)
def test_damaged_details_answer_nothing(archive: Archive, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(reference: object) -> bytes:
        raise error

    monkeypatch.setattr(archive.log.contents, "read", read)
    assert HourlyCounts(archive.log).of(archive.log.size, {"app"}) is None


hours = st.none() | st.integers(400_000, 400_100)
counted = st.dictionaries(st.tuples(st.sampled_from(["a", "b"]), hours), st.integers(1, 9))


@given(counted, st.sampled_from(["hour", "day"]), st.sampled_from(["none", "source"]), hours, hours)
def test_buckets_are_sums_of_hours(
    counts: dict[tuple[str, int | None], int],
    bucket: timeline.Bucket,
    by: timeline.By,
    low: int | None,
    high: int | None,
) -> None:
    since, until = (None if hour is None else EPOCH + timedelta(hours=hour) for hour in (low, high))
    rows = timeline.from_counts(counts, Filters(since=since, until=until), bucket, by)
    expected: Counter[tuple[str | None, str | None]] = Counter()
    for (source, hour), records in counts.items():
        if hour is None:
            inside, start = low is None and high is None, None
        else:
            moment = EPOCH + timedelta(hours=hour)
            inside = (since is None or moment >= since) and (until is None or moment < until)
            start = moment.strftime("%Y-%m-%dT00" if bucket == "day" else "%Y-%m-%dT%H") + ":00:00.000000Z"
        if inside:
            expected[start, source if by == "source" else None] += records
    assert {(start, group): records for start, group, records in rows} == expected


filters = st.builds(
    Filters,
    texts=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    entities=st.lists(st.tuples(st.sampled_from(["address", "host"]), st.text(max_size=5)), max_size=2).map(tuple),
    sources=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    ignore_case=st.booleans(),
)


@given(filters, filters, st.none() | st.text(max_size=30), st.text(max_size=30), st.integers(0, 1 << 40))
def test_a_cursor_comes_back_as_it_went_and_to_no_other_search(
    wanted: Filters, other: Filters, time: str | None, segment: str, row: int
) -> None:
    cursor = Cursor(7, wanted.digest, time, segment, row)
    assert read_cursor(cursor.text(), wanted) == cursor
    if other != wanted:
        with pytest.raises(CursorInvalid):
            read_cursor(cursor.text(), other)


@given(st.text(max_size=200))
def test_nonsense_is_no_cursor(text: str) -> None:
    with pytest.raises(CursorInvalid):
        read_cursor(text, Filters())


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@given(st.sampled_from(["text", "integer", "number", "boolean", "time"]), values)
def test_a_blank_takes_its_type_or_refuses(kind: str, value: object) -> None:
    declared = (Parameter("x", kind),)  # type: ignore[arg-type]
    try:
        bound = prepare("SELECT $x", declared, {"x": value}).parameters
    except ParameterInvalid:
        return
    assert isinstance(bound, dict)
    python = {"text": str, "integer": int, "number": float, "boolean": bool, "time": str}[kind]
    assert type(bound["x"]) is python
