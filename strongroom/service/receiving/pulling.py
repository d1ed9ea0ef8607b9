"""Pulling as the service and `strongroom pull` do it: queue and buckets from the settings, acts into the audit.

A queue or bucket that refuses does not stop the service: it is said in the log, in the status and as a metric, and
tried again, because permissions are mended while it runs.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import structlog

from strongroom.archive.errors import StrongroomError
from strongroom.ingest.errors import PullError
from strongroom.ingest.fetch.aws import Access
from strongroom.ingest.fetch.buckets import Buckets
from strongroom.ingest.fetch.objects import Perimeter
from strongroom.ingest.fetch.pull import PullCounts, Puller
from strongroom.ingest.fetch.queues import SqsQueue
from strongroom.ingest.intake import Intake
from strongroom.service import acts
from strongroom.service.audit import Audit
from strongroom.service.settings import Settings

log = structlog.get_logger(__name__)

_AGAIN_SECONDS = 60.0
_HELP = {
    "messages": "Messages received",
    "objects": "Objects fetched and made durable, duplicates included",
    "duplicates": "Objects that were known",
    "empty": "Objects without content, left out",
    "ignored": "Messages that announced no object",
    "gone": "Objects that were gone before they could be fetched",
    "retries": "Messages given back to be tried again",
    "dead_letters": "Messages given up",
    "bytes": "Bytes fetched",
}


def access(settings: Settings) -> Access:
    """How the settings say that AWS is reached for pulling."""
    return Access(settings.pull_region, settings.pull_endpoint_url, connections=settings.pull_concurrency + 8)


class Pulling:
    """One queue pulled into one intake, as long as it is wanted."""

    def __init__(self, settings: Settings, intake: Intake, audit: Audit) -> None:
        self._settings, self._intake, self._audit = settings, intake, audit
        self._puller: Puller | None = None
        self._refused: StrongroomError | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to pull in the background."""
        self._task = asyncio.create_task(self._run(), name="pull")

    async def once(self) -> PullCounts:
        """Pull until the queue is empty. Raises PullError."""
        self._puller = await asyncio.to_thread(self._open)
        await self._puller.run(until_empty=True)
        return self._puller.counts

    def finish(self) -> None:
        """Make `once` end soon: what is in hand is finished, nothing more is received."""
        if self._puller is not None:
            self._puller.finish()

    async def stop(self) -> None:
        """Finish what is in hand, as far as a few seconds allow, and give back the rest."""
        if self._puller is not None:
            await self._puller.stop(self._intake.seal)
        if self._task is not None:
            if self._puller is not None and self._refused is None:
                await asyncio.wait([self._task], timeout=10.0)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def problem(self) -> StrongroomError | None:
        """What keeps it from pulling, None while all is well."""
        return self._refused or (self._puller.problem if self._puller else None)

    @property
    def counts(self) -> PullCounts:
        """What was pulled since the start."""
        return self._puller.counts if self._puller else PullCounts()

    def status(self) -> dict[str, Any]:
        """For people."""
        held = self._puller.held if self._puller else 0
        return {**asdict(self.counts), "held": held, "problem": str(self.problem) if self.problem else None}

    def numbers(self) -> dict[str, tuple[str, float]]:
        """For the metrics: name -> (help, value)."""
        found = {f"pull_{name}": (_HELP[name], float(value)) for name, value in asdict(self.counts).items()}
        held = float(self._puller.held if self._puller else 0)
        return found | {
            "pull_held": ("Messages in hand", held),
            "pull_problem": ("1 while queue or bucket can't be reached, or refuse", float(bool(self.problem))),
        }

    async def _run(self) -> None:
        while True:
            try:
                self._puller = await asyncio.to_thread(self._open)
                self._refused = None
                log.info("pulling", queue=self._settings.pull_queue, buckets=self._settings.pull_buckets)
                await self._puller.run()
                return
            except PullError as error:
                self._refused = error
                log.error("pulling is refused", code=error.code, reason=str(error), again_in_seconds=_AGAIN_SECONDS)
            await asyncio.sleep(_AGAIN_SECONDS)

    def _open(self) -> Puller:
        settings, reach = self._settings, access(self._settings)
        return Puller(
            queue=SqsQueue(
                reach, settings.pull_queue, dead_letter=settings.pull_dead_letter, tries=settings.pull_tries
            ),
            source=Buckets(reach, Perimeter.parse(settings.pull_buckets)),
            intake=self._intake,
            report=self._report,
            concurrency=settings.pull_concurrency,
        )

    async def _report(self, what: str, target: str, facts: dict[str, Any]) -> None:
        done = acts.act(what, actor="pull", role="service", address="", outcome="failure", target=target, **facts)
        await self._audit.record(done)
