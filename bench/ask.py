"""How long do the investigator's questions take, against DuckDB over the raw gzip files? And what does HTTP add?

Strongroom's side is the query engine as the service uses it: every segment checked against its entry, the statement
checked, DuckDB in a walled-in process, the answer encoded as JSON and decoded here. DuckDB's side is one process with
its connection open, which reads the files anew each time, because there is nothing else it could do. Both may use two
threads. Every answer of every round is compared with the truth. Wall time.

The small question shows what the way costs when the answer costs nothing: engine and service against bare DuckDB.
The service also writes, durably, who asked what before it answers; that is the larger part of the difference.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from bench.generate import DataSet, Truth
from bench.investigate import INVESTIGATOR
from bench.measure import Contestant, Quantiles, Runs, Sample, Spread, contest
from bench.questions import Question, Rows, all_questions
from bench.report import Ratio, Row, Section
from bench.service import Service, serving
from strongroom.archive.log import Log
from strongroom.archive.stores.directory import DirectoryStore
from strongroom.query.engine import QueryEngine
from strongroom.service.node import query_engine
from strongroom.service.settings import Settings

THREADS = 2
SMALL = "SELECT 6 * 7 AS answer"
_SMALL_TIMES = 50
ENGINE, PLAIN, HTTP = "Strongroom's engine", "DuckDB over the raw gzip files", "over HTTP"


def sealed(question: int, truth: Truth, folder: Path) -> Runs:
    """The question to the engine over the archive in `folder`."""
    asked = all_questions()[question]
    with asyncio.Runner() as runner:
        engine = _engine(folder, f"question-{question}")
        runner.run(engine.start())
        try:
            while True:
                yield lambda: _checked(asked, truth, runner.run(_ask(engine, asked.sealed, asked.parameters(truth))))
        finally:
            runner.run(engine.stop())


def plain(question: int, truth: Truth, data: Path) -> Runs:
    """The question to DuckDB over the files as they were delivered."""
    asked = all_questions()[question]
    statement = asked.plain.format(cloudtrail=data / "cloudtrail" / "*.gz", vpcflow=data / "vpcflow" / "*.gz")
    connection = duckdb.connect(config={"threads": THREADS})
    connection.execute("SET enable_progress_bar = false")
    parameters = dict(asked.parameters(truth))
    while True:
        yield lambda: _checked(asked, truth, connection.execute(statement, parameters or None).fetchall())


def small_http(service: Service) -> Runs:
    """Small questions over one kept-alive connection."""
    connection = service.connect()
    body = json.dumps({"sql": SMALL}).encode()
    headers = {"Content-Type": "application/json"}

    def ask() -> int:
        answer = json.loads(service.send(connection, "POST", "/v1/query", body, headers))
        return int(answer["rows"][0][0])

    return _repeated(ask)


def small_engine(folder: Path) -> Runs:
    """Small questions to the engine, without HTTP and without audit."""
    with asyncio.Runner() as runner:
        engine = _engine(folder, "small")
        runner.run(engine.start())
        try:
            yield from _repeated(lambda: int(runner.run(_ask(engine, SMALL, {}))[0][0]))
        finally:
            runner.run(engine.stop())


def small_plain() -> Runs:
    """Small questions to an open DuckDB connection."""
    connection = duckdb.connect(config={"threads": THREADS})

    def ask() -> int:
        row = connection.execute(SMALL).fetchone()
        return int(row[0]) if row else 0

    return _repeated(ask)


def measure(data: DataSet, folder: Path, rounds: int, progress: Callable[[str], None]) -> Section:
    """The three contests over the archive in `folder`, which holds exactly the files of `data`."""
    rows, facts = [], {}
    for number, question in enumerate(all_questions()):
        entered = [
            Contestant(ENGINE, sealed, (number, data.truth, folder)),
            Contestant(PLAIN, plain, (number, data.truth, data.folder)),
        ]
        samples = contest(entered, rounds=rounds, again=ENGINE, progress=progress)
        rows.append(_row(question.title, samples))
        facts[question.title] = {name: sample.facts() for name, sample in samples.items()}
    records = data.truth.cloudtrail.records + data.truth.vpcflow.records
    return Section(f"asking, {records:,} records, {THREADS} threads, answers equal and true", tuple(rows), facts)


def measure_small(folder: Path, rounds: int, progress: Callable[[str], None]) -> Section:
    """What engine and HTTP add to a question that costs nothing."""
    with serving(folder) as service:
        entered = [
            Contestant(HTTP, small_http, (service,)),
            Contestant(ENGINE, small_engine, (folder,)),
            Contestant("DuckDB", small_plain),
        ]
        samples = contest(entered, rounds=rounds, again=HTTP, progress=progress)
    each = {name: Quantiles.of([1e3 * taken for taken in sample.result]) for name, sample in samples.items()}
    http, names = each[HTTP], (ENGINE, "DuckDB")
    note = f"p99 {http.p99:.1f} ms; against itself: ×{each[f'{HTTP} (again)'].p50 / http.p50:.2f}"
    ratios = tuple(Ratio(f"{name} ({each[name].p50:.2f})", http.p50 / each[name].p50) for name in names)
    added = [Row(f"more than {name}", Spread.exactly(http.p50 - each[name].p50), "ms p50") for name in names]
    rows = (Row("a small answer over HTTP, audited", http.spread, "ms p50", ratios, note=note), *added)
    return Section(f"small answers: {SMALL}", rows, {name: sample.facts() for name, sample in samples.items()})


def _row(title: str, samples: dict[str, Sample]) -> Row:
    each = {name: Spread.of([1e3 * wall for wall in sample.wall]) for name, sample in samples.items()}
    ratio = Ratio(f"{PLAIN} ({each[PLAIN].median:,.0f})", each[ENGINE].median / each[PLAIN].median)
    noise = each[f"{ENGINE} (again)"].median / each[ENGINE].median
    return Row(title, each[ENGINE], "ms", (ratio,), note=f"against itself: ×{noise:.2f}")


def _engine(folder: Path, name: str) -> QueryEngine:
    store = DirectoryStore(folder / "archive")
    settings = Settings(query_threads=THREADS)
    return query_engine(settings, store, Log.open(store), folder / "query" / name)


async def _ask(engine: QueryEngine, sql: str, parameters: Any) -> Rows:
    answer = await engine.run(sql, dict(parameters) or None, format="json", user=INVESTIGATOR)
    body = b"".join([chunk async for chunk in answer.body])
    return [tuple(row) for row in json.loads(body)["rows"]]


def _checked(question: Question, truth: Truth, rows: Rows) -> int:
    if rows != question.expected(truth):
        raise RuntimeError(f"{question.title}: got {rows[:3]} …, true is {question.expected(truth)[:3]} …")
    return len(rows)


def _repeated(ask: Callable[[], int]) -> Runs:
    """Runs of `_SMALL_TIMES` questions; each gives the seconds that every question of every counted run took."""
    taken: list[float] = []

    def run(warm: bool) -> list[float]:
        for _ in range(_SMALL_TIMES):
            begun = time.perf_counter()
            if ask() != 42:
                raise RuntimeError("six times seven is not that")
            if warm:
                taken.append(time.perf_counter() - begun)
        return taken

    yield partial(run, False)
    while True:
        yield partial(run, True)
