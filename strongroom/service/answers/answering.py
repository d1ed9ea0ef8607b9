"""One question on its way through the service: recorded, run, answered, and recorded again.

The order of effects: the question is recorded durably, then it runs, then its outcome is recorded. A question that
can't be recorded does not run. This holds for every way of asking (SQL, search, timeline, entities, investigations,
jobs), so it is written once, here.

Every answer states what it rests on: the snapshot (tree size and root), how many segments were read, and that each of
them was checked against its entry before it was read; an answer for which that can't be said does not exist. Who asks
for what is not sealed yet, too, is told how many batches of it were read: no more can be said of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from fastapi import Request
from starlette.responses import StreamingResponse

from strongroom.ingest.unsealed import Unsealed
from strongroom.query import results
from strongroom.query.engine import Answer, Reading
from strongroom.query.errors import ParameterInvalid, QueryBusy, QueryFailed, QueryRefused
from strongroom.query.questions.prepared import Prepared
from strongroom.service.acts import act
from strongroom.service.answers import compression
from strongroom.service.errors import NotAcceptable
from strongroom.service.tokens import Principal

if TYPE_CHECKING:  # a node has jobs, which answer for it
    from strongroom.service.node import Node

# Media type -> the engine's name of the format. The first is the default.
FORMATS = {content_type.partition(";")[0]: name for name, content_type in results.CONTENT_TYPES.items()}
OPENAPI_CONTENT: Mapping[str, Any] = {media: {} for media in FORMATS}

PATIENCE_SECONDS = 0.5
DOCUMENT_BYTES = 64 << 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: as the audit names him, and as the engine counts his places. `gone` returns when he has hung up."""

    label: str
    role: str
    address: str
    token: str
    gone: Callable[[], Awaitable[None]] | None = None

    @classmethod
    def of(cls, request: Request, principal: Principal) -> Asker:
        """The bearer of the request's token, at the address the socket says."""
        address = request.client.host if request.client else ""
        return cls(principal.label, principal.role, address, principal.token, partial(_gone, request))


class Rows(msgspec.Struct, frozen=True):
    """A whole answer in memory, as the engine's JSON gives it."""

    columns: list[dict[str, str]]
    rows: list[list[Any]]
    truncated: str | None

    def named(self) -> list[dict[str, Any]]:
        """Each row as an object."""
        names = [column["name"] for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]


_rows = msgspec.json.Decoder(Rows)


class Asking:
    """One question of one person. `begin` records it; run it once; every way it can end is recorded."""

    def __init__(
        self, node: Node, asker: Asker, action: str, target: str, size: int, id: str, unsealed: Unsealed | None
    ) -> None:
        self._node, self._asker, self._action, self._target = node, asker, action, target
        self._id, self._unsealed = id, unsealed
        self._begun = perf_counter()
        self.size = size

    @classmethod
    async def begin(
        cls,
        node: Node,
        asker: Asker,
        action: str,
        *,
        target: str = "",
        as_of: int | None = None,
        unsealed: bool = False,
        **facts: Any,
    ) -> Asking:
        """Follow the log, choose the snapshot, record the question. Raises what keeps it from being recorded.

        `unsealed`: what is acknowledged by now and not sealed is to be read, too. Raises ParameterInvalid with `as_of`.
        """
        if unsealed and as_of is not None:
            raise ParameterInvalid(
                "what is not sealed is in no earlier snapshot", hint="leave out `unsealed`, or `as_of` and `cursor`"
            )
        await node.engine.refresh()
        beyond = await node.intake.unsealed() if unsealed else None
        size = beyond.size if beyond is not None else node.log.size if as_of is None else as_of
        facts |= {"unsealed": True} if unsealed else {}
        asked = act(
            action,
            actor=asker.label,
            role=asker.role,
            address=asker.address,
            outcome="started",
            target=target,
            snapshot=size,
            **facts,
        )
        try:
            await node.audit.record(asked)
        except BaseException:
            if beyond is not None:
                beyond.close()
            raise
        return cls(node, asker, action, target, size, asked.id, beyond)

    async def run(
        self,
        question: Prepared,
        *,
        format: str,
        limit: int | None,
        user: str = "",
        seconds: float | None = None,
        patient: bool = False,
    ) -> Answer:
        """Start the question on its snapshot. `patient`: nobody holds a connection for it, it waits for a place.

        A question whose asker hangs up before its first rows is ended. Raises what the engine raises, recorded.
        """
        ask = partial(
            self._node.engine.run,
            question.sql,
            question.parameters,
            format=format,
            user=user or self._asker.token,
            limit=limit,
            as_of=self.size,
            narrowing=question.narrowing,
            seconds=seconds,
            unsealed=self._unsealed,
        )
        try:
            if patient:
                return await _once_there_is_a_place(ask)
            return await _unless_gone(ask, self._asker.gone)
        except BaseException as error:
            self.failed(error)
            raise

    @property
    def stated(self) -> dict[str, str]:
        """What was read beside the snapshot, as headers; none when that was not asked for. Known once it runs."""
        beyond = self._unsealed
        if beyond is None:
            return {}
        return {
            "Strongroom-Unsealed-Batches": str(beyond.read),
            "Strongroom-Unsealed-Left-Out": str(beyond.left_out),
        }

    @property
    def basis(self) -> dict[str, Any]:
        """The same, as members of a JSON answer."""
        beyond = self._unsealed
        return {} if beyond is None else {"unsealed": {"batches": beyond.read, "left_out": beyond.left_out}}

    async def rows(self, question: Prepared, *, limit: int) -> tuple[Answer, Rows]:
        """Run the question to its end, for an answer of ours that is made of its rows. Does not record success."""
        answer = await self.run(question, format="json", limit=limit)
        try:
            body = bytearray()
            async for chunk in answer.body:
                body += chunk
                if len(body) > DOCUMENT_BYTES:
                    raise QueryRefused(
                        f"the answer is larger than {DOCUMENT_BYTES >> 20} MiB",
                        hint="ask for fewer rows, or in another format, which comes as a stream",
                    )
            outcome = await answer.finished
            if outcome.error is not None:
                raise outcome.error
            return answer, _rows.decode(body)
        except BaseException as error:
            self.failed(error)
            raise
        finally:
            await answer.body.aclose()

    async def estimate(self, question: Prepared) -> Reading:
        """What `run` would read, read from nothing but indexes. Raises what the engine raises, recorded."""
        ask = partial(
            self._node.engine.estimate,
            question.sql,
            question.parameters,
            user=self._asker.token,
            as_of=self.size,
            narrowing=question.narrowing,
        )
        try:
            return await _unless_gone(ask, self._asker.gone)
        except BaseException as error:
            self.failed(error)
            raise

    async def stream(self, answer: Answer) -> AsyncIterator[bytes]:
        """The answer's body; when it ends, in whatever way, its outcome is recorded and its place freed."""
        try:
            async for chunk in answer.body:
                yield chunk
            outcome = await answer.finished
            if outcome.error is not None:
                raise outcome.error  # it was closed for being read too slowly: what was sent is not the whole answer
        except BaseException as error:
            # The status is out already: a broken connection is what tells the client that the answer is not whole.
            self.failed(error)
            raise
        finally:
            await answer.body.aclose()
        self.succeeded(rows=outcome.rows, bytes=outcome.bytes, truncated=outcome.truncated)

    def succeeded(self, **facts: Any) -> None:
        """Record that it was answered."""
        self._conclude("success", **facts)

    def failed(self, error: BaseException) -> None:
        """Record that it was not."""
        self._conclude("failure", error=getattr(error, "code", type(error).__name__), message=str(error))

    def _conclude(self, outcome: str, **facts: Any) -> None:
        asker = self._asker
        if self._unsealed is not None:
            self._unsealed.close()
        seconds = f"{perf_counter() - self._begun:.3f}"
        self._node.audit.record_soon(
            act(
                self._action,
                actor=asker.label,
                role=asker.role,
                address=asker.address,
                outcome=outcome,
                target=self._target,
                id=self._id,
                seconds=seconds,
                **facts,
            )
        )


async def _once_there_is_a_place(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    while True:
        with contextlib.suppress(QueryBusy):
            return await ask()
        await asyncio.sleep(PATIENCE_SECONDS)


async def _unless_gone(ask: Callable[[], Coroutine[Any, Any, T]], gone: Callable[[], Awaitable[None]] | None) -> T:
    """The answer; a question that nobody waits for any more is ended, which frees its place, in the line too."""
    if gone is None:
        return await ask()
    running, leaving = asyncio.create_task(ask()), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({running, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)  # the answer itself watches the connection from here on
        in_time = running.done()
        if not in_time:
            running.cancel()
            (late,) = await asyncio.gather(running, return_exceptions=True)
            if isinstance(late, Answer):
                await late.body.aclose()
    if not in_time:
        raise QueryFailed("whoever asked has hung up")
    return running.result()


async def _gone(request: Request) -> None:
    """Returns when the client has hung up; its body must have been read, or be none."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def negotiate(accept: str) -> str:
    """The format of the first media range that names one (weights aside: nobody needs them here)."""
    for offer in accept.lower().split(","):
        media = offer.partition(";")[0].strip()
        if media in FORMATS:
            return FORMATS[media]
        if media in ("*/*", "application/*", ""):
            return "json"
        if media == "text/*":
            return "csv"
    raise NotAcceptable(f"no format among {accept}", hint=f"there is {', '.join(FORMATS)}")


def stated(answer: Answer) -> dict[str, str]:
    """What an answer rests on, as headers."""
    return {
        "Strongroom-Snapshot-Size": str(answer.snapshot.size),
        "Strongroom-Snapshot-Root": answer.snapshot.root,
        "Strongroom-Segments": str(answer.reading.read),
        "Strongroom-Segments-Pruned": str(answer.reading.pruned),
        "Strongroom-Verified": "true",
        "Cache-Control": "no-store",
    }


def basis(answer: Answer, *, names: bool = False) -> dict[str, Any]:
    """What an answer rests on, as members of a JSON answer."""
    reading = answer.reading
    read: dict[str, Any] = {"total": reading.total, "read": reading.read, "bytes": reading.bytes, "verified": True}
    if names:
        read["names"] = list(answer.segments)
    return {"snapshot": {"size": answer.snapshot.size, "root": answer.snapshot.root}, "segments": read}


def streamed(
    request: Request, body: AsyncIterator[bytes], content_type: str, headers: Mapping[str, str]
) -> StreamingResponse:
    """A streamed answer, compressed when the client likes and the format is not compressed already."""
    sent = dict(headers) | {"Vary": "Accept, Accept-Encoding"}
    coding = compression.coding_of(request.headers.get("Accept-Encoding", ""))
    if coding and content_type != results.CONTENT_TYPES["parquet"]:
        body = compression.compressed(body, coding)
        sent["Content-Encoding"] = coding
    return StreamingResponse(body, headers=sent, media_type=content_type)


def answered(
    request: Request,
    asking: Asking,
    answer: Answer,
    format: str,
    *,
    headers: Mapping[str, str] = MappingProxyType({}),
    members: Mapping[str, Any] = MappingProxyType({}),
) -> StreamingResponse:
    """Rows as they come, what they rest on in headers; `members`, and what was unsealed, begin a JSON answer."""
    body = asking.stream(answer)
    if format == "json":
        body = _with_members(body, {**members, **asking.basis})
    return streamed(request, body, answer.content_type, {**stated(answer), **asking.stated, **headers})


async def _with_members(body: AsyncIterator[bytes], members: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """A JSON answer that begins with more members."""
    before = msgspec.json.encode(members) if members else b""
    async for chunk in body:
        yield before[:-1] + b"," + chunk[1:] if before else chunk
        before = b""
