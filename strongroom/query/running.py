"""One query on one worker, from the first message to the last byte of its answer.

A `Run` has the worker until it gives it back, once: clean after an ordinary end, to be killed after anything else.
An `AnswerBody` is the stream of the answer and holds everything the query occupies (slot, worker, files) until it is
read to the end, closed, or not read for too long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import msgspec

from strongroom.query import errors
from strongroom.query.errors import Position, QueryError, QueryFailed, QueryOutOfMemory, QueryTimeout
from strongroom.query.process import frames
from strongroom.query.process.pool import Worker, WorkerPool

_ERRORS: Mapping[str, type[QueryError]] = {
    kind.code: kind for kind in (errors.QueryRefused, errors.QueryInvalid, QueryTimeout, QueryOutOfMemory, QueryFailed)
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an answer ended. `truncated` is "" or the limit that cut it; `error` is set when it broke off."""

    rows: int
    bytes: int
    truncated: str
    seconds: float
    error: QueryError | None = None


class Run:
    """One query on one worker: passes messages, counts time only while the worker is waited for, explains its death."""

    def __init__(self, pool: WorkerPool, worker: Worker, sql: str) -> None:
        self._pool, self._worker, self._sql = pool, worker, sql
        self._over = False

    async def ask(self, request: frames.Request, expected: type[Any] | tuple[type[Any], ...]) -> Any:
        """Send and wait for a reply of an expected type. Raises QueryError."""
        try:
            await self._worker.send(request)
        except QueryFailed:
            raise self._death() from None
        reply = await self.next()
        if not isinstance(reply, expected):
            raise QueryFailed("the query's process broke its protocol")
        return reply

    async def next(self) -> frames.Reply | bytes:
        """The worker's next message, or some of the answer's bytes; a Failure is raised as its error."""
        watch = self._worker.watch
        assert watch is not None
        watch.counting = True
        try:
            reply = await self._worker.receive()
        except QueryFailed as failure:
            raise self._death(failure) from None
        finally:
            watch.counting = False
        if isinstance(reply, frames.Failure):
            if reply.kind in ("query-refused", "query-invalid"):
                self.end(clean=True)
            raise self._error(reply)
        return reply

    async def begin(self, grant: Callable[[frames.Tables], frames.Grant], named: frames.Tables) -> None:
        """Grant what the views named need, and wait for the answer to begin. Raises QueryError."""
        reply = await self.ask(grant(named), (frames.Begin, frames.Widen))
        if isinstance(reply, frames.Widen):
            await self.ask(grant(msgspec.structs.replace(named, columns=None)), frames.Begin)

    async def drop(self) -> None:
        """The views are all that was wanted. Raises QueryError."""
        try:
            await self._worker.send(frames.Drop())
        except QueryFailed:
            raise self._death() from None
        self.end(clean=True)

    def end(self, *, clean: bool) -> None:
        """Give the worker back, once."""
        if not self._over:
            self._over = True
            self._pool.release(self._worker, clean=clean)

    def abandon(self) -> None:
        """Give the worker back, killed, unless it was given back already."""
        self.end(clean=False)

    def _death(self, otherwise: QueryFailed | None = None) -> QueryError:
        """Why the worker is gone."""
        watch = self._worker.watch
        verdict = watch.verdict if watch else ""
        if verdict == "time":
            return self._error(frames.Failure(QueryTimeout.code, ""))
        if verdict in ("memory", "disk"):
            return self._error(frames.Failure(QueryOutOfMemory.code, ""))
        return otherwise or QueryFailed("the query's process ended unexpectedly", hint="try again")

    def _error(self, failure: frames.Failure) -> QueryError:
        limits = self._pool.limits
        kind = _ERRORS.get(failure.kind, QueryFailed)
        message, hint = failure.message, failure.hint
        if kind is QueryTimeout:
            watch = self._worker.watch
            message = f"the query ran longer than {watch.seconds if watch else limits.seconds:g} seconds and was ended"
            hint = "narrow it, for example by event_time"
        elif kind is QueryOutOfMemory:
            disk = f" and {limits.spill_bytes >> 20} MiB of temporary files" if limits.spill_bytes else ""
            message = f"the query needed more than {limits.memory_bytes >> 20} MiB of memory{disk} and was ended"
            hint = "select fewer columns, aggregate, or narrow it by event_time"
        offset = len(self._sql[: failure.offset].encode()) if failure.offset >= 0 else -1
        return kind(message, hint=hint, position=Position.at_byte(self._sql, offset))


class AnswerBody(AsyncIterator[bytes]):
    """The bytes of an answer. Iterate to the end or `aclose`; left untouched too long, it closes itself."""

    def __init__(self, run: Run, resources: ExitStack, stall_seconds: float, started: float) -> None:
        self._run, self._resources = run, resources
        self._stall_seconds, self._started = stall_seconds, started
        self._loop = asyncio.get_running_loop()
        self._bytes = 0
        self._stall: asyncio.TimerHandle | None = None
        self.finished: asyncio.Future[Outcome] = self._loop.create_future()
        self._arm()

    async def __anext__(self) -> bytes:
        if self.finished.done():
            raise StopAsyncIteration
        self._disarm()
        try:
            reply = await self._run.next()
        except QueryError as error:
            self._finish(0, "", error)
            raise
        except BaseException:
            self._finish(0, "", QueryFailed("the reader of the answer went away"))
            raise
        if self.finished.done():  # closed while we waited
            raise StopAsyncIteration
        if isinstance(reply, bytes):
            self._bytes += len(reply)
            self._arm()
            return reply
        if isinstance(reply, frames.End):
            self._run.end(clean=True)
            self._finish(reply.rows, reply.truncated, None)
            raise StopAsyncIteration
        broken = QueryFailed("the query's process broke its protocol")
        self._finish(0, "", broken)
        raise broken

    async def aclose(self) -> None:
        """Stop the query if it still runs. Safe to call at any time, more than once."""
        self._finish(0, "", QueryFailed("the answer was closed before its end"))

    def _finish(self, rows: int, truncated: str, error: QueryError | None) -> None:
        self._disarm()
        if not self.finished.done():
            seconds = time.monotonic() - self._started
            self.finished.set_result(Outcome(rows, self._bytes, truncated, seconds, error))
        self._resources.close()

    def _arm(self) -> None:
        message = f"the answer was not read for {self._stall_seconds:g} seconds"
        self._stall = self._loop.call_later(self._stall_seconds, self._finish, 0, "", QueryFailed(message))

    def _disarm(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
