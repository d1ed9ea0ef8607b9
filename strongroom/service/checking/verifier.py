"""Verifications of the service: each in a process of its own, at lower priority, its report filed and told.

Verification reads the whole archive and must not take the event loop, the memory, the interpreter lock or the processor
from acknowledging deliveries; so it is the command line in a child process. Two lanes: a *quick* run never waits for a
long one. Within a lane one run at a time.

What a run goes through, and what a crash leaves at each step: service/checking/runs.py, service/checking/reports.py.
`recover` goes on with whatever it was. A log that can't be written (that is what verification may be about to find)
stops neither the verification nor its alert: the report then stays in the state folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

from strongroom.archive.errors import StrongroomError
from strongroom.archive.verification.findings import Level
from strongroom.archive.verification.progress import Journal
from strongroom.archive.verification.verify import run_id
from strongroom.service.alerts.alert import about_failure
from strongroom.service.alerts.dispatch import Alerts
from strongroom.service.checking import reports as report_format
from strongroom.service.checking.reports import Reports
from strongroom.service.checking.runs import Run, Runs, Trigger
from strongroom.service.checking.verification import progress_of
from strongroom.service.errors import StoodDown, VerificationBusy, VerificationError, VerificationFailed

log = structlog.get_logger(__name__)

# Deliveries come first: a long run gets about a thirtieth of a processor that they want, a quick one, which is soon
# done and is the alarm, a third.
_QUICK_NICENESS, _NICENESS = 5, 15
_OVERTIME_SECONDS = 60.0  # for reading the log and judging, beside the time for looking at objects


@dataclass(frozen=True, slots=True)
class VerifierLimits:
    """`seconds`: a run stops then and the next of its level goes on; the others: as the command line's."""

    seconds: float
    workers: int
    fraction: float
    promise_seconds: float
    tsa_roots: Path | None = None
    sources_file: Path | None = None


class Verifier:
    """Runs verifications for one node. `archive`: environment that lets a child process open the archive."""

    def __init__(
        self,
        archive: Mapping[str, str],
        policy: Path,
        runs: Runs,
        reports: Reports,
        alerts: Alerts,
        limits: VerifierLimits,
        origin: str,
    ) -> None:
        self.runs, self.reports, self.alerts = runs, reports, alerts
        self.failures: Counter[str] = Counter()
        self._archive, self._policy, self._limits, self._origin = archive, policy, limits, origin
        self._lanes = {True: asyncio.Lock(), False: asyncio.Lock()}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(
        self, level: Level, trigger: Trigger = "request", due: datetime | None = None, *, wait: bool = False
    ) -> dict[str, Any]:
        """Verify, file and tell; returns the report with `run` and `entry`, sound or not.

        Goes on when the caller is cancelled. `wait` for the lane instead of raising VerificationBusy. Raises StoodDown
        when another node does it, VerificationFailed when there is no report.
        """
        lane = self._lanes[level == "quick"]
        if lane.locked() and not wait:
            raise VerificationBusy("a verification is running", hint="wait for it; GET /v1/verify/runs shows it")
        return await asyncio.shield(self._begin(self._run_new(lane, level, trigger, due)))

    async def recover(self, *, wait: bool = False) -> None:
        """Go on with what a crash or a stop left, one after the other, in the background unless told to wait."""
        begun = [self._begin(self._go_on(left)) for left in self.runs.unfinished()]
        if wait:
            await asyncio.gather(*begun)
        else:
            await asyncio.sleep(0)  # they take their lanes before anything new does

    async def stop(self) -> None:
        """End what runs; the next start goes on with it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def progress(self, run: Run) -> dict[str, int] | None:
        """How far a running verification has come, None when it has not said so yet."""
        position = Journal(progress_of(self._policy, run.level, run.id)).load() if run.state == "running" else None
        if position is None or position.run != run.id:
            return None
        return {
            "entries": position.next,
            "of_entries": position.size,
            "objects": position.objects,
            "of_objects": position.total,
            "bytes_read": position.bytes_read,
            "findings": len(position.findings),
        }

    def _begin(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run_new(
        self, lane: asyncio.Lock, level: Level, trigger: Trigger, due: datetime | None
    ) -> dict[str, Any]:
        async with lane:
            now = datetime.now(UTC)
            run = Run(id=run_id(level, now), level=level, trigger=trigger, state="running", started=now, due=due)
            return await self._verify_and_file(await self._announce(self.runs.save(run)))

    async def _announce(self, run: Run) -> Run:
        """Claim the run in the log. Raises StoodDown."""
        try:
            refusal = await asyncio.to_thread(self.reports.announce, run.id, run.level, run.due, datetime.now(UTC))
        except StrongroomError as error:
            # Perhaps the very damage that this run is to find.
            log.error("a verification can't be announced in the log", run=run.id, detail=error.message)
            return run
        if refusal:
            self.runs.forget(run)  # another node's runs are in its list, and in the log
            raise StoodDown(refusal)
        return self.runs.save(_changed(run, announced=True))

    async def _go_on(self, run: Run) -> None:
        async with self._lanes[run.level == "quick"]:
            try:
                kept = self.runs.kept_report(run.id)
                log.info("going on with a verification", run=run.id, state=run.state)
                announced = run if run.announced else await self._announce(run)
                await (self._file(run, kept) if kept is not None else self._verify_and_file(announced))
            except VerificationError as error:
                log.error("a verification can't be gone on with", run=run.id, detail=error.message)

    async def _verify_and_file(self, run: Run) -> dict[str, Any]:
        try:
            report = await self._child(run)
        except VerificationFailed as error:
            await self._fail(run, error)
            raise
        self.runs.keep_report(run.id, report)
        return await self._file(self.runs.save(_changed(run, state="filing")), report)

    async def _file(self, run: Run, report: dict[str, Any]) -> dict[str, Any]:
        found = Counter(str(finding["code"]) for finding in report["findings"])
        now, entry, problem = datetime.now(UTC), None, ""
        content = report_format.document(report)
        try:
            filed = await asyncio.to_thread(
                self.reports.file, run.id, run.level, content, report["verdict"], found.total(), now
            )
            entry = filed.entry
        except StrongroomError as error:
            problem = f"the report is in the state folder only: {error.message}"
            log.error("a report can't be filed in the archive", run=run.id, detail=error.message)
        self.runs.save(
            _changed(
                run,
                state="finished",
                finished=now,
                verdict=report["verdict"],
                findings=dict(found),
                seconds=report["cost"]["seconds"],
                entry=entry,
                problem=problem,
            )
        )
        if entry is not None:
            self.runs.drop_report(run.id)
        await self.alerts.report(report, entry, now)
        return report | {"entry": entry}

    async def _fail(self, run: Run, error: VerificationFailed) -> None:
        now = datetime.now(UTC)
        self.failures[run.level] += 1
        self.runs.save(_changed(run, state="failed", problem=error.message, finished=now))
        if run.announced:
            try:
                await asyncio.to_thread(self.reports.close, run.id, run.level, error.code, now)
            except StrongroomError as unwritten:
                log.error("a failed verification can't be closed in the log", run=run.id, detail=unwritten.message)
        await self.alerts.tell(about_failure(self._origin, run.level, run.id, error.message, now))

    async def _child(self, run: Run) -> dict[str, Any]:
        """The report of `strongroom verify` in a process of its own. Raises VerificationFailed."""
        limits = self._limits
        given = {"--tsa-roots": limits.tsa_roots, "--sources-file": limits.sources_file}
        options = [text for option, path in given.items() if path for text in (option, str(path))]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "strongroom.service.cli", "verify", "--json", "--resume", "--live"),
            *("--level", run.level, "--run", run.id, "--seconds", f"{limits.seconds:g}"),
            *("--workers", str(limits.workers), "--fraction", f"{limits.fraction:g}"),
            *("--promise-seconds", f"{limits.promise_seconds:g}"),
            *("--trust", str(self._policy), *options),
            env=os.environ | self._archive,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            with contextlib.suppress(ProcessLookupError):
                niceness = _QUICK_NICENESS if run.level == "quick" else _NICENESS
                os.setpriority(os.PRIO_PROCESS, process.pid, niceness)  # what it starts later inherits it
            output, errors = await asyncio.wait_for(process.communicate(), 2 * limits.seconds + _OVERTIME_SECONDS)
        except TimeoutError:
            raise VerificationFailed(f"still running after {2 * limits.seconds:g} seconds: killed") from None
        finally:
            # Also when the service stops: its progress is kept, and the next start goes on.
            if process.returncode is None:
                process.kill()
                await process.wait()
        try:
            report: dict[str, Any] = msgspec.json.decode(output, type=dict[str, Any])
        except msgspec.DecodeError:
            said = errors.decode(errors="replace").strip().removeprefix("strongroom: ")
            raise VerificationFailed(said or f"exit code {process.returncode}") from None
        return report


def _changed(run: Run, **facts: Any) -> Run:
    return msgspec.structs.replace(run, **facts)


def last_verdicts(runs: Runs) -> Mapping[str, Mapping[str, Any]]:
    """The last finished run of each level, for the status."""
    return {
        level: {"verdict": run.verdict, "finished": run.finished, "run": run.id, "entry": run.entry}
        for level, run in runs.last().items()
    }
