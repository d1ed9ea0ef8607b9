"""From what somebody asks for to what a proof can show: checkpoint, entries, segments, rows, records.

Everything is checked before it is put into a proof, so that damage in the archive is an error here, named, and never a
bundle that fails later in court: the checkpoint's signatures and root, each entry's bytes against the checkpoint, and
the records of each row group against the root its entry states. Row groups without a chosen record are not read: their
roots come from the entry, which the checkpoint covers. (Whether *they* are intact is what verification is for.)
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from strongroom.archive import entry as entries
from strongroom.archive import note, segment
from strongroom.archive.entry import SegmentRef
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.evidence.tree import Span, complete, spans
from strongroom.archive.log import Log
from strongroom.archive.merkle import ProofError, leaf_hash, root_of, verify_inclusion
from strongroom.archive.note import Checkpoint
from strongroom.archive.policy import Policy, cosigners

# A segment by its object name, or by (entry index, position among that entry's segments); and 0-based rows of it.
Pick = tuple[str | tuple[int, int], Iterable[int]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Rows of one segment, ascending, each once. `position` is its place among the segments of entry `entry`."""

    entry: int
    position: int
    reference: SegmentRef
    rows: Sequence[int]


@dataclass(frozen=True, slots=True)
class Record:
    """A disclosed record with the nonce that its leaf needs."""

    row: int
    nonce: bytes
    raw: bytes


def signed_head(log: Log, stored: bytes, policy: Policy) -> Checkpoint:
    """The tree head that `stored`, a signed note, states. Raises FormatError when it isn't good for this log."""
    signed = note.parse(stored)
    head = note.parse_checkpoint(signed.text)
    if head.origin != log.origin or head.size > log.size or log.root(head.size) != head.root:
        raise FormatError(
            f"the checkpoint of {head.origin!r} at size {head.size} is not one of this log",
            hint="run `strongroom verify`",
        )
    if missing := set(policy.logs) - set(note.verify(signed, policy.logs)):
        names = ", ".join(sorted(key.key_id.hex() for key in missing))
        raise FormatError(f"the checkpoint at size {head.size} is not signed by {names}")
    cosigners(signed, policy)
    return head


def stored_entry(log: Log, index: int, head: Checkpoint) -> tuple[bytes, list[bytes]]:
    """An entry's stored bytes and their inclusion path in the tree of `head`. Raises FormatError, ObjectMissing."""
    if not 0 <= index < head.size:
        raise ObjectMissing(f"no entry {index} in the log of {head.size} entries")
    data, path = log.entry_bytes(index), log.inclusion_proof(index, head.size)
    try:
        verify_inclusion(index, head.size, leaf_hash(data), path, head.root)
    except ProofError as error:
        raise FormatError(f"entry {index} is not what was signed: {error}", hint="run `strongroom verify`") from None
    return data, path


def choose(log: Log, head: Checkpoint, picks: Iterable[Pick]) -> list[Chosen]:
    """The picked rows, by segment, in log order; picks of one segment are joined.

    Raises ObjectMissing for what is not in the tree of `head` and when nothing was picked, FormatError for an entry
    that is not what was signed.
    """
    by_place: dict[tuple[int, int], list[Iterable[int]]] = {}
    by_key: dict[str, list[Iterable[int]]] = {}
    for which, rows in picks:
        if isinstance(which, str):
            by_key.setdefault(which, []).append(rows)
        else:
            by_place.setdefault(which, []).append(rows)
    for key, place in places(log, head.size, set(by_key)).items():
        by_place.setdefault(place, []).extend(by_key[key])
    chosen = [
        Chosen(*place, reference, _ascending(by_place[place], reference))
        for place in sorted(by_place)
        for reference in [segment_at(log, head, *place)]
    ]
    chosen = [one for one in chosen if len(one.rows)]
    if not chosen:
        raise ObjectMissing("no record was chosen", hint="name at least one row")
    return chosen


def segment_at(log: Log, head: Checkpoint, entry: int, position: int) -> SegmentRef:
    """The segment at `position` of an entry in the tree of `head`. Raises ObjectMissing, FormatError."""
    data, _ = stored_entry(log, entry, head)
    references = entries.decode(data).segments
    if not 0 <= position < len(references):
        raise ObjectMissing(f"entry {entry} names {len(references)} segments; there is no segment {position}")
    return references[position]


def disclose(path: Path, reference: SegmentRef, rows: Sequence[int]) -> Iterator[Record | bytes]:
    """The chosen records of a segment file and the hashes that complete its tree, in the order of docs/format.md §9.

    Records come ascending by row, hashes in walking order; memory is bounded by one row group's hashes and one run of
    records. Raises FormatError when a row group with a chosen record is not what the entry states; what came before
    is then not to be used.
    """
    groups = _group_roots(reference)
    for span in spans(rows, reference.records):
        if span.disclosed:
            yield from _disclose_group(path, reference, span, rows[_slice(rows, span.start, span.end)])
        else:
            yield root_of(groups[span.groups.start : span.groups.stop])


def group_runs(path: Path, reference: SegmentRef, group: int, leaves: list[bytes]) -> Iterator[segment.Run]:
    """The runs of one row group, whose leaf hashes are added to `leaves` as they come.

    Raises FormatError after the last run unless they give the root that the entry states.
    """
    try:
        for run in segment.runs(path, [group]):
            leaves += run.leaves
            yield run
    except FormatError as error:
        raise FormatError(f"{reference.key}: {error.message}", hint="run `strongroom verify --level deep`") from None
    if root_of(leaves).hex() != reference.groups[group]:
        raise FormatError(
            f"{reference.key}: row group {group} is not what its entry states", hint="run `strongroom verify`"
        )


def _disclose_group(path: Path, reference: SegmentRef, span: Span, rows: Sequence[int]) -> Iterator[Record | bytes]:
    leaves: list[bytes] = []
    for run in group_runs(path, reference, span.groups.start, leaves):
        for row in rows[_slice(rows, run.start, run.start + len(run.raws))]:
            yield Record(row, run.nonces[row - run.start], run.raws[row - run.start])
    if len(leaves) != span.end - span.start:
        raise FormatError(f"{reference.key}: row group {span.groups.start} has {len(leaves)} records")
    yield from complete(leaves, [row - span.start for row in rows])


def _group_roots(reference: SegmentRef) -> list[bytes]:
    groups = [bytes.fromhex(root) for root in reference.groups]
    if len(groups) != -(-reference.records // segment.ROW_GROUP) or root_of(groups).hex() != reference.root:
        raise FormatError(f"{reference.key}: its entry's row-group roots do not give its records root")
    return groups


def places(log: Log, size: int, keys: set[str]) -> dict[str, tuple[int, int]]:
    """(entry, position) of the segments named by `keys`, from one walk over the log. Raises ObjectMissing."""
    found: dict[str, tuple[int, int]] = {}
    if keys:
        for entry in log.entries(0, size):
            for position, reference in enumerate(entry.segments):
                if reference.key in keys:
                    found.setdefault(reference.key, (entry.index, position))
    if missing := keys - set(found):
        raise ObjectMissing(f"no entry before size {size} names the segment {min(missing)}")
    return found


def _ascending(picked: list[Iterable[int]], reference: SegmentRef) -> Sequence[int]:
    """The rows in order, each once, eight bytes a row; a range stays a range."""
    only = picked[0]
    if len(picked) == 1 and isinstance(only, range) and only.step == 1:
        rows: Sequence[int] = only
    else:
        rows = sorted({row for some in picked for row in some})
    if rows and not 0 <= rows[0] <= rows[-1] < reference.records:
        wrong = rows[0] if rows[0] < 0 else rows[-1]
        raise ObjectMissing(f"no row {wrong}: {reference.key} has {reference.records} records")
    return array("q", rows) if isinstance(rows, list) else rows


def _slice(rows: Sequence[int], start: int, end: int) -> slice:
    return slice(bisect_left(rows, start), bisect_left(rows, end))
