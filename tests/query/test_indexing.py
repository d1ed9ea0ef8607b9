"""The engine and its index: through real processes, over a real archive, across restarts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strongroom.archive import layout
from strongroom.archive.locks import attempted
from strongroom.query.engine import QueryEngine
from strongroom.query.errors import IntegrityFailure, QueryInvalid, QueryTooLarge
from strongroom.query.holdings.indexing import TURN
from strongroom.query.holdings.narrowing import Narrowing
from strongroom.query.limits import QueryLimits

from .conftest import APP, EMPTY, FLOW, LIMITS, Archive, Bench

READERS: dict[str, Callable[[bytes], Iterable[Any]]] = {
    "json": lambda body: json.loads(body)["rows"],
    "ndjson": lambda body: [json.loads(line).values() for line in body.splitlines()],
    "csv": lambda body: list(csv.reader(io.StringIO(body.decode())))[1:],
    "arrow": lambda body: [row.values() for row in pa.ipc.open_stream(body).read_all().to_pylist()],
    "parquet": lambda body: [row.values() for row in pq.read_table(io.BytesIO(body)).to_pylist()],
}
VIEWS = (replace(APP, entities={"host": ("name",), "resource": ("tags",)}), FLOW, EMPTY)


class Indexed(Bench):
    """An engine whose sources have entities; `catch_up` does when asked what the engine does in the background."""

    def __init__(self, archive: Archive, directory: Path, limits: QueryLimits = LIMITS) -> None:
        super().__init__(archive, directory / "unused", limits)
        self.run(self.engine.stop())
        self.engine = QueryEngine(store=archive.store, log=archive.log, views=VIEWS, directory=directory, limits=limits)
        self.run(self.engine.start())
        assert self.engine._indexing is not None
        self.engine._indexing.cancel()

    def catch_up(self) -> None:
        self.run(self.engine._indexer.catch_up())

    def read(self, sql: str, **options: object) -> tuple[int, int]:
        answer, _, _ = self.answer(sql, **options)
        assert answer.reading.read == len(answer.segments)
        return answer.reading.read, answer.reading.pruned


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive(tmp_path / "archive")
    for count in (3, 4, 5):
        archive.seal_app(count)
    yield archive


def test_a_value_is_looked_for_where_it_is(own: Archive, tmp_path: Path) -> None:
    bench = Indexed(own, tmp_path / "query")
    sql = "SELECT count(*) FROM app WHERE name = 'n1'"
    assert bench.read(sql) == (3, 0)
    bench.catch_up()
    assert bench.read(sql) == (1, 2)
    assert bench.rows(sql) == [[4]]
    assert bench.rows("SELECT count(*) FROM events WHERE actor IN ('n1', 'n2', 'n9')") == [[9]]
    assert bench.read("SELECT * FROM app WHERE name = 'nobody'") == (0, 3)
    assert bench.read("SELECT raw FROM app WHERE event_time < '2020-01-01'") == (0, 3)
    assert bench.read("EXPLAIN SELECT * FROM app WHERE name = 'n1'") == (1, 2)
    assert bench.read("SELECT * FROM app", narrowing=Narrowing(entities=(("host", "n2"),))) == (1, 2)
    own.seal_app(2)  # not indexed yet: it can hold anything
    assert bench.read(sql) == (2, 2)
    bench.close()
    again = Indexed(own, tmp_path / "query")
    again.engine._pruner._index.load()
    assert again.read(sql) == (2, 2)
    again.close()


def test_explain_says_what_is_read_in_every_format(own: Archive, tmp_path: Path) -> None:
    bench = Indexed(own, tmp_path / "query")
    bench.catch_up()
    file = own.root / layout.segment_key("app", date(2026, 11, 24), "w", 1, 1, 1)
    facts = {
        "segments_total": "3",
        "segments_read": "1",
        "segments_pruned": "2",
        "records_read": "4",
        "bytes_read": str(file.stat().st_size),
    }
    for words, plan in (("EXPLAIN", "physical_plan"), ("EXPLAIN ANALYZE", "analyzed_plan")):
        for format, read in READERS.items():
            _, body, outcome = bench.answer(f"{words} SELECT * FROM app WHERE name = ?", ["n1"], format=format)
            rows = [list(row) for row in read(body)]
            assert dict(rows[:-1]) == facts
            assert rows[-1][0] == plan
            assert outcome.rows == len(rows) == 6
    bench.close()


def test_a_query_says_what_it_would_read_and_has_a_budget(own: Archive, tmp_path: Path) -> None:
    bench = Indexed(own, tmp_path / "query", replace(LIMITS, read_bytes=1))
    bench.catch_up()
    whole = bench.run(bench.engine.estimate("SELECT * FROM app"))
    assert (whole.total, whole.read, whole.records) == (3, 3, 12)
    assert whole.bytes == sum(path.stat().st_size for path in own.root.rglob("*.parquet"))
    part = bench.run(bench.engine.estimate("SELECT * FROM app WHERE name = $n", {"n": "n1"}))
    assert (part.total, part.read, part.records) == (3, 1, 4)
    with pytest.raises(QueryTooLarge, match=f"3 segments of 3, {whole.bytes} bytes"):
        bench.rows("SELECT * FROM app")
    assert bench.rows("SELECT * FROM app WHERE name = 'nobody'") == []
    assert bench.rows("SELECT 1") == [[1]]
    bench.close()


def test_a_damaged_segment_is_not_indexed_and_not_passed_over(own: Archive, tmp_path: Path) -> None:
    key = own.log.entry(2).segments[0].key
    path = own.path(key)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    bench = Indexed(own, tmp_path / "query")
    for _ in range(3):
        bench.catch_up()
    assert bench.engine._pruner._index.covered.bit_count() == 2
    with pytest.raises(IntegrityFailure):
        bench.rows("SELECT * FROM app WHERE name = 'nobody'")
    bench.close()


def test_records_that_are_text_are_read_as_text(own: Archive, tmp_path: Path) -> None:
    raws = [b"plain", "gr\u00fcn".encode(), b"\xff no text"]
    for raw in raws:
        own.seal("flow", [raw], {"bytes": pa.array([1], pa.int64())})
    bench = Indexed(own, tmp_path / "query")
    before = bench.rows("SELECT raw, raw_bytes, context FROM flow ORDER BY raw")
    bench.rows("SELECT raw FROM app")  # what lies in a bucket is indexed once it is here
    bench.catch_up()
    assert bench.engine._index.text().bit_count() == 5
    assert bench.rows("SELECT raw, raw_bytes, context FROM flow ORDER BY raw") == before
    assert [row[0] for row in before] == ["gr\u00fcn", "plain", "\ufffd no text"]
    bench.close()


def test_a_text_is_looked_for_where_it_can_be(own: Archive, tmp_path: Path) -> None:
    for raw in (b"mallory was here", "MALLORY \u212aelvin".encode(), b"mallory \xff", b"nobody here"):
        own.seal("flow", [raw, b"and another line"], {"bytes": pa.array([1, 2], pa.int64())})
    size = own.log.size
    asked = {
        "SELECT count(*) FROM flow WHERE raw LIKE '%mallory%'": (3, 2),
        "SELECT count(*) FROM flow WHERE raw ILIKE '%mallory%KELVIN%'": (2, 1),
        "SELECT count(*) FROM events WHERE contains(raw, 'nowhere')": (0, 0),
        "SELECT count(*) FROM flow WHERE regexp_matches(raw, '(?i)mallory (was|is)') AND bytes = 1": (3, 1),
        "SELECT count(*) FROM app WHERE raw LIKE '%n2%'": (3, 5),
    }
    bench = Indexed(own, tmp_path / "query")
    before = {sql: bench.rows(sql) for sql in asked}
    bench.catch_up()
    for sql, (most, found) in asked.items():
        read, pruned = bench.read(sql)
        assert read <= most, sql
        assert read + pruned in (3, 4)
        assert bench.rows(sql) == before[sql] == [[found]], sql
    assert bench.read("SELECT * FROM flow WHERE raw LIKE '%mallory%'", as_of=size - 3) == (1, 0)
    own.seal("flow", [b"mallory again"], {"bytes": pa.array([1], pa.int64())})
    assert bench.rows("SELECT count(*) FROM flow WHERE raw LIKE '%mallory%'") == [[3]]
    assert bench.rows("SELECT count(*) FROM flow WHERE raw LIKE '%mallory%'", as_of=size) == [[2]]
    bench.close()

    for kept in (tmp_path / "query" / "index").glob("*.text"):
        kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    again = Indexed(own, tmp_path / "query")
    again.engine._indexer.load()
    index, texts = again.engine._indexer._index, again.engine._indexer._texts
    assert (index.covered.bit_count(), texts.covered) == (7, 0)
    assert again.read("SELECT count(*) FROM flow WHERE raw LIKE '%nowhere%'") == (5, 0)
    again.rows("SELECT raw FROM app")  # as above
    again.catch_up()
    assert index.covered == texts.covered
    assert again.read("SELECT count(*) FROM flow WHERE raw LIKE '%nowhere%'") == (1, 4)
    again.close()


def test_processes_that_share_a_folder_take_turns(own: Archive, tmp_path: Path) -> None:
    """No segment is indexed twice, what one has merged the other goes on finding, and nothing is deleted that holds."""
    folder = tmp_path / "query" / "index"
    one, two = Indexed(own, tmp_path / "query"), Indexed(own, tmp_path / "query")
    indexed: list[tuple[int, ...]] = []
    for bench in (one, two):
        index = bench.engine._indexer._index

        def add(segments: Any, words: Any, add: Any = index.add) -> None:
            indexed.append(tuple(segments))
            add(segments, words)

        index.add = add  # type: ignore[method-assign]
    with attempted(folder / TURN) as mine:
        assert mine
        assert one.run(one.engine._indexer.catch_up()) is False
        assert not indexed
    for _ in range(4):
        for bench in (one, two, two, one):
            bench.catch_up()
            assert bench.rows("SELECT count(*) FROM app WHERE name = 'nobody'") == [[0]]
        own.seal_app(2)
        one.run(one.engine.refresh())
        one.catch_up()  # the other has not heard of that segment
        two.catch_up()
        assert two.engine._indexer._index.covered & ~one.engine._indexer._index.covered == 0
        two.run(two.engine.refresh())
    numbers = [number for batch in indexed for number in batch]
    assert sorted(numbers) == sorted(set(numbers))
    two.catch_up()
    assert one.engine._indexer._index.covered == two.engine._indexer._index.covered != 0
    three = Indexed(own, tmp_path / "query")
    three.engine._indexer.load()
    assert three.engine._indexer._index.covered == two.engine._indexer._index.covered
    for bench in (one, two, three):
        assert bench.read("SELECT * FROM app WHERE name = 'nobody'") == (0, len(set(numbers)))
        bench.close()


def test_a_misspelt_column_is_met_with_all_columns(bench: Bench) -> None:
    with pytest.raises(QueryInvalid) as caught:
        bench.rows("SELECT nmae FROM app WHERE number = 1")
    assert "name" in str(caught.value) + caught.value.hint
    assert caught.value.position is not None
    assert caught.value.position.column == 8
    assert bench.rows("SELECT app FROM app WHERE number = 3 AND name = 'n1'")[0][0]["name"] == "n1"
