"""The log: the append-only sequence of entries, at once a hash chain and an RFC 6962 tree.

Appending is one create-if-absent of `log/entry/<n>`: it decides between racing writers and it is the commit, so a
batch that an entry names is in the archive exactly once and no other state needs to agree. There is no head object:
the head is the highest contiguous entry. A writer that loses the race follows what the winner wrote and tries the next
index; its segments do not change, only its small entry does.

A create that fails with an unknown outcome (StoreUnavailable) is read back: either our bytes are there, or somebody
else's, or none; only the last is passed on as an error. What was committed before a lost answer is recognised by its
writer range, so trying again never commits twice.

Where the store is remote, a log that has grown much is read several entries at once (archive/readahead.py). They are
followed in order all the same: nothing is believed of an entry before its predecessor was.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from strongroom.archive import canonical, layout
from strongroom.archive import entry as entries
from strongroom.archive.chain import Chain
from strongroom.archive.encryption import policy as encryption_policy
from strongroom.archive.encryption.contents import Contents
from strongroom.archive.encryption.encryption import Encryption
from strongroom.archive.encryption.policy import Declared
from strongroom.archive.encryption.wrapping import NO_KEYS, WrappingKeys
from strongroom.archive.entry import Draft, Entry
from strongroom.archive.errors import FormatError, KeyUnusable, ObjectExists, ObjectMissing, StoreUnavailable
from strongroom.archive.merkle import Tree, leaf_hash
from strongroom.archive.note import parse_vkey
from strongroom.archive.readahead import REMOTE_THREADS, in_order
from strongroom.archive.retention.order_book import is_order
from strongroom.archive.retention.rules import Retention
from strongroom.archive.stores.store import ObjectStore

FORMAT = "strongroom/archive/1"
HASH_SUITE = "sha256"
_ONE_BY_ONE = 3
"""So many new entries are read one after the other before it is worth asking how many there are."""


@dataclass(frozen=True, slots=True)
class Identity:
    """archive.json: which archive this is. `data` are its stored bytes, which entry 0 commits to."""

    origin: str
    archive_id: str
    created: str
    keys: tuple[str, ...]
    data: bytes


def holds_archive(store: ObjectStore) -> bool:
    """Whether there is an archive in the store. Raises StoreUnavailable."""
    try:
        store.head(layout.IDENTITY)
    except ObjectMissing:
        return False
    return True


def read_identity(store: ObjectStore) -> Identity:
    """The archive's identity. Raises ObjectMissing when this is no archive, FormatError when it is damaged."""
    try:
        data = store.get(layout.IDENTITY)
    except ObjectMissing:
        raise ObjectMissing(f"no archive in {store.description}", hint="check the path, or create one first") from None
    value = canonical.decode(data)
    try:
        if (value["format"], value["hash"]) != (FORMAT, HASH_SUITE):
            raise FormatError(f"archive.json: unknown format {value['format']} with {value['hash']}")
        return Identity(value["origin"], value["id"], value["created"], tuple(value["keys"]), data)
    except (KeyError, TypeError) as error:
        raise FormatError(f"archive.json: malformed member {error}") from None


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the log has one epoch of a writer: its batches 0 … `sealed` are sealed.

    `parts`: the entries, in order, of a commit whose last part is still missing. `index` and `written_at`: its newest
    entry. `began` and `began_at`: its first.
    """

    sealed: int = -1
    parts: tuple[Entry, ...] = ()
    index: int = -1
    written_at: str = ""
    began: int = -1
    began_at: str = ""

    def after(self, entry: Entry) -> Standing:
        """The standing once `entry`, of the same writer and epoch, is in the log."""
        written = entry.writer
        assert written is not None
        began, began_at = (entry.index, entry.written_at) if self.began < 0 else (self.began, self.began_at)
        parts = () if written.complete else (entry,) if written.part == 1 else (*self.parts, entry)
        sealed = written.last if written.complete else written.first - 1
        return Standing(sealed, parts, entry.index, entry.written_at, began, began_at)


class Log:
    """One archive's log. Thread-safe; any number of processes may append to the same store."""

    def __init__(self, store: ObjectStore, identity: Identity, keys: WrappingKeys = NO_KEYS) -> None:
        """Use `Log.create` or `Log.open`."""
        self.store = store
        self.contents = Contents(store, Encryption(identity.archive_id, keys))
        self.retention = Retention()  # what entries appended here promise for themselves and what they name
        self.identity = identity
        self._chain = Chain(identity.origin, identity.data)
        self._tree = Tree()
        self._key_changes: list[tuple[int, Mapping[str, Any]]] = []
        self._orders: list[Entry] = []
        self._wrapping_keys: list[Declared] = []
        self._standings: dict[str, dict[int, Standing]] = {}
        self._threads = 1 if store.local_path(layout.entry_key(0)) is not None else REMOTE_THREADS
        self._lock = threading.RLock()

    @classmethod
    def create(
        cls,
        store: ObjectStore,
        origin: str,
        vkeys: Sequence[str],
        now: datetime,
        retention: Retention = Retention(),  # noqa: B008 (frozen)
        keys: WrappingKeys = NO_KEYS,
    ) -> Log:
        """Create the archive, or open it when it exists with this origin. Safe to repeat after a crash half-way.

        `retention`: what entries promise, from the first on. `keys`: see `open`.
        """
        for vkey in vkeys:
            if parse_vkey(vkey).name != origin:
                raise FormatError(f"key {vkey.split('+')[0]!r} can't sign for the log {origin!r}: names must be equal")
        value = {
            "format": FORMAT,
            "hash": HASH_SUITE,
            "id": secrets.token_hex(16),
            "origin": origin,
            "created": entries.timestamp(now),
            "keys": list(vkeys),
        }
        # Asked first: in a bucket, where somebody put a delete marker on the identity, another could be created on top.
        if not holds_archive(store):
            with suppress(ObjectExists):
                store.create(layout.IDENTITY, canonical.encode(value))
        found = read_identity(store).origin
        if found != origin:
            raise FormatError(f"{store.description} holds the archive {found!r}, not {origin!r}")
        log = cls.open(store, keys)
        log.retention = retention
        if log.size == 0:
            log.append(Draft("genesis", now, data={"archive": log.identity.archive_id}))
        return log

    @classmethod
    def open(cls, store: ObjectStore, keys: WrappingKeys = NO_KEYS) -> Log:
        """Open an archive and read its log. `keys` read, and seal, what is encrypted of what its entries name.

        Raises ObjectMissing, FormatError.
        """
        log = cls(store, read_identity(store), keys)
        log.refresh()
        return log

    @property
    def origin(self) -> str:
        """The log's name, as checkpoints state it."""
        return self.identity.origin

    @property
    def size(self) -> int:
        """Number of entries read so far."""
        return self._tree.size

    @property
    def key_changes(self) -> list[tuple[int, Mapping[str, Any]]]:
        """Index and data of the `key` entries read so far, for keyring.Keyring."""
        with self._lock:
            return list(self._key_changes)

    @property
    def wrapping_keys(self) -> list[Declared]:
        """The wrapping keys that entries read so far have taken into use; none: the archive is not encrypted."""
        with self._lock:
            return list(self._wrapping_keys)

    def declare_encryption(self, now: datetime) -> None:
        """Take the wrapping key that objects are sealed with into use, by an entry, before the first object.

        Does nothing when the log has it. Raises KeyUnusable when there is no key though the archive is encrypted,
        KeyUnavailable, KeyWithheld, and what `append` raises.
        """
        self.must_encrypt_as_declared()
        encryption = self.contents.encryption
        known = {declared.key for declared in self.wrapping_keys}
        if encryption.keys.current is not None and encryption.keys.current.key_id not in known:
            self.append(Draft("policy", now, data=encryption_policy.statement(*encryption.canary())))

    def must_encrypt_as_declared(self) -> None:
        """Raises KeyUnusable when this archive is encrypted, as far as it is known, and there is no key to do so."""
        if self._wrapping_keys and not self.contents.encryption.on:
            raise KeyUnusable(
                f"the archive {self.origin} is encrypted from entry {self._wrapping_keys[0].index} on, and there is no "
                "key to encrypt with",
                hint="set encryption_key; a log never goes back to plain objects",
            )

    @property
    def orders(self) -> list[Entry]:
        """The entries read so far that name orders, for order_book.OrderBook."""
        with self._lock:
            return list(self._orders)

    def refresh(self) -> int:
        """Read the entries that were appended since. Returns the size. Raises FormatError on a broken chain."""
        with self._lock:
            taken = 0
            while (data := self._fetch(self.size)) is not None:
                self._take(data)
                taken += 1
                if taken == _ONE_BY_ONE and self._threads > 1:
                    self._catch_up()
            return self.size

    def append(self, draft: Draft, *, at: int | None = None, unless: Callable[[], None] | None = None) -> Entry:
        """Commit `draft` as the next entry and return it in its place.

        `unless` is called before every try, when everything that would precede the entry has been read; what it raises
        keeps the entry from being written. When `append` returns, the entry is durable and was read back.

        Raises StoreUnavailable when nothing was committed or the outcome can't be learnt, FormatError when the draft
        breaks a rule, and ObjectExists when it may only stand at index `at` and another entry does (or, after an answer
        was lost, perhaps this very one).
        """
        draft = self._promising(draft)
        with self._lock:
            while True:
                before = self.size
                self.refresh()
                if (committed := self._committed_since(before, draft)) is not None:
                    return committed
                if at is not None and self.size != at:
                    raise ObjectExists(f"entry {at} was written by somebody else")
                if unless is not None:
                    unless()
                if self._wrapping_keys and (plain := encryption_policy.in_the_clear(draft.objects)):
                    raise FormatError(f"{plain[0]} is no envelope, and the archive {self.origin} is encrypted")
                entry = entries.place(draft, origin=self.origin, index=self.size, prev=self._chain.prev)
                data = entries.encode(entry)
                _must_follow(self._chain.copy(), entry.index, data)
                try:
                    self.store.create(layout.entry_key(entry.index), data, retain_until=draft.retain_until)
                except ObjectExists:
                    continue
                except StoreUnavailable:
                    if self._fetch(entry.index) is None:
                        raise
                    continue
                if self._fetch(entry.index) != data:
                    raise FormatError(f"entry {entry.index} does not read back as it was written")
                self._take(data)
                return entry

    def entry_bytes(self, index: int) -> bytes:
        """The stored bytes of the entry at `index`. Raises ObjectMissing."""
        return self.store.get(layout.entry_key(index))

    def entry(self, index: int) -> Entry:
        """The entry at `index`. Raises ObjectMissing, FormatError."""
        return entries.decode(self.entry_bytes(index))

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
        """The entries start … stop-1 (all that are known by default), read from the store."""
        indices = range(start, self.size if stop is None else min(stop, self.size))
        yield from in_order(self.entry, indices, threads=self._threads if len(indices) > _ONE_BY_ONE else 1)

    def next_of(self, writer: str) -> tuple[int, int] | None:
        """(epoch, next batch number) of a writer in the log, None when it never wrote."""
        with self._lock:
            return self._chain.next_of(writer)

    def standing(self, writer: str, epoch: int) -> Standing:
        """How far the log has this epoch of the writer."""
        with self._lock:
            return self._standings.get(writer, {}).get(epoch, Standing())

    def reached(self, writer: str, epoch: int) -> tuple[int, Standing]:
        """The size, and how far the log has this epoch of the writer at that size."""
        with self._lock:
            return self.size, self.standing(writer, epoch)

    def epochs(self, writer: str) -> dict[int, Standing]:
        """Every epoch of the writer that the log knows."""
        with self._lock:
            return dict(self._standings.get(writer, {}))

    def writers(self) -> list[str]:
        """The writers that the log knows, in the order in which they first wrote."""
        with self._lock:
            return list(self._standings)

    def root(self, size: int | None = None) -> bytes:
        """Root over the first `size` entries."""
        with self._lock:
            return self._tree.root(size)

    def row(self, level: int, start: int, stop: int) -> list[bytes]:
        """Hashes of complete subtrees of 2^level entries, as tiles need them (merkle.Tree.row)."""
        with self._lock:
            return self._tree.row(level, start, stop)

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """That the entry `index` is in the tree of `size` entries. Raises ValueError."""
        with self._lock:
            return self._tree.inclusion_proof(index, size)

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """That the tree of `new` entries extends the tree of `old`. Raises ValueError."""
        with self._lock:
            return self._tree.consistency_proof(old, new)

    def _promising(self, draft: Draft) -> Draft:
        """The draft with what the rules promise, unless it says so itself."""
        promise = self.retention.promise(layout.entry_key(0), draft.written_at)
        return draft if promise is None or draft.retain_until else replace(draft, retain_until=promise.until)

    def _fetch(self, index: int) -> bytes | None:
        try:
            return self.store.get(layout.entry_key(index))
        except ObjectMissing:
            return None

    def _catch_up(self) -> None:
        """Read all entries that a listing shows, several at once."""
        start = self.size
        listed = self.store.list(layout.ENTRIES, layout.entry_key(start - 1))
        for data in in_order(self._fetch, range(start, start + sum(1 for _ in listed)), threads=self._threads):
            if data is None:  # foreign names, or a gap: no entry beyond it can be believed
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        index = self._tree.size
        entry = _must_follow(self._chain, index, data)
        self._tree.append(leaf_hash(data))
        if entry.kind == "key":
            self._key_changes.append((index, entry.data))
        if is_order(entry):
            self._orders.append(entry)
        if (declared := encryption_policy.of(entry)) is not None:
            self._wrapping_keys.append(declared)
        if entry.writer is not None:
            epochs = self._standings.setdefault(entry.writer.id, {})
            epochs[entry.writer.epoch] = epochs.get(entry.writer.epoch, Standing()).after(entry)

    def _committed_since(self, before: int, draft: Draft) -> Entry | None:
        """Our own commit, if a try whose answer was lost had succeeded after all."""
        if draft.writer is None or draft.writer.empty:
            return None
        return next((entry for entry in self.entries(before) if entry.writer == draft.writer), None)


def _must_follow(chain: Chain, index: int, data: bytes) -> Entry:
    """Move `chain` on by `data` and return the entry. Raises FormatError when it breaks a rule."""
    entry, violations = chain.follow(data)
    if entry is None or violations:
        first = violations[0]
        raise FormatError(
            f"entry {index}: {first.code}: expected {first.expected}, found {first.actual}",
            hint="run `strongroom verify` to see whether the archive was changed",
        )
    return entry


def checkpoint_sizes(store: ObjectStore, start: int = 0) -> list[int]:
    """Tree sizes ≥ `start` that have a checkpoint object, ascending."""
    after = layout.checkpoint_key(start - 1) if start else layout.CHECKPOINTS
    sizes = (layout.index_of(info.key) for info in store.list(layout.CHECKPOINTS, after))
    return [size for size in sizes if size is not None]
