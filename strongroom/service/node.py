"""A node: every part put together, in the order that makes each safe to use.

    store → identity (keys, log, trust) → signer → intake → audit           ArchiveWriter: what `ingest` needs
          → tokens → query engine → verifier → metrics                      Node: what `serve` adds

One process holds the embedded default: writer, signer, verifier and query engine on one machine, each with its own
folder under `state`. The parts know each other only through what is passed in here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from strongroom import __version__
from strongroom.archive import layout
from strongroom.archive.errors import ObjectMissing, StrongroomError
from strongroom.archive.locks import exclusive
from strongroom.archive.log import Log
from strongroom.archive.note import Checkpoint
from strongroom.archive.signer import Signer
from strongroom.archive.stores.store import ObjectStore
from strongroom.ingest.diskless import BucketRules
from strongroom.ingest.errors import IngestError
from strongroom.ingest.intake import Intake, IntakeLimits
from strongroom.query.engine import QueryEngine
from strongroom.query.limits import QueryLimits
from strongroom.query.questions.counts import HourlyCounts
from strongroom.service.alerts.metrics import VerificationMetrics
from strongroom.service.answers.jobs import Jobs
from strongroom.service.answers.saved import SavedQuestions
from strongroom.service.answers.views import ocsf_views, source_views
from strongroom.service.audit import Audit
from strongroom.service.checking.lock_watch import LockWatch
from strongroom.service.checking.schedule import Schedule
from strongroom.service.checking.scheduled import crons, make_verifier
from strongroom.service.checking.source_watch import SourceWatch
from strongroom.service.checking.verification import read_trust
from strongroom.service.checking.verifier import last_verdicts
from strongroom.service.keeping.holding import Holding
from strongroom.service.keeping.storage import open_archive, promises, wrapping_keys
from strongroom.service.log_keys import rules_of
from strongroom.service.metrics import Metrics
from strongroom.service.proving.cosigning import Cosigning
from strongroom.service.proving.exporting import Exporter
from strongroom.service.proving.promises import Promises
from strongroom.service.proving.timestamping import Timestamping
from strongroom.service.receiving.pulling import Pulling
from strongroom.service.settings import Settings
from strongroom.service.sources import registry
from strongroom.service.state import StateFolder, open_or_create
from strongroom.service.tokens import TokenStore

log = structlog.get_logger(__name__)

FOLLOW_SECONDS = 1.0


class ArchiveWriter:
    """A writer into the archive and the signer beside it. Building one opens or creates archive and state.

    `suffix` is added to the node's writer name: several writers of one state folder can then work side by side.
    """

    def __init__(self, settings: Settings, limits: IntakeLimits, suffix: str = "") -> None:
        self.registry = registry(settings.sources_file)
        self.state = StateFolder(settings.state.absolute())
        self.store = open_archive(settings, create=True)
        self.identity = open_or_create(
            self.state,
            self.store,
            origin=settings.origin,
            writer=settings.writer,
            now=datetime.now(UTC),
            rules=rules_of(settings),
            retention=promises(settings, self.store),
            wrapping_keys=wrapping_keys(settings),
        )
        self.log = self.identity.log
        self.log.must_encrypt_as_declared()
        self.name = self.identity.writer + suffix
        self._signer = Signer(self.store, self.identity.log_signers, self.state.signer_memory)
        self.intake = Intake(
            store=self.store,
            log=self.log,
            directory=self.state.writer(self.name),
            writer_id=self.name,
            receipt_signer=self.identity.receipts_signer,
            sign_checkpoint=self.sign_checkpoint,
            limits=limits,
            registry=self.registry,
            rules=BucketRules(settings.spool_retain_days, settings.spool_linger_seconds),
        )
        self.audit = Audit(self.intake, self.state.acts)

    async def start(self) -> None:
        """Recover what a crash left, sign the log as it is, and take in what the command line left."""
        await self.intake.start()
        await asyncio.to_thread(self.sign_checkpoint)
        await self.audit.collect()

    async def stop(self) -> None:
        """Take in the last acts, seal what is spooled, and release everything."""
        await self.audit.settle()
        with contextlib.suppress(IngestError):  # not running, or full: the files stay for the next start
            await self.audit.collect()
        await self.intake.stop()

    def sign_checkpoint(self) -> Checkpoint:
        """Sign and publish the current tree head. One signer at a time per state folder, also across processes."""
        with exclusive(self.state.signer_lock):
            self._signer.use(self.identity.log_keys.settled(self.log))
            return self._signer.sign()

    @property
    def signed(self) -> Checkpoint | None:
        """The last checkpoint signed here."""
        return self._signer.last

    def checkpoint(self) -> str:
        """The newest published checkpoint, a signed note. Raises ObjectMissing before the first."""
        for size in (self.log.size, self.signed.size if self.signed else 0):
            with contextlib.suppress(ObjectMissing):
                return self.store.get(layout.checkpoint_key(size)).decode()
        raise ObjectMissing("no checkpoint is published yet", hint="the first one follows the first entry")


class Node:
    """The service's parts, started and stopped together."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.writer = ArchiveWriter(settings, intake_limits(settings))
        self.identity, self.log, self.store = self.writer.identity, self.writer.log, self.writer.store
        self.intake, self.audit = self.writer.intake, self.writer.audit
        self.tokens = TokenStore(self.writer.state.tokens)
        self.tokens.initialise()
        self.views = source_views(self.writer.registry.sources.values())
        self.counts = HourlyCounts(self.log)
        self.jobs = self._jobs()
        self.saved = SavedQuestions(self.writer.state.saved)
        beside = [self.intake.unsealed_folder]
        self.engine = query_engine(settings, self.store, self.log, self.writer.state.query, beside)
        self.exporter = self._exporter()
        self.holding = Holding(self.store, self.log, self.writer.sign_checkpoint, self.engine)
        self.promises = self._promises()
        self.pulling = Pulling(settings, self.intake, self.audit) if settings.pull_queue else None
        self.cosigning = Cosigning(self.store, self.log, self.writer.state.policy, settings.cosign_seconds)
        self.timestamping = self._timestamping()
        self.verifier = make_verifier(
            settings, self.store, self.log, self.writer.name, self.writer.sign_checkpoint, self.writer.state.runs
        )
        self.source_watch = self._source_watch()
        self.lock_watch = LockWatch(self.store, self.audit, self.verifier.alerts, self.log.origin)
        self.schedule = Schedule(self.verifier, crons(settings), settings.verify_jitter_seconds, self.log.origin)
        self.metrics = Metrics(self._numbers)
        self.metrics.registry.register(
            VerificationMetrics(self.verifier.runs.last, self.verifier.failures, self.verifier.alerts)
        )
        self._started: datetime | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to work; when it returns, deliveries are accepted and questions answered."""
        try:
            if self.settings.production:
                await self.lock_watch.must_be_fit(self.settings)
            await self.writer.start()
            await self.engine.start()
            self.exporter.start()
            self.jobs.start()
        except BaseException:
            await self.stop()
            raise
        work = [self._follow(), self.cosigning.run(), self.holding.run(self.settings.hold_seconds)]
        work.append(self.lock_watch.run(self.settings.canary_seconds))
        if self.timestamping is not None:
            work.append(self.timestamping.run())
        if self.settings.verify_schedule == "service":
            work.append(self.schedule.run())
            if self.source_watch is not None:
                work.append(self.source_watch.run())
        await self.verifier.recover()
        self._tasks = [asyncio.create_task(item) for item in work]
        if self.pulling is not None:
            self.pulling.start()
        self._started = datetime.now(UTC)

    async def stop(self) -> None:
        """Stop taking work, seal what is spooled, and release everything."""
        self._started = None
        if self.pulling is not None:
            await self.pulling.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.verifier.stop()
        await self.jobs.stop()
        await self.engine.stop()
        await self.writer.stop()

    def not_ready(self) -> str:
        """Why no delivery would be accepted now, "" when one would."""
        if self._started is None:
            return "starting or stopping"
        if self.intake.counters().pending_bytes >= self.settings.spool_bytes:
            return "the spool is full until the sealer catches up"
        return ""

    def status(self) -> dict[str, Any]:
        """What this node is and has done."""
        signed = self.writer.signed
        return {
            "version": __version__,
            "origin": self.identity.origin,
            "writer": self.writer.name,
            "started_at": self._started,
            "store": self.store.description,
            "log": {"size": self.log.size, "root": self.log.root().hex()},
            "checkpoint": {"size": signed.size, "root": signed.root.hex()} if signed else None,
            "witnesses": {name: asdict(standing) for name, standing in self.cosigning.standings.items()},
            "verified": last_verdicts(self.verifier.runs),
            "counters": asdict(self.intake.counters()),
            "oldest_pending_seconds": round(self.intake.oldest_pending_seconds, 3),
            "locks": self.lock_watch.standing(),
            "problem": str(self.intake.problem) if self.intake.problem else None,
            "pull": self.pulling.status() if self.pulling else None,
        }

    def _numbers(self) -> dict[str, tuple[str, float]]:
        """For the metrics: name -> (help, value)."""
        signed = self.writer.signed
        numbers = {
            name: (f"Intake: {name.replace('_', ' ')}", float(value))
            for name, value in asdict(self.intake.counters()).items()
        }
        return (
            numbers
            | {
                "log_entries": ("Entries in the log", float(self.log.size)),
                "oldest_pending_seconds": (
                    "Age of the oldest acknowledged batch that is not sealed",
                    self.intake.oldest_pending_seconds,
                ),
                "problem": (
                    "1 while something keeps batches from acceptance or seal",
                    float(bool(self.intake.problem)),
                ),
                "receipts_overdue": (
                    "Batches acknowledged longer ago than promised and not sealed",
                    float(self.promises.overdue()),
                ),
                "checkpoint_entries": (
                    "Entries under the newest signed checkpoint",
                    float(signed.size if signed else 0),
                ),
            }
            | self._timestamp_numbers()
            | self.lock_watch.numbers()
            | (self.pulling.numbers() if self.pulling else {})
            | (self.source_watch.numbers() if self.source_watch else {})
        )

    def _timestamp_numbers(self) -> dict[str, tuple[str, float]]:
        stamping = self.timestamping
        if stamping is None:
            return {}
        numbers = {
            "timestamp_entries": ("Entries under the newest timestamped checkpoint", float(stamping.size)),
            "timestamp_failures": ("Timestamps that were not to be had since the start", float(stamping.failures)),
        }
        if stamping.stated is not None:
            age = max(0.0, (datetime.now(UTC) - stamping.stated).total_seconds())
            numbers["timestamp_age_seconds"] = ("Seconds since the newest timestamp", age)
        return numbers

    def _source_watch(self) -> SourceWatch | None:
        if not (self.settings.cloudtrail_digests and self.settings.verify_cloudtrail):
            return None
        writer = self.writer
        return SourceWatch(self.settings, self.log, writer.sign_checkpoint, writer.name, self.verifier.alerts)

    def _exporter(self) -> Exporter:
        return Exporter(
            store=self.store,
            log=self.log,
            engine=self.engine,
            intake=self.intake,
            policy_file=self.writer.state.policy,
            folder=self.writer.state.evidence,
            limit_bytes=self.settings.evidence_bytes,
            writer=self.writer.name,
        )

    def _jobs(self) -> Jobs:
        settings = self.settings
        return Jobs(
            self.writer.state.jobs,
            places=max(1, settings.query_concurrency // 2),
            per_owner=settings.jobs_per_user,
            keep_seconds=settings.job_keep_seconds,
            limit_bytes=settings.job_bytes,
        )

    def _promises(self) -> Promises:
        return Promises(
            log=self.log,
            intake=self.intake,
            state=self.writer.state,
            key=self.identity.receipts_signer.key,
            seconds=self.settings.promise_seconds,
            anchor=self.exporter.anchor,
        )

    def _timestamping(self) -> Timestamping | None:
        """Raises TrustMissing, FormatError when the authority's certificates can't be read."""
        settings = self.settings
        if not settings.tsa_url:
            return None
        roots = read_trust(self.writer.state.policy, settings.tsa_roots).tsa_roots
        return Timestamping(self.store, self.log, settings.tsa_url, roots, settings.timestamp_seconds)

    async def _follow(self) -> None:
        """See what other writers appended and what the command line did, as long as the service runs."""
        while True:
            try:
                await self.audit.collect()
                await self.engine.refresh()
                await self.intake.follow()
            except StrongroomError as error:
                log.warning("following the log failed", code=error.code, detail=error.message)
            await asyncio.sleep(FOLLOW_SECONDS)


def intake_limits(settings: Settings) -> IntakeLimits:
    """The intake's limits out of the settings."""
    return IntakeLimits(
        max_body_bytes=settings.max_body_bytes,
        max_expanded_bytes=settings.max_expanded_bytes,
        max_inflight_bytes=settings.max_inflight_bytes,
        spool_bytes=settings.spool_bytes,
        seal_bytes=settings.seal_bytes,
        seal_age_seconds=settings.seal_age_seconds,
        heartbeat_seconds=settings.heartbeat_seconds,
        unsealed_bytes=settings.query_unsealed_bytes,
        workers=settings.ingest_workers,
        diskless=settings.spool == "bucket",
        abandoned_seconds=settings.abandoned_seconds,
    )


def query_engine(
    settings: Settings, store: ObjectStore, log: Log, directory: Path, beside: Sequence[Path] = ()
) -> QueryEngine:
    """The query engine over every source's view. `directory`, `beside`: as QueryEngine takes them."""
    limits = QueryLimits(
        seconds=settings.query_seconds,
        memory_bytes=settings.query_memory_bytes,
        spill_bytes=settings.query_spill_bytes,
        threads=settings.query_threads,
        rows=settings.query_rows,
        bytes=settings.query_answer_bytes,
        read_bytes=settings.query_read_bytes,
        concurrency=settings.query_concurrency,
        per_user=settings.query_per_user,
        queued=settings.query_queued,
        queued_per_user=settings.query_queued_per_user,
        queue_seconds=settings.query_queue_seconds,
        cache_bytes=settings.cache_bytes,
        cache_threads=settings.cache_threads,
        cache_check=settings.cache_check,
        fold_bytes=settings.fold_bytes,
    )
    return QueryEngine(
        store=store,
        log=log,
        views=source_views(registry(settings.sources_file).sources.values()),
        normalised=ocsf_views(),
        directory=directory,
        limits=limits,
        beside=beside,
    )
