"""Records left out of `raw`: only where the columns give the very bytes, and every reader gets them all the same."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.archive import rebuilding, segment
from strongroom.archive.errors import FormatError
from strongroom.archive.rebuilding import Form
from tests.segments import write_segment

TIME, SECOND = pa.timestamp("us", tz="UTC"), timedelta(seconds=1)
FORMS = [Form(b"name count at", ("name", "count", "at")), Form(None, ("count", "name"))]

names = st.none() | st.text(st.sampled_from("ab -_é\x00"), max_size=4)
counts = st.none() | st.integers(-(2**31), 2**31 - 1)
times = st.none() | st.datetimes(datetime(1960, 1, 1), datetime(2200, 1, 1))
contexts = st.sampled_from([None, b"name count at", b"another header"])


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Rows whose record is what a form makes of them, or something near it, or anything."""
    rows = draw(
        st.lists(st.tuples(names, counts, times, contexts, st.integers(0, 3), st.binary(max_size=9)), min_size=1)
    )
    raws = []
    for name, count, at, context, kind, noise in rows:
        seconds = None if at is None else (at.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // SECOND
        fields = [name, count, seconds] if context else [count, name]
        line = " ".join("-" if field is None else str(field) for field in fields).encode()
        raws.append([line, line + b" ", noise, line.replace(b"1", b"01")][kind])
    columns = list(zip(*rows, strict=True))
    return pa.table(
        {
            "context": pa.array(columns[3], pa.binary()),
            "raw": pa.array(raws, pa.binary()),
            "name": pa.array(columns[0], pa.string()),
            "count": pa.array(columns[1], pa.int32()),
            "at": pa.array(columns[2], pa.timestamp("us")).cast(TIME),
        }
    )


@given(tables())
def test_what_is_left_out_comes_back(table: pa.Table) -> None:
    left = rebuilding.omit(table, FORMS)
    assert rebuilding.restore(left, FORMS).column("raw").equals(table.column("raw"))
    kept = zip(left.column("raw").to_pylist(), table.column("raw").to_pylist(), strict=True)
    assert all(stored in (None, raw) for stored, raw in kept)


@given(
    st.lists(
        st.builds(Form, contexts, st.lists(st.text(min_size=1), min_size=1).map(tuple)), unique_by=lambda f: f.context
    )
)
def test_forms_are_stated_exactly(forms: list[Form]) -> None:
    assert list(rebuilding.decode(rebuilding.encode(forms))) == forms


MALFORMED = [
    "{}",
    "[1]",
    "[",
    '[{"columns":[]}]',
    '[{"columns":["a"]},{"columns":["b"]}]',
    '[{"columns":["a"],"context":"0"}]',
]


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_forms_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        rebuilding.decode(text)


def flows(count: int) -> pa.Table:
    raws = [b"eni-%d %d 17000000%02d" % (row % 7, row, row % 60) for row in range(count)]
    raws[3] += b" "  # a line its columns don't give back
    moment = pa.scalar(datetime(2026, 1, 1, tzinfo=UTC), TIME)
    return pa.table(
        [
            pa.repeat(moment, count),
            pa.repeat(moment, count),
            pa.array([0] * count, pa.int64()),
            pa.array(range(count), pa.int64()),
            pa.array([b"name count at"] * count, pa.binary()),
            pa.array(raws, pa.binary()),
            pa.array([f"eni-{row % 7}" for row in range(count)]),
            pa.array(range(count), pa.int32()),
            pa.array([1_700_000_000_000_000 + row % 60 * 1_000_000 for row in range(count)], pa.int64()).cast(TIME),
        ],
        schema=pa.schema([*segment.UNIVERSAL, ("name", pa.string()), ("count", pa.int32()), ("at", TIME)]),
    )


def test_a_segment_of_rebuilt_records_has_the_same_roots_and_far_fewer_bytes(tmp_path: Path) -> None:
    table, secret = flows(segment.ROW_GROUP + 900), bytes(32)
    whole = write_segment(tmp_path / "whole", table, secret=secret, metadata={})
    lean = write_segment(tmp_path / "lean", table, secret=secret, metadata={}, forms=FORMS)
    assert (lean.root, lean.groups, lean.records) == (whole.root, whole.groups, whole.records)
    assert segment.read_back(tmp_path / "lean") == lean
    assert lean.bytes < 0.8 * whole.bytes
    groups = list(segment.tables(tmp_path / "lean"))
    assert pa.concat_tables(groups).column("raw").to_pylist() == table.column("raw").to_pylist()
    found = [raw for run in segment.runs(tmp_path / "lean", [0, 1]) for raw in run.raws]
    assert found == table.column("raw").to_pylist()


def test_a_row_that_nothing_rebuilds_is_damage(tmp_path: Path) -> None:
    table = flows(10)
    left = rebuilding.omit(table, FORMS)
    with pytest.raises(FormatError, match="without a record"):
        rebuilding.restore(left, FORMS[1:])
    with pytest.raises(FormatError):
        write_segment(tmp_path / "a", left, secret=bytes(32), metadata={})


@settings(max_examples=5)
@given(st.integers(1, 200))
def test_a_changed_column_changes_the_record(row: int) -> None:
    left = rebuilding.omit(flows(201), FORMS)
    counts = left.column("count").to_pylist()
    counts[row] += 1000
    forged = left.set_column(left.schema.get_field_index("count"), "count", pa.array(counts, pa.int32()))
    restored = rebuilding.restore(forged, FORMS).column("raw").to_pylist()
    assert (restored[row] == flows(201).column("raw")[row].as_py()) == (row == 3)


@pytest.mark.parametrize("name", ["event_time", "sequence", "context", "name", "count", "at"])
def test_a_column_that_was_written_wrong_is_not_sealed(tmp_path: Path, name: str) -> None:
    """Lines are not made again from the file, so each column of theirs must be what was given."""
    table = flows(300)
    for encoded in ("name", "context"):
        place = table.schema.get_field_index(encoded)
        table = table.set_column(place, encoded, table.column(encoded).dictionary_encode())
    columns, typed = table.drop_columns("raw"), pa.schema([("name", pa.string()), ("count", pa.int32()), ("at", TIME)])

    def written() -> segment.SegmentFacts:
        records = table.column("raw").to_pylist()
        path = tmp_path / "a"
        return segment.write(path, records, columns, typed=typed, secret=bytes(32), metadata={}, forms=FORMS)

    assert written().records == 300
    made = segment._group

    def wrong(schema: pa.Schema, *rest: Any) -> pa.Table:
        group, place = made(schema, *rest), schema.get_field_index(name)
        values = group.column(name).to_pylist()
        values[7] = {"context": b"another header", "name": "eni-999", "sequence": 99, "count": 99}.get(
            name, datetime(2027, 1, 1, tzinfo=UTC)
        )
        return group.set_column(place, schema.field(name), pa.array(values, schema.field(name).type))

    with patch.object(segment, "_group", wrong), pytest.raises(FormatError, match="does not read back"):
        written()
