"""`strongroom verify`: by hand, on a schedule of somebody else's, or as the service's child."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import Progress

from strongroom.archive.errors import ObjectMissing
from strongroom.archive.log import holds_archive
from strongroom.archive.stores.store import ObjectStore
from strongroom.archive.verification.findings import Finding, Level, Report
from strongroom.service import settings
from strongroom.service.commands.display import printable
from strongroom.service.commands.options import ArchiveOption, ConfigOption, JsonOption, StateOption
from strongroom.service.errors import SettingsInvalid
from strongroom.service.keeping.storage import open_archive, open_log, wrapping_keys
from strongroom.service.settings import Settings

if TYPE_CHECKING:
    from strongroom.service.checking.source_verification import Asked as SourceAsked

SOUND, FINDINGS, NOT_RUN = 0, 1, 2
_PATIENCE_SECONDS = 60.0  # a service seals sooner, unless it can't

screen = Console(soft_wrap=True)
progress_screen = Console(stderr=True)


def verify(
    level: Annotated[Level | None, typer.Option("--level", help="How deep to look; default: complete.")] = None,
    trust: Annotated[
        Path | None, typer.Option("--trust", help="Policy file: whose signatures count. Default: the state folder's.")
    ] = None,
    tsa_roots: Annotated[
        Path | None, typer.Option("--tsa-roots", help="Time-stamping authorities. Default: <policy>.tsa.pem.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Threads, or processes for parsing.")] = 2,
    fraction: Annotated[float, typer.Option("--fraction", min=0.0, max=1.0, help="Part that `sampled` draws.")] = 0.05,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Only what no earlier sound run of this level has looked at.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an unfinished run of this level was, if there is one.")
    ] = False,
    promise_seconds: Annotated[
        float | None,
        typer.Option("--promise-seconds", help="Report receipts not sealed after so many. Default: the setting's."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.0, help="Stop after so many; --resume goes on.")
    ] = None,
    scheduled: Annotated[
        bool, typer.Option("--scheduled", help="Run what the settings say is due (or --level), file it, send alerts.")
    ] = False,
    sources_file: Annotated[
        Path | None, typer.Option("--sources-file", help="Declared sources. Default: the setting's.")
    ] = None,
    inventory: Annotated[
        str, typer.Option("--inventory", help="manifest.json of an S3 Inventory report, to ask S3 less.")
    ] = "",
    live: Annotated[
        bool, typer.Option("--live", help="A service signs meanwhile: wait for it instead of reporting its tail.")
    ] = False,
    source: Annotated[
        Literal["cloudtrail"] | None,
        typer.Option("--source", help="Instead: is everything this source says it wrote sealed here?"),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="With --source: from this UTC day or time. Default: a day before.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="With --source: to this UTC day or time. Default: an hour ago.")
    ] = None,
    digests: Annotated[
        str, typer.Option("--digests", help="Folder or s3://bucket/prefix with digests. Default: those sealed here.")
    ] = "",
    files: Annotated[
        Literal["archive", "place"], typer.Option("--files", help="`place`: look for log files beside the digests.")
    ] = "archive",
    keys: Annotated[
        Path | None, typer.Option("--keys", help="CloudTrail's public keys, PEM or JSON. Default: AWS is asked.")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option("--journal", help="With --files place: keeps what was hashed, to go on from.")
    ] = None,
    attest: Annotated[bool, typer.Option("--attest", help="With --source: put the result into the archive.")] = False,
    run: Annotated[
        str, typer.Option("--run", help="Id to report under; ends with the process that started it (for services).")
    ] = "",
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify the archive. Exit code 0: sound. 1: findings. 2: could not run, or not to its end."""
    given = {"archive": archive, "state": state, "tsa_roots": tsa_roots, "promise_seconds": promise_seconds}
    given["sources_file"] = sources_file
    chosen = settings.load(config, given)
    if source is not None:
        from strongroom.service.checking import source_verification as of_source

        start, end = of_source.period(since, until, datetime.now(UTC))
        asked_of_source = of_source.Asked(start, end, digests, files, keys, journal, max(4, workers))
        raise typer.Exit(_verify_source(chosen, asked_of_source, attest, as_json))
    store = open_archive(chosen)
    if not holds_archive(store):
        # Looking must not create: a mistyped path is an error, not an empty archive.
        raise ObjectMissing(f"no archive in {chosen.archive}", hint="check --archive")
    if scheduled:
        raise typer.Exit(_run_scheduled(chosen, level, as_json))
    facts: ObjectStore = _reported(store, inventory, level or "complete") if inventory else store
    from strongroom.archive.verification.workers import leave_with
    from strongroom.service.checking import verification
    from strongroom.service.proving import promises
    from strongroom.service.sources import registry
    from strongroom.service.state import StateFolder

    if run:
        leave_with(os.getppid())
    policy = trust or StateFolder(chosen.state.absolute()).policy
    asked = verification.Asked(
        level or "complete",
        workers=workers,
        fraction=fraction,
        resume=resume,
        incremental=incremental,
        seconds=math.inf if seconds is None else seconds,
        live=live,
        run=run,
        tsa_roots=chosen.tsa_roots,
        keys=wrapping_keys(chosen),
    )
    with _step_progress() as progress:
        report = verification.verify(facts, policy, asked, progress, registry(chosen.sources_file))
    report.notes += [facts.description] if inventory else []
    patience = min(_PATIENCE_SECONDS, chosen.promise_seconds) if live else 0.0
    promises.judge(report, policy, lambda: open_log(chosen, store), chosen.promise_seconds, patience)
    if as_json:
        print(json.dumps(report.to_json()))
    else:
        _show(report)
    raise typer.Exit(exit_code(report.to_json()))


def _reported(store: ObjectStore, manifest: str, level: Level) -> ObjectStore:
    """The bucket as a report describes it."""
    from strongroom.archive.stores import reported
    from strongroom.archive.stores.s3 import S3Store

    if not isinstance(store, S3Store):
        raise SettingsInvalid("--inventory is for an archive in a bucket", hint="leave it out")
    if level not in ("quick", "inventory"):
        raise SettingsInvalid(f"--inventory is not for level {level}, which reads objects", hint="--level inventory")
    return reported.ReportedStore(store, reported.read(manifest, store))


def exit_code(report: dict[str, Any]) -> int:
    """0 sound, 1 findings, 2 nothing found but not everything looked at."""
    if report["findings"]:
        return FINDINGS
    return SOUND if report["sound"] else NOT_RUN


def _verify_source(chosen: Settings, asked: SourceAsked, attest: bool, as_json: bool) -> int:
    from strongroom.service import node
    from strongroom.service.checking import source_verification

    with _step_progress() as progress:
        report = source_verification.verify(chosen, asked, progress)
    if attest:
        writer = node.ArchiveWriter(chosen, node.intake_limits(chosen))
        source_verification.attest(report, writer.log, writer.sign_checkpoint, writer.name)
    facts = report.to_json()
    if as_json:
        print(json.dumps(facts))
        return exit_code(facts)
    colour = "green" if report.sound else "red" if report.findings else "yellow"
    counts = facts["files"]
    screen.print(f"[bold {colour}]{report.verdict}[/]  cloudtrail from {facts['since']} to {facts['until']}")
    named = f"{facts['digests']['valid']:,} valid digests of {facts['digests_from']} name {counts['named']:,} files"
    there = f"{counts['there']:,} unaltered, {counts['altered']:,} altered, {counts['missing']:,} missing"
    screen.print(f"       {named}; in {facts['files_in']}: {there}", highlight=False, markup=False)
    _tell(report.findings, report.incomplete, report.notes)
    return exit_code(facts)


def _run_scheduled(chosen: Settings, level: Level | None, as_json: bool) -> int:
    from strongroom.service import logs
    from strongroom.service.checking import scheduled

    logs.configure(chosen.log_format, chosen.log_level)
    reports = scheduled.run_due(chosen, level)
    if as_json:
        print(json.dumps(reports))
    for report in reports if not as_json else []:
        screen.print(f"{report['level']}: {report['verdict']} ({report['run']})")
    codes = {exit_code(report) for report in reports}
    # What was found outweighs what could not be looked at.
    return FINDINGS if FINDINGS in codes else max(codes, default=SOUND)


def _show(report: Report) -> None:
    colour = {"sound": "green", "tampered": "red"}.get(report.verdict, "yellow")
    found = f", {len(report.findings)} finding(s)" if report.findings else ""
    screen.print(f"[bold {colour}]{report.verdict}[/]{found}  {report.level} verification of [bold]{report.origin}[/]")
    signed = report.checkpoint.size if report.checkpoint else 0
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in report.counts.items())
    screen.print(f"       {report.size:,} entries, {signed:,} of them under the newest signed checkpoint; {counts}")
    cost = report.cost.to_json()
    # The rate of a small archive is that of starting and opening files: it says nothing about a large one.
    rate = f"; a terabyte at this rate: {cost['seconds_per_tb'] / 3600:,.1f} h" if cost["bytes_read"] > 100e6 else ""
    screen.print(f"       {cost['seconds']:,.1f} s, {cost['bytes_read']:,} bytes read of {cost['bytes_held']:,}{rate}")
    _tell(report.findings, report.incomplete, report.notes)


def _tell(findings: Sequence[Finding], incomplete: Sequence[str], notes: Sequence[str]) -> None:
    for finding in findings:
        facts = finding.to_json()
        screen.print(f"\n[bold red]{finding.code}[/] ({finding.severity}): {facts['meaning']}")
        told = {name: facts[name] for name in ("object", "expected", "actual")} | facts["where"]
        for name, value in (told | {"next": facts["next_step"]}).items():
            # What stands here may come from whoever changed the archive.
            screen.print(f"  {name:<11} {printable(value)}", highlight=False, markup=False)
    for reason in incomplete:
        screen.print(f"not looked at: {printable(reason)}", highlight=False, markup=False)
    for note in notes:
        screen.print(f"note: {printable(note)}", highlight=False, markup=False)


@contextmanager
def _step_progress() -> Iterator[Callable[[str, int, int], None]]:
    with Progress(console=progress_screen, disable=not progress_screen.is_terminal, transient=True) as bar:
        running: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in running:
                running[what] = bar.add_task(what, total=total)
            bar.update(running[what], completed=done, total=total)

        yield show
