"""Views over segments that leave out what their columns give back: SQL makes the record as the archive does."""

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from strongroom.archive import segment
from strongroom.archive.rebuilding import Form
from strongroom.query.views import Files, ViewSource, source_view
from tests.segments import write_segment

TIME = pa.timestamp("us", tz="UTC")
FORMS = (Form(b"name count at", ("name", "count", "at")), Form(None, ("count", "name")))
LINES = [b"caf\xc3\xa9 1 1700000000", b"- - -", b"a 01 1700000000", b"b -5 -1", b"c 7 1700000001 ", b"d 2 -"]


@pytest.mark.parametrize("text", [False, True])
def test_the_record_is_the_archives(tmp_path: Path, text: bool) -> None:
    count = len(LINES)
    moment = pa.repeat(pa.scalar(datetime(2026, 1, 1, tzinfo=UTC), TIME), count)
    numbers = pa.array(range(count), pa.int64())
    typed = {
        "name": pa.array(["caf\u00e9", None, "a", "b", "c", "d"]),
        "count": pa.array([1, None, 1, -5, 7, 2], pa.int32()),
        "at": pa.array([1_700_000_000, None, 1_700_000_000, -1, 1_700_000_001, None], pa.timestamp("s", tz="UTC")).cast(
            TIME
        ),
    }
    raws = [*LINES[:5], b"2 d"]
    contexts: list[bytes | None] = [b"name count at"] * 5 + [None]
    columns = [moment, moment, numbers, numbers, pa.array(contexts, pa.binary()), pa.array(raws, pa.binary())]
    schema = pa.schema([*segment.UNIVERSAL, *((name, column.type) for name, column in typed.items())])
    table = pa.table([*columns, *typed.values()], schema=schema)
    path = tmp_path / "segments" / "a.parquet"
    path.parent.mkdir()
    write_segment(path, table, secret=bytes(32), metadata={}, forms=FORMS)

    source = ViewSource("flows", pa.schema([(name, column.type) for name, column in typed.items()]), {}, "")
    with duckdb.connect() as connection:
        stored = connection.execute(f"SELECT count(raw) FROM read_parquet('{path}')").fetchone()
        assert stored == (2,), "the two lines that their columns don't give back"
        connection.execute(source_view(source, [Files(frozenset(schema.names), FORMS, [path], text)], tmp_path))
        found = connection.execute("SELECT coalesce(raw_bytes, encode(raw)) FROM flows ORDER BY _row").fetchall()
    assert [raw for (raw,) in found] == raws
