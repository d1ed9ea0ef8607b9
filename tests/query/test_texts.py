"""Looking for texts leaves out segments and no row: random patterns over random records, against a full scan."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from strongroom.archive import rebuilding
from strongroom.archive.rebuilding import Form
from strongroom.archive.segment import UNIVERSAL
from strongroom.query.holdings import grams
from strongroom.query.holdings.index import EntityIndex
from strongroom.query.holdings.pruning import Pruner
from strongroom.query.holdings.segments import Segment, SegmentTable, bits_of, numbers_of
from strongroom.query.holdings.texts import TextIndex
from strongroom.query.process import guard, mentions, setup, where
from strongroom.query.process.extraction import extract
from strongroom.query.views import Files, ViewSource, sources_of, view_names

START = datetime(2026, 1, 1, tzinfo=UTC)
PIECES = [
    '"userName":"',
    "mallory",
    "Mallory",
    "kelvin",
    "\u212aELVIN",
    "d\u0130sk",
    "\u017fession",
    "stra\u00dfe",
    "%",
    "_",
]
PIECES += ["\\", "grün", "GRÜN", "😀", " ", "10.0.31.7", "prod-logs", "a", "\0", "\n", "0123456789abcdef"]
FIELDS = pa.schema([("address", pa.string()), ("port", pa.int32()), ("start", pa.timestamp("us", tz="UTC"))])
FORM = Form(b"v1", ("address", "port", "start"))
APP = ViewSource("app", pa.schema([]), {"message": "raw"}, "")
FLOW = ViewSource("flow", FIELDS, {"source_address": "address"}, "")
SOURCES = (APP, FLOW)
INDEXED, SEGMENTS, BINARY = 18, 20, (3, 8)


@dataclass
class World:
    """Segments on disk, what is known of them, and a database to ask."""

    table: SegmentTable
    texts: TextIndex
    pruner: Pruner
    files: list[Files]
    root: Path
    connection: duckdb.DuckDBPyConnection

    def choose(self, sql: str, parameters: Any = None) -> tuple[guard.Checked, int]:
        checked = guard.check(sql, view_names(SOURCES), self.connection, max_bytes=1 << 20)
        known = where.conditions(checked.tree, checked.views, where.Constants(parameters, self.connection))
        reading = {view: known.get(view) for view in checked.views}
        names = [source.name for source in sources_of(checked.views, SOURCES)]
        return checked, self.pruner.choose(99, names, reading)[1]

    def rows(self, sql: str, parameters: Any, checked: guard.Checked, chosen: int) -> list[str]:
        files: dict[str, list[Files]] = {}
        for number in numbers_of(chosen):
            files.setdefault(self.table[number].source, []).append(self.files[number])
        for statement in setup.statements(checked.views, mentions.columns(checked.tree), files, self.root, SOURCES, []):
            self.connection.execute(statement)
        return sorted(map(str, self.connection.execute(sql, parameters).fetchall()))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    chance = random.Random(11)
    root = tmp_path_factory.mktemp("texts")
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    table, files = SegmentTable(), []
    texts = TextIndex(root / "index", digests=table.digests)
    for number in range(SEGMENTS):
        source = SOURCES[number % 2]
        key = f"segments/source={source.name}/date=2026-01-01/w-1-{number}.parquet"
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = _lines(chance) if source is FLOW else _records(chance, number in BINARY)
        pq.write_table(rows, path)
        files.append(Files(frozenset(rows.column_names), (FORM,) if source is FLOW else (), [path]))
        table.append([Segment(key, source.name, "2026-01-01", number, START, 9, 1, f"{number:064x}", "", None, None)])
        if number < INDEXED:
            fields = FORM.columns if source is FLOW else ()
            texts.add({number: extract(connection, str(path), kinds={}, fields=fields, stored_bytes=2_000)[1]})
    entities = EntityIndex(root / "index", digests=table.digests, columns={})
    yield World(table, texts, Pruner(table, entities, texts, SOURCES, []), files, root, connection)
    connection.close()


def _records(chance: random.Random, binary: bool) -> pa.Table:
    own = chance.sample(PIECES, 5)
    texts = ["".join(chance.choices(own, k=chance.randint(0, 6))).encode() for _ in range(chance.randint(1, 30))]
    return _table(texts + [b"mallory \xff"] * binary, None)


def _lines(chance: random.Random) -> pa.Table:
    """Lines most of which their columns give back, and one that has two spaces."""
    count = chance.randint(1, 30)
    address = [f"10.0.{chance.randint(0, 60)}.{chance.randint(0, 9)}" for _ in range(count)]
    port = [chance.choice([443, 51_413, chance.randint(1, 65_535)]) for _ in range(count)]
    start = [START + timedelta(seconds=chance.randint(0, 9)) for _ in range(count)]
    known = {"address": address, "port": port, "start": start}
    lines = [f"{a} {p} {int(s.timestamp())}".encode() for a, p, s in zip(address, port, start, strict=True)]
    lines[0] = lines[0].replace(b" ", b"  ") + b" mallory"
    made = _table(lines, b"v1")
    for field in FIELDS:
        made = made.append_column(field, pa.array(known[field.name], field.type))
    return rebuilding.omit(made, [FORM])


def _table(raws: list[bytes], context: bytes | None) -> pa.Table:
    count = len(raws)
    columns = {
        "event_time": [START] * count,
        "received_at": [START] * count,
        "sequence": [0] * count,
        "position": list(range(count)),
        "context": [context] * count,
        "raw": raws,
    }
    return pa.table(columns, schema=UNIVERSAL)


piece = st.one_of(
    st.sampled_from(PIECES),
    st.sampled_from(
        ["mall", "llory", "elvin", "sess", "DISK", "0.31.7", "51413", "17672", "10.0.5", "prod-logs%a", "İ"]
    ),
)
text = st.lists(piece, max_size=4).map("".join)
wild = st.lists(piece | st.sampled_from(["%", "_", "!%", "!!"]), max_size=5).map("".join)
atom = st.one_of(
    piece.map(re.escape),
    st.sampled_from([".", ".*", "^", "$", r"\d", r"\s+", "[a-m]", "[^]x]", "[[:alpha:]]+", "(?i)", r"\.", "{", "]"]),
)
expression = st.recursive(
    atom,
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("{}|{}".format, inner, inner),
        st.builds("({})".format, inner),
        st.builds("(?:{}){}".format, inner, st.sampled_from(["?", "*", "+", "{0,2}", "{2}", "+?"])),
        st.builds("(?P<n>{}|{})".format, inner, inner),
        st.builds("{}{}".format, inner, st.sampled_from(["?", "+", "{1,}", "??"])),
    ),
    max_leaves=6,
)
asked = st.one_of(
    st.tuples(
        st.sampled_from(
            [
                "raw LIKE {0}",
                "raw ILIKE {0}",
                "raw LIKE {0} ESCAPE '!'",
                "raw ILIKE {0} ESCAPE '!'",
                "NOT (raw LIKE {0})",
                "raw NOT ILIKE {0}",
                "raw LIKE '%' || {0} || '%'",
                "raw ILIKE concat('%', {0}, '%')",
                "lower(raw) LIKE '%' || lower({0}) || '%'",
                "context LIKE {0}",
            ]
        ),
        wild,
    ),
    st.tuples(
        st.sampled_from(
            [
                "contains(raw, {0})",
                "contains(lower(raw), lower({0}))",
                "starts_with(raw, {0})",
                "raw ^@ {0}",
                "ends_with(raw, {0})",
                "regexp_matches(raw, '(?i)' || regexp_escape({0}))",
                "raw = {0}",
            ]
        ),
        text,
    ),
    st.tuples(
        st.sampled_from(
            ["regexp_matches(raw, {0})", "raw ~ {0}", "regexp_matches(raw, {0}, 'i')", "regexp_matches(raw, {0}, 's')"]
        ),
        expression,
    ),
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    asked, asked, st.sampled_from(["{0}", "({0}) AND {1}", "({0}) OR {1}"]), st.sampled_from(["app", "flow", "events"])
)
def test_the_same_rows_as_a_full_scan(
    world: World, one: tuple[str, str], two: tuple[str, str], joined: str, view: str
) -> None:
    condition = joined.format(one[0].format("$one"), two[0].format("$two"))
    sql = f"SELECT _segment, _row FROM {view} WHERE {condition}"
    bound = {name: value for name, (_, value) in (("one", one), ("two", two)) if f"${name}" in sql}
    checked, chosen = world.choose(sql, bound)
    try:
        everything = world.rows(sql, bound, checked, (1 << SEGMENTS) - 1)
    except duckdb.Error:
        assume(False)
        raise
    assert world.rows(sql, bound, checked, chosen) == everything


@pytest.mark.parametrize(
    "condition",
    [
        "raw LIKE '%nowhere at all%'",
        "raw ILIKE '%NoWhere%'",
        "contains(raw, 'nowhere') AND event_time IS NULL",
        "starts_with(raw, 'nowhere') OR ends_with(raw, 'otherwise')",
        "lower(raw) LIKE '%' || lower('NoWhere') || '%'",
        "regexp_matches(raw, '\"(nowhere|otherwise(ly|ness)+)\"')",
        "regexp_matches(raw, '(?i)^no.*nowhere', 'i')",
        "raw LIKE '10.0.99.9 51412%'",
        "raw ~ 'at all nowhere'",
    ],
)
@pytest.mark.parametrize("view", ["app", "flow", "events"])
def test_segments_are_left_out(world: World, view: str, condition: str) -> None:
    """Of those indexed, all but those with records that are no text."""
    _, chosen = world.choose(f"SELECT count(*) FROM {view} WHERE {condition}")
    binary = bits_of(number for number in BINARY if world.table[number].source == "app")
    assert chosen & ~binary & ((1 << INDEXED) - 1) == 0
    assert chosen >> INDEXED


def test_looking_for_very_many_texts_is_a_scan(world: World) -> None:
    many = " OR ".join(f"contains(raw, 'nowhere{number}')" for number in range(where.MAX_LOOKUPS + 1))
    few = many.rpartition(" OR ")[0]
    chosen = [world.choose(f"SELECT * FROM app WHERE {condition}")[1].bit_count() for condition in (few, many)]
    assert chosen[0] < chosen[1] == SEGMENTS / 2
    words = "nowhere " * 10_000
    assert world.choose("SELECT * FROM app WHERE contains(raw, $1)", [words])[1].bit_count() == chosen[0]


def test_what_is_looked_for_is_found_where_it_is(world: World) -> None:
    """Each segment's own records, each as a whole: an index that knew nothing would keep all the others, too."""
    kept = 0
    for number in range(0, INDEXED, 2):
        for record in pq.read_table(world.files[number].paths[0]).column("raw").to_pylist():
            words = [record.decode("utf-8", "replace").replace("\ufffd", "")]
            found = world.texts.find(words, bits_of(range(0, INDEXED, 2)))
            assert found >> number & 1
            kept += found.bit_count() if len(grams.hashes(words)) > 9 else 0
    assert kept > 0
    assert world.texts.find(["0123456789abcdefX"], (1 << INDEXED) - 1).bit_count() <= 2


def test_small_letters_are_those_of_the_database() -> None:
    """Whatever is some ASCII letter to ILIKE, to lower() or to a regular expression is folded to it."""
    characters = [chr(point) for point in range(0x80, 0x110000) if not 0xD800 <= point < 0xE000]
    to_ilike = " OR ".join(f"c ILIKE '{letter}'" for letter in ascii_lowercase)
    kin = set[str]()
    with duckdb.connect() as connection:
        for known, same in (
            (characters, "lower(c) <= '~' OR regexp_matches(c, '(?i)[a-z]')"),
            (characters[:0x20000], to_ilike),
        ):
            connection.register("known", pa.table({"c": known}))
            kin |= {c for (c,) in connection.execute(f"SELECT c FROM known WHERE {same}").fetchall()}
    assert kin == {"\u212a", "\u0130", "\u017f"}
    assert [grams.folded(character.encode()) for character in sorted(kin)] == [b"i", b"s", b"k"]
    assert grams.folded("GRÜN".encode()) == "grÜn".encode()


def test_a_filter_lets_through_what_it_holds() -> None:
    chance = random.Random(3)
    words = ["".join(chance.choices("abcdefXYZ0123-./äß ", k=chance.randint(0, 40))) for _ in range(3_000)]
    made = grams.Filter(100_000)
    made.add("".join(words).encode())
    packed = made.packed()
    assert len(packed) <= grams.SHARE * 100_000
    for word in words:
        for each in grams.hashes([word]):
            place = int(each) >> (65 - (8 * len(packed)).bit_length())
            assert packed[place >> 3] >> (place & 7) & 1


def test_the_index_is_believed_only_while_it_is_of_these_segments(tmp_path: Path) -> None:
    one = Segment("k", "app", "2026-01-01", 0, START, 1, 1, "", "", None, None)
    table = SegmentTable()
    table.append(replace(one, entry=n, sha256=f"{n:064x}") for n in range(3))

    def opened(table: SegmentTable = table) -> TextIndex:
        made = TextIndex(tmp_path, digests=table.digests)
        made.load(tidy=True)
        made.load(tidy=True)  # its own runs are not others'
        return made

    first = opened()
    for number, word in enumerate(["mallory", "trudy-the-intruder", "mallory"]):
        made = grams.Filter(100 << number)
        made.add(word.encode())
        first.add({number: made.packed()})
    for index in (first, opened()):
        assert (index.find(["MALLORY"], 0b111), index.find(["intruder"], 0b111), index.covered) == (0b101, 0b10, 0b111)
        assert index.find(["intruder"], 0b101) == 0
        assert index.find(["short", "no"], 0b111) == 0
        assert index.find(["tiny"], 0b111) == 0b111, "too short to be told"
    (run, *others) = tmp_path.glob("*.text")
    assert not others, "small runs become one"

    changed = SegmentTable()
    changed.append([one, one, one])
    content = run.read_bytes()
    for damage in (
        lambda: opened(changed),
        lambda: run.write_bytes(content[:-1] + b"\xff") and opened(),
        lambda: run.write_bytes(content[:-8]) and opened(),
        lambda: run.write_bytes(b"") or opened(),
    ):
        run.write_bytes(content)
        found = damage()
        assert isinstance(found, TextIndex)
        assert found.covered == 0
        assert found.find(["mallory"], 0b111) == 0, "and nobody asks it for what it does not cover"
        assert not run.exists()
