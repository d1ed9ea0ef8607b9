"""`strongroom query`, `search`, `investigate`: one question straight to an archive.

It goes through the same engine and the same sandbox as in the service.

What a running service has not sealed yet is its own, and not seen from here. Nothing is written to the archive. When
the state folder belongs to this archive, the question is left for the audit before it runs (service/acts.py, rule 2);
on a bare copy of an archive there is nobody to audit to.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from strongroom.query.engine import Answer, Outcome, QueryEngine
from strongroom.query.questions.prepared import Prepared
from strongroom.service import acts
from strongroom.service.answers import estimates
from strongroom.service.commands.display import printable
from strongroom.service.keeping.storage import open_archive, open_log
from strongroom.service.node import query_engine
from strongroom.service.settings import Settings
from strongroom.service.state import StateFolder

Format = Literal["table", "json", "ndjson", "csv"]
T = TypeVar("T")


def ask(
    settings: Settings,
    question: Prepared,
    *,
    format: Format,
    limit: int | None,
    as_of: int | None,
    screen: Console,
    action: str = "query",
    **facts: Any,
) -> None:
    """Print the answer to standard output. `facts`: the question in words, for the audit.

    Raises what opening the archive and the engine raise.
    """

    async def run(engine: QueryEngine, size: int) -> tuple[Outcome, dict[str, Any]]:
        answer = await engine.run(
            question.sql,
            question.parameters,
            format="ndjson" if format == "table" else format,
            user="cli",
            limit=limit,
            as_of=size,
            narrowing=question.narrowing,
        )
        await (_table(answer, screen) if format == "table" else _copy(answer))
        outcome = await answer.finished
        return outcome, {"rows": outcome.rows, "bytes": outcome.bytes, "truncated": outcome.truncated}

    outcome, size = _audited(settings, action, as_of, run, format=format, **facts)
    if format == "table":
        cut = ", cut at the limit" if outcome.truncated else ""
        screen.print(f"{outcome.rows:,} rows{cut}; snapshot: tree size {size}", style="dim", highlight=False)
    elif outcome.truncated:
        print("strongroom: the answer was cut at the limit", file=sys.stderr)


def estimate(
    settings: Settings, question: Prepared, *, format: Format, as_of: int | None, screen: Console, **facts: Any
) -> None:
    """Print what the question would read, as JSON unless a table is wanted. Raises what `ask` raises."""

    async def run(engine: QueryEngine, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
        reading = await engine.estimate(
            question.sql, question.parameters, user="cli", as_of=size, narrowing=question.narrowing
        )
        return estimates.told(engine, reading), {}

    told, size = _audited(settings, "estimate", as_of, run, **facts)
    if format != "table":
        print(json.dumps({"snapshot": {"size": size}, **told}))
        return
    refused = f"; refused: it may read {told['budget_bytes']:,} bytes" if told["refused"] else ""
    screen.print(
        f"it would read {told['segments']['read']:,} segments of {told['segments']['total']:,}: "
        f"{told['records']:,} records, {told['bytes']:,} bytes{refused}; snapshot: tree size {size}",
        highlight=False,
    )


def _audited(
    settings: Settings,
    action: str,
    as_of: int | None,
    work: Callable[[QueryEngine, int], Awaitable[tuple[T, dict[str, Any]]]],
    **facts: Any,
) -> tuple[T, int]:
    """What `work` makes of an engine and the snapshot's size, told to the audit before it runs and after; the size."""
    store = open_archive(settings)
    log = open_log(settings, store)
    state = StateFolder(settings.state.absolute())
    size = log.size if as_of is None else as_of
    asked = acts.local_act(action, outcome="started", snapshot=size, **facts)
    audited = state.node.exists()
    if audited:
        acts.leave(state.acts, asked)

    async def run(directory: Path) -> tuple[T, dict[str, Any]]:
        engine = query_engine(settings, store, log, directory)
        await engine.start()
        try:
            return await work(engine, size)
        finally:
            await engine.stop()

    try:
        with tempfile.TemporaryDirectory(prefix="strongroom-query-") as directory:
            result, concluded = asyncio.run(run(Path(directory)))
    except BaseException as error:
        if audited:
            _conclude(state, asked, "failure", error=getattr(error, "code", type(error).__name__))
        raise
    if audited:
        _conclude(state, asked, "success", **concluded)
    return result, size


def _conclude(state: StateFolder, asked: acts.Act, outcome: str, **facts: Any) -> None:
    acts.leave(state.acts, acts.local_act(asked.action, outcome=outcome, target=asked.target, id=asked.id, **facts))


async def _copy(answer: Answer) -> None:
    async for chunk in answer.body:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


async def _table(answer: Answer, screen: Console) -> None:
    body = b"".join([chunk async for chunk in answer.body])
    rows = [json.loads(line) for line in body.splitlines() if line]
    if not rows:
        return
    table = Table(*(Column(Text(printable(name))) for name in rows[0]))
    for row in rows:
        table.add_row(*(Text(printable(value)) for value in row.values()))
    screen.print(table)
