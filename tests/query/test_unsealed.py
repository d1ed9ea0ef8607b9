"""Rows that are not sealed, in the views of a question that asks for them: marked, without address, and only there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strongroom.archive.segment import UNIVERSAL
from strongroom.query.engine import QueryEngine
from strongroom.query.errors import QueryInvalid, QueryRefused
from strongroom.query.normalised import NormalisedPart, NormalisedView
from tests.query.conftest import APP, LIMITS, NOW, VIEWS, Archive, collect

DENIED = NormalisedView(
    "denied",
    "what was denied",
    {"actor.name": "VARCHAR", "number": "BIGINT"},
    (NormalisedPart("app", "number = 0", {"actor.name": "name", "number": "number"}),),
)


class Fresh:
    """Two records of `app` beyond a snapshot."""

    def __init__(self, size: int, folder: Path) -> None:
        self.size, self.folder, self.asked, self.closed = size, folder, list[set[str]](), 0

    async def files(self, sources: Collection[str]) -> Mapping[str, Path]:
        self.asked.append(set(sources))
        if "app" not in sources:
            return {}
        rows = [
            {"event_time": NOW, "received_at": NOW, "sequence": 9, "position": n, "context": None,
             "raw": b"\xff" if n else b"{}", "name": "fresh", "number": n}
            for n in range(2)
        ]  # fmt: skip
        path = self.folder / "app.parquet"
        pq.write_table(pa.Table.from_pylist(rows, pa.schema([*UNIVERSAL, *APP.schema])), path)
        return {"app": path}

    def close(self) -> None:
        self.closed += 1


class Asked:
    """An engine with a folder for what is not sealed."""

    def __init__(self, archive: Archive, folder: Path) -> None:
        self.runner, self.beside, self.size = asyncio.Runner(), folder / "beside", archive.log.size
        self.beside.mkdir()
        self.engine = QueryEngine(
            store=archive.store,
            log=archive.log,
            views=VIEWS,
            normalised=[DENIED],
            directory=folder / "query",
            limits=LIMITS,
            beside=[self.beside],
        )
        self.runner.run(self.engine.start())

    def rows(self, sql: str, parameters: Any = None, *, fresh: Fresh | None = None, **options: Any) -> list[list[Any]]:
        fresh = fresh or Fresh(self.size, self.beside)
        options = {"as_of": fresh.size} | options
        try:
            _, body, _ = self.runner.run(collect(self.engine, sql, parameters, unsealed=fresh, **options))
        finally:
            assert fresh.closed
        found: list[list[Any]] = json.loads(body)["rows"]
        return found


@pytest.fixture(scope="module")
def asked(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    made = Asked(archive, tmp_path_factory.mktemp("asked"))
    yield made
    made.runner.run(made.engine.stop())
    made.runner.close()


@pytest.mark.parametrize(
    ("view", "sealed", "fresh"), [("app", 7, 2), ("events", 7, 2), ("denied", 2, 1), ("flow", 3, 0), ("quiet", 0, 0)]
)
def test_rows_say_whether_they_are_sealed(asked: Asked, view: str, sealed: int, fresh: int) -> None:
    sql = f"SELECT _sealed, _segment IS NOT NULL, _row IS NOT NULL, count(*) FROM {view} GROUP BY ALL ORDER BY 1 DESC"
    expected = [[True, True, True, sealed], [False, False, False, fresh]]
    assert asked.rows(sql) == [row for row in expected if row[-1]]
    assert len(asked.rows(f"SELECT * FROM {view}")) == sealed + fresh


def test_values_are_those_of_the_records(asked: Asked) -> None:
    sql = "SELECT name, number, tags, raw_bytes IS NULL, position FROM app WHERE NOT _sealed ORDER BY number"
    assert asked.rows(sql) == [["fresh", 0, None, True, 0], ["fresh", 1, None, False, 1]]
    assert asked.rows("SELECT action FROM events WHERE actor = $1 ORDER BY 1", ["fresh"]) == [["act 0"], ["act 1"]]
    assert asked.rows("SELECT actor.name FROM denied WHERE NOT _sealed") == [["fresh"]]
    later = "SELECT count(*) FROM app WHERE event_time > '2030-01-01'"  # no segment is read for it
    assert asked.rows(later) == [[0]] and asked.rows("SELECT count(*) FROM app WHERE name = 'fresh'") == [[2]]


def test_only_the_sources_of_the_views_are_asked_for(asked: Asked) -> None:
    fresh = Fresh(asked.size, asked.beside)
    asked.rows("SELECT count(*) FROM flow", fresh=fresh)
    assert fresh.asked == [{"flow"}]


def test_uncalled_they_do_not_come_and_nothing_else_changes(asked: Asked) -> None:
    def plain(sql: str) -> Any:
        return json.loads(asked.runner.run(collect(asked.engine, sql))[1])

    assert plain("SELECT count(*) FROM app")["rows"] == [[7]]
    assert "_sealed" not in {column["name"] for column in plain("SELECT * FROM events LIMIT 1")["columns"]}
    with pytest.raises(QueryInvalid, match="_sealed"):
        plain("SELECT _sealed FROM app")


def test_they_are_beside_their_own_snapshot_or_none(asked: Asked) -> None:
    for as_of in (asked.size - 1, None):
        with pytest.raises(QueryRefused, match="beside the snapshot"):
            asked.rows("SELECT 1", as_of=as_of)
