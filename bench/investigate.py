"""Investigations over sealed segments: Strongroom's engine against other engines pointed at the same Parquet files.

Strongroom's side is the engine as the service uses it: snapshot, statement check, segments checked against their
entries, pruned by the local index (built before, as the service does in the background), DuckDB in a walled-in process,
the answer encoded as JSON and decoded here. The rivals (rivals.py) read the same files in place, with nothing between;
those not installed are left out (the extra `bench`). Every answer of every round must be the same. Wall time.

What is looked for is what investigators look for, things that are rare: one event, an access key and an address seen
in as few segments as the data have them, a word in the records. The other questions read everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import duckdb
from anyio.from_thread import BlockingPortal, start_blocking_portal

from bench import rivals
from bench.measure import Contestant, Runs, Sample, Spread, contest
from bench.report import Ratio, Row, Section
from bench.rivals import Rows
from strongroom.archive.log import Log
from strongroom.archive.stores.directory import DirectoryStore
from strongroom.ingest.sources import BUILT_IN
from strongroom.query.engine import QueryEngine
from strongroom.query.limits import QueryLimits
from strongroom.service.answers.views import ocsf_views, source_views
from strongroom.service.state import StateFolder

SEGMENTS, WIDE = 200, 2_000
RAW_BYTES = 100 << 20
"""Delivered files of more than that are not asked: a question over them takes minutes."""
ENGINE = "Strongroom's engine"
INVESTIGATOR = "ada"
"""Who asks, as over HTTP one token does: a database is kept for its user's next question."""
NEEDLES = 4
"""So many of the questions, the first ones, look for what is in few segments."""


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
_HOUR = "CAST(epoch(date_trunc('hour', event_time)) AS BIGINT)"


def looked_for(archive: Path) -> dict[str, str]:
    """What the questions look for, taken from the data."""
    with duckdb.connect() as connection:
        for name in ("cloudtrail", "vpcflow"):
            connection.execute(
                f"CREATE VIEW {name} AS FROM read_parquet('{rivals.segments(archive, name)}', filename = true)"
            )

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
    if engine == ENGINE:
        return (question.sealed or question.sql).format(hour=_HOUR, raw="raw", **values)
    return question.sql.format(hour=rivals.HOURS[engine], raw=rivals.RECORDS[engine], **values)


@contextmanager
def _engine(folder: Path) -> Iterator[tuple[QueryEngine, BlockingPortal]]:
    """The engine over the archive in `folder`, with index and folds, on a loop that goes on between questions."""
    store = DirectoryStore(folder / "archive")
    engine = QueryEngine(
        store=store,
        log=Log.open(store),
        views=source_views(BUILT_IN.sources.values()),
        normalised=ocsf_views(),
        directory=StateFolder(folder / "state").query,
        limits=QueryLimits(threads=rivals.THREADS, default_rows=1_000_000),
    )
    with start_blocking_portal() as portal:
        portal.call(engine.start)
        try:
            portal.call(engine.indexed)
            portal.call(engine.folded)
            yield engine, portal
        finally:
            portal.call(engine.stop)


def make_ready(folder: Path) -> None:
    """Make index and folds of the archive in `folder`, as a service that runs for some minutes has them."""
    with _engine(folder):
        pass


def sealed(number: int, values: Mapping[str, str], folder: Path, expected: Rows) -> Runs:
    """The question to the engine over the archive in `folder`."""
    sql = statement(QUESTIONS[number], ENGINE, values)
    with _engine(folder) as (engine, portal):
        while True:
            yield lambda: _checked(portal.call(_ask, engine, sql), expected)


def rival(engine: str, number: int, values: Mapping[str, str], files: Path, expected: Rows) -> Runs:
    """The question to another engine over the segments of the archive in `files`, or the files delivered there."""
    ask = rivals.OPENERS[engine](files)
    sql = statement(QUESTIONS[number], engine, values)
    while True:
        yield lambda: _checked(ask(sql), expected)


def measure(folder: Path, data: Path, rounds: int, progress: Callable[[str], None]) -> Section:
    """Every question to every engine, over the archive in `folder`, into which the files in `data` went."""
    archive = folder / "archive"
    values = looked_for(archive)
    plain = rivals.plain(archive)
    rows, facts = [], {}
    places = {name: archive for name, module in rivals.MODULES.items() if find_spec(module)}
    if sum(path.stat().st_size for path in data.rglob("*.gz")) <= RAW_BYTES:
        places[rivals.RAW_FILES] = data
    for number, question in enumerate(QUESTIONS):
        expected = plain(statement(question, rivals.PLAIN, values))
        entered = [Contestant(ENGINE, sealed, (number, values, folder, expected))]
        entered += [Contestant(name, rival, (name, number, values, files, expected)) for name, files in places.items()]
        samples = contest(entered, rounds=rounds, again=ENGINE, progress=progress)
        each = _milliseconds(samples)
        ratios = tuple(Ratio(f"{n} ({each[n].median:,.0f})", each[ENGINE].median / each[n].median) for n in places)
        noise = each[f"{ENGINE} (again)"].median / each[ENGINE].median
        rows.append(Row(question.title, each[ENGINE], "ms", ratios, note=f"against itself: ×{noise:.2f}"))
        facts[question.title] = {name: sample.facts() for name, sample in samples.items()}
    title = f"investigating, {_segments(archive)} segments, {rivals.THREADS} threads, answers equal"
    return Section(title, tuple(rows), facts)


def measure_wide(folder: Path, wide: Path, rounds: int, progress: Callable[[str], None]) -> Section:
    """The needles over the archive in `wide`, which has as many records as the one in `folder`, in more segments."""
    archive = wide / "archive"
    places = {place: (looked_for(place / "archive"), rivals.plain(place / "archive")) for place in (folder, wide)}
    rows, facts = [], {}
    few, many = (f"{_segments(place)} segments" for place in (folder / "archive", archive))
    for number, question in enumerate(QUESTIONS[:NEEDLES]):
        (fewer, fewer_rows), (values, expected) = (
            (looked, plain(statement(question, rivals.PLAIN, looked))) for looked, plain in places.values()
        )
        entered = [
            Contestant(many, sealed, (number, values, wide, expected)),
            Contestant(few, sealed, (number, fewer, folder, fewer_rows)),
            Contestant(rivals.PLAIN, rival, (rivals.PLAIN, number, values, archive, expected)),
        ]
        samples = contest(entered, rounds=rounds, again=many, progress=progress)
        each = _milliseconds(samples)
        ratios = tuple(
            Ratio(f"{name} ({each[name].median:,.1f})", each[many].median / each[name].median)
            for name in (few, rivals.PLAIN)
        )
        noise = each[f"{many} (again)"].median / each[many].median
        rows.append(Row(question.title, each[many], "ms", ratios, note=f"against itself: ×{noise:.2f}"))
        facts[question.title] = {name: sample.facts() for name, sample in samples.items()}
    return Section(f"investigating as many records in {many}", tuple(rows), facts)


def _segments(archive: Path) -> int:
    return sum(1 for _ in archive.glob("segments/*/*/*.parquet"))


def _milliseconds(samples: Mapping[str, Sample]) -> dict[str, Spread]:
    return {name: Spread.of([1e3 * wall for wall in sample.wall]) for name, sample in samples.items()}


async def _ask(engine: QueryEngine, sql: str) -> Rows:
    answer = await engine.run(sql, format="json", user=INVESTIGATOR)
    body = b"".join([chunk async for chunk in answer.body])
    return rivals.as_text(json.loads(body)["rows"])


def _checked(rows: Rows, expected: Rows) -> int:
    if rows != expected:
        raise RuntimeError(f"{len(rows)} rows, not {len(expected)}: {rows[:2]} …, expected {expected[:2]} …")
    return len(rows)
