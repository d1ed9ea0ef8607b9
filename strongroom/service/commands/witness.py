"""`strongroom witness`: run an independent witness. Needs nothing of an archive; keep it on another machine.

Which log it follows, a policy file says: its `log` lines.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from strongroom.archive import policy
from strongroom.archive.errors import StrongroomError
from strongroom.archive.witness import WitnessRefusal, WitnessServer
from strongroom.service import logs
from strongroom.service.settings import ADDRESS

app = typer.Typer(help="An independent witness: checks that logs only grow, and cosigns.", no_args_is_help=True)

NameOption = Annotated[str, typer.Option("--name", help="The witness's name, such as witness.example.org/one.")]
FolderOption = Annotated[Path, typer.Option("--folder", help="Folder of the witness's key and memory.")]
PolicyOption = Annotated[Path, typer.Option("--policy", help="Policy file whose `log` lines name the log to follow.")]


@app.command("key")
def key(name: NameOption, folder: FolderOption = Path("var/witness")) -> None:
    """Print the witness's verification key, for the policies of those who rely on it; made on the first call."""
    from strongroom.service.proving import witness

    print(witness.open_witness(folder, name, []).key.vkey())


@app.command("serve")
def serve(
    name: NameOption,
    policy_file: PolicyOption,
    folder: FolderOption = Path("var/witness"),
    listen: Annotated[str, typer.Option("--listen", help="Address and port.")] = "127.0.0.1:8421",
) -> None:
    """Serve C2SP tlog-witness: logs send their checkpoints to POST /add-checkpoint."""
    from strongroom.service.proving import witness

    logs.configure("text", "info")
    if not ADDRESS.fullmatch(listen):
        raise typer.BadParameter("must be <host>:<port>", param_hint="--listen")
    witness.serve(_open(name, policy_file, folder), listen)


@app.command("watch")
def watch(
    name: NameOption,
    policy_file: PolicyOption,
    url: Annotated[list[str], typer.Option("--url", help="Address of the log's service.")],
    folder: FolderOption = Path("var/witness"),
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="How often to look.")] = 60.0,
) -> None:
    """Fetch checkpoints from a log's service, and leave the cosignatures with it."""
    from strongroom.service.proving import witness

    logs.configure("text", "info")
    origin = policy.parse(policy_file.read_text("utf-8")).origin
    opened = _open(name, policy_file, folder)
    asyncio.run(witness.watch(opened, [(origin, address) for address in url], seconds))


@app.command("once")
def once(
    name: NameOption,
    policy_file: PolicyOption,
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="File with an add-checkpoint request, or -.")],
    folder: FolderOption = Path("var/witness"),
) -> None:
    """Check one request from a file and print the cosignature: for a machine that is never on a network.

    The request comes from `GET /tlog/submission?old=<size>`, the lines printed go to `POST /tlog/cosignatures`.
    """
    body = sys.stdin.buffer.read() if request == "-" else Path(request).read_bytes()
    try:
        lines = _open(name, policy_file, folder).add_checkpoint(body, datetime.now(UTC))
    except WitnessRefusal as refusal:
        size = f" (this witness has seen size {refusal.size})" if refusal.size is not None else ""
        raise StrongroomError(f"refused: {refusal.message}{size}") from None
    print(lines, end="")


def _open(name: str, policy_file: Path, folder: Path) -> WitnessServer:
    from strongroom.service.proving import witness

    return witness.open_witness(folder, name, [policy.parse(policy_file.read_text("utf-8")).logs])
