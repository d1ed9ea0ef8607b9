"""Investigations over sealed segments: Strongroom's engine against other engines pointed at the same Parquet files.

Strongroom's side is the engine as the service uses it: snapshot, statement check, segments checked against their
entries, pruned by the local index (built before, as the service does in the background), DuckDB in a walled-in process,
the answer encoded as JSON and decoded here. The rivals read the same files in place, with nothing between: DuckDB,
Polars, DataFusion and ClickHouse (chdb), each with two threads; those not installed are left out (the extra `bench`).
Every answer of every round must be the same. Wall time.

What is looked for is what investigators look for, things that are rare: one event, an access key and an address seen
in as few segments as the data have them, a word in the records. The other questions read everything.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb

from bench.measure import Contestant, Runs, Spread, contest
from bench.report import Ratio, Row, Section
from strongroom.archive.log import Log
from strongroom.archive.stores.directory import DirectoryStore
from strongroom.ingest.sources import BUILT_IN
from strongroom.query.engine import QueryEngine
from strongroom.query.limits import QueryLimits
from strongroom.service.answers.views import ocsf_views, source_views

THREADS = 2
SEGMENTS = 200
ENGINE, PLAIN = "Strongroom's engine", "DuckDB"
RIVALS = {PLAIN: "duckdb", "Polars": "polars", "DataFusion": "datafusion", "chdb": "chdb"}
Rows = list[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Question:
    """`sql` is over `cloudtrail` and `vpcflow`, in words that all engines share; `sealed` where Strongroom's differ.

    `{id}`, `{key}`, `{address}`, `{word}` are what is looked for; `{hour}` is an engine's way to cut a time to hours,
    `{raw}` its way to see the record as text.
    """

    title: str
    sql: str
    sealed: str = ""


QUESTIONS = (
    Question("one event by its id, with its record", "SELECT {raw} AS record FROM cloudtrail WHERE event_id = '{id}'"),
    Question(
        "one event by its id, in any source",
        "SELECT event_name AS name FROM cloudtrail WHERE event_id = '{id}'",
        "SELECT split_part(action, ':', 2) AS name FROM events WHERE event_id = '{id}'",
    ),
    Question(
        "all of a rare access key",
        "SELECT event_id, event_name FROM cloudtrail WHERE access_key_id = '{key}'",
    ),
    Question(
        "flows from or to a rare address",
        "SELECT account, interface_id, bytes FROM vpcflow "
        "WHERE source_address = '{address}' OR destination_address = '{address}'",
    ),
    Question("a word in any record", "SELECT count(*) AS n FROM cloudtrail WHERE {raw} LIKE '%{word}%'"),
    Question(
        "most denied calls",
        "SELECT event_name, count(*) AS n FROM cloudtrail WHERE error_code LIKE '%Denied%' "
        "GROUP BY event_name ORDER BY n DESC, event_name LIMIT 10",
    ),
    Question(
        "top rejected talkers",
        "SELECT source_address, count(*) AS n FROM vpcflow WHERE action = 'REJECT' "
        "GROUP BY source_address ORDER BY n DESC, source_address LIMIT 10",
    ),
    Question(
        "flows by the hour",
        "SELECT {hour} AS h, count(*) AS n, sum(bytes) AS b FROM vpcflow GROUP BY {hour} ORDER BY h",
    ),
    Question(
        "addresses of API calls among rejected flows",
        "SELECT f.source_address AS a, count(*) AS n FROM vpcflow f JOIN (SELECT DISTINCT source_address "
        "FROM cloudtrail WHERE error_code IS NOT NULL) c ON f.source_address = c.source_address "
        "WHERE f.action = 'REJECT' GROUP BY f.source_address ORDER BY n DESC, a LIMIT 10",
    ),
)
_HOURS = {
    ENGINE: "CAST(epoch(date_trunc('hour', event_time)) AS BIGINT)",
    PLAIN: "CAST(epoch(date_trunc('hour', event_time)) AS BIGINT)",
    "Polars": "hour_of",
    "DataFusion": "CAST(date_part('epoch', date_trunc('hour', event_time)) AS BIGINT)",
    "chdb": "toUnixTimestamp(toStartOfHour(event_time))",
}
_RAW = {ENGINE: "raw", PLAIN: "decode(raw)", "Polars": "raw", "DataFusion": "arrow_cast(raw, 'Utf8')", "chdb": "raw"}


def looked_for(archive: Path) -> dict[str, str]:
    """What the questions look for, taken from the data."""
    with duckdb.connect() as connection:
        for name in ("cloudtrail", "vpcflow"):
            connection.execute(f"CREATE VIEW {name} AS FROM read_parquet('{_files(archive, name)}', filename = true)")

        def rarest(column: str, table: str) -> str:
            found = connection.execute(
                f"SELECT v FROM (SELECT {column} AS v, filename FROM {table} WHERE {column} IS NOT NULL) "
                "GROUP BY v ORDER BY count(DISTINCT filename), v LIMIT 1"
            ).fetchone()
            return str(found[0]) if found else ""

        middle = connection.execute("SELECT event_id FROM cloudtrail ORDER BY md5(event_id) LIMIT 1").fetchone()
        both = (
            "(SELECT source_address AS a, filename FROM vpcflow "
            "UNION ALL SELECT destination_address, filename FROM vpcflow)"
        )
        return {
            "id": str(middle[0]) if middle else "",
            "key": rarest("access_key_id", "cloudtrail"),
            "address": rarest("a", both),
            "word": rarest("bucket_name", "cloudtrail"),
        }


def statement(question: Question, engine: str, values: Mapping[str, str]) -> str:
    """The question in the words of one engine."""
    sql = question.sealed if engine == ENGINE and question.sealed else question.sql
    return sql.format(hour=_HOURS[engine], raw=_RAW[engine], **values)


def sealed(number: int, values: Mapping[str, str], folder: Path, expected: Rows) -> Runs:
    """The question to the engine over the archive in `folder`, indexed."""
    sql = statement(QUESTIONS[number], ENGINE, values)
    store = DirectoryStore(folder / "archive")
    engine = QueryEngine(
        store=store,
        log=Log.open(store),
        views=source_views(BUILT_IN.sources.values()),
        normalised=ocsf_views(),
        directory=folder / "investigate",
        limits=QueryLimits(threads=THREADS, default_rows=1_000_000),
    )
    with asyncio.Runner() as runner:
        runner.run(engine.start())
        try:
            runner.run(engine.indexed())
            while True:
                yield lambda: _checked(runner.run(_ask(engine, sql)), expected)
        finally:
            runner.run(engine.stop())


def rival(engine: str, number: int, values: Mapping[str, str], archive: Path, expected: Rows) -> Runs:
    """The question to another engine over the segments' files."""
    ask = _ENGINES[engine](archive)
    sql = statement(QUESTIONS[number], engine, values)
    while True:
        yield lambda: _checked(ask(sql), expected)


def measure(folder: Path, rounds: int, progress: Callable[[str], None]) -> Section:
    """Every question to every engine, over the archive in `folder`."""
    archive = folder / "archive"
    values = looked_for(archive)
    plain = _duckdb(archive)
    rows, facts = [], {}
    installed = [name for name, module in RIVALS.items() if find_spec(module)]
    for number, question in enumerate(QUESTIONS):
        expected = plain(statement(question, PLAIN, values))
        entered = [Contestant(ENGINE, sealed, (number, values, folder, expected))]
        entered += [Contestant(name, rival, (name, number, values, archive, expected)) for name in installed]
        samples = contest(entered, rounds=rounds, again=ENGINE, progress=progress)
        each = {name: Spread.of([1e3 * wall for wall in sample.wall]) for name, sample in samples.items()}
        ratios = tuple(Ratio(f"{n} ({each[n].median:,.0f})", each[ENGINE].median / each[n].median) for n in installed)
        noise = each[f"{ENGINE} (again)"].median / each[ENGINE].median
        rows.append(Row(question.title, each[ENGINE], "ms", ratios, note=f"against itself: ×{noise:.2f}"))
        facts[question.title] = {name: sample.facts() for name, sample in samples.items()}
    segments = sum(1 for _ in archive.glob("segments/*/*/*.parquet"))
    return Section(f"investigating, {segments} segments, {THREADS} threads, answers equal", tuple(rows), facts)


async def _ask(engine: QueryEngine, sql: str) -> Rows:
    answer = await engine.run(sql, format="json")
    body = b"".join([chunk async for chunk in answer.body])
    return _rows(json.loads(body)["rows"])


def _duckdb(archive: Path) -> Callable[[str], Rows]:
    connection = duckdb.connect(config={"threads": THREADS})
    connection.execute("SET TimeZone = 'UTC'")
    for name in ("cloudtrail", "vpcflow"):
        connection.execute(f"CREATE VIEW {name} AS FROM read_parquet('{_files(archive, name)}')")
    return lambda sql: _rows(connection.execute(sql).fetchall())


def _polars(archive: Path) -> Callable[[str], Rows]:
    import polars as pl

    hour = (pl.col("event_time").dt.truncate("1h").dt.epoch("s")).alias("hour_of")
    cloudtrail = pl.scan_parquet(_files(archive, "cloudtrail")).with_columns(pl.col("raw").cast(pl.String))
    flows = pl.scan_parquet(_files(archive, "vpcflow")).with_columns(hour)
    context = pl.SQLContext(cloudtrail=cloudtrail, vpcflow=flows)
    return lambda sql: _rows(context.execute(sql, eager=True).rows())


def _datafusion(archive: Path) -> Callable[[str], Rows]:
    from datafusion import SessionConfig, SessionContext

    context = SessionContext(SessionConfig().with_target_partitions(THREADS))
    for name in ("cloudtrail", "vpcflow"):
        context.register_parquet(name, str(archive / f"segments/source={name}"))

    def ask(sql: str) -> Rows:
        table = context.sql(sql).to_arrow_table()
        return _rows(zip(*(column.to_pylist() for column in table.columns), strict=True))

    return ask


def _chdb(archive: Path) -> Callable[[str], Rows]:
    from chdb import session

    opened = session.Session()
    for name in ("cloudtrail", "vpcflow"):
        opened.query(f"CREATE VIEW {name} AS SELECT * FROM file('{_files(archive, name)}', Parquet)")

    def ask(sql: str) -> Rows:
        answer = str(opened.query(f"{sql} SETTINGS max_threads = {THREADS}", "JSONCompactEachRow"))
        return _rows(json.loads(line) for line in answer.splitlines())

    return ask


_ENGINES: Mapping[str, Callable[[Path], Callable[[str], Rows]]] = {
    PLAIN: _duckdb,
    "Polars": _polars,
    "DataFusion": _datafusion,
    "chdb": _chdb,
}


def _files(archive: Path, source: str) -> str:
    return f"{archive}/segments/source={source}/*/*.parquet"


def _rows(rows: Iterator[Any] | list[Any]) -> Rows:
    """Rows as text, in an order of their own: engines differ in types and, where the question has none, in order."""
    return sorted(tuple(str(value) for value in row) for row in rows)


def _checked(rows: Rows, expected: Rows) -> int:
    if rows != expected:
        raise RuntimeError(f"{len(rows)} rows, not {len(expected)}: {rows[:2]} …, expected {expected[:2]} …")
    return len(rows)
