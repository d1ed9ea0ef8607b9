"""From a question to an answer, over a real archive and real worker processes."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from strongroom.archive.merkle import Tree, leaf_hash
from strongroom.query.errors import (
    IntegrityFailure,
    QueryBusy,
    QueryFailed,
    QueryInvalid,
    QueryOutOfMemory,
    QueryRefused,
    QueryTimeout,
    SnapshotUnknown,
)
from strongroom.query.process import pool

from .conftest import LIMITS, Archive, Bench, collect


def test_an_answer_names_its_snapshot_and_segments(bench: Bench, archive: Archive) -> None:
    answer, body, outcome = bench.answer("SELECT name, count(*) AS n FROM app GROUP BY ALL ORDER BY name")
    tree = Tree()
    for index in range(archive.log.size):
        tree.append(leaf_hash(archive.log.entry_bytes(index)))
    assert (answer.snapshot.size, answer.snapshot.root) == (archive.log.size, tree.root().hex())
    assert [key.split("/")[1] for key in answer.segments] == ["source=app", "source=app"]
    assert json.loads(body) == {
        "snapshot": {"size": answer.snapshot.size, "root": answer.snapshot.root},
        "columns": [{"name": "name", "type": "VARCHAR"}, {"name": "n", "type": "BIGINT"}],
        "rows": [["n0", 3], ["n1", 4]],
        "row_count": 2,
        "truncated": None,
    }
    assert (outcome.rows, outcome.bytes, outcome.truncated, outcome.error) == (2, len(body), "", None)


def test_views(bench: Bench) -> None:
    # A column the segments do not have is null; a source without segments is empty with its columns.
    assert bench.rows("SELECT bytes, added_later FROM flow ORDER BY bytes") == [[10, None], [20, None], [30, 0.5]]
    assert bench.rows("SELECT words, raw, _row FROM quiet") == []
    # The exact bytes are there whether or not they are text.
    sql = "SELECT raw, raw_bytes, coalesce(raw_bytes, encode(raw)) FROM flow ORDER BY bytes"
    assert bench.rows(sql) == [
        ["1 2 3", None, {"base64": "MSAyIDM="}],
        ["4 5 6", None, {"base64": "NCA1IDY="}],
        ["7 \ufffd 9", {"base64": "NyD/IDk="}, {"base64": "NyD/IDk="}],
    ]
    assert bench.rows("SELECT raw->>'$.ä' FROM app WHERE number = 3") == [["ü"]]
    # Every row has its address.
    ((key, row, raw),) = bench.rows("SELECT _segment, _row, raw FROM app WHERE name = 'n1' AND number = 2")
    table = pa.parquet.read_table(bench.archive.root / key)
    assert table.column("raw")[row].as_py() == raw.encode()
    # `events` has the sources with a mapping, in common columns.
    sql = "SELECT source, actor, action, outcome FROM events WHERE _row < 2 ORDER BY actor, action"
    assert bench.rows(sql)[:2] == [["app", "n0", "act 0", "denied"], ["app", "n0", "act 1", None]]
    assert bench.rows("SELECT count(*), count(DISTINCT source) FROM events") == [[7, 1]]


def test_the_log_can_be_asked(bench: Bench, archive: Archive) -> None:
    assert bench.rows("SELECT entry, kind, records FROM entries ORDER BY entry") == [
        [0, "genesis", 0],
        [1, "segment", 3],
        [2, "segment", 4],
        [3, "segment", 2],
        [4, "segment", 1],
    ]
    rows = bench.rows("SELECT segment, source, sha256, min_time::VARCHAR, date FROM segments ORDER BY entry LIMIT 1")
    reference = archive.log.entry(1).segments[0]
    assert rows == [[reference.key, "app", reference.sha256, "2026-11-24 12:00:00+00", "2026-11-24"]]


def test_parameters_are_bound(bench: Bench) -> None:
    assert bench.rows("SELECT number FROM app WHERE name = ? AND number > ?", ["n1", 2]) == [[3]]
    assert bench.rows("SELECT number FROM app WHERE name = $name", {"name": "x' OR 1=1 --"}) == []
    with pytest.raises(QueryInvalid, match="parameter"):
        bench.rows("SELECT ?")


def test_as_of_repeats_an_answer(own_bench: Callable[[Archive], Bench], tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    archive.seal_app()
    bench = own_bench(archive)
    sql = "SELECT *, (SELECT count(*) FROM entries) FROM app ORDER BY _segment, _row"
    answer, before, _ = bench.answer(sql)
    archive.seal_app()
    _, now, _ = bench.answer(sql)
    _, again, _ = bench.answer(sql, as_of=answer.snapshot.size)
    assert before == again
    assert len(json.loads(now)["rows"]) == 6
    for size in (-1, archive.log.size + 1):
        with pytest.raises(SnapshotUnknown):
            bench.answer(sql, as_of=size)


def test_the_catalog_says_what_can_be_asked(bench: Bench) -> None:
    catalog = bench.engine.catalog()
    tables = {table["name"]: table for table in catalog["tables"]}
    assert list(tables) == ["app", "flow", "quiet", "events", "entries", "segments"]
    app = tables["app"]
    assert (app["records"], app["segments"], app["min_time"]) == (7, 2, "2026-11-24T12:00:00.000000Z")
    assert {"name": "tags", "type": "VARCHAR[]", "description": ""} in app["columns"]
    for name, table in tables.items():  # what the catalog promises is what the views have
        described = bench.rows(f"DESCRIBE {name}")
        assert [[column["name"], column["type"]] for column in table["columns"]] == [row[:2] for row in described]
    assert [row[0] for row in bench.rows("SHOW TABLES")] == sorted(tables)


def test_formats(bench: Bench) -> None:
    sql = "SELECT name, number, tags FROM app WHERE name = 'n0' ORDER BY number"
    _, ndjson, _ = bench.answer(sql, format="ndjson")
    assert json.loads(ndjson.splitlines()[0]) == {"name": "n0", "number": 0, "tags": ["a", None]}
    _, text, _ = bench.answer(sql, format="csv")
    assert list(csv.reader(io.StringIO(text.decode())))[:2] == [["name", "number", "tags"], ["n0", "0", '["a",null]']]
    answer, stream, _ = bench.answer(sql, format="arrow")
    table = pa.ipc.open_stream(stream).read_all()
    assert table.column("tags").to_pylist() == [["a", None], None, []]
    assert table.schema.metadata[b"strongroom.snapshot.root"].decode() == answer.snapshot.root
    with pytest.raises(QueryRefused, match="xml"):
        bench.answer(sql, format="xml")


def test_limits_cut_and_say_so(bench: Bench) -> None:
    _, body, outcome = bench.answer("SELECT * FROM range(100)", limit=7)
    assert (len(json.loads(body)["rows"]), json.loads(body)["truncated"], outcome.truncated) == (7, "rows", "rows")
    _, body, outcome = bench.answer("SELECT * FROM range(7)", limit=7)
    assert (json.loads(body)["truncated"], outcome.rows) == (None, 7)
    flood = "SELECT repeat('x', 5000) AS x FROM range(1000000)"
    _, body, outcome = bench.answer(flood, format="ndjson", limit=1_000_000)
    assert outcome.truncated == "bytes"
    assert len(body) < LIMITS.bytes + 100
    assert json.loads(body.splitlines()[-1]) == {"$truncated": "bytes"}


KILLED = (QueryOutOfMemory, QueryTimeout)  # which comes first depends on how busy the machine is


@pytest.mark.adversarial
@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT length(repeat('x', 4000000000))", KILLED),
        ("SELECT length(string_agg(repeat('x', 1000000), '')) FROM range(4000)", KILLED),
        ("SELECT length(concat(a, a, a, a)) FROM (SELECT repeat(repeat('x', 1000), 1000000) AS a)", KILLED),
        ("SELECT list(i) FROM range(300000000) t(i)", KILLED),
        ("SELECT range(300000000)", KILLED),
        ("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t", QueryTimeout),
        ("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n * 2 FROM t, range(9)) SELECT max(n) FROM t", KILLED),
        (
            "SELECT count(*) FROM range(1000000) a(i), range(1000000) b(j), range(1000000) c(k) WHERE i * j + k = 7",
            QueryTimeout,
        ),
        ("SELECT * FROM read_csv('/etc/passwd')", QueryRefused),
        ("WITH x AS (COPY (SELECT 1) TO '/tmp/f') SELECT * FROM x", QueryRefused),
    ],
    ids=range(10),
)
def test_a_hostile_query_ends_alone(sql: str, error: Any, bench: Bench) -> None:
    """It is refused or killed within its limits, and a question asked meanwhile gets its answer."""

    async def both() -> tuple[object, float, bytes]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        hostile = asyncio.create_task(collect(bench.engine, sql, user="mallory"))
        await asyncio.sleep(0.05)
        _, body, _ = await collect(bench.engine, "SELECT count(*) FROM app", user="alice")
        (result,) = await asyncio.gather(hostile, return_exceptions=True)
        return result, loop.time() - started, body

    result, seconds, body = bench.run(both())
    assert isinstance(result, error)
    assert seconds < LIMITS.seconds + 2
    assert json.loads(body)["rows"] == [[7]]


def test_a_worker_that_dies_costs_its_query_only(bench: Bench) -> None:
    async def scene() -> None:
        answer = await bench.engine.run("SELECT repeat('x', 1000) FROM range(1000000)", limit=1_000_000)
        for worker in list(bench.engine._pool._watched):
            worker.kill()
        with pytest.raises(QueryFailed, match="ended unexpectedly"):
            async for _ in answer.body:
                pass
        assert isinstance((await answer.finished).error, QueryFailed)

    bench.run(scene())
    assert bench.rows("SELECT 1") == [[1]]


def test_a_worker_that_does_not_start_in_time_is_told_of(
    own_bench: Callable[[Archive], Bench], archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "START_SECONDS", 0.001)
    with pytest.raises(QueryFailed, match=r"did not start within 0\.001 seconds"):
        own_bench(archive)


def test_leaving_an_answer_ends_its_query(bench: Bench) -> None:
    sql = "SELECT repeat('x', 1000) FROM range(1000000)"

    async def closed() -> None:
        answer = await bench.engine.run(sql, limit=1_000_000)
        assert await anext(answer.body)
        await answer.body.aclose()
        assert (await answer.finished).error is not None

    async def forgotten() -> None:
        answer = await bench.engine.run(sql, limit=1_000_000)
        outcome = await asyncio.wait_for(answer.finished, LIMITS.stall_seconds + 1)
        assert "not read" in str(outcome.error)
        assert [piece async for piece in answer.body] == []

    async def cancelled() -> None:
        slow = "SELECT count(*) FROM range(1000000) a(i), range(1000000) b(j) WHERE i * j = 7"
        task = asyncio.create_task(bench.engine.run(slow))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for scene in (closed, forgotten, cancelled):
        bench.run(scene())
        assert not bench.engine._pool._watched
    assert bench.rows("SELECT 1") == [[1]]


def test_slots_are_limited_per_user_and_in_all(bench: Bench) -> None:
    slow = "SELECT count(*) FROM range(1000000) a(i), range(1000000) b(j) WHERE i * j = 7"

    async def scene() -> None:
        tasks = [asyncio.create_task(bench.engine.run(slow, user=user)) for user in ("a", "a", "b")]
        await asyncio.sleep(0.1)
        for user in ("a", "c"):  # who has as many as he may, and who comes when there are as many as there may be
            with pytest.raises(QueryBusy, match="3 queries run at once, 2 of one user"):
                await bench.engine.run("SELECT 1", user=user)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (await collect(bench.engine, "SELECT 1", user="a"))[2].rows == 1

    bench.run(scene())


def test_errors_say_where(bench: Bench) -> None:
    with pytest.raises(QueryInvalid) as invalid:
        bench.rows("SELECT 'ä',\n  nam FROM app")
    error = invalid.value
    assert error.position is not None
    assert (error.position.line, error.position.column) == (2, 3)
    assert "name" in error.hint
    with pytest.raises(QueryInvalid, match="convert"):
        bench.rows("SELECT name::INT FROM app")


@pytest.mark.adversarial
def test_no_byte_is_queried_before_its_hash_was_checked(own_bench: Callable[[Archive], Bench], tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    key = archive.seal_app().segments[0].key
    archive.seal("flow", [b"1"], {"bytes": pa.array([1], pa.int64())})
    bench = own_bench(archive)
    assert bench.rows("SELECT count(*) FROM app") == [[3]]
    path = archive.path(key)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)  # also after it was checked once
    for sql in ("SELECT count(*) FROM app", "SELECT count(*) FROM events"):
        with pytest.raises(IntegrityFailure) as failure:
            bench.rows(sql)
        assert failure.value.segment == key
        assert failure.value.expected != failure.value.actual
    assert bench.rows("SELECT count(*) FROM flow") == [[1]]  # the others can still be asked
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert bench.rows("SELECT count(*) FROM app") == [[3]]
    path.unlink()
    with pytest.raises(IntegrityFailure, match="no such object"):
        bench.rows("SELECT count(*) FROM app")


def test_a_slow_reader_is_not_a_slow_query(own_bench: Callable[..., Bench], archive: Archive) -> None:
    bench = own_bench(archive, replace(LIMITS, seconds=0.5, stall_seconds=10))

    async def scene() -> int:
        answer = await bench.engine.run("SELECT repeat('x', 1000) FROM range(2000)", format="csv")
        count = 0
        async for piece in answer.body:
            count += len(piece)
            await asyncio.sleep(0.15)
        return count

    assert bench.run(scene()) > 2_000_000
