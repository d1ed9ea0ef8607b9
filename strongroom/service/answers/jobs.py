"""Questions that take longer than anybody holds a connection: asked now, answered later, the result kept for a while.

    queued → running → done            done: the result is a file here until it expires
       │        ├────→ failed          failed: the engine's error, word for word
       ├────────┼────→ cancelled       cancelled: by whoever may
       └────────┴────→ lost            lost: the service stopped meanwhile; ask again

Rules:

1. A job's file is written before the job is announced, and before each step takes effect: a restart knows every job
   it gave an id for, and calls those that were under way lost. Nothing is run twice on its own account.
2. A result is a Parquet file, renamed into place when it is whole: what can be downloaded is the whole answer.
3. Results take at most `limit_bytes` together and are dropped `keep_seconds` after their end, the oldest first when
   there is no room. A job runs only when a place for jobs is free: interactive questions always find some.
4. Whoever asked owns a job, by his token's name, which survives a token's renewal. Others don't learn that it exists.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from strongroom.archive import durable
from strongroom.archive.errors import StrongroomError
from strongroom.query.engine import Answer
from strongroom.query.questions.prepared import Prepared
from strongroom.service.answers.answering import Asking
from strongroom.service.errors import JobNotDone, JobsFull, UnknownJob

log = structlog.get_logger(__name__)

# How a job's question is put to the engine.
Run = Callable[[Asking, Prepared], Awaitable[Answer]]
State = Literal["queued", "running", "done", "failed", "cancelled", "lost"]
ENDED = frozenset({"done", "failed", "cancelled", "lost"})
_LOST = {"code": "lost", "detail": "the service stopped while the job waited or ran", "hint": "ask again"}


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One job as its file keeps it. `types`: DuckDB's, a column; `reading`: what it reads; `bytes`: of the result."""

    id: str
    owner: str
    state: State
    created: datetime
    asked: dict[str, Any]
    snapshot_size: int
    snapshot_root: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    reading: dict[str, int] = {}
    rows: int = 0
    bytes: int = 0
    truncated: str = ""
    problem: dict[str, Any] = {}


# Made here: see archive/details.py.
_decoder = msgspec.json.Decoder(Job)


class Jobs:
    """The jobs of one node. Use from one event loop."""

    def __init__(
        self,
        folder: Path,
        *,
        places: int,
        per_owner: int,
        keep_seconds: float,
        limit_bytes: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`places`: jobs that run at once; `per_owner`: jobs of one owner that may wait or run."""
        self._folder, self._per_owner = folder, per_owner
        self._keep, self._limit_bytes = timedelta(seconds=keep_seconds), limit_bytes
        self._clock = clock
        self._places = asyncio.Semaphore(places)
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, int] = {}

    def start(self) -> None:
        """Read what there is; what was under way is lost. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._folder.glob("*.part"):
            path.unlink()  # of a result that never became whole
        for path in sorted(self._folder.glob("*.json")):
            try:
                job = _decoder.decode(path.read_bytes())
            except (OSError, msgspec.DecodeError):
                log.warning("a job's file can't be read", path=str(path))
                continue
            self._jobs[job.id] = job
            if job.state not in ENDED:
                self._end(job, "lost", problem=_LOST)
        self._expire()

    async def stop(self) -> None:
        """End what runs: it is lost."""
        running, self._tasks = self._tasks, {}
        for job, task in running.items():
            self._end(self._jobs[job], "lost", problem=_LOST)
            task.cancel()
        await asyncio.gather(*running.values(), return_exceptions=True)

    def submit(self, owner: str, asking: Asking, question: Prepared, asked: dict[str, Any], run: Run) -> Job:
        """Keep a job and let it run when there is room. Raises JobsFull, OSError."""
        self._expire()
        waiting = [job for job in self._jobs.values() if job.owner == owner and job.state not in ENDED]
        if len(waiting) >= self._per_owner:
            raise JobsFull(f"{len(waiting)} jobs of {owner} wait or run", hint="wait for one, or cancel one")
        job = Job(
            id=secrets.token_hex(12),
            owner=owner,
            state="queued",
            created=self._clock(),
            asked=asked,
            snapshot_size=asking.size,
        )
        self._save(job)
        task = asyncio.create_task(self._work(job, asking, question, run), name=f"job-{job.id}")
        self._tasks[job.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.id, None))
        return job

    def visible(self, owner: str | None) -> list[Job]:
        """An owner's jobs, everybody's for None; the newest first."""
        self._expire()
        found = [job for job in self._jobs.values() if owner is None or job.owner == owner]
        return sorted(found, key=lambda job: job.created, reverse=True)

    def get(self, job: str, owner: str | None) -> Job:
        """One job of an owner, of anybody for None. Raises UnknownJob."""
        self._expire()
        found = self._jobs.get(job)
        if found is None or (owner is not None and found.owner != owner):
            raise UnknownJob(f"there is no job {job[:40]!r}", hint="results are kept for a while only; ask again")
        return found

    def shown(self, job: Job) -> dict[str, Any]:
        """A job for people and programs, with its progress."""
        now = job.ended or self._clock()
        facts = msgspec.to_builtins(job)
        for name in ("snapshot_size", "snapshot_root"):
            facts.pop(name, None)
        return {
            **facts,
            "snapshot": {"size": job.snapshot_size, "root": job.snapshot_root or None},
            "bytes": job.bytes or self._progress.get(job.id, 0),
            "rows": job.rows,
            "truncated": job.truncated or None,
            "seconds": round((now - (job.started or job.created)).total_seconds(), 3),
            "expires": (job.ended + self._keep).isoformat() if job.ended else None,
        }

    def cancel(self, job: Job) -> Job:
        """End a job that waits or runs; one that ended already stays as it is."""
        task = self._tasks.pop(job.id, None)
        if job.state in ENDED:
            return job
        ended = self._end(job, "cancelled")
        if task is not None:
            task.cancel()
        return ended

    def forget(self, job: Job) -> None:
        """Remove a job that has ended, and its result."""
        self._jobs.pop(job.id, None)
        for name in (f"{job.id}.parquet", f"{job.id}.segments", f"{job.id}.json"):
            (self._folder / name).unlink(missing_ok=True)

    def result(self, job: Job) -> Path:
        """The file with the result. Raises JobNotDone."""
        if job.state != "done":
            raise JobNotDone(f"the job is {job.state}", hint="its `problem` says why" if job.problem else "ask later")
        return self._folder / f"{job.id}.parquet"

    def segments(self, job: Job) -> list[str]:
        """The segments it was read from. Raises JobNotDone."""
        self.result(job)
        return msgspec.json.decode((self._folder / f"{job.id}.segments").read_bytes(), type=list[str])

    # -- inside

    async def _work(self, job: Job, asking: Asking, question: Prepared, run: Run) -> None:
        try:
            async with self._places:
                job = self._save(msgspec.structs.replace(job, state="running", started=self._clock()))
                answer = await run(asking, question)
                reading = {name: getattr(answer.reading, name) for name in ("total", "read", "records", "bytes")}
                root = answer.snapshot.root
                job = self._save(msgspec.structs.replace(job, snapshot_root=root, reading=reading))
                await self._keep_result(job, asking.stream(answer), answer)
                outcome = await answer.finished
            self._make_room(job)
            size = (self._folder / f"{job.id}.parquet").stat().st_size
            self._end(job, "done", rows=outcome.rows, bytes=size, truncated=outcome.truncated)
        except StrongroomError as error:
            self._end(job, "failed", problem={"code": error.code, "detail": error.message, "hint": error.hint})
        except OSError as error:
            hint = "see free space in the state folder"
            self._end(job, "failed", problem={"code": "query-failed", "detail": str(error), "hint": hint})
        except asyncio.CancelledError as error:
            # Whoever cancelled has written down why; a question that ran has told the audit itself.
            if job.state == "queued":
                asking.failed(error)
            raise
        except Exception:
            log.exception("a job failed unexpectedly", job=job.id)
            self._end(job, "failed", problem={"code": "unexpected", "detail": "see the service's log", "hint": ""})
        finally:
            self._progress.pop(job.id, None)
            (self._folder / f"{job.id}.part").unlink(missing_ok=True)

    async def _keep_result(self, job: Job, body: AsyncIterator[bytes], answer: Answer) -> None:
        part = self._folder / f"{job.id}.part"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            async for chunk in body:
                await asyncio.to_thread(file.write, chunk)
                self._progress[job.id] = self._progress.get(job.id, 0) + len(chunk)
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        (self._folder / f"{job.id}.segments").write_bytes(msgspec.json.encode(answer.segments))
        part.rename(self._folder / f"{job.id}.parquet")
        durable.sync_folder(self._folder)

    def _end(self, job: Job, state: State, **facts: Any) -> Job:
        current = self._jobs.get(job.id, job)
        if current.state in ENDED:
            return current  # cancelled or lost in the meantime: that stays
        return self._save(msgspec.structs.replace(job, state=state, ended=self._clock(), **facts))

    def _save(self, job: Job) -> Job:
        durable.replace(self._folder / f"{job.id}.json", msgspec.json.encode(job))
        self._jobs[job.id] = job
        return job

    def _expire(self) -> None:
        now = self._clock()
        for job in [job for job in self._jobs.values() if job.ended and job.ended + self._keep <= now]:
            self.forget(job)

    def _make_room(self, newest: Job) -> None:
        """Drop the oldest results until the newest fits."""
        size = (self._folder / f"{newest.id}.parquet").stat().st_size
        kept = sorted((job for job in self._jobs.values() if job.state == "done"), key=lambda job: job.created)
        for job in kept:
            if size + sum(other.bytes for other in self._jobs.values() if other.state == "done") <= self._limit_bytes:
                return
            self.forget(job)
