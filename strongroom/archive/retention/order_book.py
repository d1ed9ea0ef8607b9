"""The orders of a log, read as it grows: the step from entries to what they oblige everybody to.

Whoever acts on orders (placing holds, verifying them, leaving pruned segments out of answers) follows the log with a
book of its own. An order counts only with the bytes its entry commits to; one that can't be read is a problem that is
said, never an obligation that is dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from strongroom.archive import layout
from strongroom.archive.entry import Entry
from strongroom.archive.errors import FormatError, KeyWithheld, ObjectMissing
from strongroom.archive.retention import orders
from strongroom.archive.retention.orders import Obligations
from strongroom.archive.stores.store import ObjectStore

Unseal = Callable[[str, bytes], bytes]
"""(name, stored bytes) -> the order's bytes: Contents.unseal where the archive may be encrypted."""

_KINDS = frozenset(orders.KIND.values())


def plain(_key: str, data: bytes) -> bytes:
    """Of an archive that is not encrypted."""
    return data


def is_order(entry: Entry) -> bool:
    """Whether the entry names an order."""
    return entry.kind in _KINDS and entry.details is not None and entry.details.key.startswith(layout.ORDERS)


class OrderBook:
    """Orders followed entry by entry; `obligations` is what they add up to. Not for several threads at once."""

    def __init__(self, store: ObjectStore, unseal: Unseal = plain) -> None:
        self._store, self._unseal = store, unseal
        self.obligations = Obligations()
        self.problems: list[str] = []

    def follow(self, entry: Entry) -> None:
        """Take in the order an entry names, if it names one. Raises StoreUnavailable."""
        if not is_order(entry) or entry.details is None:
            return
        try:
            data = self._store.get(entry.details.key, entry.details.version)
            if sha256(data).hexdigest() != entry.details.sha256:
                raise FormatError("its SHA-256 is not what the entry states")
            order = orders.decode(self._unseal(entry.details.key, data))
            if orders.KIND[order.action] != entry.kind:
                raise FormatError(f"{order.action} in an entry of kind {entry.kind}")
        except (FormatError, ObjectMissing, KeyWithheld) as error:
            self.problems.append(f"order {entry.details.key} of entry {entry.index}: {error.message}")
            return
        self.obligations.follow(entry.index, entry.written_at, order)
