"""`strongroom pull` and `strongroom backfill`: what comes from S3."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Annotated

import typer
from rich.console import Console

from strongroom.service import settings, tokens
from strongroom.service.commands import progress
from strongroom.service.commands.options import ArchiveOption, ConfigOption, JsonOption, StateOption
from strongroom.service.commands.outcome import QUARANTINED, SHOWN, conclude
from strongroom.service.errors import Forbidden, SettingsInvalid

MISSING = 1

screen = Console(soft_wrap=True)


def pull(
    queue: Annotated[str | None, typer.Option("--queue", help="Queue: URL, name or ARN.")] = None,
    buckets: Annotated[str | None, typer.Option("--buckets", help="Buckets that may be read.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Stop when the queue is empty.")] = False,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch what an SQS queue announces in S3, straight into the archive, until told to stop."""
    from strongroom.service import logs
    from strongroom.service.receiving import backfilling

    given = {"archive": archive, "state": state, "pull_queue": queue, "pull_buckets": buckets}
    chosen = settings.load(config, given)
    if not chosen.pull_queue:
        raise SettingsInvalid("no queue is named", hint="give --queue and --buckets, or the settings pull_…")
    logs.configure(chosen.log_format, chosen.log_level)
    counts = asyncio.run(backfilling.pull(chosen, once=once))
    if as_json:
        print(json.dumps(asdict(counts)))
    else:
        screen.print(
            f"{counts.messages:,} messages: {counts.objects:,} objects ({counts.bytes:,} bytes), {counts.duplicates:,} "
            f"known before, {counts.gone:,} gone, {counts.dead_letters:,} given up"
        )
    if counts.dead_letters or counts.gone:
        raise typer.Exit(QUARANTINED)


def backfill(
    place: Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX", help="What to fetch.")],
    since: Annotated[str | None, typer.Option("--since", metavar="YYYY-MM-DD", help="First day, by the keys.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="YYYY-MM-DD", help="Last day, by the keys.")] = None,
    reconcile: Annotated[
        bool, typer.Option("--reconcile", help="Fetch nothing: say what is sealed and what is missing.")
    ] = False,
    source: Annotated[str, typer.Option("--source", help="Kind of log; `auto` recognises it.")] = "auto",
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch what lies in a bucket already. Can be stopped and repeated: nothing is taken twice."""
    from strongroom.ingest.fetch.backfill import Wanted
    from strongroom.service.receiving import backfilling

    if source in tokens.INTERNAL_SOURCES:
        raise Forbidden(f"source {source} is written by the service alone", hint="name another source")
    chosen = settings.load(config, {"archive": archive, "state": state})
    bucket, prefix = bucket_and_prefix(place)
    wanted = Wanted(bucket, prefix, day("--since", since), day("--until", until))
    if reconcile:
        found = asyncio.run(backfilling.reconcile(chosen, wanted))
        if as_json:
            print(json.dumps(found.to_json()))
        else:
            screen.print(
                f"{found.listed:,} objects: {found.sealed:,} sealed, {found.missing:,} missing "
                f"({found.bytes_missing:,} bytes), {found.empty:,} empty"
            )
            for name in found.names[:SHOWN]:
                screen.print(f"  missing {name}", highlight=False, markup=False)
            if found.missing > SHOWN:
                screen.print("  … (--json names the first thousand)")
        if found.missing:
            raise typer.Exit(MISSING)
        return
    with progress.shown("objects") as bar:
        filled = asyncio.run(backfilling.fill(chosen, wanted, source, bar))
    objects = filled.objects
    if as_json:
        print(json.dumps(filled.to_json()))
    else:
        screen.print(
            f"{objects.listed:,} objects: {objects.taken:,} taken, {objects.known + objects.duplicates:,} known, "
            f"{objects.empty:,} empty, {objects.gone:,} gone, {objects.refused:,} refused; {objects.bytes:,} bytes, "
            f"{filled.records:,} records: {filled.accepted:,} accepted, {filled.quarantined:,} quarantined; "
            f"{filled.seconds:,.1f} s; the log has {filled.log_size:,} entries"
        )
    refused = ((item["object"], item["reason"]) for item in objects.reasons)
    conclude(refused, interrupted=filled.interrupted, clean=filled.clean)


def bucket_and_prefix(place: str) -> tuple[str, str]:
    """Of `s3://bucket/prefix`. Raises SettingsInvalid."""
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    if not place.startswith("s3://") or not bucket:
        raise SettingsInvalid(f"{place!r} is no place in S3", hint="name it like s3://bucket/prefix")
    return bucket, prefix


def day(option: str, text: str | None) -> date | None:
    """A day given as an option. Raises SettingsInvalid."""
    try:
        return None if text is None else datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise SettingsInvalid(f"{option} {text!r} is no day", hint="write it like 2026-01-31") from None
