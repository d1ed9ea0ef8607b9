"""One object an entry names, held against the store: the unit of verification's work, in a thread or another process.

What is looked at follows from the level. *quick* and *inventory*: it is there with the stated length and, where the
store locks objects, is locked and held as it should be and has the checksum the entry states. *complete*: its
bytes have the stated SHA-256. *deep*: a segment's records give the stated roots, its typed columns are what the
records give, and its details state what is in it.

A changed segment is narrowed down to row groups by their roots. An object the store can't give is not a finding but
`unread`: the check is incomplete, nothing more is known.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from strongroom.archive import details, layout, segment
from strongroom.archive.encryption.contents import Contents, is_envelope
from strongroom.archive.entry import Entry, ObjectRef, SegmentRef
from strongroom.archive.errors import FormatError, KeyUnavailable, ObjectMissing, StoreUnavailable
from strongroom.archive.segment import SegmentFacts
from strongroom.archive.signer import object_digest
from strongroom.archive.stores.copies import local_file
from strongroom.archive.stores.store import LockingStore, Protection
from strongroom.archive.verification import safeguards
from strongroom.archive.verification.findings import Finding, Level
from strongroom.archive.verification.safeguards import Expected

# (source, rows with at least `raw` and `context`) -> event_time and typed columns, None for a source it does not know.
Rederive = Callable[[str, pa.Table], pa.Table | None]


@dataclass(slots=True)
class Outcome:
    """What looking at one object gave. `unread`: why the store could not give it. `over`: it is gone, as it may be.

    `protection`: how the store says it is protected, None where the store locks nothing.
    """

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bytes_read: int = 0
    unread: str = ""
    over: bool = False
    protection: Protection | None = None


class Examiner:
    """Looks at objects. Can be sent to another process when the store and `rederive` can."""

    def __init__(self, contents: Contents, rederive: Rederive | None, now: datetime) -> None:
        """`now`: the moment by which retention has ended or not."""
        self._contents = contents
        self._store = store = contents.store
        self._locking = store if isinstance(store, LockingStore) else None
        self._now = now
        self._rederive = rederive
        self._details: tuple[str, details.Details | None] = ("", None)

    def examine(self, entry: Entry, reference: SegmentRef | ObjectRef, level: Level, expected: Expected) -> Outcome:
        """Hold `reference`, which `entry` names, against the store."""
        outcome = Outcome()
        try:
            self._examine(entry, reference, level, expected, outcome)
        except ObjectMissing:
            if isinstance(reference, SegmentRef) and expected.over(self._now):
                outcome.over = True
            else:
                _find(outcome, entry, reference, "MISSING", *_absent(reference, expected))
        except KeyUnavailable as error:  # which key is a finding of its own (archive/encryption/check.py)
            outcome.unread = error.message
        except StoreUnavailable as error:
            outcome.unread = f"{reference.key}: {error.message}"
        return outcome

    def _examine(
        self, entry: Entry, reference: SegmentRef | ObjectRef, level: Level, expected: Expected, outcome: Outcome
    ) -> None:
        size, checksum = self._look(entry, reference, expected, outcome)
        if size == reference.bytes and checksum not in ("", reference.sha256):
            said, found = _digests(reference, checksum)
            found += " (as the store keeps it)"
            _find(outcome, entry, reference, "CHANGED", said, found, **self._damage(reference))
        elif size != reference.bytes:
            damage = self._damage(reference)
            _find(outcome, entry, reference, "CHANGED", f"{reference.bytes} bytes", f"{size} bytes", **damage)
        elif level in ("quick", "inventory"):
            return
        elif level == "complete" or not isinstance(reference, SegmentRef):
            outcome.bytes_read += reference.bytes
            actual = object_digest(self._store, reference)
            if actual is None:
                raise ObjectMissing(reference.key)
            if actual != reference.sha256:
                damage = self._damage(reference)
                _find(outcome, entry, reference, "CHANGED", *_digests(reference, actual), **damage)
            elif level != "complete":
                self._check_content(entry, reference, outcome)
        elif is_envelope(reference.key):
            self._check_envelope(entry, reference, outcome)
        else:
            with local_file(self._store, reference.key, reference.version) as path:
                self._check_segment(path, reference.sha256, entry, reference, outcome)

    def _look(
        self, entry: Entry, reference: SegmentRef | ObjectRef, expected: Expected, outcome: Outcome
    ) -> tuple[int, str]:
        """The object's length and, where the store keeps one, its SHA-256; and what is wrong with its protection."""
        if self._locking is None:
            return self._store.head(reference.key, reference.version).bytes, ""
        found = outcome.protection = self._locking.protection(reference.key, reference.version)
        outcome.findings += safeguards.judge(reference.key, expected, found, self._now, index=entry.index)
        return found.bytes, found.sha256

    def _check_envelope(self, entry: Entry, reference: SegmentRef, outcome: Outcome) -> None:
        """A segment's envelope: its bytes first, which need no key, then what it holds."""
        with local_file(self._store, reference.key, reference.version) as stored:
            outcome.bytes_read += reference.bytes
            actual = segment.file_digest(stored)
            if actual != reference.sha256:
                _find(outcome, entry, reference, "CHANGED", *_digests(reference, actual), **_narrow(reference, None))
                return
            with TemporaryDirectory(prefix="strongroom-") as folder:
                content = Path(folder) / "content"
                try:
                    opened = self._contents.encryption.open_file(reference.key, stored, content)
                except FormatError as error:
                    outcome.findings.append(_mismatched(entry, reference, error))
                    return
                self._check_segment(content, opened.sha256, entry, reference, outcome)

    def _check_content(self, entry: Entry, reference: SegmentRef | ObjectRef, outcome: Outcome) -> None:
        """What is behind the right bytes of an object that is no segment."""
        try:
            content = self._contents.unseal(reference.key, self._store.get(reference.key, reference.version))
        except FormatError as error:
            outcome.findings.append(_mismatched(entry, reference, error))
            return
        if entry.kind == "segment":
            self._check_details(entry, content, outcome)

    def _check_segment(self, path: Path, digest: str, entry: Entry, reference: SegmentRef, outcome: Outcome) -> None:
        """Every record, every derived column, and what the details say about them. `digest`: the file's, if sound."""
        outcome.bytes_read += 2 * reference.bytes
        try:
            found = segment.read_back(path)
        except FormatError as error:
            actual = segment.file_digest(path)
            if actual != digest:
                unreadable = _narrow(reference, None)
                _find(outcome, entry, reference, "CHANGED", *_digests(reference, actual), **unreadable)
            else:
                _mismatch(outcome, entry, reference, f"root {reference.root}", error.message)
            return
        if found.sha256 != digest:
            narrowed = _narrow(reference, found)
            _find(outcome, entry, reference, "CHANGED", *_digests(reference, found.sha256), **narrowed)
        elif (found.root, found.groups, found.records) != (reference.root, reference.groups, reference.records):
            expected = f"{reference.records} records with root {reference.root}"
            _mismatch(outcome, entry, reference, expected, f"{found.records} records with root {found.root}")
        else:
            self._check_rows(path, entry, reference, outcome)

    def _check_rows(self, path: Path, entry: Entry, reference: SegmentRef, outcome: Outcome) -> None:
        source = layout.segment_source(reference.key)
        comparing = self._rederive is not None and source is not None
        times: list[pa.Table] = []
        for group, stored in enumerate(segment.tables(path)):
            times.append(stored.select(["event_time"]))
            if comparing:
                comparing = self._compare(source or "", stored, group, entry, reference, outcome)
        stated = self._stated(entry)
        summary = next((s for s in stated.segments if s.key == reference.key), None) if stated else None
        if summary is None or entry.details is None:
            return  # details that are missing, changed, or of other segments have a finding of their own
        actual = summarise_times(pa.concat_tables(times).column("event_time"))
        claimed = (summary.records, summary.min_time, summary.max_time, dict(summary.hours))
        if actual != claimed:
            where = {"index": entry.index, "segment": reference.key}
            finding = Finding("DETAILS_MISMATCH", entry.details.key, repr(actual), repr(claimed), where)
            outcome.findings.append(finding)

    def _compare(
        self, source: str, stored: pa.Table, group: int, entry: Entry, reference: SegmentRef, outcome: Outcome
    ) -> bool:
        """Compare one row group's typed columns with what its records give; False when the next need not be."""
        assert self._rederive is not None
        derived = self._rederive(source, stored)
        if derived is None:
            outcome.notes.append(f"no parser for source {source!r}: its typed columns were not compared")
            return False
        for name in derived.schema.names:
            if name not in stored.schema.names:
                continue  # a column added to the source after this segment was sealed
            row = _first_difference(stored.column(name), derived.column(name))
            if row is not None:
                expected, actual = derived.column(name)[row].as_py(), stored.column(name)[row].as_py()
                where = {"index": entry.index, "column": name, "row": group * segment.ROW_GROUP + row}
                finding = Finding("DERIVED_COLUMN_MISMATCH", reference.key, repr(expected), repr(actual), where)
                outcome.findings.append(finding)
                return False
        return True

    def _check_details(self, entry: Entry, content: bytes, outcome: Outcome) -> None:
        """Details with the right bytes: are they of this entry's segments and writer?"""
        assert entry.details is not None
        key, where = entry.details.key, {"index": entry.index}
        try:
            stated = details.decode(content)
        except FormatError as error:
            outcome.findings.append(Finding("DETAILS_MISMATCH", key, "canonical details", error.message, where))
            return
        named = {summary.key for summary in stated.segments}
        if named != {reference.key for reference in entry.segments} or stated.writer != entry.writer:
            outcome.findings.append(Finding("DETAILS_MISMATCH", key, "the entry's segments", str(sorted(named)), where))

    def _stated(self, entry: Entry) -> details.Details | None:
        """The entry's details when they are what it commits to; kept while its segments are gone through."""
        if entry.details is None:
            return None
        if self._details[0] != entry.details.sha256:
            stated = None
            with suppress(FormatError, ObjectMissing):
                stated = details.decode(self._contents.read(entry.details))
            self._details = (entry.details.sha256, stated)
        return self._details[1]

    def _damage(self, reference: SegmentRef | ObjectRef) -> dict[str, Any]:
        """Where in a changed segment the records differ, as exactly as the entry's row-group roots allow."""
        if not isinstance(reference, SegmentRef):
            return {}
        if is_envelope(reference.key):
            return _narrow(reference, None)  # not one byte of a changed envelope's content can be told
        with local_file(self._store, reference.key, reference.version) as path:
            try:
                return _narrow(reference, segment.read_back(path))
            except FormatError:
                return _narrow(reference, None)


def summarise_times(times: pa.ChunkedArray) -> tuple[int, int | None, int | None, dict[str, int]]:
    """(records, smallest, largest, records per hour) of an event_time column; times in µs, hours as in details."""
    bounds = pc.min_max(times.cast(pa.int64()))
    hours = pc.value_counts(pc.floor_temporal(times, unit="hour"))
    # An hour is written out once, not once a record.
    names = pc.fill_null(pc.strftime(hours.field("values"), format="%Y-%m-%dT%H"), "")
    counts = dict(zip(names.to_pylist(), hours.field("counts").to_pylist(), strict=True))
    return len(times), bounds["min"].as_py(), bounds["max"].as_py(), counts


def _mismatched(entry: Entry, reference: SegmentRef | ObjectRef, error: FormatError) -> Finding:
    where = {"index": entry.index}
    said = "an envelope of this object, under a key of this archive"
    return Finding("ENVELOPE_MISMATCH", reference.key, said, error.message, where)


def _kind_of(reference: SegmentRef | ObjectRef) -> str:
    if isinstance(reference, SegmentRef):
        return "SEGMENT"
    others = {layout.REPORTS: "REPORT", layout.ORDERS: "ORDER"}
    return next((kind for prefix, kind in others.items() if reference.key.startswith(prefix)), "DETAILS")


def _absent(reference: SegmentRef | ObjectRef, expected: Expected) -> tuple[str, str]:
    """What is said of an object that is gone: expected, actual."""
    version = f", version {reference.version}" if reference.version else ""
    said = f"{reference.bytes} bytes{version}"
    if isinstance(reference, SegmentRef) and expected.promise is not None:
        said += f", kept until {expected.promise.until:%Y-%m-%d}"
    if expected.cases:
        said += f", held for {len(expected.cases)} open case(s)"
    return said, "no object"


def _find(
    outcome: Outcome,
    entry: Entry,
    reference: SegmentRef | ObjectRef,
    what: str,
    expected: str,
    actual: str,
    **where: Any,
) -> None:
    code = f"{_kind_of(reference)}_{what}"
    outcome.findings.append(Finding(code, reference.key, expected, actual, {"index": entry.index, **where}))


def _mismatch(outcome: Outcome, entry: Entry, reference: SegmentRef, expected: str, actual: str) -> None:
    where = {"index": entry.index}
    outcome.findings.append(Finding("RECORD_ROOT_MISMATCH", reference.key, expected, actual, where))


def _digests(reference: SegmentRef | ObjectRef, actual: str) -> tuple[str, str]:
    return f"SHA-256 {reference.sha256}", f"SHA-256 {actual}"


def _narrow(reference: SegmentRef, found: SegmentFacts | None) -> dict[str, Any]:
    """Which records differ, by what the changed file's bytes give; None when they can't be read."""
    if found is None:
        return {"records": f"0..{reference.records - 1}", "readable": "no"}
    if found.root == reference.root and found.records == reference.records:
        return {"records": "none: every record still has its leaf; footer, typed columns or padding changed"}
    pairs = zip(reference.groups, found.groups, strict=False)
    changed = [number for number, (expected, actual) in enumerate(pairs) if expected != actual]
    if not changed or found.records != reference.records:
        return {"records": f"0..{reference.records - 1}", "found_records": found.records}
    last = min((changed[-1] + 1) * segment.ROW_GROUP, reference.records) - 1
    return {"row_groups": changed, "records": f"{changed[0] * segment.ROW_GROUP}..{last}"}


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
