"""Verification: what the archive claims, held against its bytes and against the verifier's own trust.

It reads everything from the store itself and believes nothing it was not shown, in this order:

1. **Entries** are chained one by one (archive/chain.py) and hashed into a tree.
2. **Checkpoints** must be signed by every key of the verifier's policy and state roots that the tree has. The first one
   that fails brackets when a change happened; what lies in that bracket is named, what only follows from it is not.
3. **Memory**: the tree must extend what this verifier has seen before.
4. **Objects** the entries name must exist and have the stated length (all levels) and SHA-256 (complete); in *deep*,
   every record is hashed again, every typed column derived again, and the details' counts compared.
5. **Nothing else** may lie in the archive, but what a writer has put and not committed yet.

Levels: *quick* reads the whole log but only the objects of entries beyond the verifier's memory; *complete* every
object's bytes; *deep* every record. Memory is bounded by the log (about 100 bytes an entry), not by the data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from strongroom.archive import details, layout, note, segment
from strongroom.archive import entry as entries
from strongroom.archive.chain import Chain, Violation
from strongroom.archive.entry import Entry, ObjectRef, SegmentRef
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.findings import Finding
from strongroom.archive.log import checkpoint_sizes, read_identity
from strongroom.archive.merkle import Tree, leaf_hash
from strongroom.archive.note import Checkpoint
from strongroom.archive.signer import object_digest
from strongroom.archive.stores.store import ObjectStore
from strongroom.archive.trust import Trust

Level = Literal["quick", "complete", "deep"]

# (source, rows with at least `raw` and `context`) -> event_time and typed columns, None for a source it does not know.
Rederive = Callable[[str, pa.Table], pa.Table | None]
# (what is being done, done so far, total)
Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Report:
    """The outcome of one verification. Sound means: no finding."""

    level: Level
    origin: str
    started: str
    finished: str = ""
    size: int = 0
    root: str = ""
    checkpoint: Checkpoint | None = None
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """The report for machines."""
        return {
            "sound": self.sound,
            "level": self.level,
            "origin": self.origin,
            "started": self.started,
            "finished": self.finished,
            "size": self.size,
            "root": self.root,
            "checkpoint": self.checkpoint.size if self.checkpoint else 0,
            "counts": self.counts,
            "notes": self.notes,
            "findings": [finding.to_json() for finding in self.findings],
        }


def verify(
    store: ObjectStore,
    trust: Trust,
    level: Level = "complete",
    *,
    rederive: Rederive | None = None,
    progress: Progress | None = None,
    threads: int = 2,
) -> Report:
    """Verify the archive in `store`. Raises ObjectMissing when there is none, StoreUnavailable when it can't be read.

    `rederive` gives *deep* the parsers; without it typed columns are not compared, and a note says so.
    """
    report = Report(level, trust.origin, entries.timestamp(datetime.now(UTC)))
    # List before reading: a live archive grows meanwhile, and what is listed now must be explained by entries read later.
    listed = {info.key: info.bytes for info in store.list("")}
    history = _History.read(store, trust, listed, report)
    history.judge(report)
    _Objects(store, level, history, listed, report, rederive, progress or (lambda *_: None), threads).check()
    report.finished = entries.timestamp(datetime.now(UTC))
    return report


class _History:
    """The log as found: its entries' violations, its tree, its checkpoints, and the judgement over them."""

    def __init__(self, store: ObjectStore, trust: Trust) -> None:
        self.store = store
        self.trust = trust
        self.tree = Tree()
        self.length = 0  # indices 0 … length-1 were looked at
        self.first_hole: int | None = None
        self.violations: dict[int, list[Violation]] = {}
        self.bad: set[int] = set()  # entries a finding blames; what they name is not held against other objects
        self.last_good = 0  # largest size whose checkpoint agrees with the tree
        self.first_bad: tuple[Checkpoint, bytes] | None = None  # the first that does not, and the tree's root there
        self.writers: Chain

    @classmethod
    def read(cls, store: ObjectStore, trust: Trust, listed: dict[str, int], report: Report) -> _History:
        history = cls(store, trust)
        identity = b""
        try:
            found = read_identity(store)
            identity = found.data
            if found.origin != trust.origin:
                report.findings.append(
                    Finding(
                        "IDENTITY_CHANGED", layout.IDENTITY, f"the log {trust.origin}", f"the log {found.origin}", {}
                    )
                )
        except FormatError as error:
            report.findings.append(
                Finding("IDENTITY_CHANGED", layout.IDENTITY, "a canonical identity", error.message, {})
            )
        history.writers = Chain(trust.origin, identity)
        history._read_entries(listed)
        history._read_checkpoints(report)
        return history

    def entries(self) -> Iterator[Entry]:
        """Entries no finding blames, in order."""
        for index in range(self.length):
            if index not in self.bad:
                try:
                    yield entries.decode(self.store.get(layout.entry_key(index)))
                except (ObjectMissing, FormatError):  # changed between the two readings: the next run will say
                    continue

    def judge(self, report: Report) -> None:
        """Turn violations into findings: each change once, where it was made."""
        last_good, first_bad = self.last_good, self.first_bad[0].size if self.first_bad else None
        findings: dict[tuple[str, int], Finding] = {}

        def blame(code: str, index: int, expected: str, actual: str) -> None:
            self.bad.add(index)
            key = layout.entry_key(index)
            findings[code, index] = Finding(code, key, expected, actual, {"index": index}, last_good, first_bad)

        for index, found in self.violations.items():
            for violation in found:
                if violation.code != "ENTRY_CHAIN":
                    blame(violation.code, index, violation.expected, violation.actual)
        for index, found in self.violations.items():
            for violation in (v for v in found if v.code == "ENTRY_CHAIN"):
                self._judge_link(index, violation, report, blame)
        if self.first_bad is not None and not any(last_good <= index < self.first_bad[0].size for index in self.bad):
            self._judge_bracket(*self.first_bad, report, blame)
        report.findings += [findings[key] for key in sorted(findings, key=lambda key: key[1])]
        self._judge_memory(report)
        self._judge_unsigned(report)
        report.counts["entries"] = self.length
        report.size = self.tree.size
        report.root = self.tree.root().hex()

    def _read_entries(self, listed: dict[str, int]) -> None:
        indices = [
            index for key in listed if key.startswith(layout.ENTRIES) and (index := layout.index_of(key)) is not None
        ]
        sizes = [
            size for key in listed if key.startswith(layout.CHECKPOINTS) and (size := layout.index_of(key)) is not None
        ]
        # A checkpoint says how many entries there must be, also when the newest of them are gone.
        self.length = max(
            [index + 1 for index in indices] + [size for size in sizes if size <= 2 * len(indices) + 64] + [0]
        )
        for index in range(self.length):
            data = _fetch(self.store, layout.entry_key(index))
            _, violations = self.writers.follow(data)
            if violations:
                self.violations[index] = violations
            if data is None:
                self.first_hole = index if self.first_hole is None else self.first_hole
            elif self.first_hole is None:
                self.tree.append(leaf_hash(data))

    def _read_checkpoints(self, report: Report) -> None:
        sizes = checkpoint_sizes(self.store)
        if report.level == "quick" and self.trust.memory is not None:
            sizes = [size for size in sizes if size >= self.trust.memory.size]
        report.counts["checkpoints"] = len(sizes)
        for size in sizes:
            checkpoint = self._checkpoint(size, report)
            if checkpoint is None or size > self.tree.size:
                continue
            root = self.tree.root(size)
            if checkpoint.root == root:
                self.last_good = max(self.last_good, size) if self.first_bad is None else self.last_good
                report.checkpoint = checkpoint
            elif self.first_bad is None:
                self.first_bad = (checkpoint, root)

    def _checkpoint(self, size: int, report: Report) -> Checkpoint | None:
        """The checkpoint of `size` when it is one the policy believes, else None and a finding."""
        key = layout.checkpoint_key(size)
        try:
            signed = note.parse(self.store.get(key))
            checkpoint = note.parse_checkpoint(signed.text)
        except ObjectMissing:
            return None
        except FormatError as error:
            report.findings.append(
                Finding("CHECKPOINT_MALFORMED", key, "a signed checkpoint", error.message, {"size": size})
            )
            return None
        if (checkpoint.origin, checkpoint.size) != (self.trust.origin, size):
            actual = f"size {checkpoint.size} of {checkpoint.origin}"
            report.findings.append(
                Finding("CHECKPOINT_MALFORMED", key, f"size {size} of {self.trust.origin}", actual, {"size": size})
            )
            return None
        try:
            missing = set(self.trust.keys) - set(note.verify(signed, self.trust.keys))
            problem = f"no signature by {', '.join(_fingerprint(key) for key in missing)}" if missing else ""
        except FormatError as error:
            problem = error.message
        if problem:
            expected = f"signatures by {', '.join(_fingerprint(key) for key in self.trust.keys)}"
            report.findings.append(Finding("CHECKPOINT_SIGNATURE", key, expected, problem, {"size": size}))
            return None
        return checkpoint

    def _judge_link(
        self, index: int, violation: Violation, report: Report, blame: Callable[[str, int, str, str], None]
    ) -> None:
        """`prev` of entry `index` and the bytes before it disagree: which of the two was changed?"""
        if index == 0:
            report.findings.append(
                Finding("IDENTITY_CHANGED", layout.IDENTITY, f"SHA-256 {violation.actual}", violation.expected, {})
            )
        elif self.bad & {index - 1, index}:
            return  # already explained by what is wrong with one of them
        elif self.last_good >= index:
            blame("ENTRY_CHANGED", index, f"prev {violation.expected}", f"prev {violation.actual}")
        else:
            blame("ENTRY_CHANGED", index - 1, f"SHA-256 {violation.actual}", violation.expected)

    def _judge_bracket(
        self, checkpoint: Checkpoint, root: bytes, report: Report, blame: Callable[[str, int, str, str], None]
    ) -> None:
        """A signed root differs although the chain holds: the newest entry was changed, or history was rewritten."""
        expected, actual = f"root {checkpoint.root.hex()}", f"root {root.hex()}"
        if checkpoint.size - self.last_good == 1:
            blame("ENTRY_CHANGED", checkpoint.size - 1, expected, actual)
            return
        self.bad.update(range(self.last_good, checkpoint.size))
        where = {"size": checkpoint.size, "entries": f"{self.last_good}..{checkpoint.size - 1}"}
        key = layout.checkpoint_key(checkpoint.size)
        report.findings.append(
            Finding("CHECKPOINT_INCONSISTENT", key, expected, actual, where, self.last_good, checkpoint.size)
        )

    def _judge_memory(self, report: Report) -> None:
        memory = self.trust.memory
        if memory is None or any(index < memory.size for index in self.bad):
            return
        expected = f"{memory.size} entries with root {memory.root.hex()}"
        key = layout.checkpoint_key(memory.size)
        if self.tree.size < memory.size:
            report.findings.append(
                Finding("CHECKPOINT_ROLLBACK", key, expected, f"{self.tree.size} entries", {}, self.tree.size)
            )
        elif self.tree.root(memory.size) != memory.root:
            report.findings.append(
                Finding("HISTORY_REWRITTEN", key, expected, f"root {self.tree.root(memory.size).hex()}", {})
            )
        elif memory.size > self.last_good and self.first_bad is None and not _about_checkpoints(report):
            report.findings.append(Finding("CHECKPOINT_MISSING", key, expected, "no such checkpoint", {}))

    def _judge_unsigned(self, report: Report) -> None:
        if self.first_bad is not None or self.first_hole is not None or _about_checkpoints(report):
            return
        unsigned = [index for index in range(self.last_good, self.tree.size) if index not in self.bad]
        if unsigned:
            where = {"index": unsigned[0], "entries": f"{unsigned[0]}..{unsigned[-1]}"}
            actual = f"newest checkpoint covers {self.last_good}"
            key = layout.entry_key(unsigned[0])
            report.findings.append(
                Finding("ENTRY_UNSIGNED", key, f"a checkpoint of size {self.tree.size}", actual, where, self.last_good)
            )
            self.bad.update(unsigned)


class _Objects:
    """What the entries name, held against what the store has."""

    def __init__(
        self,
        store: ObjectStore,
        level: Level,
        history: _History,
        listed: dict[str, int],
        report: Report,
        rederive: Rederive | None,
        progress: Progress,
        threads: int,
    ) -> None:
        self.store, self.level, self.history, self.listed = store, level, history, listed
        self.report, self.rederive, self.progress, self.threads = report, rederive, progress, threads
        memory = history.trust.memory
        self.start = memory.size if level == "quick" and memory is not None else 0
        self.explained: set[str] = set()
        self.digests: dict[str, str] = {}  # SHA-256 -> key, to recognise swapped segments

    def check(self) -> None:
        segments = records = named = 0
        total = sum(1 for key in self.listed if key.startswith((layout.SEGMENTS, layout.DETAILS)))
        with ThreadPoolExecutor(self.threads) as pool:
            for group in _batched(self.history.entries(), 256):
                tasks: list[tuple[Entry, SegmentRef | ObjectRef]] = []
                for entry in group:
                    references = [*entry.segments, *([entry.details] if entry.details else [])]
                    self.explained.update(reference.key for reference in references)
                    if entry.kind == "incident" and isinstance(entry.data.get("key"), str):
                        self.explained.add(entry.data["key"])
                    self.digests.update((reference.sha256, reference.key) for reference in entry.segments)
                    segments += len(entry.segments)
                    records += sum(reference.records for reference in entry.segments)
                    if entry.index >= self.start:
                        tasks += [(entry, reference) for reference in references]
                for found in pool.map(lambda task: self._check_object(*task), tasks):
                    self.report.findings += found
                    named += 1
                    self.progress("objects", named, total)
        self.report.counts |= {"segments": segments, "records": records, "objects_checked": named}
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
        if self.level == "quick":
            return []
        actual = object_digest(self.store, reference)
        if actual != reference.sha256:
            where |= self._damage(reference, actual)
            expected = f"SHA-256 {reference.sha256}"
            return [Finding(f"{what}_CHANGED", reference.key, expected, f"SHA-256 {actual}", where)]
        if self.level == "deep":
            if isinstance(reference, SegmentRef):
                return self._check_records(entry, reference)
            return self._check_details(entry)
        return []

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
            summary = summaries[reference.key]
            with self._local(reference.key) as path:
                try:
                    times = pa.concat_tables([table.select(["event_time"]) for table in segment.tables(path)])
                except FormatError:
                    continue  # the segment has its own finding
            actual = summarise_times(times.column("event_time"))
            claimed = (summary.records, summary.min_time, summary.max_time, dict(summary.hours))
            if actual != claimed:
                where = {"index": entry.index, "segment": reference.key}
                return [Finding("DETAILS_MISMATCH", key, repr(actual), repr(claimed), where)]
        return []

    def _check_nothing_else(self) -> None:
        """Every object is explained by an entry, by the layout, or by a commit that is still under way."""
        if self.history.bad and self.level != "quick":
            self.report.notes.append("objects that only damaged entries may name were not judged")
            return
        for key in self.listed:
            if key in self.explained or _belongs(key) or self._under_way(key):
                continue
            self.report.findings.append(Finding("ORPHAN", key, "named by an entry", "named by none", {}))

    def _under_way(self, key: str) -> bool:
        match = _WRITER_OBJECT.search(key)
        if match is None:
            return False
        known = self.history.writers.next_of(match["writer"])
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
    return key == layout.IDENTITY or layout.index_of(key) is not None


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


def _fetch(store: ObjectStore, key: str) -> bytes | None:
    try:
        return store.get(key)
    except ObjectMissing:
        return None


def _fingerprint(key: note.VerifierKey) -> str:
    return f"{key.name} ({key.type.name} {key.key_id.hex()})"


def _about_checkpoints(report: Report) -> bool:
    return any(finding.code.startswith("CHECKPOINT_") for finding in report.findings)


def _batched(items: Iterator[Entry], size: int) -> Iterator[list[Entry]]:
    group: list[Entry] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
