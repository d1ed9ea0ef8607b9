"""The whole promise in ten seconds, on real logs: push, seal, ask, verify, tamper, verify again.

Everything here is the real service: a process of its own on loopback, spoken to over HTTP with tokens made by the
command line. The archive is thrown away at the end. On a terminal (or with DEMO_KEEP=1) it keeps serving until Ctrl-C,
so that the interactive API page can be tried. `python demo/demo.py s3` keeps the archive in a locked bucket instead of
a folder, on an S3 API of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bucket  # beside this file
import httpx
import pyarrow.parquet as pq
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

SAMPLES = Path(__file__).parent / "samples"
STRONGROOM = [sys.executable, "-m", "strongroom.service.cli"]

QUESTIONS: tuple[tuple[str, str, dict[str, str]], ...] = (
    (
        "Who was denied what?",
        """SELECT regexp_extract(actor, '[^:]+$') AS actor, action, source_address, count(*) AS times
           FROM events WHERE source = 'cloudtrail' AND outcome = 'denied'
           GROUP BY ALL ORDER BY times DESC""",
        {},
    ),
    (
        "Everything one access key did, in order",
        """SELECT strftime(event_time, '%H:%M:%S') AS time, event_name, event_source, source_address, error_code
           FROM cloudtrail WHERE access_key_id = $key ORDER BY event_time, event_name""",
        {"key": "AKIATFQR7NSC8Q4X20BJ"},
    ),
    (
        "Top talkers that were rejected",
        """SELECT source_address, count(*) AS flows, sum(packets) AS packets,
                  count(DISTINCT destination_port) AS ports, min(destination_port) AS lowest_port
           FROM vpcflow WHERE action = 'REJECT'
           GROUP BY source_address ORDER BY flows DESC, packets DESC LIMIT 5""",
        {},
    ),
)
SHOWN_ROWS = 8

screen = Console(highlight=False)
if not screen.is_terminal:
    screen = Console(highlight=False, width=120)  # rather too wide for a file than cut


def main() -> int:
    if sys.argv[1:] == ["s3"]:
        with bucket.running() as environment:
            return tour(lambda folder: tamper_with_bucket(environment), environment)
    return tour(tamper, {})


def tour(tampering: Callable[[Path], None], environment: dict[str, str]) -> int:
    """All five steps; `environment` says where the archive is when it is not in the demo's folder."""
    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="strongroom-demo-"))
    here = {"STRONGROOM_ARCHIVE": str(folder / "archive"), "STRONGROOM_STATE": str(folder / "state")}
    os.environ.update(here | environment)
    service: subprocess.Popen[str] | None = None
    try:
        step("1  Start a real service on loopback, and make tokens")
        first = make_first_token(folder)
        service, url = start(folder)
        screen.print(f"serving [bold]{url}[/], archive in {os.environ['STRONGROOM_ARCHIVE']}")
        with httpx.Client(base_url=url, timeout=30) as client:
            tokens = make_tokens(client, first.communicate()[0].strip())
            push(client, tokens)
            ask(client, tokens["investigator"])
        step("4  Verify: every byte against the hashes, the hashes against the signatures")
        if command("verify", "--level", "deep") != 0:
            raise SystemExit("the demo's own archive does not verify: this is a bug")
        tampering(folder)
        screen.print(Rule(style="green"))
        screen.print(f"[bold green]Done[/] in {time.monotonic() - begun:.1f} s.", end=" ")
        finish(url, tokens, service)
        return 0
    finally:
        if service is not None and service.poll() is None:
            service.send_signal(signal.SIGTERM)
            service.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def start(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """The service on a free port, ready; its own log goes to a file in the demo's folder."""
    log = folder / "service.log"
    with log.open("w") as output:
        service = subprocess.Popen(
            [*STRONGROOM, "serve", "--listen", "127.0.0.1:0"],
            stderr=output,
            text=True,
            env=os.environ | {"STRONGROOM_LOG_FORMAT": "json", "STRONGROOM_SEAL_AGE_SECONDS": "0.5"},
        )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and service.poll() is None:
        if found := re.search(r'"url": ?"(http[^"]+)"', log.read_text()):
            try:
                if httpx.get(f"{found[1]}/readyz").status_code == 200:
                    return service, found[1]
            except httpx.TransportError:
                pass
        time.sleep(0.05)
    service.kill()
    raise SystemExit(f"the service did not start:\n{log.read_text()}")


def push(client: httpx.Client, tokens: dict[str, str]) -> None:
    """The samples over HTTP, as a shipper sends them: gzip bytes as they lie in the bucket."""
    step("2  Push real CloudTrail and VPC Flow files over HTTP")
    receipt = ""
    for path in sorted(SAMPLES.glob("*.gz")):
        answer = client.post(
            "/v1/ingest/auto",
            params={"wait": "sealed", "name": path.name},
            content=path.read_bytes(),
            headers=bearer(tokens["forwarder"]) | {"Content-Encoding": "gzip"},
        )
        facts = checked(answer)
        receipt = facts["receipt"]
        screen.print(
            f"{path.name[:58]}…  [bold]{facts['accepted']}[/] records of [bold]{facts['source']}[/], "
            f"{facts['quarantined']} quarantined, sealed in entry {facts['entry']}"
        )
    again = checked(
        client.post("/v1/ingest/auto", content=path_of("CloudTrail").read_bytes(), headers=bearer(tokens["forwarder"]))
    )
    screen.print(f"the same CloudTrail file once more: [bold]duplicate: {again['duplicate']}[/], nothing stored twice")
    screen.print("\nthe receipt, a signed promise that the shipper keeps:")
    screen.print(Text(receipt.rstrip(), style="cyan"), soft_wrap=True)


def ask(client: httpx.Client, token: str) -> None:
    """Three questions of an investigator, in SQL over HTTP."""
    step("3  Ask three questions in SQL")
    for title, sql, parameters in QUESTIONS:
        begun = time.perf_counter()
        body = {"sql": sql, "parameters": parameters or None}
        answer = checked(client.post("/v1/query", json=body, headers=bearer(token)))
        took = time.perf_counter() - begun
        table = Table(
            *(column["name"] for column in answer["columns"]), title=f"[bold]{title}[/]", title_justify="left"
        )
        for row in answer["rows"][:SHOWN_ROWS]:
            table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
        screen.print(table)
        more = answer["row_count"] - SHOWN_ROWS
        snapshot = answer["snapshot"]
        screen.print(
            f"{f'… and {more} more rows; ' if more > 0 else ''}{took * 1000:.0f} ms; snapshot: "
            f"tree size {snapshot['size']}, root {snapshot['root'][:16]}…\n",
            style="dim",
        )


def tamper(folder: Path) -> None:
    """One flipped byte in a copy of the archive, and what verification says of it."""
    step("5  Flip one byte of one segment, in a copy of the archive, and verify the copy")
    copy = folder / "tampered"
    shutil.copytree(folder / "archive", copy)
    segment = max(copy.glob("segments/source=cloudtrail/**/*.parquet"), key=lambda path: path.stat().st_size)
    place = inside_a_record(segment)
    content = bytearray(segment.read_bytes())
    content[place] ^= 0x01
    segment.chmod(0o600)
    segment.write_bytes(content)
    screen.print(f"flipped one bit at byte {place:,} of {segment.relative_to(copy)}\n")
    code = command("verify", "--archive", str(copy), "--trust", str(folder / "state" / "verifier" / "policy"))
    if code != 1:
        raise SystemExit(f"the flipped byte was not found (exit code {code}): this is a bug")
    screen.print("\nexit code [bold red]1[/]: the change is found, and named.")


def tamper_with_bucket(environment: dict[str, str]) -> None:
    """An insider with the bucket's credentials: what the lock refuses, and what verification finds of the rest."""
    step("5  Be an insider with the bucket's credentials, and verify again")
    for what, said in bucket.attempts(environment):
        screen.print(f"{what:<32} [bold]{said}[/]")
    screen.print()
    if command("verify", "--level", "inventory") != 1:
        raise SystemExit("what the insider put on top was not found: this is a bug")
    screen.print(
        "\nexit code [bold red]1[/]: what lies on top is found, and named; what it hides was read and is intact."
    )


def inside_a_record(segment: Path) -> int:
    """A byte of the column that holds the records themselves."""
    group = pq.read_metadata(segment).row_group(0)
    chunk = next(
        group.column(number) for number in range(group.num_columns) if group.column(number).path_in_schema == "raw"
    )
    return int(chunk.data_page_offset + chunk.total_compressed_size // 2)


def finish(url: str, tokens: dict[str, str], service: subprocess.Popen[str]) -> None:
    """Where to go on; keep serving where somebody is there to use it."""
    keep = os.environ.get("DEMO_KEEP") == "1" or (sys.stdin.isatty() and sys.stdout.isatty())
    if not keep:
        screen.print(f"The interactive API page was at {url}/docs")
        return
    screen.print(f"The interactive API page: [bold underline]{url}/docs[/]")
    screen.print("Press [bold]Authorize[/] there and paste one of these tokens:")
    for role, token in tokens.items():
        screen.print(f"  {role:<13} [cyan]{token}[/]", soft_wrap=True)
    screen.print("Ctrl-C ends the demo and removes its archive.")
    try:
        service.wait()
    except KeyboardInterrupt:
        screen.print("\nsealing and stopping …")


def step(title: str) -> None:
    screen.print()
    screen.print(Rule(f"[bold]{title}", align="left"))


def command(*arguments: str) -> int:
    """Run `strongroom …` as a person would, showing what it prints."""
    screen.print(f"[bold]$ strongroom {' '.join(arguments)}[/]", soft_wrap=True)
    sys.stdout.flush()
    return subprocess.run([*STRONGROOM, *arguments], check=False).returncode


def make_first_token(folder: Path) -> subprocess.Popen[str]:
    """The first token is made on the command line, which needs the machine but no running service."""
    command = [*STRONGROOM, "token", "create", "--role", "admin", "--name", "demo-admin", "--state"]
    return subprocess.Popen([*command, str(folder / "state")], stdout=subprocess.PIPE, text=True)


def make_tokens(client: httpx.Client, admin: str) -> dict[str, str]:
    """The others are made over HTTP, which needs the first."""
    tokens = {"admin": admin}
    for wanted in (
        {"role": "forwarder", "name": "demo-shipper", "sources": ["*"]},
        {"role": "investigator", "name": "demo-investigator"},
    ):
        made = client.post("/v1/tokens", json=wanted, headers=bearer(tokens["admin"]))
        tokens[str(wanted["role"])] = checked(made)["token"]
    screen.print("three tokens: an admin's by `strongroom token create`, a shipper's and an investigator's by his")
    return tokens


def path_of(word: str) -> Path:
    return next(path for path in sorted(SAMPLES.glob("*.gz")) if word in path.name)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def checked(response: httpx.Response) -> dict[str, Any]:
    if not response.is_success:
        raise SystemExit(f"{response.request.method} {response.request.url}: {response.status_code} {response.text}")
    answer: dict[str, Any] = response.json()
    return answer


if __name__ == "__main__":
    sys.exit(main())
