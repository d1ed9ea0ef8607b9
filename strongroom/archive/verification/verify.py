"""Verification: what the archive claims, held against its bytes and against the verifier's own trust.

It reads everything from the store itself and believes nothing it was not shown, in this order:

1. **Entries** are chained one by one (archive/chain.py) and hashed into a tree.
2. **Checkpoints** must be signed by every key of the verifier's policy and state roots that the tree has. The first one
   that fails brackets when a change happened; what lies in that bracket is named, what only follows from it is not.
3. **Memory**: the tree must extend what this verifier has seen before.
4. **Objects** the entries name must exist and have the stated length (all levels) and SHA-256 (complete); in *deep*,
   every record is hashed again, every typed column derived again, and the details' counts compared.
5. **Nothing else** may lie in the archive, but what a writer has put and not committed yet.
6. **Protection**, in a store that locks objects: every object is locked and held as entries and orders say, has one
   version and no delete marker, and the checksum the store keeps is the entry's. Of a name with several versions the
   first is the archive's and is what all the above looks at.

Levels: *quick* reads the whole log but only the objects of entries beyond the verifier's memory; *inventory* looks at
every object without reading it; *complete* reads every object's bytes; *deep* every record; *sampled* does what *deep*
does to a random part, drawn by a seed nobody could know before, and says how likely it is to hit damage.
Memory is bounded by the log (about 100 bytes an entry), not by the data. With a journal, a run that was killed, or
whose time was over, goes on where it was; with `since`, only what came after an earlier run is looked at.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from strongroom.archive import entry as entries
from strongroom.archive import layout
from strongroom.archive.encryption import check as encryption_check
from strongroom.archive.encryption.contents import Contents
from strongroom.archive.encryption.encryption import Encryption
from strongroom.archive.encryption.wrapping import NO_KEYS, WrappingKeys
from strongroom.archive.note import Checkpoint
from strongroom.archive.retention.order_book import OrderBook
from strongroom.archive.stores.store import LockingStore, ObjectStore, ObjectVersion
from strongroom.archive.trust import Trust
from strongroom.archive.verification import safeguards
from strongroom.archive.verification.examination import Rederive
from strongroom.archive.verification.findings import Asked, Finding, Level, Report
from strongroom.archive.verification.history import History
from strongroom.archive.verification.holdings import Holdings, Progress
from strongroom.archive.verification.metered import metered
from strongroom.archive.verification.originals import Originals
from strongroom.archive.verification.progress import Journal, Position

__all__ = ["Finding", "Level", "Progress", "Rederive", "Report", "verify"]


def verify(
    store: ObjectStore,
    trust: Trust,
    level: Level = "complete",
    *,
    rederive: Rederive | None = None,
    progress: Progress | None = None,
    threads: int = 2,
    processes: int = 0,
    fraction: float = 0.05,
    witness_seconds: float = 3600.0,
    live: bool = False,
    since: Checkpoint | None = None,
    journal: Journal | None = None,
    resume: bool = False,
    seconds: float = math.inf,
    run: str = "",
    keys: WrappingKeys = NO_KEYS,
) -> Report:
    """Verify the archive in `store`. Raises ObjectMissing when there is none, StoreUnavailable when it can't be read.

    `rederive` gives *deep* the parsers (a module's function when `processes` > 0, which then parse); without it typed
    columns are not compared, and a note says so. `fraction` is the part *sampled* looks at; `witness_seconds` how long
    a signed entry may go without the policy's quorum; `live` says that a signer is at work, and is waited for.

    `since` leaves out objects of entries under a checkpoint that an earlier run of this level or a deeper one covered.
    `journal` keeps the position for `resume`, which goes on there; after `seconds` the run stops at a position.
    `run` names it in the report; "" for a new name, or that of the run gone on with. `keys` open what is
    encrypted: without them an encrypted archive's hashes are checked, and *deep* is incomplete.
    """
    begun = time.monotonic()
    kept = journal.load() if journal is not None and resume else None
    seed = bytes.fromhex(kept.seed) if kept is not None else secrets.token_bytes(16)
    asked = Asked(
        level,
        datetime.now(UTC),
        kept.fraction if kept is not None else fraction,
        seed,
        signing_seconds=30.0 if live else 5.0,
        witness_seconds=witness_seconds,
        live=live,
    )
    report = Report(level, trust.origin, entries.timestamp(asked.now), run=run_id(level, asked.now))
    listed, irregular = _list(store)
    if isinstance(store, LockingStore):
        store = Originals(store, _first(irregular))
    metering = metered(store)
    history = History.read(metering, trust, listed, asked, report)
    history.judge(report)
    contents = Contents(metering, Encryption(history.archive, keys))
    encryption_check.judge(history.wrapping_keys, history.in_the_clear, contents.encryption, report)
    book = OrderBook(metering, contents.unseal)
    for entry in history.orders:
        if entry.index not in history.bad:
            book.follow(entry)
    position = kept if kept is not None and _holds(kept, level, history) else None
    holdings = Holdings(
        store,
        history,
        report,
        book=book,
        contents=Contents(store, contents.encryption),
        irregular=irregular,
        start=_start(level, trust.memory if level == "quick" else since, history, report),
        position=position,
        journal=journal,
        deadline=begun + seconds,
        progress=progress,
    )
    report.run = run or report.run
    holdings.check(rederive, threads, processes)
    report.finished = entries.timestamp(datetime.now(UTC))
    report.cost.seconds += time.monotonic() - begun
    report.cost.bytes_read += metering.bytes_read
    report.cost.held = sum(listed.values())
    return report


def run_id(level: Level, started: datetime) -> str:
    """A name for one verification: sorts by time, and is no other's."""
    return f"{started:%Y%m%dt%H%M%Sz}-{level}-{secrets.token_hex(4)}"


def _start(level: Level, since: Checkpoint | None, history: History, report: Report) -> int:
    """The first entry whose objects are looked at."""
    if since is None:
        return 0
    if since.size > history.tree.size or history.tree.root(since.size) != since.root:
        return 0  # another history than the one looked at before: nothing of it was
    if level != "quick":
        report.notes.append(f"objects of entries before {since.size} were left out: an earlier run looked at them")
    return since.size


def _holds(kept: Position, level: Level, history: History) -> bool:
    """Whether a kept position is one in this log."""
    return (
        (kept.level, kept.origin) == (level, history.trust.origin)
        and kept.size <= history.tree.size
        and history.tree.root(kept.size).hex() == kept.root
    )


def _list(store: ObjectStore) -> tuple[dict[str, int], dict[str, Sequence[ObjectVersion]]]:
    """Names and lengths of all objects; and every version of those names that have not exactly one.

    A live archive grows meanwhile. Entries are listed after everything they may explain, and checkpoints after the
    entries they cover, so that what is listed is explained by what is listed later.
    """
    listed: dict[str, int] = {}
    irregular: dict[str, Sequence[ObjectVersion]] = {}
    for prefix in ("", layout.ENTRIES, layout.CHECKPOINTS):
        if not isinstance(store, LockingStore):
            found = {info.key: info.bytes for info in store.list(prefix)}
        else:
            found = {}
            for key, versions in safeguards.by_name(store.versions(prefix)):
                kept = [version for version in versions if not version.marker]
                found |= {key: kept[-1].bytes} if kept else {}
                irregular |= {key: versions} if len(versions) > 1 or not kept else {}
        listed |= {key: size for key, size in found.items() if prefix or not key.startswith(layout.ENTRIES)}
    return listed, irregular


def _first(irregular: Mapping[str, Sequence[ObjectVersion]]) -> dict[str, str]:
    """The first version of each name that has any."""
    kept = {key: [item.version for item in versions if not item.marker] for key, versions in irregular.items()}
    return {key: versions[-1] for key, versions in kept.items() if versions}
