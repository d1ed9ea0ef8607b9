"""Slow senders, slow disks, a token's limits, and the client that keeps its data only on a broken connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from strongroom.ingest.intake import Accepted
from strongroom.service.app import create_app
from strongroom.service.node import Node
from strongroom.service.receiving import reception
from strongroom.service.receiving.connections import ABORT
from strongroom.service.routes.push import elastic
from strongroom.service.settings import load
from tests.pushed import captured

Use = Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]


class House:
    """The application in this process, under settings of a test's own."""

    def __init__(self, folder: Path, **settings: object) -> None:
        places = {"archive": folder / "archive", "state": folder / "state", "verify_schedule": "outside"}
        self.node = Node(load(overrides={**places, **settings}))
        self.app = create_app(self.node)
        made = self.node.tokens.create("forwarder", name="sender", now=datetime.now(UTC), sources=["*"])
        self.headers = {"authorization": f"Bearer {made[1]}"}

    def use(self, use: Use, *, started: bool = True) -> None:
        async def run() -> None:
            if started:
                await self.node.start()
            try:
                transport = httpx.ASGITransport(self.app)
                async with httpx.AsyncClient(
                    transport=transport, base_url="http://x", headers=self.headers, timeout=30
                ) as client:
                    await use(client)
            finally:
                if started:
                    await self.node.stop()

        asyncio.run(run())


def test_a_body_that_never_ends_is_cut_off_and_leaves_nothing(tmp_path: Path) -> None:
    house = House(tmp_path, body_seconds=0.3)

    async def use(client: httpx.AsyncClient) -> None:
        async def slowly() -> AsyncIterator[bytes]:
            for _ in range(8):
                yield b"{"
                await asyncio.sleep(0.1)

        for path in ("/v1/ingest/json", "/v1/logs", "/services/collector", "/upload"):
            answer = await client.post(path, content=slowly())
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), path
        assert house.node.intake.counters().received_batches == 0

    house.use(use)


def test_the_answer_comes_in_time_also_when_the_disk_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path)
    monkeypatch.setattr(reception, "ANSWER_SECONDS", 0.2)

    async def stuck(chunks: AsyncIterator[bytes], **_: Any) -> Accepted:
        async for _chunk in chunks:
            pass
        await asyncio.sleep(60)
        raise AssertionError("it was not waited for")

    async def use(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr(house.node.intake, "receive", stuck)
        begun = time.monotonic()
        answer = await client.post("/services/collector", content=b'{"event":1}')
        assert (answer.status_code, answer.json()["code"]) == (503, 9)
        assert time.monotonic() - begun < 3

    house.use(use)


def test_a_flood_of_one_token_does_not_starve_another(tmp_path: Path) -> None:
    house = House(tmp_path, token_uploads=2)
    other = house.node.tokens.create("forwarder", name="other", now=datetime.now(UTC), sources=["json"])[1]

    async def use(client: httpx.AsyncClient) -> None:
        hold = asyncio.Event()

        async def held() -> AsyncIterator[bytes]:
            yield b'{"a":1}'
            await hold.wait()

        flood = [asyncio.create_task(client.post("/v1/ingest/json", content=held())) for _ in range(2)]
        await asyncio.sleep(0.2)
        refused = await client.post("/v1/ingest/json", content=b'{"a":1}')
        assert (refused.status_code, refused.json()["code"]) == (503, "limit-reached")
        assert int(refused.headers["retry-after"]) >= 1
        headers = {"authorization": f"Bearer {other}"}
        assert (await client.post("/v1/ingest/json", content=b'{"b":1}', headers=headers)).status_code == 200
        hold.set()
        assert [answer.status_code for answer in await asyncio.gather(*flood)] == [200, 200]

    house.use(use)


def test_rsyslog_gets_a_broken_connection_where_others_get_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elastic, "_RESET_SECONDS", 0.0)
    house = House(tmp_path)
    aborted: list[str] = []
    inner = house.app

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scope[ABORT] = lambda: aborted.append(scope["path"])
        await inner(scope, receive, send)

    house.app = app  # type: ignore[assignment]
    said = {name: captured(name).headers | house.headers for name in ("rsyslog_es-bulk", "syslog-ng_es-bulk")}

    async def use(client: httpx.AsyncClient) -> None:
        client.headers.pop("user-agent")
        for name, headers in said.items():
            answer = await client.post("/_bulk", content=captured(name).body, headers=headers)
            assert answer.status_code == 503  # the node was never started
            assert aborted == ["/_bulk"]  # of the first, which is rsyslog's

    house.use(use, started=False)
    assert aborted == ["/_bulk"]


def test_what_nobody_foresaw_is_503_in_the_protocols_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path)

    async def broken(chunks: AsyncIterator[bytes], **_: Any) -> Awaitable[Accepted]:
        raise ZeroDivisionError

    async def use(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr(house.node.intake, "receive", broken)
        for path, kind in (
            ("/v1/ingest/json", "application/problem+json"),
            ("/v1/logs", "application/x-protobuf"),
            ("/services/collector", "application/json"),
            ("/elastic/_bulk", "application/json"),
            ("/loki/api/v1/push", "text/plain; charset=utf-8"),
            ("/upload", "text/plain; charset=utf-8"),
        ):
            answer = await client.post(path, content=b"{}")
            assert (answer.status_code, answer.headers["content-type"]) == (503, kind), path
            assert answer.headers["retry-after"] == "5"

    house.use(use)
