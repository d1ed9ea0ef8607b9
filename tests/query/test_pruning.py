"""Leaving segments out changes no answer: random predicates over random segments, against a full scan in DuckDB."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom.archive.segment import UNIVERSAL
from strongroom.query.holdings import index
from strongroom.query.holdings.index import EntityIndex
from strongroom.query.holdings.narrowing import Narrowing
from strongroom.query.holdings.pruning import Carrier, Pruner, carried
from strongroom.query.holdings.segments import Segment, SegmentTable, bits_of, numbers_of
from strongroom.query.holdings.texts import TextIndex
from strongroom.query.normalised import NormalisedPart, NormalisedView, sources_read
from strongroom.query.process import guard, mentions, setup, where
from strongroom.query.process.extraction import extract
from strongroom.query.views import Files, ViewSource, sources_of, view_names

START = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = [f"w{number}" for number in range(12)]
COLUMNS = pa.schema([("name", pa.string()), ("other", pa.string()), ("tags", pa.list_(pa.string())), ("n", pa.int64())])
ENTITIES = {"host": ("name", "other"), "resource": ("tags",)}
APP = ViewSource(
    "app",
    COLUMNS,
    {"actor": "coalesce(name, other)", "target": "tags[1]", "action": "upper(name)", "event_id": "other"},
    "",
    ENTITIES,
)
FLOW = ViewSource("flow", COLUMNS, {"actor": "name", "event_time": "received_at"}, "", {"host": ("name",)})
SOURCES = (APP, FLOW)
ACROSS = NormalisedView(
    "across",
    "",
    {"who.name": "VARCHAR", "what": "VARCHAR", "time_dt": "TIMESTAMPTZ"},
    (
        NormalisedPart("app", "n > 0", {"who.name": "coalesce(other, name)", "time_dt": "event_time"}),
        NormalisedPart("flow", "true", {"who.name": "name", "what": "name || '!'", "time_dt": "event_time"}),
    ),
)


@dataclass
class World:
    """Segments on disk, what is known of them, and a database to ask."""

    table: SegmentTable
    pruner: Pruner
    paths: list[Path]
    root: Path
    connection: duckdb.DuckDBPyConnection

    def choose(self, sql: str, parameters: Any = None, narrowing: Narrowing | None = None) -> tuple[guard.Checked, int]:
        names = [*view_names(SOURCES), ACROSS.name]
        checked = guard.check(sql, names, self.connection, max_bytes=1 << 20)
        known = where.conditions(checked.tree, checked.views, where.Constants(parameters, self.connection))
        reading = {view: known.get(view) for view in checked.views}
        read = {source.name for source in sources_of({*checked.views, *sources_read(checked.views, [ACROSS])}, SOURCES)}
        return checked, self.pruner.choose(99, read, reading, narrowing)[1]

    def rows(self, sql: str, views: Any, chosen: int, needed: Any, parameters: Any = None) -> list[Any]:
        files: dict[str, list[Files]] = {}
        for number in numbers_of(chosen):
            group = Files(frozenset([*UNIVERSAL.names, *COLUMNS.names]), (), [self.paths[number]])
            files.setdefault(self.table[number].source, []).append(group)
        for statement in setup.statements(views, needed, files, self.root, SOURCES, [ACROSS]):
            self.connection.execute(statement)
        return sorted(map(str, self.connection.execute(sql, parameters).fetchall()))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    chance = random.Random(5)
    root = tmp_path_factory.mktemp("pruning")
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    table, paths, words = SegmentTable(), [], []
    for number in range(16):
        source = chance.choice(SOURCES).name
        key = f"segments/source={source}/date=2026-01-01/w-1-{number}.parquet"
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        rows, times = _rows(chance, number)
        pq.write_table(rows, path)
        paths.append(path)
        low, high = (min(times), max(times)) if times and number % 5 else (None, None)
        table.append(
            [Segment(key, source, "2026-01-01", number, START, len(rows), 1, f"{number:064x}", "00" * 32, low, high)]
        )
        kinds = next(item.entities for item in SOURCES if item.name == source)
        found, _ = extract(connection, str(path), kinds=kinds, fields=(), stored_bytes=1)
        words.append(index.words(found, number))
    made = EntityIndex(
        root / "index",
        digests=table.digests,
        columns={source.name: source.entities for source in SOURCES},
    )
    for number in range(13):  # the last three are not indexed yet
        made.add({number: table[number].source}, [words[number]])
    pruner = Pruner(table, made, TextIndex(root / "index", digests=table.digests), SOURCES, [ACROSS])
    yield World(table, pruner, paths, root, connection)
    connection.close()


def _rows(chance: random.Random, number: int) -> tuple[pa.Table, list[int]]:
    """Few of the words, and two hours, in each segment."""
    own = chance.sample(WORDS, 3)
    count = chance.randint(1, 12)
    moments = [START + timedelta(hours=number, minutes=chance.randrange(120)) for _ in range(count)]
    times = [moment if chance.random() < 0.8 else None for moment in moments]
    columns = {
        "event_time": times,
        "received_at": [START + timedelta(days=30)] * count,
        "sequence": [number] * count,
        "position": list(range(count)),
        "context": [None] * count,
        "raw": [f"{number} {row}".encode() for row in range(count)],
        "name": [chance.choice([*own, None]) for _ in range(count)],
        "other": [chance.choice([*own, None]) for _ in range(count)],
        "tags": [chance.choice([[], None, own[:2], [own[2], None]]) for _ in range(count)],
        "n": [chance.randrange(3) for _ in range(count)],
    }
    schema = pa.schema([*UNIVERSAL, *COLUMNS])
    known = [int(time.timestamp() * 1_000_000) for time in times if time is not None]
    return pa.table(columns, schema=schema), known


word = st.sampled_from([*WORDS, "w", ""]).map(lambda text: f"'{text}'")
hour = st.integers(-2, 40).map(lambda hours: f"TIMESTAMP '{(START + timedelta(hours=hours)):%Y-%m-%d %H:%M}'")
text_hour = st.integers(-2, 40).map(lambda hours: f"'{(START + timedelta(hours=hours)):%Y-%m-%d %H:%M}Z'")


def _leaves(columns: Sequence[str], time: str, more: Sequence[st.SearchStrategy[str]]) -> st.SearchStrategy[str]:
    column = st.sampled_from(columns)
    return st.one_of(
        st.builds("{} = {}".format, column, word),
        st.builds("{1} = {0}".format, column, word),
        st.builds("{} <> {}".format, column, word),
        st.builds("{} IS NOT DISTINCT FROM {}".format, column, word),
        st.builds("{} IN ({}, {})".format, column, word, word),
        st.builds("{} NOT IN ({}, NULL)".format, column, word),
        st.builds("{} IS NULL".format, column),
        st.builds("{} LIKE {}".format, column, word),
        st.builds("{} = {}".format, column, column),
        st.builds("{} {} {}".format, st.just(time), st.sampled_from(["<", "<=", ">", ">=", "="]), hour | text_hour),
        st.builds("{1} {0} {2}".format, st.sampled_from(["<", ">="]), hour, st.just(time)),
        st.builds("{} BETWEEN {} AND {}".format, st.just(time), hour, text_hour),
        st.builds("{} > now() - INTERVAL {} DAY".format, st.just(time), st.integers(0, 3000)),
        *more,
    )


def _trees(leaves: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds("({} AND {})".format, inner, inner),
            st.builds("({} OR {})".format, inner, inner),
            st.builds("NOT ({})".format, inner),
        ),
        max_leaves=6,
    )


own = _leaves(
    ["name", "other", "NAME", "t.name"],
    "event_time",
    [
        st.builds("list_contains(tags, {})".format, word),
        st.builds("tags[1] = {}".format, word),
        st.builds("n = {}".format, st.integers(0, 3)),
        st.builds("EXISTS (FROM flow WHERE flow.name = t.name AND flow.name = {})".format, word),
        st.builds("name IN (SELECT other FROM app WHERE name = {})".format, word),
    ],
)
events = _leaves(["actor", "target", "event_id", "action", "source"], "event_time", [st.just("source = 'app'")])
across = _leaves(["who.name", "what", "source"], "time_dt", [])
joins = [
    "SELECT count(*) FROM events a JOIN events b USING (actor) WHERE a.actor = {0} AND b.target = {1}",
    "SELECT count(*) FROM app a JOIN flow b ON a.name = b.name AND b.name = {0} WHERE a.other = {1}",
    "SELECT count(*) FROM app a LEFT JOIN flow b ON a.name = b.name WHERE a.name = {0} AND b.name IS NULL",
    "SELECT count(*) FROM app a LEFT JOIN flow b ON a.name = {0} AND b.name = {1}",
    "SELECT count(*) FROM app a LEFT JOIN flow b ON a.name = b.name WHERE b.name = {0}",
    "SELECT count(*) FROM app a FULL JOIN flow b ON a.name = b.name WHERE b.name = {0}",
    "SELECT name FROM app WHERE name = {0} UNION ALL SELECT name FROM app WHERE other = {1}",
    "SELECT other AS name FROM app WHERE name = {0} ORDER BY name",
]
statements = st.one_of(
    st.builds("SELECT _segment, _row FROM app t WHERE {}".format, _trees(own)),
    st.builds("SELECT name, count(*) FROM flow t WHERE {} GROUP BY ALL".format, _trees(own)),
    st.builds("SELECT _segment, _row, actor, event_time FROM events WHERE {}".format, _trees(events)),
    st.builds("SELECT * FROM across WHERE {}".format, _trees(across)),
    st.builds(lambda sql, *words: sql.format(*words), st.sampled_from(joins), word, word),
    st.builds(
        "WITH t AS (FROM app), app AS (FROM t WHERE {}) SELECT count(*) FROM app WHERE name = {}".format,
        _trees(own),
        word,
    ),
)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(statements)
def test_the_same_rows_as_a_full_scan(world: World, sql: str) -> None:
    checked, chosen = world.choose(sql)
    everything = world.rows(sql, checked.views, (1 << len(world.table)) - 1, None)
    assert world.rows(sql, checked.views, chosen, mentions.columns(checked.tree)) == everything


@pytest.mark.parametrize(
    ("sql", "most"),
    [
        ("SELECT * FROM app WHERE name = 'nobody'", 0),
        ("SELECT * FROM events WHERE actor = 'nobody' OR target IN ('nothing')", 0),
        ("SELECT * FROM across WHERE who.name = 'nobody'", 0),
        ("SELECT * FROM app WHERE list_contains(tags, 'nothing')", 0),
        ("SELECT * FROM app WHERE event_time > '2030-01-01'", 0),
        ("SELECT * FROM events WHERE source = 'quiet'", 0),
        ("SELECT * FROM flow WHERE name = ?", 0),
    ],
)
def test_segments_are_left_out(world: World, sql: str, most: int) -> None:
    """Of those indexed, and of those whose times are known: pruning that keeps everything would be sound, too."""
    _, chosen = world.choose(sql, ["nobody"])
    certain = bits_of(range(13)) & ~bits_of(n for n in range(16) if world.table[n].min_time is None)
    assert (chosen & certain).bit_count() == most


def test_a_narrowing_holds_beside_the_statement(world: World) -> None:
    sql = "SELECT * FROM events"
    everything = world.choose(sql)[1]
    assert world.choose(sql, narrowing=Narrowing())[1] == everything
    for narrowing in (
        Narrowing(sources=frozenset({"flow"})),
        Narrowing(since=START + timedelta(hours=3), until=START + timedelta(hours=5)),
        Narrowing(entities=(("host", "w1"), ("host", "w2"))),
    ):
        chosen = world.choose(sql, narrowing=narrowing)[1]
        assert chosen != everything
        for number in numbers_of(everything & ~chosen):
            rows = pq.read_table(world.paths[number]).to_pylist()
            assert not any(_inside(row, world.table[number].source, narrowing) for row in rows)


def _inside(row: dict[str, Any], source: str, narrowing: Narrowing) -> bool:
    hosts = {row["name"], row["other"] if source == "app" else None}
    timely = narrowing.since is None or (
        row["event_time"] is not None and narrowing.since <= row["event_time"] < (narrowing.until or START)
    )
    here = narrowing.sources is None or source in narrowing.sources
    return here and timely and all(value in hosts for _, value in narrowing.entities)


@pytest.mark.parametrize(
    ("expression", "columns"),
    [
        ("name", ("name",)),
        ("tags[1]", ("tags",)),
        ("coalesce(name, tags[2], other)", ("name", "tags", "other")),
        ("NULL::VARCHAR", ()),
        ('CAST("n" AS VARCHAR)', ("n",)),
        ("upper(name)", None),
        ("coalesce(name, upper(other))", None),
        ("'name'", None),
        ("CASE WHEN n > 1 THEN name ELSE 'x' END", None),
    ],
)
def test_where_a_value_comes_from(expression: str, columns: tuple[str, ...] | None) -> None:
    found = carried(expression)
    assert (None if found is None else tuple(item.column for item in found)) == columns
    assert found is None or all(isinstance(item, Carrier) for item in found)


def test_an_index_is_believed_only_while_it_is_of_these_segments(world: World, tmp_path: Path) -> None:
    table = SegmentTable()
    table.append(replace(world.table[0], entry=n, sha256=f"{n:064x}") for n in range(3))
    columns: dict[str, Any] = {"app": ENTITIES, "flow": {}}

    def opened(table: SegmentTable = table, columns: Any = columns) -> EntityIndex:
        made = EntityIndex(tmp_path, digests=table.digests, columns=columns)
        made.load(tidy=True)
        return made

    words = [(index.hashed("host", "w1") | n).to_bytes(8, "little") for n in range(3)]
    first = opened()
    for number, content in enumerate(words):
        first.add({number: "app"}, [content])
    assert (opened().find("host", ["w1"]), opened().find("host", ["w2"]), opened().covered) == (0b111, 0, 0b111)
    (run, *others) = tmp_path.glob("*.run")
    assert not others, "small runs become one"

    shorter = SegmentTable()
    shorter.append([table[0]])
    assert opened(table=shorter).covered == 0
    assert run.exists(), "it is of segments that are only to be heard of"
    content = run.read_bytes()
    for changed in (
        lambda: opened(columns=columns | {"app": {"host": ("name",)}}),
        lambda: run.write_bytes(content[:-1] + b"\xff") and opened(),
        lambda: run.write_bytes(content[:-8]) and opened(),
        lambda: run.write_bytes(b"") or opened(),
    ):
        run.write_bytes(content)
        found = changed()
        assert isinstance(found, EntityIndex)
        assert found.covered == 0
        assert not run.exists()
