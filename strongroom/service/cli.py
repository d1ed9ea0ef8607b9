"""The command line: the same code as the service, each command useful without it.

Exit codes, everywhere: 0 done (verify: sound), 1 verification found something (doctor: something must be mended),
2 could not run (verify: or not to its end), 3 ingest quarantined or refused something. Errors are one line on stderr;
`--json` is for machines. docs/cli.md is the reference page (a test compares).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from strongroom import __version__
from strongroom.archive.errors import StrongroomError
from strongroom.service import acts, settings, tokens
from strongroom.service.commands import evidence as evidence_cli
from strongroom.service.commands import holds as holds_cli
from strongroom.service.commands import init as init_cli
from strongroom.service.commands import keys as keys_cli
from strongroom.service.commands import progress
from strongroom.service.commands import pull as pull_cli
from strongroom.service.commands import search as search_cli
from strongroom.service.commands import verify as verify_cli
from strongroom.service.commands import witness as witness_cli
from strongroom.service.commands.options import (
    ArchiveOption,
    AsOfOption,
    ConfigOption,
    FormatOption,
    JsonOption,
    LimitOption,
    StateOption,
)
from strongroom.service.commands.outcome import conclude
from strongroom.service.errors import Forbidden

FINDINGS, FAILED = 1, 2

app = typer.Typer(
    name="strongroom",
    help="A log archive that can prove its contents.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
token_app = typer.Typer(help="Bearer tokens: who may push, ask, verify.", no_args_is_help=True)
app.add_typer(token_app, name="token")
app.add_typer(witness_cli.app, name="witness")
app.add_typer(evidence_cli.app, name="evidence")
app.add_typer(keys_cli.app, name="keys")
app.add_typer(holds_cli.hold_app, name="hold")
app.add_typer(holds_cli.retention_app, name="retention")

screen = Console(soft_wrap=True)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        screen.print(__version__)
        raise typer.Exit


@app.command()
def serve(
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
    listen: Annotated[str | None, typer.Option("--listen", help="Address and port.")] = None,
) -> None:
    """Serve: take deliveries, seal, sign, answer questions."""
    from strongroom.service import serving  # the other commands need no web server

    serving.serve(settings.load(config, {"archive": archive, "state": state, "listen": listen}))


@app.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Files and folders.")],
    source: Annotated[str, typer.Option("--source", help="Kind of log; `auto` recognises it.")] = "auto",
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take files and folders straight into the archive. Can be stopped and repeated: nothing is taken twice."""
    from strongroom.service.receiving import loading

    if source in tokens.INTERNAL_SOURCES:
        raise Forbidden(f"source {source} is written by the service alone", hint="name another source")
    chosen = settings.load(config, {"archive": archive, "state": state})
    files = loading.find_files(paths)
    with progress.shown("files") as bar:
        summary = asyncio.run(loading.load(chosen, files, source, bar))
    if as_json:
        print(json.dumps(summary.to_json()))
    else:
        screen.print(
            f"{summary.files:,} files: {summary.batches:,} batches taken, {summary.duplicates:,} taken before, "
            f"{summary.refused:,} refused; {summary.bytes:,} bytes, {summary.records:,} records: {summary.accepted:,} "
            f"accepted, {summary.quarantined:,} quarantined; {summary.seconds:,.1f} s; "
            f"the log has {summary.log_size:,} entries"
        )
    refused = ((item["file"], item["reason"]) for item in summary.reasons)
    conclude(refused, interrupted=summary.interrupted, clean=summary.clean)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT, or - to read it from standard input.")],
    parameters: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="Bind $NAME; may be repeated.")
    ] = None,
    format: FormatOption = "table",
    limit: LimitOption = None,
    as_of: AsOfOption = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only say what it would read.")] = False,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
) -> None:
    """Ask in SQL. Opens the archive read-only; no service is needed."""
    from strongroom.query.questions.prepared import Prepared
    from strongroom.service.answers import asking

    chosen = settings.load(config, {"archive": archive, "state": state})
    text = sys.stdin.read() if sql == "-" else sql
    given = _named(parameters or [])
    question = Prepared(text, given)
    if estimate:
        asking.estimate(chosen, question, format=format, as_of=as_of, screen=screen, sql=text, parameters=given)
        return
    asking.ask(
        chosen,
        question,
        format=format,
        limit=limit,
        as_of=as_of,
        screen=screen,
        sql=text,
        parameters=given,
    )


app.command("search")(search_cli.search)
app.command("investigate")(search_cli.investigate)


app.command("pull")(pull_cli.pull)
app.command("backfill")(pull_cli.backfill)
app.command("verify")(verify_cli.verify)
app.command("init")(init_cli.init)


@app.command()
def doctor(
    what: Annotated[
        Literal["setup", "fips", "bucket"],
        typer.Argument(help="`fips`: what runs in a validated module. `bucket`: the archive's bucket and its locks."),
    ] = "setup",
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine and set-up, and say how to mend what is wrong."""
    from strongroom.service import doctor as checks
    from strongroom.service import fips

    chosen = settings.load(config, {"archive": archive, "state": state})
    if what == "bucket":
        init_cli.show(init_cli.examine(chosen), as_json)
        return
    results = fips.examine(chosen) if what == "fips" else checks.examine(chosen)
    if as_json:
        print(json.dumps([result.to_json() for result in results]))
    else:
        table = Table("", "check", "found", "what to do")
        marks = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failure": "[red]failure[/]"}
        for result in results:
            table.add_row(marks[result.verdict], result.check, result.found, result.fix)
        screen.print(table)
    if any(result.verdict == "failure" for result in results):
        raise typer.Exit(FINDINGS)


@token_app.command("create")
def token_create(
    role: Annotated[tokens.Role, typer.Option("--role", help="What it may do.")],
    name: Annotated[str, typer.Option("--name", help="Who or what will hold it.")],
    sources: Annotated[
        list[str] | None, typer.Option("--source", help="For forwarders: a source it may push to, or '*'. Repeatable.")
    ] = None,
    quarantine_undecodable: Annotated[
        bool, typer.Option("--quarantine-undecodable", help="Keep what can't be decoded instead of answering 4xx.")
    ] = False,
    days: Annotated[int | None, typer.Option("--days", min=1, help="Valid for so many days.")] = None,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it, once."""
    folder, store = _tokens(config, state)
    now = datetime.now(UTC)
    wanted = {"role": role, "name": name, "sources": sources or [], "days": days}
    acts.leave(folder, acts.local_act("token.create", outcome="started", wanted=wanted))
    token, text = store.create(
        role,
        name=name,
        now=now,
        expires=now + timedelta(days=days) if days else None,
        sources=sources or [],
        quarantine_undecodable=quarantine_undecodable,
    )
    acts.leave(folder, acts.local_act("token.create", outcome="success", target=token.id, token=token.public()))
    print(json.dumps({"token": text, **token.public()}) if as_json else text)


@token_app.command("list")
def token_list(config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Show all tokens, without their secrets."""
    _, store = _tokens(config, state)
    known = [token.public() for token in store.tokens()]
    if as_json:
        print(json.dumps(known))
        return
    table = Table("id", "role", "name", "sources", "created", "expires")
    for item in known:
        sources = ", ".join(item["sources"]) + (" (quarantines)" if item["quarantine_undecodable"] else "")
        table.add_row(item["id"], item["role"], item["name"], sources, item["created"], item["expires"] or "never")
    screen.print(table)


@token_app.command("revoke")
def token_revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID")], config: ConfigOption = None, state: StateOption = None
) -> None:
    """Revoke a token: a running service refuses it from the next request on."""
    folder, store = _tokens(config, state)
    acts.leave(folder, acts.local_act("token.revoke", outcome="started", target=token_id))
    token = store.revoke(token_id)
    acts.leave(folder, acts.local_act("token.revoke", outcome="success", target=token_id, token=token.public()))
    print(f"revoked {token.id} ({token.role} {token.name})")


def main() -> None:
    """The console script: one line for what went wrong, and the exit code."""
    try:
        app()
    except StrongroomError as error:
        _fail(str(error))
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing may be written to it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except (OSError, ExceptionGroup) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:  # the boundary: what nobody foresaw must not look like "verification found something" (1)
        traceback.print_exc()
        sys.exit(FAILED)


def _fail(message: str) -> NoReturn:
    print(f"strongroom: {message}", file=sys.stderr)
    sys.exit(FAILED)


def _tokens(config: Path | None, state: Path | None) -> tuple[Path, tokens.TokenStore]:
    from strongroom.service.state import StateFolder

    folder = StateFolder(settings.load(config, {"state": state}).state.absolute())
    store = tokens.TokenStore(folder.tokens)
    store.initialise()
    return folder.acts, store


def _named(parameters: list[str]) -> dict[str, Any] | None:
    pairs = [parameter.partition("=") for parameter in parameters]
    for name, separator, _ in pairs:
        if not name or not separator:
            _fail(f"--param {name!r} must be NAME=VALUE")
    return {name: value for name, _, value in pairs} or None


if __name__ == "__main__":
    main()
