"""`strongroom hold` and `strongroom retention`: cases that hold, promises that are extended, and what was pruned.

They work beside a running service and without one. Every use is left as an act for the audit before it takes effect.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from strongroom.service import acts, settings
from strongroom.service.commands.display import printable
from strongroom.service.commands.options import ArchiveOption, ConfigOption, JsonOption, StateOption
from strongroom.service.errors import OrderRefused
from strongroom.service.keeping.holding import SEGMENTS, Given, Holding

hold_app = typer.Typer(help="Legal holds by case: place, release, list.", no_args_is_help=True)
retention_app = typer.Typer(
    help="How long what is sealed is kept: extend, and record what is gone.", no_args_is_help=True
)
screen = Console(soft_wrap=True)

Result = TypeVar("Result")

CaseOption = Annotated[str, typer.Option("--case", help="The case's name.")]
WhereOption = Annotated[
    str, typer.Option("--where", help="SQL condition on the view: which segments, or which records' segments.")
]
ViewOption = Annotated[
    str, typer.Option("--view", help="`segments`, or a view of records: every segment with a match counts.")
]


@hold_app.command("place")
def place(
    case: CaseOption,
    where: WhereOption,
    view: ViewOption = SEGMENTS,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold every segment that matches, and those sealed later, until the case is released."""
    facts = {"case": case, "view": view, "where": where}
    _give("hold.place", facts, config, archive, state, as_json, lambda h: h.place(case, where, _who(), view))


@hold_app.command("release")
def release(
    case: CaseOption,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Close a case: what no other open case holds is free again."""
    _give("hold.release", {"case": case}, config, archive, state, as_json, lambda h: h.release(case, _who()))


@hold_app.command("list")
def list_cases(
    config: ConfigOption = None, archive: ArchiveOption = None, state: StateOption = None, as_json: JsonOption = False
) -> None:
    """Show every case, its questions and how much it holds."""
    from strongroom.service.routes.holds import shown

    cases = _with_holding(config, archive, state, "hold.list", {}, lambda holding: holding.cases())
    if as_json:
        print(json.dumps([shown(case) for case in cases]))
        return
    table = Table("case", "state", "segments", "opened", "by", "questions")
    for case in cases:
        questions = "; ".join(f"{view}: {where}" for view, where in case.questions)
        standing = f"released {case.released[:10]}" if case.released else "open"
        facts = (case.name, standing, f"{len(case.segments):,}", case.opened[:10], case.by, questions)
        table.add_row(*(printable(fact) for fact in facts))
    screen.print(table)


@retention_app.command("extend")
def extend(
    until: Annotated[datetime, typer.Option("--until", formats=["%Y-%m-%d"], help="Keep until this day (UTC).")],
    source: Annotated[str, typer.Option("--source", help="All segments of this source.")] = "",
    where: Annotated[str, typer.Option("--where", help="SQL condition on the view.")] = "",
    view: ViewOption = SEGMENTS,
    whole_log: Annotated[
        bool, typer.Option("--log", help="Also everything that is not a segment: what proofs rest on.")
    ] = False,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep longer what is sealed. Never shorter: that is refused, here and by the store."""
    if source and (where or view != SEGMENTS):
        raise OrderRefused("--source and --where don't go together", hint="--where \"source = 'x' AND …\"")
    if source and not source.replace("_", "").isalnum():
        raise OrderRefused(f"{source!r} is no source")
    condition = f"source = '{source}'" if source else where
    if not condition and not whole_log:
        raise OrderRefused("nothing is named", hint="--source, --where or --log")
    moment = until.replace(tzinfo=UTC)
    facts = {"until": until.date().isoformat(), "view": view, "where": condition, "log": whole_log}

    async def order(holding: Holding) -> Given:
        return await holding.extend(moment, _who(), where=condition, view=view, whole_log=whole_log)

    _give("retention.extend", facts, config, archive, state, as_json, order)


@retention_app.command("prune")
def prune(
    config: ConfigOption = None, archive: ArchiveOption = None, state: StateOption = None, as_json: JsonOption = False
) -> None:
    """Record which segments are gone whose retention has ended. Removes nothing: that is the bucket's lifecycle."""
    _give("retention.prune", {}, config, archive, state, as_json, lambda holding: holding.prune(_who()))


@retention_app.command("expired")
def expired(
    config: ConfigOption = None, archive: ArchiveOption = None, state: StateOption = None, as_json: JsonOption = False
) -> None:
    """List the segments that nothing keeps any more: there, or gone and not yet recorded."""
    there, gone = _with_holding(config, archive, state, "retention.expired", {}, lambda holding: holding.expired())
    if as_json:
        print(json.dumps({"there": there, "gone": gone}))
        return
    for name, keys in (("there", there), ("gone", gone)):
        for key in keys:
            print(f"{name}\t{printable(key)}")


def _give(
    action: str,
    facts: dict[str, Any],
    config: Path | None,
    archive: str | None,
    state: Path | None,
    as_json: bool,
    order: Callable[[Holding], Awaitable[Given]],
) -> None:
    given = _with_holding(config, archive, state, action, facts, order)
    if as_json:
        print(json.dumps(given.to_json()))
        return
    entries = ", ".join(str(index) for index in given.entries) or "none"
    enforced = (
        f"{given.objects:,} objects in the store" if given.enforced else "recorded only: this store locks nothing"
    )
    screen.print(f"{action}: {given.segments:,} segments, {enforced}; entry {entries}", highlight=False)


def _with_holding(
    config: Path | None,
    archive: str | None,
    state: Path | None,
    action: str,
    facts: dict[str, Any],
    work: Callable[[Holding], Awaitable[Result]],
) -> Result:
    """What `work` gives, between the two records of its act."""
    from strongroom.service.node import ArchiveWriter, intake_limits, query_engine

    chosen = settings.load(config, {"archive": archive, "state": state})
    # Only its log and its signer are used: without a start it takes no deliveries and holds no lock.
    writer = ArchiveWriter(chosen, intake_limits(chosen), "_holds")
    begun = acts.local_act(action, outcome="started", target=str(facts.get("case", "")), **facts)
    acts.leave(writer.state.acts, begun)

    async def run(directory: Path) -> Result:
        one = chosen.model_copy(update={"query_concurrency": 1, "query_per_user": 1})
        engine = query_engine(one, writer.store, writer.log, directory)
        await (engine.start() if facts.get("where") else engine.refresh())  # processes only where there is a question
        try:
            return await work(Holding(writer.store, writer.log, writer.sign_checkpoint, engine))
        finally:
            await engine.stop()

    outcome = "failure"
    try:
        with tempfile.TemporaryDirectory(prefix="strongroom-holds-") as directory:
            result = asyncio.run(run(Path(directory)))
        outcome = "success"
    finally:
        acts.leave(writer.state.acts, acts.local_act(action, outcome=outcome, id=begun.id, target=begun.target))
    return result


def _who() -> str:
    return acts.local_user()
