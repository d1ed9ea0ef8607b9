"""What verification says: findings with stable codes, each precise about what, where, and what to do next. Pure.

The catalogue below is the reference page's source (docs/findings.md is compared with it by a test). One change to an
archive yields the finding that names it, not the avalanche that follows from it; a sound archive yields none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from strongroom.archive.note import Checkpoint

Severity = Literal["critical", "error", "warning"]
Level = Literal["quick", "inventory", "complete", "sampled", "deep"]
Verdict = Literal["sound", "sound so far, unsigned tail", "warning", "tampered", "incomplete check"]


class Kind(NamedTuple):
    """One line of the catalogue."""

    severity: Severity
    meaning: str
    next_step: str


_COPY = "Compare with a replica or backup; keep the damaged object as evidence of the change."
_STOP = "Stop the writers, keep everything as it is, and establish who had access since the last good checkpoint."

CATALOGUE: Mapping[str, Kind] = {
    "IDENTITY_CHANGED": Kind("critical", "archive.json is not the one entry 0 commits to, or names another log", _STOP),
    "ENTRY_MISSING": Kind("critical", "an entry of the log is gone while later entries or checkpoints exist", _COPY),
    "ENTRY_CHANGED": Kind("critical", "an entry's bytes are not those that were signed and chained", _COPY),
    "ENTRY_NOT_CANONICAL": Kind("critical", "an entry's bytes do not decode as a canonical entry", _COPY),
    "ENTRY_OUT_OF_PLACE": Kind("critical", "an entry stands at another index, or in another log, than it says", _COPY),
    "ENTRY_UNSIGNED": Kind(
        "error",
        "entries beyond the newest valid checkpoint: the signer never vouched for them",
        "If the signer was down, start it: it checks and signs them. If it refuses, treat them as forged.",
    ),
    "WRITER_GAP": Kind("critical", "a writer's batch numbers have a hole: accepted batches are not in the log", _STOP),
    "WRITER_OVERLAP": Kind("critical", "a writer sealed batch numbers twice: a restored spool or a forger", _STOP),
    "CHECKPOINT_SIGNATURE": Kind(
        "critical", "a checkpoint is not validly signed by every key in force at its size", _STOP
    ),
    "KEY_CHANGE_INVALID": Kind(
        "critical", "an entry changes the log's keys without the signatures or the order that it takes", _STOP
    ),
    "KEY_CHANGE_UNCONFIRMED": Kind(
        "warning",
        "a key was retired without its own signature: followed, but whoever holds only the other keys could do so",
        "Ask the log's owner by another way. If he did it, pin his new policy (`strongroom keys export-policy`).",
    ),
    "KEY_OUT_OF_WINDOW": Kind(
        "critical", "a checkpoint is signed by a key of the log that is not in force at its size", _STOP
    ),
    "CHECKPOINT_MALFORMED": Kind(
        "critical", "a checkpoint object does not parse, or states another log or size", _STOP
    ),
    "CHECKPOINT_INCONSISTENT": Kind(
        "critical", "a validly signed checkpoint states another root than the entries give", _STOP
    ),
    "CHECKPOINT_MISSING": Kind("error", "the checkpoint this verifier saw last is gone, its entries are there", _COPY),
    "CHECKPOINT_ROLLBACK": Kind(
        "critical", "the log is shorter than this verifier has seen it: its end was cut off", _STOP
    ),
    "CHECKPOINT_STALE": Kind("error", "the newest checkpoint is older than allowed", "Check that the service runs."),
    "HISTORY_REWRITTEN": Kind(
        "critical", "the log has another root than this verifier has seen at the same size", _STOP
    ),
    "SEGMENT_MISSING": Kind("critical", "a segment an entry names is gone", _COPY),
    "SEGMENT_CHANGED": Kind("critical", "a segment's bytes are not those its entry commits to", _COPY),
    "DETAILS_MISSING": Kind("critical", "a details object an entry names is gone", _COPY),
    "DETAILS_CHANGED": Kind("critical", "a details object's bytes are not those its entry commits to", _COPY),
    "RECORD_ROOT_MISMATCH": Kind(
        "critical", "a segment with the right bytes does not have the records root its entry states", _STOP
    ),
    "DERIVED_COLUMN_MISMATCH": Kind(
        "critical",
        "typed columns are not what the record's bytes give: queries over them would mislead",
        "Trust `raw` only for these rows; seal a corrected copy; establish which software wrote the segment.",
    ),
    "DETAILS_MISMATCH": Kind("error", "details state counts, times or hours that the segment does not have", _STOP),
    "COSIGNATURE_INVALID": Kind(
        "critical", "a stored cosignature by a witness of the policy does not verify over its checkpoint", _STOP
    ),
    "WITNESS_MISSING": Kind(
        "error",
        "no quorum of the policy's witnesses has cosigned what the log has signed for too long",
        "Check that the witnesses run and reach the log. If one refuses, read its fork report.",
    ),
    "RECEIPT_OVERDUE": Kind(
        "error",
        "batches were acknowledged longer ago than promised and are in no entry",
        "Keep the spool: it holds them. `GET /v1/status` says what keeps the sealer; a writer that is gone seals at "
        "its next start.",
    ),
    "TIMESTAMP_INVALID": Kind(
        "critical",
        "a stored timestamp does not hold for the checkpoint of its size under the verifier's authorities",
        _STOP,
    ),
    "REPORT_MISSING": Kind("critical", "a verification report an entry names is gone", _COPY),
    "REPORT_CHANGED": Kind(
        "critical", "a verification report's bytes are not those its entry commits to: do not rely on it", _COPY
    ),
    "ENTRY_FORK": Kind(
        "critical",
        "an entry's name has more than one version: somebody wrote another history on top of a sealed one",
        _STOP,
    ),
    "VERSION_EXTRA": Kind(
        "critical",
        "an object's name has more than one version: somebody wrote over it; the first version was verified",
        "Keep every version as evidence. Find out from the bucket's access log who put it, and take that right away.",
    ),
    "DELETE_MARKER": Kind(
        "critical",
        "a delete marker hides an object: somebody deleted it; its versions below the marker were verified",
        "Note the marker's date and id as evidence, find out who deleted, then remove the marker: the name is back.",
    ),
    "LOCK_MISSING": Kind(
        "error",
        "an object is not locked although its entry promises it: whoever may delete versions can remove it",
        "Lock it again (`strongroom retention extend`) and run `strongroom doctor bucket`.",
    ),
    "LOCK_WEAK": Kind(
        "error",
        "an object is locked in a weaker mode than its entry promises: privileged users can remove it",
        "Find out who changed the mode, or which writer ran with other rules; lock it in COMPLIANCE mode.",
    ),
    "LOCK_SHORT": Kind(
        "error",
        "an object is locked for less time than its entry promises",
        "Lengthen it again (`strongroom retention extend`); a store that lets locks be shortened is no store for an "
        "archive: `strongroom doctor bucket`.",
    ),
    "HOLD_MISSING": Kind(
        "error",
        "an object that an open case holds is not under legal hold",
        "Find out who removed the hold. `strongroom hold place` for the case, with the same question, sets it again.",
    ),
    "VERSIONING_SUSPENDED": Kind(
        "critical",
        "the bucket keeps no new versions: what is put or deleted now replaces objects that are not locked",
        "Turn versioning on again, find out who suspended it, and run `strongroom doctor bucket`.",
    ),
    "PRUNE_EARLY": Kind(
        "critical",
        "an entry says that a segment was pruned before its retention, or a legal hold on it, had ended",
        _STOP,
    ),
    "ORDER_MISSING": Kind(
        "critical", "an order (legal hold, retention, prune) an entry names is gone: what it obliges is unknown", _COPY
    ),
    "ORDER_CHANGED": Kind(
        "critical", "an order's bytes are not those its entry commits to: what it obliges is unknown", _COPY
    ),
    "KEY_UNAVAILABLE": Kind(
        "critical",
        "a wrapping key that sealed objects can't be used: while that is so, nobody can read what it sealed",
        "If it is pending deletion, cancel that at once; if it is disabled or denied, enable or grant it. If it is "
        "only unknown here, name it in `encryption_keys_old`.",
    ),
    "PLAINTEXT_OBJECT": Kind(
        "critical",
        "an object is not encrypted although the log says that this archive is",
        "Find out which writer put it, and with which software (this one refuses): the store's provider can read it.",
    ),
    "ENVELOPE_MISMATCH": Kind(
        "critical",
        "an object with the right bytes is no envelope of this object and archive, or its key does not open it",
        _STOP,
    ),
    "TILE_CHANGED": Kind(
        "error",
        "a published tile is not what the entries give: foreign auditors would be misled",
        "Keep it as evidence, remove it, and let the signer publish the tile again.",
    ),
    "SOURCE_FILE_MISSING": Kind(
        "critical",
        "a log file that AWS signed for is not sealed here, or not where its copy was to be",
        "Fetch it (`strongroom backfill`) while its bucket still has it; find out why it never came.",
    ),
    "SOURCE_FILE_ALTERED": Kind(
        "critical",
        "a log file has other content than AWS signed for",
        "Keep both; fetch the original from its bucket, by version; establish who could write there or deliver here.",
    ),
    "DIGEST_FORGED": Kind(
        "critical",
        "a CloudTrail digest is not as AWS signed it: nothing it says counts",
        "Look for older versions of the object; establish who could write to the bucket.",
    ),
    "DIGEST_MISSING": Kind(
        "error",
        "a CloudTrail digest that must exist is not there: files of its hour may be missing unseen",
        "Look for deleted versions of the object; ask whether the trail still delivers and validates.",
    ),
    "DIGEST_GAP": Kind(
        "error",
        "a chain of CloudTrail digests was begun again: no log file of the time between is vouched for",
        "Find who stopped the trail: `StopLogging`, `UpdateTrail` or `DeleteTrail` in source cloudtrail.",
    ),
    "ORPHAN": Kind(
        "warning",
        "an object that no entry names or explains",
        "It is not part of the archive and nothing reads it. Find out who put it there.",
    ),
}

_NOT_TAMPERING = frozenset(
    {
        *("ENTRY_UNSIGNED", "WITNESS_MISSING", "CHECKPOINT_STALE", "ORPHAN", "KEY_CHANGE_UNCONFIRMED"),
        *("RECEIPT_OVERDUE", "LOCK_MISSING", "LOCK_WEAK", "LOCK_SHORT", "HOLD_MISSING"),
        *("KEY_UNAVAILABLE", "PLAINTEXT_OBJECT"),
        *("VERSIONING_SUSPENDED", "DIGEST_GAP"),
    }
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing verification says.

    `object` is the name of the object concerned. `where` narrows it down: index, row_groups, rows (first and last,
    0-based, inclusive), column. `last_good` and `first_bad` are tree sizes that bracket when it happened, where known.
    """

    code: str
    object: str
    expected: str
    actual: str
    where: Mapping[str, Any]
    last_good: int | None = None
    first_bad: int | None = None

    @property
    def severity(self) -> Severity:
        """From the catalogue."""
        return CATALOGUE[self.code].severity

    def to_json(self) -> dict[str, Any]:
        """All facts, with the catalogue's words."""
        kind = CATALOGUE[self.code]
        return {
            "code": self.code,
            "severity": kind.severity,
            "meaning": kind.meaning,
            "object": self.object,
            "expected": self.expected,
            "actual": self.actual,
            "where": dict(self.where),
            "last_good": self.last_good,
            "first_bad": self.first_bad,
            "next_step": kind.next_step,
        }

    def __str__(self) -> str:
        narrowed = "".join(f", {name} {value}" for name, value in self.where.items())
        bracket = f"; last good at size {self.last_good}" if self.last_good is not None else ""
        return f"{self.code}: {self.object}{narrowed}: expected {self.expected}, found {self.actual}{bracket}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a verification is asked to do, and when it runs.

    `fraction` and `seed` choose what *sampled* looks at. `signing_seconds` is how long a checkpoint over an entry
    written just now is waited for, `witness_seconds` how long a signed entry may go unwitnessed. `live` says that a
    signer is at work: then any unsigned entry is waited for, whatever its clock says.
    """

    level: Level
    now: datetime
    fraction: float = 0.05
    seed: bytes = b""
    signing_seconds: float = 5.0
    witness_seconds: float = 3600.0
    live: bool = False


@dataclass(slots=True)
class Cost:
    """What a verification took, over all its sittings when it was interrupted. `held`: bytes of all objects listed."""

    seconds: float = 0.0
    bytes_read: int = 0
    held: int = 0

    def to_json(self) -> dict[str, Any]:
        """The facts, and what they come to for a terabyte (10^12 bytes) of archive."""
        scale = 1e12 / self.held if self.held else 0.0
        return {
            "seconds": round(self.seconds, 3),
            "bytes_read": self.bytes_read,
            "bytes_held": self.held,
            "seconds_per_tb": round(self.seconds * scale),
            "bytes_read_per_tb": round(self.bytes_read * scale),
        }


@dataclass(slots=True)
class Report:
    """The outcome of one verification.

    `run`: the id of this verification; `size`, `root`: the tree found; `witnessed`: the size a quorum stands behind;
    `incomplete`: why not everything the level asks for was looked at.
    """

    level: Level
    origin: str
    started: str
    run: str = ""
    finished: str = ""
    size: int = 0
    root: str = ""
    checkpoint: Checkpoint | None = None
    witnessed: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)

    @property
    def sound(self) -> bool:
        """Whether everything was looked at and nothing found."""
        return not self.findings and not self.incomplete

    @property
    def verdict(self) -> Verdict:
        """In a word: *warning* is trouble that changed nothing, *incomplete check* that not all was looked at.

        Tampering that was found stands, also when the check is incomplete; anything milder does not.
        """
        codes = {finding.code for finding in self.findings}
        if not codes <= _NOT_TAMPERING:
            return "tampered"
        if self.incomplete:
            return "incomplete check"
        if not codes:
            return "sound"
        return "sound so far, unsigned tail" if codes == {"ENTRY_UNSIGNED"} else "warning"

    def to_json(self) -> dict[str, Any]:
        """The report for machines."""
        return {
            "sound": self.sound,
            "verdict": self.verdict,
            "level": self.level,
            "run": self.run,
            "origin": self.origin,
            "started": self.started,
            "finished": self.finished,
            "size": self.size,
            "root": self.root,
            "checkpoint": self.checkpoint.size if self.checkpoint else 0,
            "witnessed": self.witnessed,
            "counts": self.counts,
            "notes": self.notes,
            "incomplete": self.incomplete,
            "findings": [finding.to_json() for finding in self.findings],
            "cost": self.cost.to_json(),
        }
