"""What people are told about verifications, and when. Pure.

A sound run is told only when the one before of its level was not: people switch off what speaks without need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

Kind = Literal["verdict", "failed", "missed", "recovered"]
Severity = Literal["critical", "error", "warning", "info"]

RUNNING = "VERIFICATION_"  # begins the codes of what is about the verification and not about the archive

_SEVERITIES: Mapping[str, Severity] = {
    "tampered": "critical",
    "warning": "error",
    "incomplete check": "warning",
    "sound so far, unsigned tail": "warning",
    "sound": "info",
}


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing to tell. `findings` are those of the report; for *recovered*, those that are no longer found."""

    kind: Kind
    severity: Severity
    origin: str
    level: str
    verdict: str
    title: str
    text: str
    time: datetime
    run: str = ""
    entry: int | None = None
    findings: tuple[Mapping[str, Any], ...] = ()

    @property
    def fingerprint(self) -> str:
        """Equal for alerts that say the same: the same trouble found again."""
        objects = sorted(f"{finding['code']} {finding['object']}" for finding in self.findings)
        return sha256("\n".join([self.kind, self.origin, self.level, self.verdict, *objects]).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "origin": self.origin,
            "level": self.level,
            "verdict": self.verdict,
            "title": self.title,
            "text": self.text,
            "time": self.time.isoformat(),
            "run": self.run,
            "entry": self.entry,
            "findings": [dict(finding) for finding in self.findings],
        }


def about_report(
    report: Mapping[str, Any], before: Sequence[Mapping[str, Any]], now: datetime, entry: int | None
) -> Alert:
    """What a finished run says. `before`: findings of the last alert of this level, now gone when it is sound."""
    verdict, level, findings = str(report["verdict"]), str(report["level"]), report["findings"]
    counts = Counter(str(finding["code"]) for finding in findings)
    named = ", ".join(f"{code} ×{count}" if count > 1 else code for code, count in counts.items())
    reasons = "; ".join(report["incomplete"][:3])
    text = ". ".join(part for part in (named, reasons) if part) or "everything this level looks at is as it was sealed"
    return Alert(
        kind="recovered" if verdict == "sound" else "verdict",
        severity=_SEVERITIES.get(verdict, "error"),
        origin=str(report["origin"]),
        level=level,
        verdict=verdict,
        title=f"{level} verification of {report['origin']}: {verdict}",
        text=text,
        time=now,
        run=str(report["run"]),
        entry=entry,
        findings=tuple(before if verdict == "sound" else findings),
    )


def about_failure(origin: str, level: str, run: str, reason: str, now: datetime) -> Alert:
    """A run that gave no report: nothing is known about the archive."""
    title = f"{level} verification of {origin} failed"
    return Alert("failed", "error", origin, level, "", title, reason, now, run)


def about_missed(origin: str, level: str, due: datetime, now: datetime) -> Alert:
    """A run that was due and did not begin."""
    title = f"{level} verification of {origin} did not run"
    return Alert("missed", "error", origin, level, "", title, f"due {due.isoformat()}, not begun", now)


def subjects(alert: Alert) -> tuple[Mapping[str, Any], ...]:
    """What a ticket can be about: the findings, or for what is told without one, the verification itself."""
    if alert.findings or alert.kind == "recovered":
        return alert.findings
    about = {
        "code": f"{RUNNING}{alert.kind.upper()}",
        "severity": alert.severity,
        "meaning": alert.title,
        "object": alert.level,
        "expected": "a complete run",
        "actual": alert.text,
        "next_step": "See the service's log and GET /v1/verify/runs; run `strongroom verify` by hand.",
    }
    return (about,)
