"""A bad day between an S3 client and its server: an HTTP proxy of the tests' own that loses, delays and refuses.

    with FaultProxy("http://127.0.0.1:5000", Odds(seed=7, slow_down=0.05, lost_answer=0.02)) as proxy:
        store = S3Store(…, endpoint_url=proxy.url)
        proxy.next("lost-answer", method="PUT", path="log/entry/")      # the next such request, for certain
        proxy.odds = CALM                                                # from now on

What can happen to a request:

    slow-down, error    503 SlowDown or 500 InternalError; the server never saw it
    lost-request        the connection is cut; the server never saw it
    lost-answer         the server did it; the connection is cut before the answer
    wrong-error         the server did it; the client is told 500
    half-answer         the server did it; the connection is cut in the middle of the answer's body
    half-head           the server did it; the connection is cut somewhere in the answer's headers, before they say how
                        long the body is (TLS, which real endpoints have, does not let that pass unnoticed)
    stall               nothing for `stall_seconds`, then a cut; the server never saw it
    late                the client is cut off, and the server gets the request `late_seconds` after that: a write
                        that everybody gave up and that comes true all the same

One request a connection, in both directions: slower than life, and no request depends on another one's fate.
Conditional writes go to the server one at a time: moto looks first and then writes, where S3 does both at once.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal
from urllib.parse import unquote, urlsplit

Fault = Literal[
    "slow-down",
    "error",
    "lost-request",
    "lost-answer",
    "wrong-error",
    "half-answer",
    "half-head",
    "stall",
    "late",
    "none",
]
_BEFORE = {"slow-down", "error", "lost-request", "stall", "late"}
_REFUSALS = {"slow-down": (503, "SlowDown"), "error": (500, "InternalError"), "wrong-error": (500, "InternalError")}


@dataclass(frozen=True, slots=True)
class Odds:
    """How likely each fault is for a request, and up to how many seconds every request is delayed."""

    seed: int = 0
    slow_down: float = 0.0
    error: float = 0.0
    lost_request: float = 0.0
    lost_answer: float = 0.0
    wrong_error: float = 0.0
    half_answer: float = 0.0
    half_head: float = 0.0
    stall: float = 0.0
    late: float = 0.0
    latency_seconds: float = 0.0
    stall_seconds: float = 3.0
    late_seconds: float = 0.5

    def draw(self, chance: random.Random) -> Fault:
        """One request's fate."""
        left = chance.random()
        fates: Iterator[tuple[Fault, float]] = iter(
            (
                ("slow-down", self.slow_down),
                ("error", self.error),
                ("lost-request", self.lost_request),
                ("lost-answer", self.lost_answer),
                ("wrong-error", self.wrong_error),
                ("half-answer", self.half_answer),
                ("half-head", self.half_head),
                ("stall", self.stall),
                ("late", self.late),
            )
        )
        for fault, likely in fates:
            if left < likely:
                return fault
            left -= likely
        return "none"


CALM = Odds()


@dataclass(frozen=True, slots=True)
class _Planned:
    fault: Fault
    method: str
    path: str


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    data: bytes
    """Head and body as they go to the server."""
    conditional: bool


class FaultProxy:
    """A proxy on a free loopback port, in a thread of its own. Use as a context manager."""

    def __init__(self, upstream: str, odds: Odds = CALM) -> None:
        address = urlsplit(upstream)
        self._upstream = (address.hostname or "127.0.0.1", address.port or 80)
        self.odds = odds
        self.done: Counter[str] = Counter()
        self.requests: list[tuple[str, str]] = []
        self._chance = random.Random(odds.seed)
        self._planned: list[_Planned] = []
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.WriteTransport] = set()
        self._one_at_a_time = asyncio.Lock()
        self.port = 0
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.port}"

    def next(self, fault: Fault, *, method: str = "", path: str = "") -> None:
        """Do this to the next request whose method is `method` and whose path contains `path`."""
        with self._lock:
            self._planned.append(_Planned(fault, method, path))

    def calm(self) -> None:
        """No more faults, and no delay."""
        with self._lock:
            self._planned.clear()
            self.odds = replace(CALM, seed=self.odds.seed)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._loop.set_exception_handler(lambda *_: None)  # requests that the end cuts off are nobody's concern
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    def _fate(self, request: _Request) -> Fault:
        with self._lock:
            self.requests.append((request.method, request.path))
            for planned in self._planned:
                if planned.method in ("", request.method) and planned.path in request.path:
                    self._planned.remove(planned)
                    return planned.fault
            return self.odds.draw(self._chance)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer.transport)
        try:
            request = await _read(reader, writer)
            if request is not None:
                await self._answer(request, writer)
        except (OSError, EOFError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._open.discard(writer.transport)
            writer.close()

    async def _answer(self, request: _Request, writer: asyncio.StreamWriter) -> None:
        fault, odds = self._fate(request), self.odds
        self.done[fault] += 1
        if odds.latency_seconds:
            await asyncio.sleep(self._chance.uniform(0, odds.latency_seconds))
        if fault == "stall":
            await asyncio.sleep(odds.stall_seconds)
        elif fault == "late":
            task = asyncio.ensure_future(self._late(request, odds.late_seconds))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        answer = b"" if fault in _BEFORE else await self._ask(request)
        if fault in _REFUSALS:
            answer = _refusal(*_REFUSALS[fault], head_only=request.method == "HEAD")
        elif fault == "half-answer":
            head, body = (len(part) for part in answer.partition(b"\r\n\r\n")[::2])
            answer = answer[: head + 4 + body // 2] if body else b""
        elif fault == "half-head":
            status, told = answer.index(b"\r\n"), answer.lower().find(b"\r\ncontent-length:")
            answer = answer[: self._chance.randrange(status, max(status, told) + 2)]
        elif fault == "lost-answer":
            answer = b""
        if not answer:
            writer.transport.abort()  # a reset, as from a machine that died
            return
        writer.write(answer)
        await writer.drain()

    async def _late(self, request: _Request, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._ask(request)

    async def _ask(self, request: _Request) -> bytes:
        """The server's whole answer, or nothing when it can't be reached."""
        if request.conditional:
            async with self._one_at_a_time:
                return await self._forward(request)
        return await self._forward(request)

    async def _forward(self, request: _Request) -> bytes:
        try:
            reader, writer = await asyncio.open_connection(*self._upstream)
            try:
                writer.write(request.data)
                await writer.drain()
                return await reader.read(-1)
            finally:
                writer.close()
        except OSError:
            return b""


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Request | None:
    """One request, with its body, to be sent on with `Connection: close`."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head[:-4].split(b"\r\n")
    method, target, _ = first.decode().split(" ", 2)
    kept, length, chunked, conditional = [first], 0, False, False
    for line in lines:
        name, _, value = line.partition(b":")
        match name.strip().lower():
            case b"expect":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await writer.drain()
                continue
            case b"connection":
                continue
            case b"if-none-match":
                conditional = True
            case b"content-length":
                length = int(value)
            case b"transfer-encoding":
                chunked = b"chunked" in value.lower()
        kept.append(line)
    kept.append(b"Connection: close")
    body = await _chunks(reader) if chunked else await reader.readexactly(length)
    return _Request(method, unquote(target), b"\r\n".join(kept) + b"\r\n\r\n" + body, conditional)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """A chunked body as it came, trailers included."""
    body = b""
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        body += line
        if size == 0:
            break
        body += await reader.readexactly(size + 2)
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        body += line
    return body + line


def _refusal(status: int, code: str, *, head_only: bool) -> bytes:
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(text)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + (b"" if head_only else text)
