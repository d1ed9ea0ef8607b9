"""What a check of evidence concludes, and how a checkpoint stands under somebody's policy. Pure.

Three verdicts. *proven*: everything holds, and the keys that say so are the checker's own. *identity not
established*: everything holds together, but the checker named no keys, so anybody may have made it all up. *failed*:
something does not hold. Keys that come with the evidence are never trusted; they only tell whether it agrees with
itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from strongroom.archive import note, policy
from strongroom.archive.errors import FormatError
from strongroom.archive.evidence.commands import algorithm
from strongroom.archive.note import Checkpoint, Note
from strongroom.archive.policy import Policy

Status = Literal["proven", "identity not established", "failed"]

EXIT_CODES: dict[Status, int] = {"proven": 0, "failed": 1, "identity not established": 3}


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at. `held` is None for what this check can't or was not asked to establish."""

    subject: str
    held: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The conclusion. `problems` is empty unless `status` is "failed"."""

    status: Status
    lines: tuple[Line, ...]
    problems: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 proven, 1 failed, 3 identity not established. (2 is for a check that could not run.)"""
        return EXIT_CODES[self.status]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        lines = [{"subject": line.subject, "held": line.held, "text": line.text} for line in self.lines]
        return {"status": self.status, "lines": lines, "problems": list(self.problems)}


@dataclass(slots=True)
class Examination:
    """Collects what a check finds, so that one problem does not hide the next."""

    lines: list[Line] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """A step whose failure is one more problem and not the end of the check."""
        try:
            yield
        except FormatError as error:
            self.problems.append(error.message)

    def conclude(self, trusted: bool) -> Verdict:
        """The verdict; `trusted` when the checker brought keys of their own."""
        status: Status = "failed" if self.problems else "proven" if trusted else "identity not established"
        return Verdict(status, tuple(self.lines), tuple(self.problems))

    def judge(self, signed: Note, head: Checkpoint, own: Policy | None, brought: bytes) -> None:
        """How the checkpoint stands under the checker's `own` policy, or else agrees with the one it `brought`."""
        if own is not None:
            with self.noting():
                self._stands_under(signed, head, own)
            return
        try:
            theirs = policy.parse(brought.decode())
        except (FormatError, UnicodeDecodeError):
            self.lines.append(Line("log signature", None, "not checked: no policy was given"))
            return
        with self.noting():
            self._stands_under(signed, head, theirs)
        self.lines = [
            Line(line.subject, None, f"{line.text} (by keys it brings itself, which says nothing about who made it)")
            if line.subject in ("log signature", "witnesses") and line.held
            else line
            for line in self.lines
        ]

    def _stands_under(self, signed: Note, head: Checkpoint, rules: Policy) -> None:
        if head.origin != rules.origin:
            raise FormatError(f"checkpoint: of the log {head.origin!r}; the policy is about {rules.origin!r}")
        keys = note.verify(signed, rules.logs)
        if missing := [key for key in rules.logs if key not in keys]:
            names = ", ".join(f"{algorithm(key)} {key.key_id.hex()}" for key in missing)
            raise FormatError(f"checkpoint: not signed by {names}")
        names = ", ".join(f"{algorithm(key)} {key.key_id.hex()}" for key in rules.logs)
        self.lines.append(Line("log signature", True, f"{head.origin} at size {head.size}, by {names}"))
        if not rules.witnesses:
            self.lines.append(Line("witnesses", True, "the policy asks for none"))
            return
        cosigned = policy.cosigners(signed, rules)
        if not rules.satisfied_by(set(cosigned)):
            got = ", ".join(sorted(cosigned)) or "none"
            raise FormatError(f"checkpoint: the quorum {rules.quorum!r} is not met; witnesses that cosigned: {got}")
        times = [time for time in cosigned.values() if time]
        earliest = f", earliest at {_utc(min(times))}" if times else ""
        met = f"the quorum {rules.quorum!r} is met" if rules.quorum != "none" else "none is asked for"
        text = f"{len(cosigned)} of {len(rules.witnesses)} cosigned{earliest}; {met}"
        self.lines.append(Line("witnesses", True, text))


def _utc(seconds: int) -> str:
    """A POSIX time for people; times beyond the calendar as they stand."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return str(seconds)
