"""`strongroom search` and `strongroom investigate`: finding without SQL, straight in an archive."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from strongroom.service import settings
from strongroom.service.commands.options import (
    ArchiveOption,
    AsOfOption,
    ConfigOption,
    FormatOption,
    LimitOption,
    StateOption,
)

screen = Console(soft_wrap=True)

SinceOption = Annotated[str | None, typer.Option("--since", help="Only what happened at or after this time.")]
UntilOption = Annotated[str | None, typer.Option("--until", help="Only what happened before this time.")]


def search(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]…", help="Text the record has; all of them.")
    ] = None,
    entities: Annotated[
        list[str] | None, typer.Option("--entity", "-e", metavar="KIND:VALUE", help="As address:192.0.2.7. Repeatable.")
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    sources: Annotated[list[str] | None, typer.Option("--source", help="Only this source; may be repeated.")] = None,
    outcomes: Annotated[list[str] | None, typer.Option("--outcome", help="success, failure or denied.")] = None,
    ignore_case: Annotated[bool, typer.Option("--ignore-case", "-i", help="Let texts match in any case.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Show the records themselves.")] = False,
    format: FormatOption = "table",
    limit: LimitOption = 100,
    as_of: AsOfOption = None,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
) -> None:
    """Look through all records, newest first. No service is needed."""
    from strongroom.query.questions import search as searching
    from strongroom.query.questions.prepared import moment
    from strongroom.service.answers import asking
    from strongroom.service.answers.views import source_views
    from strongroom.service.sources import registry

    chosen = settings.load(config, {"archive": archive, "state": state})
    filters = searching.Filters(
        texts=tuple(texts or ()),
        ignore_case=ignore_case,
        entities=tuple(searching.entity(item) for item in entities or ()),
        since=None if since is None else moment(since, "--since"),
        until=None if until is None else moment(until, "--until"),
        sources=tuple(sources or ()),
        outcomes=tuple(outcomes or ()),
    )
    views = source_views(registry(chosen.sources_file).sources.values())
    question = searching.search(filters, searching.searched(filters, views), raw=raw)
    asking.ask(
        chosen,
        question,
        format=format,
        limit=limit,
        as_of=as_of,
        screen=screen,
        action="search",
        asked={"texts": texts, "entities": entities, "since": since, "until": until, "sources": sources},
    )


def investigate(
    name: Annotated[str | None, typer.Argument(help="A ready investigation; without one, all are listed.")] = None,
    parameters: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="Fill a blank; may be repeated.")
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    format: FormatOption = "table",
    limit: LimitOption = None,
    as_of: AsOfOption = None,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
) -> None:
    """Ask a question that somebody who knows attacks has already written. No service is needed."""
    from strongroom.query.investigations import investigation, library
    from strongroom.service.answers import asking

    if name is None:
        table = Table("name", "question")
        for item in library().values():
            table.add_row(item.name, item.question)
        screen.print(table)
        return
    chosen = settings.load(config, {"archive": archive, "state": state})
    window = {"since": since, "until": until}
    given = {key: value for key, value in window.items() if value is not None}
    for parameter in parameters or ():
        key, _, value = parameter.partition("=")
        given[key] = value
    question = investigation(name).prepare(given)
    asking.ask(
        chosen,
        question,
        format=format,
        limit=limit,
        as_of=as_of,
        screen=screen,
        action="investigation",
        target=name,
        parameters=given,
    )
