"""The signing role: re-reads the log from the store, checks it against its own memory, and signs tree heads.

It trusts neither the writers nor the store. Its memory, the last checkpoint it signed, lives outside the archive,
where those who administer the archive can't roll it back. In order:

1. Every new entry is fetched, decoded and chained again by the signer itself (archive/chain.py).
2. The objects it names must be in the store with the stated length and SHA-256.
3. The log's key history (archive/keyring.py) must lead to exactly the keys this signer holds: a key signs for its own
   range of tree sizes only, and a key change that nobody may make stops the log.
4. The tree must extend the remembered one. A store behind the memory, or with another root, was rolled back or forked:
   the signer stops and never signs again until a person has decided (`SignerRefused`).
5. Sign, publish the checkpoint (create-only) and the tiles it completes, then remember it.

A crash between publishing and remembering is harmless: the memory is behind but consistent. A crash between signing and
publishing too: the signed text is a function of the entries alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from strongroom.archive import layout, note, tiles
from strongroom.archive.entry import Entry, ObjectRef, SegmentRef
from strongroom.archive.errors import FormatError, ObjectExists, ObjectMissing, SignerRefused
from strongroom.archive.keyring import Keyring
from strongroom.archive.log import Log
from strongroom.archive.note import Checkpoint, NoteSigner
from strongroom.archive.stores.copies import stored_digest
from strongroom.archive.stores.store import ObjectStore
from strongroom.archive.trust import recall, remember

Result = TypeVar("Result")


class Signer:
    """Signs checkpoints of one log. Thread-safe."""

    def __init__(self, store: ObjectStore, signers: Sequence[NoteSigner], memory: Path) -> None:
        """`memory`: file of the last signed checkpoint, outside the archive; absent before the first signature.

        Raises SignerRefused when the store contradicts the memory.
        """
        self._store = store
        self._signers = tuple(signers)
        self._memory = memory
        self._lock = threading.Lock()
        self._log = _or_refuse(lambda: Log.open(store))
        self._checked = 0  # entries whose objects this signer has seen with the right bytes
        self._last = recall(memory)
        if self._last is not None:
            self._must_extend(self._last)
            self._checked = self._last.size

    @property
    def last(self) -> Checkpoint | None:
        """The last checkpoint this signer remembers."""
        return self._last

    def use(self, signers: Sequence[NoteSigner]) -> None:
        """Sign with these keys from now on."""
        with self._lock:
            self._signers = tuple(signers)

    def sign(self) -> Checkpoint:
        """Sign and publish the current tree head; returns it. Does nothing new when the log has not grown.

        Raises SignerRefused, StoreUnavailable.
        """
        with self._lock:
            size = _or_refuse(self._log.refresh)
            if size == 0:
                raise SignerRefused("the log is empty: nothing to sign")
            if self._last is not None:
                self._must_extend(self._last)
            for entry in self._log.entries(self._checked, size):
                self._check_objects(entry)
                self._checked = entry.index + 1
            self._must_be_in_force(size)
            checkpoint = Checkpoint(self._log.origin, size, self._log.root(size))
            if checkpoint != self._last or not self._published(size):
                self._publish(checkpoint)
                tiles.publish(self._store, self._log, self._last.size if self._last else 0, size)
                remember(self._memory, checkpoint)
                self._last = checkpoint
            return checkpoint

    def _must_extend(self, last: Checkpoint) -> None:
        if last.origin != self._log.origin:
            raise SignerRefused(f"the store holds {self._log.origin!r}, this signer signs for {last.origin!r}")
        if self._log.size < last.size:
            raise SignerRefused(
                f"rollback: the store shows {self._log.size} entries, {last.size} were signed",
                hint="restore the missing entries; never sign a shorter log",
            )
        if self._log.root(last.size) != last.root:
            raise SignerRefused(
                f"fork: the first {last.size} entries have another root than was signed",
                hint="run `strongroom verify`; this log can't go on",
            )

    def _must_be_in_force(self, size: int) -> None:
        held = frozenset(signer.key for signer in self._signers)
        ring = Keyring.follow(self._log.origin, held, self._log.key_changes)
        for remark in ring.remarks:
            raise SignerRefused(
                f"entry {remark.index}: {remark.code}: expected {remark.expected}, found {remark.actual}",
                hint="run `strongroom keys list`; if nobody here changed keys, treat the entry as forged",
            )
        if ring.at(size).may != held:
            raise SignerRefused(
                f"from size {ring.at(size).first} on other keys sign this log than the ones held here",
                hint="run `strongroom keys list`; use the state folder that made the change",
            )

    def _check_objects(self, entry: Entry) -> None:
        for reference in entry.objects:
            actual = object_digest(self._store, reference)
            if actual != reference.sha256:
                raise SignerRefused(
                    f"entry {entry.index} names {reference.key} with SHA-256 {reference.sha256}, the store has "
                    f"{actual or 'no such object'}"
                )

    def _published(self, size: int) -> bool:
        try:
            self._store.head(layout.checkpoint_key(size))
        except ObjectMissing:
            return False
        return True

    def _publish(self, checkpoint: Checkpoint) -> None:
        key = layout.checkpoint_key(checkpoint.size)
        try:
            self._store.create(key, note.sign(checkpoint.text(), self._signers).encode().encode())
        except ObjectExists:
            # A signature of ours from before a crash, or another instance of this role: the same tree, or a fork.
            found = note.parse(self._store.get(key))
            if found.text != checkpoint.text():
                raise SignerRefused(f"{key} states another tree head of the same size") from None


def object_digest(store: ObjectStore, reference: ObjectRef | SegmentRef) -> str | None:
    """SHA-256 (hex) of a referenced object's stored bytes, None when there is no such object."""
    try:
        return stored_digest(store, reference.key, reference.version, size=reference.bytes)
    except (FileNotFoundError, ObjectMissing):
        return None


def _or_refuse(read: Callable[[], Result]) -> Result:
    """A log that breaks the format is not signed: that is a refusal, not a crash."""
    try:
        return read()
    except FormatError as error:
        raise SignerRefused(error.message, hint=error.hint) from None
