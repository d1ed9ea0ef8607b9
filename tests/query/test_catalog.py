"""The catalog in columns, on disk, and at a million segments."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from strongroom.query.holdings.catalog import Catalog
from strongroom.query.holdings.segments import Segment, SegmentTable, bits_of, numbers_of

from .conftest import Archive

SEALED = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def test_segments_come_back_as_they_went_in() -> None:
    table = SegmentTable()
    given = []
    for n in range(3000):
        low, high, version = (None, None, "") if n % 5 == 0 else (-n, n, f"v{n}")
        source = f"s{n % 3}" if low is None else "ß"
        numbers = (n, 10 * n, f"{n:064x}", "ü", low, high, n % 2, version)
        given.append(Segment(f"segments/{n}", source, "2026-01-01", n // 2, SEALED, *numbers))
    table.append(given[:1])
    early = table.table()
    table.append(given[1:])
    assert [table[number] for number in range(len(table))] == given
    assert early.num_rows == 1, "growth does not reach into what was read before"
    restored = SegmentTable.restore(table.table())
    restored.append(given[:1])
    assert [restored[number] for number in range(3001)] == [*given, given[0]]
    assert restored.number("segments/77") == 77
    chosen = table.upto(500) & table.of_sources(["ß"]) & table.within(None, -3)
    expected = [s for s in given if s.entry < 500 and s.source == "ß" and s.min_time is not None and s.min_time <= -3]
    assert table.chosen(chosen) == expected
    assert bits_of(numbers_of(chosen)) == chosen


def test_a_million_segments_are_chosen_from_without_looking_at_each(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 1_000_000
    numbers = pa.array(range(count), pa.int64())
    sources = pa.DictionaryArray.from_arrays(pc.bit_wise_and(numbers, 7).cast(pa.int32()), pa.array(list("abcdefgh")))
    text = pa.repeat("x", count)
    columns = dict.fromkeys(("key", "version", "date", "sha256", "root"), text)
    columns |= dict.fromkeys(("position", "sealed_at", "records", "bytes"), numbers)
    columns |= {"source": sources, "entry": numbers, "min_time": pc.multiply(numbers, 1000)}
    columns |= {"max_time": pc.add(columns["min_time"], 2000)}
    table = SegmentTable.restore(pa.table(columns))
    made: list[int] = []
    look = SegmentTable.__getitem__
    monkeypatch.setattr(SegmentTable, "__getitem__", lambda self, number: made.append(number) or look(self, number))
    chosen = table.upto(900_000) & table.of_sources(["b", "c", "none"]) & table.within(5_000_000, 6_000_000)
    assert numbers_of(chosen) == [n for n in range(4998, 6001) if n & 7 in (1, 2)]
    assert table.totals(chosen) == (sum(numbers_of(chosen)), sum(numbers_of(chosen)))
    assert table.span(chosen) == (5_001_000, 5_996_000)
    assert not made
    assert len(table.chosen(chosen)) == len(made) == chosen.bit_count()


def test_the_catalog_is_kept_and_believed_only_for_its_log(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "query" / "catalog"
    first = Catalog(archive.store, archive.log)
    first.follow()
    first.keep(path)
    size = archive.log.size
    again = Catalog(archive.store, archive.log)
    again.recall(path)
    assert again.size == size
    assert again.entries_table(size).equals(first.entries_table(size))
    assert again.segments_table(size).equals(first.segments_table(size))
    key = archive.log.entry(2).segments[0].key
    assert again.place(key) == (2, 0)
    other = Archive(tmp_path / "other")
    for _ in range(size):
        other.seal_app()
    elsewhere = Catalog(other.store, other.log)
    elsewhere.recall(path)
    assert elsewhere.size == 0
    content = path.read_bytes()
    for damaged in (content[:-1], content[:40], b"", content[:50] + b"?" + content[51:]):
        path.write_bytes(damaged)
        refused = Catalog(archive.store, archive.log)
        refused.recall(path)
        assert refused.size == 0
        assert refused.follow() == size
