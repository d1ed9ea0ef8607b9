"""`strongroom init s3://…`: is this bucket fit for an archive, and if not, the commands that make it so.

Looks only, unless `--create` asks for a bucket that does not exist yet. `--policy` prints the bucket policy alone, for
whoever keeps it in a template.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from strongroom.archive.errors import StoreUnavailable
from strongroom.archive.retention.rules import Rule
from strongroom.archive.stores import location
from strongroom.archive.stores.location import Bucket
from strongroom.archive.stores.s3 import S3Store
from strongroom.service import settings
from strongroom.service.checking import canary
from strongroom.service.commands.display import printable
from strongroom.service.commands.options import ConfigOption, JsonOption
from strongroom.service.doctor import Result
from strongroom.service.errors import SettingsInvalid
from strongroom.service.keeping import bucket
from strongroom.service.keeping.bucket import Wanted
from strongroom.service.keeping.bucket_policy import Perimeter
from strongroom.service.settings import Settings

MENDABLE = 1
screen = Console(soft_wrap=True)


def init(
    place: Annotated[str, typer.Argument(metavar="S3://BUCKET[/PREFIX]", help="Where the archive is to be.")],
    make: Annotated[
        bool, typer.Option("--create", help="Make the bucket, if there is none, with all it needs.")
    ] = False,
    mode: Annotated[
        Literal["COMPLIANCE", "GOVERNANCE"], typer.Option("--mode", help="Default retention: its mode.")
    ] = "COMPLIANCE",
    days: Annotated[int, typer.Option("--days", min=1, max=36_500, help="Default retention: days.")] = 365,
    org_id: Annotated[str, typer.Option("--org-id", help="Only principals of this organisation (o-…).")] = "",
    vpc_endpoints: Annotated[
        list[str] | None, typer.Option("--vpc-endpoint", help="Only through these endpoints (vpce-…). Repeatable.")
    ] = None,
    principals: Annotated[
        list[str] | None, typer.Option("--principal", help="Only these ARNs may write; * and ? allowed. Repeatable.")
    ] = None,
    break_glass: Annotated[
        list[str] | None,
        typer.Option("--break-glass", help="Only these ARNs may change the bucket's safeguards. Repeatable."),
    ] = None,
    only_policy: Annotated[bool, typer.Option("--policy", help="Print the bucket policy and nothing else.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a bucket for an archive, or make one. Exit code 0: fit. 1: something must be mended. 2: could not run."""
    chosen = settings.load(config, {"archive": place})
    store = _unopened(chosen)
    perimeter = Perimeter(org_id, tuple(vpc_endpoints or ()), tuple(principals or ()), tuple(break_glass or ()))
    wanted = Wanted(Rule(mode, days), chosen.s3_kms_key, perimeter, spool_days=_spool_days(chosen))
    if only_policy:
        print(json.dumps(bucket.policy(store, wanted), indent=2))
        return
    if make and _is_missing(store):
        bucket.create(store, wanted)
    results = bucket.examine(store, wanted)
    if all(result.verdict != "failure" for result in results):
        results += tried(store)
    show(results, as_json)


def examine(chosen: Settings) -> list[Result]:
    """`strongroom doctor bucket`: the settings' bucket, held against the settings, and its locks tried."""
    store = _unopened(chosen)
    rule = Rule(chosen.s3_lock_mode or "GOVERNANCE", max(chosen.s3_retain_days, 1))
    wanted = Wanted(rule, chosen.s3_kms_key, spool_days=_spool_days(chosen))
    return [*bucket.examine(store, wanted), *tried(store)]


def tried(store: S3Store) -> list[Result]:
    """The canary's trials as lines of the examination."""
    verdicts = {True: "ok", False: "failure", None: "warning"}
    fix = "this store does not enforce its locks: no production archive belongs here"
    untried = "give these credentials the right to try, or run it with an administrator's"
    fixes = {True: "", False: fix, None: untried}
    return [
        Result(verdicts[trial.held], f"lock: {trial.what}", trial.found, fixes[trial.held])  # type: ignore[arg-type]
        for trial in canary.try_locks(store)
    ]


def show(results: Sequence[Result], as_json: bool) -> None:
    """Print the table; raises typer.Exit(1) when something must be mended."""
    if as_json:
        print(json.dumps([result.to_json() for result in results]))
    else:
        table = Table("", "check", "found")
        marks = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failure": "[red]failure[/]"}
        for result in results:
            table.add_row(marks[result.verdict], result.check, printable(result.found))
        screen.print(table)
        for result in results:
            if result.fix:  # commands are to be copied: one line each, whatever the width of the screen
                print(f"{result.check}: {result.fix}")
    if any(result.verdict == "failure" for result in results):
        raise typer.Exit(MENDABLE)


def _spool_days(chosen: Settings) -> float:
    return chosen.spool_retain_days if chosen.spool == "bucket" else 0


def _unopened(chosen: Settings) -> S3Store:
    place = location.parse(chosen.archive)
    if not isinstance(place, Bucket):
        raise SettingsInvalid(
            f"{chosen.archive} is a folder: only buckets are made ready", hint="name s3://<bucket>[/<prefix>]"
        )
    return S3Store(place.name, place.prefix, options=chosen.s3_options)


def _is_missing(store: S3Store) -> bool:
    try:
        store.region()
    except StoreUnavailable as error:
        if "no bucket" in error.message:
            return True
        raise
    return False
