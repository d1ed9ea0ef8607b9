"""The proof of one record as one small JSON document: record → records root → entry → checkpoint (docs/format.md §10).

It discloses that record, the entry that names its segment, and hashes. Whoever gets it checks it with their own policy,
by `check_proof` or with the stand-alone verifier.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Annotated, Any, cast

import msgspec

from strongroom.archive import canonical, layout
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.evidence.checking import proven_entry
from strongroom.archive.evidence.layout import Count, Digest
from strongroom.archive.evidence.selection import group_runs, segment_at, stored_entry
from strongroom.archive.evidence.verdict import Examination, Line, Verdict
from strongroom.archive.log import Log
from strongroom.archive.merkle import ProofError, Tree, leaf_hash, verify_inclusion
from strongroom.archive.note import Checkpoint, parse, parse_checkpoint
from strongroom.archive.policy import Policy
from strongroom.archive.segment import ROW_GROUP
from strongroom.archive.stores.store import ObjectStore

FORMAT = "strongroom/proof/1"


class ProvenRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The record's bytes (base64), its leaf's nonce (hex), its row, and the path from its leaf to the records root."""

    raw: str
    nonce: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$", max_length=32)]
    row: Count
    path: tuple[Digest, ...]


class ProvenSegment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which segment: its place in the entry, and what the entry states about it."""

    position: Count
    key: str
    records: Count
    root: Digest


class ProvenEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The entry's exact bytes (base64), its index, and the path from its leaf to the checkpoint's root."""

    index: Count
    raw: str
    path: tuple[Digest, ...]


class RecordProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole document. `checkpoint`: the signed note as stored."""

    record: ProvenRecord
    segment: ProvenSegment
    entry: ProvenEntry
    checkpoint: str
    format: str = FORMAT


msgspec.json.Decoder(RecordProof)  # see archive/details.py


def prove_record(
    store: ObjectStore,
    log: Log,
    size: int,
    entry_index: int,
    segment_position: int,
    row: int,
    *,
    cosignatures: bytes = b"",
) -> dict[str, Any]:
    """The proof that the record is in the log of the first `size` entries; `size` must have a checkpoint.

    `cosignatures`: lines to append to the stored checkpoint. Reads one row group. Raises ObjectMissing when there is
    no such checkpoint, entry, segment or row, FormatError when what is stored is not what was signed.
    """
    checkpoint = store.get(layout.checkpoint_key(size)) + cosignatures
    head = parse_checkpoint(parse(checkpoint).text)
    if head != Checkpoint(log.origin, size, log.root(size)):
        raise FormatError(f"the checkpoint at size {size} is not one of this log", hint="run `strongroom verify`")
    reference = segment_at(log, head, entry_index, segment_position)
    if not 0 <= row < reference.records:
        raise ObjectMissing(f"no row {row}: {reference.key} has {reference.records} records")
    entry, entry_path = stored_entry(log, entry_index, head)
    group, offset = divmod(row, ROW_GROUP)
    leaves: list[bytes] = []
    raw = nonce = b""
    with log.contents.file(reference) as path:
        for run in group_runs(path, reference, group, leaves):
            if run.start <= row < run.start + len(run.raws):
                raw, nonce = run.raws[row - run.start], run.nonces[row - run.start]
    above = Tree(bytes.fromhex(root) for root in reference.groups).inclusion_proof(group, len(reference.groups))
    path_up = [*Tree(leaves).inclusion_proof(offset, len(leaves)), *above]
    try:
        verify_inclusion(row, reference.records, leaf_hash(nonce + raw), path_up, bytes.fromhex(reference.root))
    except ProofError as error:
        raise FormatError(f"{reference.key}: its entry contradicts itself: {error}") from None
    proof = RecordProof(
        record=ProvenRecord(b64encode(raw).decode(), nonce.hex(), row, tuple(node.hex() for node in path_up)),
        segment=ProvenSegment(segment_position, reference.key, reference.records, reference.root),
        entry=ProvenEntry(entry_index, b64encode(entry).decode(), tuple(node.hex() for node in entry_path)),
        checkpoint=checkpoint.decode(),
    )
    return cast("dict[str, Any]", msgspec.to_builtins(proof))


def check_proof(data: bytes, policy: Policy | None) -> Verdict:
    """The verdict on a proof's bytes under the checker's own `policy`; None when they have none."""
    found = Examination()
    with found.noting():
        _examine(data, policy, found)
    return found.conclude(trusted=policy is not None)


def _examine(data: bytes, policy: Policy | None, found: Examination) -> None:
    try:
        proof = msgspec.convert(canonical.decode(data), RecordProof)
        if proof.format != FORMAT:
            raise FormatError(f"proof: unknown format {proof.format!r}")
        raw, nonce = b64decode(proof.record.raw, validate=True), bytes.fromhex(proof.record.nonce)
        entry_bytes = b64decode(proof.entry.raw, validate=True)
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"proof: malformed: {error}") from None
    signed = parse(proof.checkpoint.encode())
    head = parse_checkpoint(signed.text)
    entry = proven_entry(entry_bytes, _hashes(proof.entry.path), proof.entry.index, head)
    found.lines.append(Line("entry", True, f"{entry.index} is in the tree of {head.size} with root {head.root.hex()}"))
    claimed = proof.segment
    references = entry.segments[claimed.position : claimed.position + 1]
    if [(r.key, r.records, r.root) for r in references] != [(claimed.key, claimed.records, claimed.root)]:
        raise FormatError(f"proof: its segment is not what entry {entry.index} states")
    root, path = bytes.fromhex(claimed.root), _hashes(proof.record.path)
    try:
        verify_inclusion(proof.record.row, claimed.records, leaf_hash(nonce + raw), path, root)
    except ProofError as error:
        raise FormatError(f"proof: the record is not in its segment: {error}") from None
    found.lines.append(Line("record", True, f"row {proof.record.row} of the {claimed.records} in {claimed.key}"))
    found.judge(signed, head, policy, b"")


def _hashes(path: tuple[str, ...]) -> list[bytes]:
    return [bytes.fromhex(node) for node in path]
