"""One process of many on one bucket: a writer that is told what to take in, or a verifier that never stops looking.

    python replica.py writer|verifier '<JSON of Setup>'

A writer reads numbers from stdin, one a line, takes delivery `number` in as a forwarder would have sent it, and writes
`acknowledged <number> <batch id>` once it is durable, or `refused <number> <why>`. At the end of stdin it seals and
ends. When the store can't be reached at the wrong moment it ends with `TRY_AGAIN`, as a service would that something
starts again; any other trouble is one this test is looking for.

A verifier verifies, remembers as `strongroom verify` does, and writes `<verdict> <size> <findings>` each time.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import traceback
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

from strongroom.archive import keys
from strongroom.archive.errors import StoreUnavailable, StrongroomError
from strongroom.archive.log import Log
from strongroom.archive.policy import Policy
from strongroom.archive.signer import Signer
from strongroom.archive.stores.s3 import S3Store
from strongroom.archive.stores.s3client import S3Options
from strongroom.archive.trust import Trust, recall, remember
from strongroom.archive.verification.verify import verify
from strongroom.ingest import intake as intake_module
from strongroom.ingest.cuts import Cut
from strongroom.ingest.diskless import BucketRules
from strongroom.ingest.errors import IntakeUnavailable
from strongroom.ingest.intake import Intake, IntakeLimits, Origin
from strongroom.ingest.sealer import Sealer

TRY_AGAIN = 3
ORIGIN = "logs.example.org/many"


@dataclass(frozen=True)
class Setup:
    """What a process needs to take part. `keys`: file of the log's keys, which all share."""

    url: str
    region: str
    bucket: str
    keys: str
    folder: str
    name: str
    diskless: bool = False

    @property
    def argument(self) -> str:
        return json.dumps(asdict(self))

    def store(self) -> S3Store:
        options = S3Options(self.region, self.url, path_style=True, attempts=3, timeout_seconds=5)
        return S3Store.open(self.bucket, options=options)


def body_of(number: int) -> bytes:
    """Delivery `number`: three records whose ids say where they come from, of two days."""
    days = ("2026-11-01", "2026-11-02", "2026-11-02")
    lines = [{"id": f"{number}-{place}", "time": f"{day}T00:00:0{place}Z"} for place, day in enumerate(days)]
    return b"\n".join(json.dumps(line).encode() for line in lines)


class Telling(Sealer):
    """Says what kept a cut from being built."""

    async def _isolate(self, cut: Cut, error: Exception) -> None:
        print(f"not built: {cut.first}..{cut.last}: {error!r}", file=sys.stderr, flush=True)
        traceback.print_exception(error)
        await super()._isolate(cut, error)


async def write(setup: Setup) -> None:
    intake_module.Sealer = Telling  # type: ignore[misc]
    store, folder = setup.store(), Path(setup.folder)
    log = Log.open(store)
    signer = Signer(store, keys.load_or_create(Path(setup.keys), ORIGIN), folder / "memory.json")
    intake = Intake(
        store=store,
        log=log,
        directory=folder / "state",
        writer_id=setup.name,
        receipt_signer=keys.load_or_create(folder / "receipts.pem", ORIGIN)[0],
        sign_checkpoint=signer.sign,
        limits=IntakeLimits(
            workers=0, seal_age_seconds=0.7, heartbeat_seconds=3, diskless=setup.diskless, takeover_seconds=2
        ),
        rules=BucketRules(retain_days=1, give_up_seconds=2),
    )
    await intake.start()
    watching = asyncio.create_task(_watch(intake))
    print("ready", flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    taking: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        task = asyncio.create_task(_take(intake, int(line)))
        taking.add(task)
        task.add_done_callback(taking.discard)
    await asyncio.gather(*taking)
    watching.cancel()
    await intake.stop()


async def _watch(intake: Intake) -> None:
    """A sealer that stopped for good would go unseen until the end, or until this process is killed."""
    while True:
        await asyncio.sleep(0.5)
        passing = isinstance(intake.problem, StoreUnavailable) or "can't seal now" in str(intake.problem)
        if intake.problem is not None and not passing:
            print(f"problem: {intake.problem!r} {intake.problem}", file=sys.stderr, flush=True)
            os._exit(1)


async def _take(intake: Intake, number: int) -> None:
    try:
        accepted = await intake.receive(
            _whole(body_of(number)),
            source="json",
            coding="identity",
            origin=Origin("forwarder", "test", "::1"),
            idempotency_key=f"key-{number}",
        )
    except StrongroomError as error:
        print(f"refused {number} {error.code}", flush=True)
    else:
        print(f"acknowledged {number} {accepted.batch}", flush=True)


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    yield body


def look(setup: Setup) -> None:
    store, memory = setup.store(), Path(setup.folder) / "verifier.json"
    held = keys.load_or_create(Path(setup.keys), ORIGIN)
    while True:
        time.sleep(1)
        try:
            report = verify(store, Trust(Policy(tuple(one.key for one in held)), recall(memory)), "complete")
        except StrongroomError as error:
            print(f"unable - {error.code}", flush=True)
            continue
        if report.sound and report.checkpoint is not None:
            remember(memory, report.checkpoint)
        found = ",".join(f"{finding.code}:{finding.object}" for finding in report.findings)
        print(f"{report.verdict.replace(' ', '-')} {report.size} {found or '-'}", flush=True)


if __name__ == "__main__":
    role, given = sys.argv[1], Setup(**json.loads(sys.argv[2]))
    if role == "writer":
        try:
            asyncio.run(write(given))
        except (StoreUnavailable, IntakeUnavailable) as error:
            print(f"try again: {error!r}", file=sys.stderr, flush=True)
            os._exit(TRY_AGAIN)
    else:
        look(given)
