"""`strongroom evidence`: export, prove, verify and compare, on the archive's folder, with no service and no network.

The archive is only read. Custody names the person at this machine; when the state folder belongs to the archive, the
export is left for its audit first (service/acts.py), on a bare copy there is nobody to audit to.

Exit codes of `verify`, as the stand-alone verifier's: 0 proven, 1 failed, 2 could not run, 3 identity not established.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from strongroom.archive import canonical, evidence, policy, timestamps
from strongroom.archive.errors import StrongroomError
from strongroom.archive.evidence import comparing
from strongroom.archive.evidence.selection import places
from strongroom.archive.log import Log
from strongroom.archive.policy import Policy
from strongroom.service import acts, settings
from strongroom.service.commands.display import printable
from strongroom.service.commands.options import ArchiveOption, ConfigOption, JsonOption, StateOption
from strongroom.service.errors import NoAddresses, TrustMissing
from strongroom.service.keeping.storage import open_archive, open_log
from strongroom.service.proving.evidence import Question, Selection, anchor, custody, named, selected
from strongroom.service.settings import Settings
from strongroom.service.state import StateFolder

PROVEN, FAILED, NOT_RUN, NO_IDENTITY = 0, 1, 2, 3

app = typer.Typer(
    help="Records with their proofs: export, prove, verify, compare with the archive.", no_args_is_help=True
)

PolicyOption = Annotated[
    Path | None,
    typer.Option("--policy", help="Policy file: the log's keys and witnesses. Default: the state folder's."),
]
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A bundle (.zip), or the proof of one record.")]


@app.command()
def export(
    out: Annotated[Path, typer.Option("--out", help="File to write; must not exist.")],
    case: Annotated[str, typer.Option("--case", help="The case the evidence is for.")],
    purpose: Annotated[str, typer.Option("--purpose", help="What it is for, in words.")],
    sql: Annotated[str, typer.Option("--sql", help="One SELECT that answers with `_segment` and `_row`.")] = "",
    parameters: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", help="Bind $NAME; may be repeated.")
    ] = None,
    as_of: Annotated[int | None, typer.Option("--as-of", min=1, help="Tree size of an earlier snapshot.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Most records.")] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option("--row", metavar="SEGMENT:ROW", help="A record, or SEGMENT:FIRST-LAST; may be repeated."),
    ] = None,
    checkpoint: Annotated[int | None, typer.Option("--checkpoint", min=1, help="Tree size to prove from.")] = None,
    policy_file: PolicyOption = None,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a bundle: records, proofs, checkpoint, custody, cover page, and a verifier that needs none of us."""
    if bool(sql) == bool(rows):
        raise NoAddresses("no records chosen" if not sql else "--sql and --row exclude each other", hint="give one")
    chosen, folder, log = _open(config, archive, state)
    rules = _policy(policy_file, folder)
    target = out.absolute()
    facts = {"sql": sql, "parameters": parameters or []} if sql else {"rows": rows}
    asked = acts.local_act("evidence", outcome="started", target=case, purpose=purpose, out=str(target), **facts)
    audited = folder.node.exists()
    if audited:
        acts.leave(folder.acts, asked)
    selection = _ask(chosen, log, Question(sql, _named(parameters or []), as_of, limit)) if sql else named(_rows(rows))
    found = places(log, log.size, {segment for segment, _ in selection.picks})
    head = anchor(
        log.store, log, rules, covering=1 + max((entry for entry, _ in found.values()), default=0), size=checkpoint
    )
    recorded = {"record": "left for the archive's audit"} if audited else {"record": "none: a copy without its state"}
    summary = evidence.write(
        target,
        store=log.store,
        log=log,
        checkpoint=head.note,
        policy=head.policy,
        picks=selection.placed(found),
        custody=custody(selection, asked, case=case, purpose=purpose, writer="", audit=recorded),
        now=datetime.now(UTC),
        timestamps=head.timestamps,
    )
    told = {"bundle": summary.sha256, "records": summary.records, "checkpoint": summary.size, "bytes": summary.bytes}
    if audited:
        acts.leave(folder.acts, acts.local_act("evidence", outcome="success", target=case, id=asked.id, **told))
    if as_json:
        print(json.dumps({"out": str(target), "witnessed": head.witnessed, **told}))
        return
    print(f"{summary.records:,} records, {summary.bytes:,} bytes, checkpoint of size {summary.size:,}: {target}")
    print(f"SHA-256 {summary.sha256}")
    if not head.witnessed:
        print("strongroom: no quorum of witnesses has cosigned this checkpoint yet", file=sys.stderr)


@app.command()
def proof(
    segment: Annotated[str, typer.Argument(metavar="SEGMENT", help="`_segment` of a query's row.")],
    row: Annotated[int, typer.Argument(metavar="ROW", min=0, help="`_row` of a query's row.")],
    out: Annotated[Path | None, typer.Option("--out", help="File to write instead of standard output.")] = None,
    policy_file: PolicyOption = None,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
) -> None:
    """Prove one record, as a small JSON document."""
    _, folder, log = _open(config, archive, state)
    asked = acts.local_act("proof", outcome="started", target=f"{segment}:{row}")
    if folder.node.exists():
        acts.leave(folder.acts, asked)
    entry, position = places(log, log.size, {segment})[segment]
    head = anchor(log.store, log, _policy(policy_file, folder), covering=entry + 1)
    made = evidence.prove_record(log.store, log, head.head.size, entry, position, row, cosignatures=head.cosignatures)
    content = canonical.encode(made)
    if out is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    with out.open("xb") as file:
        file.write(content)


@app.command()
def verify(
    file: FileArgument,
    policy_file: Annotated[
        Path | None, typer.Option("--policy", help="Your own policy: the log's keys, and witnesses you rely on.")
    ] = None,
    tsa_roots: Annotated[
        Path | None, typer.Option("--tsa-roots", help="Root certificates of time-stamping authorities, PEM.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check evidence offline. Exit code 0: proven. 1: failed. 2: could not run. 3: identity not established."""
    rules = None if policy_file is None else _policy(policy_file, None)
    verdict = _verdict(file, rules, tsa_roots)
    if as_json:
        print(json.dumps(verdict.to_json(), indent=1))
    else:
        _show(verdict)
    raise typer.Exit(verdict.exit_code)


@app.command()
def compare(
    file: FileArgument,
    policy_file: PolicyOption = None,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold evidence made earlier against the archive as it is now. Exit code 0: its history is unchanged. 1: it is not.

    An insider who has the keys and rewrites the archive can't reach the evidence that was handed out before.
    """
    chosen = settings.load(config, {"archive": archive, "state": state})
    rules = _policy(policy_file, StateFolder(chosen.state.absolute()))
    verdict = _verdict(file, rules, None)
    if verdict.status != "proven":
        _show(verdict)
        raise StrongroomError(
            f"{file} proves nothing itself", hint="only evidence that holds can contradict an archive"
        )
    memory = comparing.remembered(file)
    findings = evidence.compare(memory, open_archive(chosen))
    if as_json:
        facts = {"size": memory.head.size, "root": memory.head.root.hex()}
        print(json.dumps({"evidence": facts, "findings": [finding.to_json() for finding in findings]}))
    elif not findings:
        print(f"the archive's log still begins with the {memory.head.size:,} entries of this evidence")
    else:
        for finding in findings:
            print(f"{printable(str(finding))}\n{finding.to_json()['meaning']}. {finding.to_json()['next_step']}")
    raise typer.Exit(FAILED if findings else PROVEN)


def _open(config: Path | None, archive: str | None, state: Path | None) -> tuple[Settings, StateFolder, Log]:
    chosen = settings.load(config, {"archive": archive, "state": state})
    return chosen, StateFolder(chosen.state.absolute()), open_log(chosen)


def _policy(path: Path | None, folder: StateFolder | None) -> Policy:
    chosen = path or (folder.policy if folder else Path())
    try:
        return policy.parse(chosen.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise TrustMissing(f"policy {chosen}: {error}", hint="name one with --policy") from None


def _ask(chosen: Settings, log: Log, question: Question) -> Selection:
    from strongroom.service.node import query_engine  # only a question needs the engine

    async def run(folder: Path) -> Selection:
        engine = query_engine(chosen, log.store, log, folder)
        await engine.start()
        try:
            return await selected(engine, question, user="cli")
        finally:
            await engine.stop()

    with tempfile.TemporaryDirectory(prefix="strongroom-query-") as folder:
        return asyncio.run(run(Path(folder)))


def _rows(texts: list[str] | None) -> list[tuple[str, range]]:
    found = []
    for text in texts or []:
        match = re.fullmatch(r"(.+):([0-9]{1,15})(?:-([0-9]{1,15}))?", text)
        if match is None:
            raise NoAddresses(f"--row {text!r} must be SEGMENT:ROW or SEGMENT:FIRST-LAST")
        first = int(match[2])
        found.append((match[1], range(first, int(match[3] or first) + 1)))
    return found


def _named(parameters: list[str]) -> dict[str, Any] | None:
    pairs = [parameter.partition("=") for parameter in parameters]
    for name, separator, _ in pairs:
        if not name or not separator:
            raise NoAddresses(f"--param {name!r} must be NAME=VALUE")
    return {name: value for name, _, value in pairs} or None


def _verdict(file: Path, rules: Policy | None, tsa_roots: Path | None) -> evidence.Verdict:
    if comparing.is_proof(file):
        return evidence.check_proof(file.read_bytes(), rules)
    roots = timestamps.roots_of(tsa_roots.read_bytes()) if tsa_roots else ()
    return evidence.check(file, rules, tsa_roots=roots)


def _show(verdict: evidence.Verdict) -> None:
    """Word for word as the stand-alone verifier says it."""
    for line in verdict.lines:
        print(f"{'ok' if line.held else '--'} {line.subject:14} {_ascii(line.text)}")
    for problem in verdict.problems:
        print(f"NO {_ascii(problem)}")
    print(verdict.status.upper())


def _ascii(text: str) -> str:
    return "".join(char if " " <= char <= "~" else f"\\u{ord(char):04x}" for char in text)
