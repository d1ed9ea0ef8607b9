"""The verifications of this node, one small file each, so that a restart knows what it was doing.

    running → filing → finished       filing: the report is written beside, not yet in the archive
       └──────────→ failed

A file is written before what it announces: a crash leaves a run that `unfinished` gives back, never one unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from strongroom.archive import durable
from strongroom.archive.verification.findings import Level

State = Literal["running", "filing", "finished", "failed"]
Trigger = Literal["request", "schedule"]

KEPT = 500


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One verification. `announced`: its entry is in the log; `entry`: that of its report; `findings`: by code."""

    id: str
    level: Level
    trigger: Trigger
    state: State
    started: datetime
    due: datetime | None = None
    announced: bool = False
    finished: datetime | None = None
    verdict: str = ""
    findings: dict[str, int] = {}
    seconds: float = 0.0
    entry: int | None = None
    problem: str = ""


class Runs:
    """The files of one node's runs. For one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: dict[str, Run] = {}
        for path in sorted(folder.glob("*.run.json")):
            try:
                run = msgspec.json.decode(path.read_bytes(), type=Run)
            except (OSError, msgspec.DecodeError):
                continue  # damaged: its report, if there was one, is in the archive
            self._runs[run.id] = run

    def all(self) -> list[Run]:
        """The newest first."""
        return sorted(self._runs.values(), key=lambda run: run.started, reverse=True)

    def get(self, run: str) -> Run | None:
        """One run."""
        return self._runs.get(run)

    def unfinished(self) -> list[Run]:
        """What a crash or a stop left, the oldest first."""
        return [run for run in reversed(self.all()) if run.state in ("running", "filing")]

    def last(self) -> Mapping[str, Run]:
        """The last finished run of each level."""
        found: dict[str, Run] = {}
        for run in self.all():
            if run.state == "finished":
                found.setdefault(run.level, run)
        return found

    def save(self, run: Run) -> Run:
        """Durably keep what is known of a run. Raises OSError."""
        self._write(f"{run.id}.run.json", msgspec.json.encode(run))
        self._runs[run.id] = run
        for old in self.all()[KEPT:]:
            if old.state in ("finished", "failed"):
                self.forget(old)
        return run

    def keep_report(self, run: str, report: Mapping[str, Any]) -> None:
        """Durably keep a run's report until it is in the archive. Raises OSError."""
        self._write(f"{run}.report.json", msgspec.json.encode(report))

    def kept_report(self, run: str) -> dict[str, Any] | None:
        """A run's report that was kept here."""
        try:
            return msgspec.json.decode((self._folder / f"{run}.report.json").read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError):
            return None

    def drop_report(self, run: str) -> None:
        """The report is in the archive."""
        (self._folder / f"{run}.report.json").unlink(missing_ok=True)

    def forget(self, run: Run) -> None:
        """It is of no interest any more."""
        del self._runs[run.id]
        for kind in ("run", "report"):
            (self._folder / f"{run.id}.{kind}.json").unlink(missing_ok=True)

    def _write(self, name: str, content: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.replace(self._folder / name, content)
