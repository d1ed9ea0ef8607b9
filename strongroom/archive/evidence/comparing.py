"""Evidence made earlier, held against an archive as it is now.

Whoever has the log's keys and may write to the archive can rewrite its history so that verification finds nothing. He
can't reach the bundles that were handed out before: each carries a tree head, and a log that only grew still has that
tree as its beginning. So old evidence is a witness, without anybody having planned it.

The archive's entries are read as bytes and hashed; neither its chain nor its keys are asked. The evidence must have
been checked before (checking.py, record.py), or it says nothing about anybody.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from strongroom.archive import canonical, layout, note
from strongroom.archive.entry import MAX_ENTRY_BYTES
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.evidence import layout as bundle_layout
from strongroom.archive.evidence.package import opened
from strongroom.archive.evidence.record import RecordProof
from strongroom.archive.log import read_identity
from strongroom.archive.merkle import Tree, leaf_hash
from strongroom.archive.note import Checkpoint
from strongroom.archive.stores.store import ObjectStore
from strongroom.archive.verification.findings import Finding


@dataclass(frozen=True, slots=True)
class Memory:
    """What evidence remembers of a log: its head then, and some of its entries' exact bytes by index."""

    head: Checkpoint
    entries: Mapping[int, bytes]


def remembered(path: Path) -> Memory:
    """What the bundle or the proof at `path` remembers. Raises ObjectMissing, FormatError."""
    if is_proof(path):
        try:
            proof = msgspec.convert(canonical.decode(path.read_bytes()), RecordProof)
            head = note.parse_checkpoint(note.parse(proof.checkpoint.encode()).text)
            return Memory(head, {proof.entry.index: b64decode(proof.entry.raw, validate=True)})
        except (msgspec.ValidationError, ValueError) as error:
            raise FormatError(f"proof: malformed: {error}") from None
    with opened(path) as bundle:
        stored = bundle.read(bundle_layout.CHECKPOINT, note.MAX_NOTE_BYTES)
        names = {bundle_layout.entry_name(index): index for index in _indices(bundle.names)}
        entries = {index: bundle.read(name, MAX_ENTRY_BYTES) for name, index in names.items()}
    return Memory(note.parse_checkpoint(note.parse(stored).text), entries)


def is_proof(path: Path) -> bool:
    """Whether the file is a JSON document and not a bundle. Raises ObjectMissing."""
    try:
        with path.open("rb") as file:
            return file.read(1) == b"{"
    except OSError as error:
        raise ObjectMissing(f"can't read {path}: {error.strerror}", hint="name a bundle or a proof") from None


def compare(memory: Memory, store: ObjectStore) -> list[Finding]:
    """How the archive contradicts what evidence remembers; nothing when its log still begins with that tree.

    Reads every entry up to the remembered size. Raises ObjectMissing when this is no archive.
    """
    origin = read_identity(store).origin
    if origin != memory.head.origin:
        return [Finding("IDENTITY_CHANGED", layout.IDENTITY, memory.head.origin, origin, {})]
    tree = Tree()
    changed: list[int] = []
    for index in range(memory.head.size):
        try:
            data = store.get(layout.entry_key(index))
        except ObjectMissing:
            return [_shorter(memory.head, index, store)]
        tree.append(leaf_hash(data))
        if memory.entries.get(index, data) != data:
            changed.append(index)
    if tree.root() == memory.head.root:
        return []
    where = {"size": memory.head.size} | ({"entries": changed} if changed else {})
    key = layout.checkpoint_key(memory.head.size)
    return [Finding("HISTORY_REWRITTEN", key, f"root {memory.head.root.hex()}", f"root {tree.root().hex()}", where)]


def _shorter(head: Checkpoint, index: int, store: ObjectStore) -> Finding:
    """The log has no entry `index`: cut off there, or torn out of the middle."""
    key = layout.entry_key(index)
    later = next(store.list(layout.ENTRIES, key), None)
    code = "CHECKPOINT_ROLLBACK" if later is None else "ENTRY_MISSING"
    found = f"{index} entries" if later is None else f"none, but {later.key}"
    return Finding(code, key, f"a log of {head.size} entries", found, {"index": index})


def _indices(names: set[str]) -> list[int]:
    digits = (name.removeprefix("entries/") for name in names if name.startswith("entries/"))
    return sorted(int(text) for text in digits if len(text) == 20 and text.isascii() and text.isdigit())
