"""What the entries name, held against the objects the store has.

Per object, as far as the level asks: it exists with the stated length (all levels), has the stated SHA-256
(*complete*), and, for *deep*, its records give the stated roots, its typed columns are what its records give, and its
details state what is in it. A changed segment is narrowed down to row groups by their roots. Whatever no entry names,
no layout rule explains and no writer is about to commit is an orphan.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from strongroom.archive import details, layout, segment, tiles
from strongroom.archive.entry import Entry, ObjectRef, SegmentRef
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.findings import Asked, Finding, Report
from strongroom.archive.history import History
from strongroom.archive.signer import object_digest
from strongroom.archive.stores.store import ObjectStore

# (source, rows with at least `raw` and `context`) -> event_time and typed columns, None for a source it does not know.
Rederive = Callable[[str, pa.Table], pa.Table | None]
# (what is being done, done so far, total)
Progress = Callable[[str, int, int], None]


class Holdings:
    """What the entries name, held against what the store has."""

    def __init__(
        self,
        store: ObjectStore,
        history: History,
        report: Report,
        rederive: Rederive | None,
        progress: Progress,
        threads: int,
    ) -> None:
        self.store, self.history, self.listed, self.asked = store, history, history.listed, history.asked
        self.level = self.asked.level
        self.report, self.rederive, self.progress, self.threads = report, rederive, progress, threads
        memory = history.trust.memory
        self.start = memory.size if self.level == "quick" and memory is not None else 0
        self.explained: set[str] = set()
        self.digests: dict[str, str] = {}  # SHA-256 -> key, to recognise swapped segments

    def check(self) -> None:
        segments = records = named = 0
        total = sum(1 for key in self.listed if key.startswith((layout.SEGMENTS, layout.DETAILS)))
        with ThreadPoolExecutor(self.threads) as pool:
            for group in _batched(self.history.entries(), 256):
                tasks: list[tuple[Entry, SegmentRef | ObjectRef]] = []
                for entry in group:
                    self.explained.update(reference.key for reference in entry.objects)
                    if entry.kind == "incident" and isinstance(entry.data.get("key"), str):
                        self.explained.add(entry.data["key"])
                    self.digests.update((reference.sha256, reference.key) for reference in entry.segments)
                    segments += len(entry.segments)
                    records += sum(reference.records for reference in entry.segments)
                    if entry.index >= self.start:
                        tasks += [(entry, reference) for reference in entry.objects]
                for found in pool.map(lambda task: self._check_object(*task), tasks):
                    self.report.findings += found
                    named += 1
                    self.progress("objects", named, total)
        self.report.counts |= {"segments": segments, "records": records, "objects_checked": named}
        if self.level == "sampled":
            self.report.notes.append(_detection(self.asked))
        self._check_nothing_else()

    def _check_object(self, entry: Entry, reference: SegmentRef | ObjectRef) -> list[Finding]:
        what = "SEGMENT" if isinstance(reference, SegmentRef) else "DETAILS"
        where: dict[str, Any] = {"index": entry.index}
        try:
            size = self.store.head(reference.key).bytes
        except ObjectMissing:
            return [Finding(f"{what}_MISSING", reference.key, f"{reference.bytes} bytes", "no object", where)]
        if size != reference.bytes:
            where |= self._damage(reference)
            return [Finding(f"{what}_CHANGED", reference.key, f"{reference.bytes} bytes", f"{size} bytes", where)]
        if self.level in ("quick", "inventory") or not self._is_sampled(reference):
            return []
        actual = object_digest(self.store, reference)
        if actual != reference.sha256:
            where |= self._damage(reference, actual)
            expected = f"SHA-256 {reference.sha256}"
            return [Finding(f"{what}_CHANGED", reference.key, expected, f"SHA-256 {actual}", where)]
        if self.level == "complete":
            return []
        if isinstance(reference, SegmentRef):
            return self._check_records(entry, reference)
        return self._check_details(entry) if entry.kind == "segment" else []

    def _is_sampled(self, reference: SegmentRef | ObjectRef) -> bool:
        """All of them but in *sampled*: there a draw by the seed, which whoever wrote the object could not know."""
        if self.level != "sampled":
            return True
        drawn = int.from_bytes(sha256(self.asked.seed + reference.key.encode()).digest()[:8], "big") / 2**64
        return drawn < self.asked.fraction

    def _damage(self, reference: SegmentRef | ObjectRef, actual: str | None = None) -> dict[str, Any]:
        """Where in a changed segment the records differ, as exactly as the entry's row-group roots allow."""
        if not isinstance(reference, SegmentRef):
            return {}
        if actual in self.digests:
            return {"holds": self.digests[actual]}
        with self._local(reference.key) as path:
            try:
                found = segment.read_back(path)
            except FormatError:
                return {"records": f"0..{reference.records - 1}", "readable": "no"}
        if found.root == reference.root and found.records == reference.records:
            return {"records": "none: every record still has its leaf; footer, typed columns or padding changed"}
        pairs = zip(reference.groups, found.groups, strict=False)
        changed = [number for number, (expected, actual) in enumerate(pairs) if expected != actual]
        if not changed or found.records != reference.records:
            return {"records": f"0..{reference.records - 1}", "found_records": found.records}
        last = min((changed[-1] + 1) * segment.ROW_GROUP, reference.records) - 1
        return {"row_groups": changed, "records": f"{changed[0] * segment.ROW_GROUP}..{last}"}

    def _check_records(self, entry: Entry, reference: SegmentRef) -> list[Finding]:
        """A segment with the right bytes: does it hold the records its entry states, and columns they give?"""
        where: dict[str, Any] = {"index": entry.index}
        with self._local(reference.key) as path:
            try:
                found = segment.read_back(path)
            except FormatError as error:
                return [Finding("RECORD_ROOT_MISMATCH", reference.key, f"root {reference.root}", error.message, where)]
            if (found.root, found.groups, found.records) != (reference.root, reference.groups, reference.records):
                expected = f"{reference.records} records with root {reference.root}"
                actual = f"{found.records} records with root {found.root}"
                return [Finding("RECORD_ROOT_MISMATCH", reference.key, expected, actual, where)]
            return self._check_columns(path, reference.key, where)

    def _check_columns(self, path: Path, key: str, where: dict[str, Any]) -> list[Finding]:
        source = layout.segment_source(key)
        if self.rederive is None or source is None:
            return []
        for group, stored in enumerate(segment.tables(path)):
            derived = self.rederive(source, stored)
            if derived is None:
                self.report.notes.append(f"{key}: no parser for {source!r}; its typed columns were not compared")
                return []
            for name in derived.schema.names:
                if name not in stored.schema.names:
                    continue  # a column added to the source after this segment was sealed
                row = _first_difference(stored.column(name), derived.column(name))
                if row is not None:
                    expected, actual = derived.column(name)[row].as_py(), stored.column(name)[row].as_py()
                    where = where | {"column": name, "row": group * segment.ROW_GROUP + row}
                    return [Finding("DERIVED_COLUMN_MISMATCH", key, repr(expected), repr(actual), where)]
        return []

    def _check_details(self, entry: Entry) -> list[Finding]:
        assert entry.details is not None
        key = entry.details.key
        try:
            stated = details.decode(self.store.get(key))
        except FormatError as error:
            return [Finding("DETAILS_MISMATCH", key, "canonical details", error.message, {"index": entry.index})]
        summaries = {summary.key: summary for summary in stated.segments}
        if set(summaries) != {reference.key for reference in entry.segments} or stated.writer != entry.writer:
            return [
                Finding("DETAILS_MISMATCH", key, "the entry's segments", str(sorted(summaries)), {"index": entry.index})
            ]
        for reference in entry.segments:
            if object_digest(self.store, reference) != reference.sha256:
                continue  # a missing or changed segment has a finding of its own
            summary = summaries[reference.key]
            with self._local(reference.key) as path:
                times = pa.concat_tables([table.select(["event_time"]) for table in segment.tables(path)])
            actual = summarise_times(times.column("event_time"))
            claimed = (summary.records, summary.min_time, summary.max_time, dict(summary.hours))
            if actual != claimed:
                where = {"index": entry.index, "segment": reference.key}
                return [Finding("DETAILS_MISMATCH", key, repr(actual), repr(claimed), where)]
        return []

    def _check_nothing_else(self) -> None:
        """Every object is explained by an entry, by the layout, or by a commit that is still under way."""
        if self.history.bad or self.history.missing:
            self.report.notes.append("objects that only damaged entries may name were not judged")
            return
        for key in self.listed:
            if key.startswith(layout.TILES) and self._is_tile(key):
                continue
            if key in self.explained or _belongs(key) or self._under_way(key):
                continue
            self.report.findings.append(Finding("ORPHAN", key, "named by an entry", "named by none", {}))

    def _is_tile(self, key: str) -> bool:
        """Whether the object is a tile of this log; its content is compared with what the entries give."""
        try:
            name = tiles.parse_path(key.removeprefix(layout.TILES))
        except FormatError:
            return False
        expected = (
            None if name.level is None or name.width < tiles.TILE_WIDTH else tiles.hash_tile(self.history.tree, name)
        )
        if expected is None:
            return False
        actual = self.store.get(key) if self.level != "quick" else expected
        if actual != expected:
            said, found = (f"SHA-256 {sha256(content).hexdigest()}" for content in (expected, actual))
            self.report.findings.append(Finding("TILE_CHANGED", key, said, found, {}))
        return True

    def _under_way(self, key: str) -> bool:
        match = _WRITER_OBJECT.search(key)
        if match is None:
            return False
        known = self.history.chain.next_of(match["writer"])
        place = (int(match["epoch"]), int(match["first"]))
        if known is not None and place < known:
            return False
        self.report.notes.append(f"{key}: put by a writer, not committed yet")
        return True

    def _local(self, key: str) -> _LocalFile:
        return _LocalFile(self.store, key)


_WRITER_OBJECT = re.compile(
    r"^(?:segments/source=[a-z0-9_]+/date=[0-9-]+/|details/)"
    r"(?P<writer>[a-z0-9_]+)[-/](?P<epoch>\d+)[-/](?P<first>\d{20})-\d{20}(?:-[pr]\d+)*\.(?:parquet|json)$"
)


def _belongs(key: str) -> bool:
    """Objects of the layout that entries do not name one by one."""
    return key == layout.IDENTITY or layout.index_of(key) is not None or layout.size_of_statement(key) is not None


class _LocalFile:
    """The object as a local file for as long as the context lasts, fetched when the store is remote."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store, self._key = store, key
        self._folder: TemporaryDirectory[str] | None = None

    def __enter__(self) -> Path:
        path = self._store.local_path(self._key)
        if path is None:
            self._folder = TemporaryDirectory(prefix="strongroom-")
            path = Path(self._folder.name) / "object"
            path.write_bytes(self._store.get(self._key))
        return path

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()


def _detection(asked: Asked) -> str:
    """What a sampled run can promise, in words: each object was looked at with probability `fraction`."""
    chances = ", ".join(f"{k}: {1 - (1 - asked.fraction) ** k:.1%}" for k in (1, 10, 100))
    runs = math.ceil(math.log(0.01) / math.log(1 - asked.fraction)) if asked.fraction < 1 else 1
    return (
        f"sampled {asked.fraction:.1%} of the objects with seed {asked.seed.hex()}; chance to hit damage "
        f"with this run, by objects damaged: {chances}; one damaged object is found with 99% within {runs} runs"
    )


def summarise_times(times: pa.ChunkedArray) -> tuple[int, int | None, int | None, dict[str, int]]:
    """(records, smallest, largest, records per hour) of an event_time column; times in µs, hours as in details."""
    bounds = pc.min_max(times.cast(pa.int64()))
    hours = pc.value_counts(pc.strftime(pc.fill_null(times, _NO_TIME), format="%Y-%m-%dT%H"))
    counts = {item["values"]: item["counts"] for item in hours.to_pylist()}
    unknown = times.null_count
    if unknown:
        counts[_NO_TIME_HOUR] -= unknown
        counts = {hour: count for hour, count in counts.items() if count} | {"": unknown}
    return len(times), bounds["min"].as_py(), bounds["max"].as_py(), counts


_NO_TIME = pa.scalar(0, pa.timestamp("us", tz="UTC"))
_NO_TIME_HOUR = "1970-01-01T00"


def _first_difference(stored: pa.ChunkedArray, derived: pa.ChunkedArray) -> int | None:
    """First row where the columns differ, None when they are equal (null equals null, NaN equals NaN)."""
    left, right = _flat(stored), _flat(derived)
    if left.equals(right):
        return None
    try:
        right = right.cast(left.type)
    except pa.ArrowInvalid:
        return 0
    if left.equals(right):
        return None
    pairs = zip(left.to_pylist(), right.to_pylist(), strict=True)
    return next((row for row, (a, b) in enumerate(pairs) if a != b and not (a != a and b != b)), None)


def _flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _batched(items: Iterator[Entry], size: int) -> Iterator[list[Entry]]:
    group: list[Entry] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
