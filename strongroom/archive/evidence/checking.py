"""Checking an evidence bundle offline, without the archive, by this package's own Merkle trees and signed notes.

Nothing in the bundle is believed because it is there. In order (docs/format.md §9.4):

1. the file is a plain ZIP with the members its table of contents needs and no strangers;
2. the checkpoint is the one the table of contents states;
3. each entry's exact bytes are in the checkpoint, by their proof;
4. each segment's disclosed records and completing hashes give the root that its entry states;
5. every member has the digest that SHA256SUMS states;
6. the checkpoint is signed and witnessed as the checker's own policy asks.

The stand-alone verifier (standalone/verify.py) decides the same by other code; tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from cryptography.x509 import Certificate

from strongroom.archive import entry as entries
from strongroom.archive import note, timestamps
from strongroom.archive.entry import MAX_ENTRY_BYTES, Entry
from strongroom.archive.errors import FormatError
from strongroom.archive.evidence import layout, timestamp
from strongroom.archive.evidence.layout import Contents, Disclosure
from strongroom.archive.evidence.package import MemberReader, Reader, opened, unexpected
from strongroom.archive.evidence.tree import fold
from strongroom.archive.evidence.verdict import Examination, Line, Verdict
from strongroom.archive.merkle import HASH_BYTES, ProofError, leaf_hash, verify_inclusion
from strongroom.archive.note import Checkpoint
from strongroom.archive.policy import Policy
from strongroom.archive.segment import NONCE_BYTES

MAX_CONTENTS_BYTES = 1 << 26
MAX_OTHER_BYTES = 1 << 20
_PIECE_BYTES = 1 << 20
_FRAME_BYTES = 8 + NONCE_BYTES + 4


def check(path: Path, policy: Policy | None, *, tsa_roots: Sequence[Certificate] = ()) -> Verdict:
    """The verdict on the bundle at `path` under the checker's own `policy`; None when they have none.

    With the root certificates of time-stamp authorities (`tsa_roots`), every token must be signed under one of them;
    without, tokens are only compared with the checkpoint. Memory is bounded whatever the bundle claims. Raises
    ObjectMissing when there is no such file.
    """
    found = Examination()
    try:
        with opened(path) as bundle:
            _examine(bundle, policy, tsa_roots, found)
    except FormatError as error:
        found.problems.append(error.message)
    return found.conclude(trusted=policy is not None)


def _examine(bundle: Reader, policy: Policy | None, roots: Sequence[Certificate], found: Examination) -> None:
    contents = layout.decode_contents(bundle.read(layout.CONTENTS, MAX_CONTENTS_BYTES))
    found.problems += unexpected(bundle.names, layout.needed_names(contents))
    stored = bundle.read(layout.CHECKPOINT, note.MAX_NOTE_BYTES)
    signed = note.parse(stored)
    head = note.parse_checkpoint(signed.text)
    if (head.origin, head.size, head.root.hex()) != (
        contents.origin,
        contents.checkpoint.size,
        contents.checkpoint.root,
    ):
        raise FormatError(f"{layout.CHECKPOINT}: not the one that {layout.CONTENTS} states")
    proven = _examine_entries(bundle, contents, head, stored, found)
    _examine_segments(bundle, contents, proven, found)
    brought = b""
    if layout.POLICY in bundle.names:
        with found.noting():
            brought = bundle.read(layout.POLICY, MAX_OTHER_BYTES)
    found.judge(signed, head, policy, brought)
    _examine_timestamps(bundle, stored, roots, found)
    found.problems += [problem for problem in bundle.check_sums() if problem not in found.problems]


def _examine_entries(
    bundle: Reader, contents: Contents, head: Checkpoint, stored: bytes, found: Examination
) -> dict[int, Entry]:
    proven: dict[int, Entry] = {}
    for index in contents.entries:
        with found.noting():
            data = bundle.read(layout.entry_name(index), MAX_ENTRY_BYTES)
            proof = bundle.read(layout.proof_name(index), 2 * note.MAX_NOTE_BYTES)
            proven[index] = proven_entry(data, layout.tlog_path(proof, index, stored), index, head)
    if len(proven) == len(contents.entries):
        text = f"{len(proven)} in the tree of {head.size} entries with root {head.root.hex()}"
        found.lines.append(Line("entries", True, text))
    return proven


def proven_entry(data: bytes, path: list[bytes], index: int, head: Checkpoint) -> Entry:
    """The entry that `data` encodes. Raises FormatError unless it is the one at `index` of the tree of `head`."""
    try:
        verify_inclusion(index, head.size, leaf_hash(data), path, head.root)
    except ProofError as error:
        raise FormatError(f"entry {index}: not in the checkpoint: {error}") from None
    entry = entries.decode(data)
    if (entry.index, entry.origin) != (index, head.origin):
        raise FormatError(f"entry {index}: says it is {entry.index} of {entry.origin!r}")
    return entry


def _examine_segments(bundle: Reader, contents: Contents, proven: dict[int, Entry], found: Examination) -> None:
    good = 0
    for number, disclosure in enumerate(contents.segments, 1):
        if disclosure.entry in proven:
            with found.noting():
                _check_segment(bundle, number, disclosure, proven[disclosure.entry])
                good += 1
    if good == len(contents.segments):
        text = f"{contents.records} from {good} segments give the roots that the entries state"
        found.lines.append(Line("records", True, text))


def _check_segment(bundle: Reader, number: int, disclosure: Disclosure, entry: Entry) -> None:
    records, nodes = layout.records_name(number), layout.nodes_name(number)
    references = entry.segments[disclosure.segment : disclosure.segment + 1]
    stated = [(reference.key, reference.records, reference.root) for reference in references]
    if stated != [(disclosure.key, disclosure.of, disclosure.root)]:
        raise FormatError(f"{layout.CONTENTS}: segment {number} is not what entry {entry.index} states")
    with bundle.stream(records) as frames, bundle.stream(nodes) as hashes:
        leaves = _Frames(frames)
        root = fold(disclosure.of, leaves, lambda: hashes.exactly(HASH_BYTES))
        if root.hex() != disclosure.root:
            raise FormatError(f"{records}: the records do not give the root that entry {entry.index} states")
        if leaves.count != disclosure.records:
            raise FormatError(f"{records}: {leaves.count} records where {layout.CONTENTS} states {disclosure.records}")
        if not hashes.at_end():
            raise FormatError(f"{nodes}: has hashes that no record needs")


class _Frames:
    """The leaves of a `records/<n>` member. A record of any length is hashed in pieces."""

    def __init__(self, member: MemberReader) -> None:
        self._member = member
        self._header = b""
        self._row: int | None = -1
        self.count = -1
        self._advance()

    def next_row(self) -> int | None:
        return self._row

    def take(self) -> bytes:
        leaf = sha256(b"\x00" + self._header[8 : 8 + NONCE_BYTES])
        missing = int.from_bytes(self._header[-4:], "big")
        while missing:
            piece = self._member.exactly(min(missing, _PIECE_BYTES))
            leaf.update(piece)
            missing -= len(piece)
        self._advance()
        return leaf.digest()

    def _advance(self) -> None:
        before = self._row
        self._header = self._member.up_to(_FRAME_BYTES)
        self.count += 1
        if not self._header:
            self._row = None
            return
        if len(self._header) != _FRAME_BYTES:
            raise FormatError(f"{self._member.name}: ends in the middle")
        self._row = int.from_bytes(self._header[:8], "big")
        if before is not None and self._row <= before:
            raise FormatError(f"{self._member.name}: row {self._row} after row {before}")


def _examine_timestamps(bundle: Reader, stored: bytes, roots: Sequence[Certificate], found: Examination) -> None:
    for name in sorted(name for name in bundle.names if name.startswith("timestamps/")):
        with found.noting():
            found.lines.append(_timestamp(bundle, name, stored, roots))


def _timestamp(bundle: Reader, name: str, stored: bytes, roots: Sequence[Certificate]) -> Line:
    response = bundle.read(name, MAX_OTHER_BYTES)
    stamp = timestamp.read(response)
    lines = stamp.covers(stored)
    if lines is None:
        raise FormatError(f"{name}: a token over something else than this checkpoint")
    text = f"{name} says {stamp.time:%Y-%m-%dT%H:%M:%SZ} over the first {lines} lines"
    if not roots:
        return Line("timestamp", None, f"{text}; its signature is not checked here (openssl ts -verify)")
    timestamps.verify(response, timestamp.lines_of(stored, lines), roots)
    return Line("timestamp", True, f"{text}, by an authority under the given certificates")
