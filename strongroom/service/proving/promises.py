"""Promises: what receipts say, held against the archive.

A receipt says that a batch was durable here and will be sealed. So of every receipt it can be said later:

    sealed          an entry names the batch, with the content that was acknowledged
    spooled         it waits to be sealed; past `promise_seconds` it is overdue, which is a finding of verification
    contradicted    the archive names the batch with other content: one of the two was made up
    lost            the batch is neither in the archive nor in a spool: what was acknowledged is gone
    foreign         no key of this node has signed the receipt: nothing was promised here

Where a batch is sealed is read from the archive (sealed.py), not from the batch index, which only says where to look.
`lost` is said after the whole log was searched.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from strongroom.archive.details import BatchFacts
from strongroom.archive.entry import parse_timestamp
from strongroom.archive.errors import StrongroomError
from strongroom.archive.evidence.selection import stored_entry
from strongroom.archive.log import Log
from strongroom.archive.note import VerifierKey
from strongroom.archive.verification.findings import Finding, Report
from strongroom.ingest import receipts
from strongroom.ingest.batches import INDEX, BatchState, facts_of, unsealed
from strongroom.ingest.errors import ReceiptInvalid, UnknownBatch
from strongroom.ingest.intake import Intake
from strongroom.ingest.receipts import Receipt
from strongroom.service.errors import NotSignedYet
from strongroom.service.proving.evidence import Anchor
from strongroom.service.proving.sealed import EntryProof, Seal, seal_of
from strongroom.service.state import StateFolder

Verdict = Literal["sealed", "spooled", "contradicted", "lost", "foreign"]

MEANING: Mapping[Verdict, str] = {
    "sealed": "the batch is in the archive, with the content that was acknowledged",
    "spooled": "the batch is durable and waits to be sealed",
    "contradicted": "the batch was acknowledged by us with other content than the archive holds under its id: "
    "that is evidence of a change",
    "lost": "the batch was acknowledged by us and is not in the archive: that is evidence of loss",
    "foreign": "no receipt key of this node has signed it: nothing was promised here",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """What became of a promise.

    `receipt`: the signed note, None when it is not this writer's to give; `age_seconds`: how long a batch has waited,
    None once it is sealed. When it is lost, `admitted` is the entry that says so itself, and `claimed` the entry that
    says it sealed this writer's batch of that number, and does not name this one.
    """

    verdict: Verdict
    meaning: str
    batch: str
    source: str
    sha256: str
    bytes: int
    received_at: datetime
    receipt: str | None
    promise_seconds: float
    age_seconds: float | None = None
    overdue: bool = False
    admitted: int | None = None
    claimed: int | None = None
    seal: Seal | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """What the whole log says of a batch nobody knows; as in Standing. `sealed`: the entry that names it after all."""

    admitted: int | None = None
    claimed: int | None = None
    sealed: int | None = None


class Promises:
    """The promises of one node. `anchor(n)` gives the checkpoint for proofs about entries below n."""

    def __init__(
        self,
        *,
        log: Log,
        intake: Intake,
        state: StateFolder,
        key: VerifierKey,
        seconds: float,
        anchor: Callable[[int], Anchor],
    ) -> None:
        self._log, self._intake, self._state = log, intake, state
        self._key, self._seconds, self._anchor = key, seconds, anchor

    def standing(self, batch: str, *, records: int = 0, after: int = -1, details: bool = False) -> Standing:
        """How a batch stands, with proof. Raises UnknownBatch, and FormatError when the archive is damaged."""
        state = self._intake.batch(batch)
        seal = None
        if state.entry is not None:
            seal = seal_of(self._log, batch, state.entry, records=records, after=after)
            seal = replace(seal, proof=self._proof(state.entry), content=seal.content if details else None)
        return self._stands(state.state, state, self._intake.receipt(batch), seal)

    def check(self, text: str) -> Standing:
        """What became of a receipt. Raises ReceiptInvalid when it is none, FormatError when the archive is damaged."""
        stated = receipts.parse(text)
        try:
            receipts.verify(text, [self._key])
        except ReceiptInvalid:
            return self._stands("foreign", stated, text)
        try:
            state = self._intake.batch(stated.batch)
        except UnknownBatch:
            found = search(self._log, stated)
            if found.sealed is None:
                lost = self._stands("lost", stated, text)
                return replace(lost, admitted=found.admitted, claimed=found.claimed)
            entry = found.sealed
        else:
            if state.entry is None:
                return self._stands("spooled", state, text)
            entry = state.entry
        seal = seal_of(self._log, stated.batch, entry)
        seal = replace(seal, proof=self._proof(entry), content=None)
        if difference := contradiction(stated, seal.facts):
            standing = self._stands("contradicted", stated, text, seal)
            return replace(standing, meaning=f"{standing.meaning}: {difference}")
        return self._stands("sealed", stated, text, seal)

    def overdue(self) -> int:
        """How many promises of this state folder's writers are overdue; of indices that can be read."""
        try:
            return len(overdue(self._state, lambda: self._log, datetime.now(UTC), self._seconds))
        except sqlite3.DatabaseError:
            return 0

    def _proof(self, index: int) -> EntryProof | None:
        try:
            found = self._anchor(index + 1)
        except NotSignedYet:
            return None
        data, path = stored_entry(self._log, index, found.head)
        return EntryProof(data, tuple(path), found.head, found.note, found.witnessed)

    def _stands(
        self, verdict: Verdict, about: BatchState | Receipt, receipt: str, seal: Seal | None = None
    ) -> Standing:
        age = None
        if verdict == "spooled":
            age = max(0.0, (datetime.now(UTC) - about.received_at).total_seconds())
        return Standing(
            verdict=verdict,
            meaning=MEANING[verdict],
            batch=about.batch,
            source=about.source,
            sha256=about.sha256,
            bytes=about.bytes,
            received_at=about.received_at,
            receipt=receipt,
            promise_seconds=self._seconds,
            age_seconds=None if age is None else round(age, 3),
            overdue=age is not None and age > self._seconds,
            seal=seal,
        )


def search(log: Log, receipt: Receipt) -> Search:
    """Read the whole log for what it says of a batch. Raises FormatError on a broken one."""
    admitted = claimed = None
    for entry in log.entries():
        if entry.kind == "incident" and receipt.batch in entry.data.get("batches", ()):
            admitted = entry.index
        written = entry.writer
        if written is None or not written.complete:
            continue
        if any(fact.id == receipt.batch for fact in facts_of(entry, log.contents)):
            return Search(admitted, claimed, entry.index)
        if (written.id, written.epoch) == (receipt.writer, receipt.epoch) and (
            written.first <= receipt.sequence <= written.last
        ):
            claimed = entry.index
    return Search(admitted, claimed)


def contradiction(receipt: Receipt, facts: BatchFacts) -> str:
    """How the archive's facts differ from what was acknowledged, "" when they agree."""
    pairs = {
        "sha256": (receipt.sha256, facts.sha256),
        "bytes": (receipt.bytes, facts.bytes),
        "source": (receipt.source, facts.source),
        "received_at": (receipt.received_at, parse_timestamp(facts.received_at)),
    }
    return "; ".join(f"{name}: {said} was acknowledged, {found} is sealed" for name, (said, found) in pairs.items()
                     if said != found)  # fmt: skip


def overdue(state: StateFolder, log: Callable[[], Log], now: datetime, seconds: float) -> list[BatchState]:
    """Batches of any writer of this state folder that were acknowledged longer ago than promised and are in no entry.

    Raises sqlite3.DatabaseError when an index can't be read.
    """
    before = now - timedelta(seconds=seconds)
    indices = sorted(state.writer("").glob(f"*/{INDEX}"))
    return [batch for index in indices for batch in unsealed(index, before, log)]


def judge(report: Report, policy: Path, log: Callable[[], Log], seconds: float, patience: float = 0.0) -> None:
    """Add what is overdue to a report, when the verifier's `policy` is a node's own: then its indices lie beside it.

    A clock that was set forward makes a batch look old that came a moment ago. Where a sealer is at work, `patience`
    is how many seconds, by the monotonic clock, it is given to seal what looks overdue.
    """
    state = StateFolder(policy.absolute().parents[1])
    if state.policy != policy.absolute() or not state.node.exists():
        return
    deadline = time.monotonic() + patience
    try:
        while found := list(findings(state, log, datetime.now(UTC), seconds)):
            if time.monotonic() >= deadline:
                break
            time.sleep(1.0)
        report.findings += found
    except (sqlite3.DatabaseError, StrongroomError) as error:
        report.notes.append(f"receipts could not be held against the archive: {error}")


def findings(state: StateFolder, log: Callable[[], Log], now: datetime, seconds: float) -> Iterator[Finding]:
    """RECEIPT_OVERDUE, one for each writer with promises that are not kept. Raises sqlite3.DatabaseError."""
    late = overdue(state, log, now, seconds)
    for writer in sorted({batch.writer for batch in late}):
        mine = [batch for batch in late if batch.writer == writer]
        oldest = mine[0]
        age = (now - oldest.received_at).total_seconds()
        yield Finding(
            "RECEIPT_OVERDUE",
            f"writer {writer}",
            f"every batch sealed within {seconds:g} seconds",
            f"{len(mine)} acknowledged and in no entry, the oldest for {age:.0f} seconds",
            {"batches": len(mine), "oldest": oldest.batch},
        )
