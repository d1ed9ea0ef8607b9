"""Folds: the same answers, row for row; never of anything but what was chosen, checked and is still there."""

from __future__ import annotations

import asyncio
import json
import stat
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.archive import segment
from strongroom.archive.encryption.envelope import FileFacts
from strongroom.archive.errors import FormatError
from strongroom.archive.merkle import root_of
from strongroom.archive.stores.store import ObjectStore
from strongroom.query.engine import QueryEngine
from strongroom.query.errors import IntegrityFailure
from strongroom.query.holdings import folding
from strongroom.query.holdings.cache import Shape
from strongroom.query.holdings.folding import FAN, Piece, plan
from strongroom.query.holdings.segments import Segment
from strongroom.query.limits import QueryLimits
from strongroom.query.process.fold_maker import FoldMaker
from strongroom.query.process.fold_writer import Job

from .conftest import APP, EMPTY, FLOW, LIMITS, Archive, Bench
from .test_cache import RemoteStore

VIEWS = (replace(APP, entities={"host": ("name",)}), FLOW, EMPTY)
UNFOLDED = replace(LIMITS, fold_bytes=0, seconds=30.0, spare_workers=0)
FOLDED = replace(UNFOLDED, fold_bytes=1 << 30)


class Folding(Bench):
    """An engine that indexes and folds when it is told to."""

    def __init__(
        self, archive: Archive, directory: Path, limits: QueryLimits = FOLDED, store: ObjectStore | None = None
    ) -> None:
        self.runner = asyncio.Runner()
        self.archive, self.limits = archive, limits
        store = store or archive.store
        self.engine = QueryEngine(store=store, log=archive.log, views=VIEWS, directory=directory, limits=limits)
        self.engine._folder.start = lambda: None  # type: ignore[method-assign]
        self.run(self.engine.start())
        self.folds = self.engine._folds

    def fold(self) -> None:
        for view in ("app", "flow"):  # a bucket's segments are folded once they are here
            self.rows(f"SELECT count(*) FROM {view}")
        self.run(self.engine.indexed())
        self.run(self.engine.folded())

    def used(self, sql: str, **options: Any) -> int:
        """How many folds the question read."""
        counted = []
        pick = self.folds._pick
        self.folds._pick = lambda chosen, gone: counted.append(pick(chosen, gone)) or counted[-1]  # type: ignore
        try:
            self.rows(sql, **options)
        finally:
            self.folds._pick = pick  # type: ignore[method-assign]
        return len(counted[-1])


def many(root: Path) -> Archive:
    """Two sources; one of them sealed before a column came, some of its records no text."""
    archive = Archive(root)
    for number in range(FAN + 3):
        archive.seal_app(1 + number % 4)
        columns: dict[str, pa.Array] = {"bytes": pa.array([number, -number], pa.int64())}
        if number % 2:
            columns["added_later"] = pa.array([0.5, None], pa.float64())
        last = b"\xff" if number == 5 else b"x"
        archive.seal("flow", [b"%d" % number, b"- " + last], columns)
    for number in range(FAN):
        archive.seal("flow", [b"late"], {"bytes": pa.array([number], pa.int64()), "added_later": pa.array([1.5])})
    return archive


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return many(tmp_path_factory.mktemp("folding") / "archive")


@pytest.fixture(scope="module")
def unfolded(sealed: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folding]:
    bench = Folding(sealed, tmp_path_factory.mktemp("unfolded"), UNFOLDED)
    bench.fold()
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def folded(sealed: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folding]:
    """With folds of folds."""
    bench = Folding(sealed, tmp_path_factory.mktemp("folded"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "FAN", 4)
        bench.fold()
    yield bench
    bench.close()


QUESTIONS = (
    "SELECT * FROM app{where} ORDER BY _segment, _row",
    "SELECT name, count(*), sum(number), max(_row) FROM app{where} GROUP BY name ORDER BY name",
    "SELECT _segment, _row, raw, raw_bytes, context, bytes, added_later FROM flow{where} ORDER BY 1, 2",
    "SELECT raw FROM flow{where} ORDER BY raw LIMIT 5",
    "SELECT source, actor, action, raw, _segment, _row FROM events{where} ORDER BY _segment, _row",
    "SELECT a.name, f.bytes FROM app a JOIN flow f ON f.bytes = a.number{where} ORDER BY ALL",
)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(QUESTIONS), st.integers(0, 60), st.integers(-1, 40), st.integers(0, 3))
def test_folded_as_unfolded(
    folded: Folding, unfolded: Folding, question: str, less: int, batch: int, seconds: int
) -> None:
    where = []
    if batch >= 0 and "app" in question and " JOIN " not in question:
        where.append(f"name >= 'n{batch}'" if batch % 2 else f"name IN ('n{batch}', 'n{batch + 2}')")
    if seconds and " JOIN " not in question:
        where.append(f"event_time >= TIMESTAMPTZ '2026-11-24 12:00:0{seconds}Z'")
    sql = question.format(where=" WHERE " + " AND ".join(where) if where else "")
    as_of = max(folded.archive.log.size - less, 0)
    expected, body, _ = unfolded.answer(sql, as_of=as_of)
    answer, found, _ = folded.answer(sql, as_of=as_of)
    assert json.loads(found) == json.loads(body)
    assert (answer.segments, answer.reading) == (expected.segments, expected.reading)


def test_folds_are_read_where_all_their_segments_were_chosen(folded: Folding, sealed: Archive) -> None:
    kinds = [(fold.about.source, fold.about.text, len(fold.about.numbers)) for fold in folded.folds.all()]
    # 19 of `app`; of `flow` 10 without the later column, 25 with it of which one is no text.
    assert Counter(kinds) == {("app", True, 4): 4, ("app", True, 16): 1, ("flow", True, 4): 8, ("flow", True, 16): 1}
    assert folded.used("SELECT count(*) FROM app") == 1
    assert folded.used("SELECT count(*) FROM app", as_of=sealed.log.size - 36) == 2  # the first eight
    assert folded.used("SELECT count(*) FROM app WHERE name = 'n2'") == 0
    assert folded.used("SELECT count(*) FROM flow") == 5
    for fold in folded.folds.all():
        assert stat.S_IMODE(fold.path.stat().st_mode) == 0o400
        assert stat.S_IMODE(fold.path.parent.stat().st_mode) & 0o007 == 0


def test_what_is_found_in_a_fold_is_proven_by_its_original(folded: Folding, sealed: Archive) -> None:
    fold = next(fold for fold in folded.folds.all() if fold.about.source == "app")
    number = fold.about.numbers[-1]
    key = folded.engine._catalog.table[number].key
    assert folded.used("SELECT raw FROM app") == 1
    rows = folded.rows(f"SELECT _row, raw FROM app WHERE _segment = '{key}' ORDER BY _row")
    place = folded.engine.place(key)
    assert place is not None
    reference = sealed.log.entry(place[0]).segments[place[1]]
    path = folded.engine._cache.path(folded.engine._catalog.table[number])
    (run,) = segment.runs(path, [0])
    assert [[row, raw.decode()] for row, raw in enumerate(run.raws)] == rows
    leaves = segment.leaf_hashes([raw.encode() for _, raw in rows], bytes.fromhex(_secret(path)), 0)
    assert root_of([root_of(leaves)]).hex() == reference.root


def _secret(path: Path) -> str:
    with pa.parquet.ParquetFile(path) as file:
        return segment.secret_of(file).hex()


def test_restarts_damage_and_removal(sealed: Archive, tmp_path: Path) -> None:
    sql = "SELECT name, number, _segment, _row FROM app ORDER BY _segment, _row"
    bench = Folding(sealed, tmp_path)
    bench.fold()
    expected = bench.rows(sql)
    paths = {fold.about.source: fold.path for fold in bench.folds.all()}
    _spoil(paths["app"])  # while it runs: seen by its stamp
    assert bench.used(sql) == 0
    assert bench.rows(sql) == expected
    bench.run(bench.engine.folded())  # deleted, and made again
    assert bench.used(sql) == 1
    bench.close()

    for check in ("hash", "stat"):
        bench = Folding(sealed, tmp_path, replace(FOLDED, cache_check=check))
        assert bench.used(sql) == 0  # nothing is believed before it was looked at
        bench.folds.look()
        assert bench.used(sql) == 1
        assert bench.rows(sql) == expected
        bench.close()
        _spoil(paths["app"])
        bench = Folding(sealed, tmp_path, replace(FOLDED, cache_check=check))
        bench.folds.look()
        assert not paths["app"].exists()
        assert len(bench.folds.all()) == 1
        bench.fold()
        assert bench.rows(sql) == expected
        paths["flow"].unlink()  # by whoever cleans up
        assert bench.used("SELECT count(*) FROM flow") == 0
        bench.run(bench.engine.folded())
        assert len(bench.folds.all()) == 2
        bench.close()


def _spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(0o400)


def test_two_engines_share_the_folds_and_a_reader_keeps_his(sealed: Archive, tmp_path: Path) -> None:
    one, other = Folding(sealed, tmp_path), Folding(sealed, tmp_path)
    one.fold()
    assert [other.folds.all(), len(one.folds.all())] == [[], 2]
    other.fold()
    assert {fold.name for fold in other.folds.all()} == {fold.name for fold in one.folds.all()}
    assert other.used("SELECT * FROM app") == 1
    everything = (1 << len(one.engine._catalog.table)) - 1
    with one.folds.reading(everything, 0) as picked:
        other.folds._max_bytes = other.folds._opened()._max_bytes = 0
        other.folds.look()
        other.folds.drop(everything)
        assert all(fold.path.exists() for fold in picked)
    assert one.used("SELECT * FROM app") == 1
    other.folds.look()
    assert not any(fold.path.exists() for fold in picked)
    assert one.used("SELECT * FROM app") == 0
    for bench in (one, other):
        bench.close()


def test_a_fold_of_a_remote_archive_makes_copies_unnecessary(sealed: Archive, tmp_path: Path) -> None:
    sql = "SELECT *, _segment, _row FROM app ORDER BY _segment, _row"
    remote = RemoteStore(sealed.root)
    bench = Folding(sealed, tmp_path, store=remote)
    bench.engine._cache._fetch_from_store = lambda item, path: _fetched(remote, item.key, path)
    bench.fold()
    expected, fetched = bench.rows(sql), remote.fetched
    bench.engine._cache._shelf._max_bytes = 0
    bench.engine._cache._shelf.evict()
    assert not list((tmp_path / "segments").rglob("*.parquet"))
    assert bench.used(sql) == 1
    assert remote.fetched == fetched + 3  # of 19
    assert bench.rows(sql) == expected
    bench.close()


def _fetched(remote: RemoteStore, key: str, path: Path) -> FileFacts:
    remote.fetch(key, path)
    return FileFacts(path.stat().st_size, segment.file_digest(path))


def test_a_missing_original_refuses_the_question_as_ever(tmp_path: Path) -> None:
    archive = many(tmp_path / "archive")
    bench = Folding(archive, tmp_path / "query")
    bench.fold()
    fold = next(fold for fold in bench.folds.all() if fold.about.source == "app")
    key = bench.engine._catalog.table[fold.about.numbers[0]].key
    archive.path(key).unlink()
    with pytest.raises(IntegrityFailure, match="no such object"):  # without an order it is missing
        bench.rows("SELECT count(*) FROM app")
    assert fold not in bench.folds.all()
    bench.run(bench.engine.folded())
    assert not fold.path.exists()
    assert not any(set(made.about.numbers) & {fold.about.numbers[0]} for made in bench.folds.all())
    bench.close()


def test_a_pruned_segment_is_in_no_answer_and_no_fold(tmp_path: Path) -> None:
    archive = many(tmp_path / "archive")
    bench = Folding(archive, tmp_path / "query")
    bench.fold()
    fold = next(fold for fold in bench.folds.all() if fold.about.source == "app")
    key = bench.engine._catalog.table[fold.about.numbers[0]].key
    bench.engine._catalog._gone = [(archive.log.size - 1, key)]  # as an entry that names it as pruned does
    assert bench.used("SELECT _segment FROM app") == 0
    assert key not in {name for (name,) in bench.rows("SELECT _segment FROM app")}
    assert bench.used("SELECT _segment FROM app", as_of=archive.log.size - 1) == 0  # nor for snapshots before
    bench.run(bench.engine.folded())
    assert not fold.path.exists()
    (fold,) = (fold for fold in bench.folds.all() if fold.about.source == "app")  # of the 18 others
    assert key not in {bench.engine._catalog.table[number].key for number in fold.about.numbers}
    bench.close()


def test_the_bound_holds_and_nothing_is_made_again_and_again(sealed: Archive, tmp_path: Path) -> None:
    bench = Folding(sealed, tmp_path)
    bench.fold()
    sizes = {fold.about.source: fold.size for fold in bench.folds.all()}
    bench.close()
    limit = max(sizes.values()) + 1  # one of the two
    bench = Folding(sealed, tmp_path, replace(FOLDED, fold_bytes=limit))
    names = set()
    for _ in range(3):
        bench.fold()
        names.add(tuple(sorted(fold.name for fold in bench.folds.all())))
        assert sum(path.stat().st_size for path in bench.folds.root.iterdir()) <= limit
    assert len(names) == 1
    bench.close()
    bench = Folding(sealed, tmp_path, UNFOLDED)
    bench.fold()
    assert list((tmp_path / "folds" / "files").iterdir()) == []
    bench.close()


NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANY = Segment("", "a", "2026-01-01", 0, NOW, 1, 1, "", "", None, None)
SHAPE = Shape(frozenset({"a"}), "a: int64", ())


def pieces() -> st.SearchStrategy[list[Piece]]:
    made = st.tuples(st.sampled_from(["a", "b"]), st.booleans(), st.integers(1, 4), st.booleans())
    return st.lists(made, max_size=120).map(
        lambda rows: [
            Piece(ANY, (source, SHAPE, text), _numbers(number, single), f"2026-01-0{day}", 1, 1)
            for number, (source, text, day, single) in enumerate(rows)
        ]
    )


def _numbers(number: int, single: bool) -> tuple[int, ...]:
    return (number,) if single else tuple(range(1000 + FAN * number, 1000 + FAN * (number + 1)))


@given(pieces())
def test_a_plan_folds_what_is_alike_and_leaves_little(given: list[Piece]) -> None:
    runs = plan(given)
    for run in runs:
        assert len(run) == FAN
        assert len({piece.family for piece in run}) == len({len(piece.numbers) for piece in run}) == 1
    taken = [id(piece) for run in runs for piece in run]
    assert len(taken) == len(set(taken))
    kinds: dict[tuple[Any, ...], list[Piece]] = {}
    for piece in given:
        kinds.setdefault((piece.family, len(piece.numbers)), []).append(piece)
    for alike in kinds.values():
        newest = max(piece.date for piece in alike)
        left = [piece for piece in alike if id(piece) not in taken]
        assert sum(piece.date == newest for piece in left) < FAN
        assert sum(piece.date < newest for piece in left) < FAN


def test_a_process_that_can_not_make_one_is_an_error_and_no_fold(tmp_path: Path) -> None:
    rubbish = tmp_path / "files" / "rubbish.parquet"
    rubbish.parent.mkdir()
    rubbish.write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with FoldMaker([tmp_path], threading.Event()) as maker, pytest.raises(FormatError, match="its process ended"):
        maker.make(Job([rubbish.as_posix()], "", {}), tmp_path / "out")
