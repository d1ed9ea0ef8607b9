"""Verification: what the archive claims, held against its bytes and against the verifier's own trust.

It reads everything from the store itself and believes nothing it was not shown, in this order:

1. **Entries** are chained one by one (archive/chain.py) and hashed into a tree.
2. **Checkpoints** must be signed by every key of the verifier's policy and state roots that the tree has. The first one
   that fails brackets when a change happened; what lies in that bracket is named, what only follows from it is not.
3. **Memory**: the tree must extend what this verifier has seen before.
4. **Objects** the entries name must exist and have the stated length (all levels) and SHA-256 (complete); in *deep*,
   every record is hashed again, every typed column derived again, and the details' counts compared.
5. **Nothing else** may lie in the archive, but what a writer has put and not committed yet.

Levels: *quick* reads the whole log but only the objects of entries beyond the verifier's memory; *inventory* looks at
every object without reading it; *complete* reads every object's bytes; *deep* every record; *sampled* does what *deep*
does to a random part, drawn by a seed nobody could know before, and says how likely it is to hit damage.
Memory is bounded by the log (about 100 bytes an entry), not by the data.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from strongroom.archive import entry as entries
from strongroom.archive import layout
from strongroom.archive.findings import Asked, Finding, Level, Report
from strongroom.archive.history import History
from strongroom.archive.holdings import Holdings, Progress, Rederive
from strongroom.archive.stores.store import ObjectStore
from strongroom.archive.trust import Trust

__all__ = ["Finding", "Level", "Progress", "Rederive", "Report", "verify"]


def verify(
    store: ObjectStore,
    trust: Trust,
    level: Level = "complete",
    *,
    rederive: Rederive | None = None,
    progress: Progress | None = None,
    threads: int = 2,
    fraction: float = 0.05,
    witness_seconds: float = 3600.0,
) -> Report:
    """Verify the archive in `store`. Raises ObjectMissing when there is none, StoreUnavailable when it can't be read.

    `rederive` gives *deep* the parsers; without it typed columns are not compared, and a note says so. `fraction` is
    the part *sampled* looks at; `witness_seconds` how long a signed entry may go without the policy's quorum.
    """
    asked = Asked(level, datetime.now(UTC), fraction, secrets.token_bytes(16), witness_seconds=witness_seconds)
    report = Report(level, trust.origin, entries.timestamp(asked.now))
    history = History.read(store, trust, _list(store), asked, report)
    history.judge(report)
    Holdings(store, history, report, rederive, progress or (lambda *_: None), threads).check()
    report.finished = entries.timestamp(datetime.now(UTC))
    return report


def _list(store: ObjectStore) -> dict[str, int]:
    """Names and lengths of all objects.

    A live archive grows meanwhile. Entries are listed after everything they may explain, and checkpoints after the
    entries they cover, so that what is listed is explained by what is listed later.
    """
    listed = {info.key: info.bytes for info in store.list("") if not info.key.startswith(layout.ENTRIES)}
    for prefix in (layout.ENTRIES, layout.CHECKPOINTS):
        listed |= {info.key: info.bytes for info in store.list(prefix)}
    return listed
