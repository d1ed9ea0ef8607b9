"""The service's side of timestamps, with an authority of its own on loopback: openssl behind HTTP."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from strongroom.archive import keys, layout, timestamps
from strongroom.archive.entry import Draft, WriterRange
from strongroom.archive.log import Log
from strongroom.archive.policy import Policy
from strongroom.archive.signer import Signer
from strongroom.archive.stores import DirectoryStore
from strongroom.archive.trust import Trust
from strongroom.archive.verification.verify import verify
from strongroom.service.errors import TimestampRefused
from strongroom.service.proving.timestamping import Timestamping
from tests.archive.conftest import NOW, ORIGIN
from tests.archive.test_timestamps import Authority

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


class Tsa(ThreadingHTTPServer):
    """Answers RFC 3161 requests; `spoil` changes what it answers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.authority = Authority(folder)
        self.asked = 0
        self.spoil: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/tsa"


class Handler(BaseHTTPRequestHandler):
    server: Tsa

    def do_POST(self) -> None:
        self.server.asked += 1
        assert self.headers["Content-Type"] == timestamps.QUERY_TYPE
        reply = self.server.authority.stamp(self.rfile.read(int(self.headers["Content-Length"])))
        status, reply = self.server.spoil(reply) if self.server.spoil else (200, reply)
        self.send_response(status)
        self.send_header("Content-Type", timestamps.REPLY_TYPE)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def tsa(tmp_path: Path) -> Iterator[Tsa]:
    (tmp_path / "tsa").mkdir()
    server = Tsa(tmp_path / "tsa")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class Growing:
    """A small log with its signer."""

    def __init__(self, folder: Path) -> None:
        self.signers = keys.generate(ORIGIN)
        self.store = DirectoryStore(folder / "archive", create=True)
        self.log = Log.create(self.store, ORIGIN, [signer.key.vkey() for signer in self.signers], NOW)
        self.signer = Signer(self.store, self.signers, folder / "signer.json")
        self.grow()

    def grow(self) -> int:
        self.log.append(Draft("heartbeat", NOW, writer=WriterRange("w1", 1, 0, -1)))
        return self.signer.sign().size


def test_checkpoints_are_stamped_kept_and_verified_without_the_authority(tmp_path: Path, tsa: Tsa) -> None:
    growing = Growing(tmp_path)
    stamping = Timestamping(growing.store, growing.log, tsa.url, tsa.authority.roots, 3600)

    async def stamp() -> int | None:
        async with httpx.AsyncClient() as client:
            return await stamping.stamp(client)

    assert asyncio.run(stamp()) == growing.log.size
    assert asyncio.run(stamp()) is None, "nothing new to stamp"
    size = growing.grow()
    assert asyncio.run(stamp()) == size
    assert tsa.asked == 2
    trust = Trust(Policy(tuple(s.key for s in growing.signers)), tsa_roots=tsa.authority.roots)
    tsa.shutdown()
    report = verify(growing.store, trust, "quick")
    assert report.sound
    assert any(note.startswith(f"newest timestamp: size {size} at ") for note in report.notes)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda reply: (200, reply[:-20]),
        lambda reply: (200, b"\x30\x03\x02\x01\x02"),
        lambda reply: (500, b""),
        lambda reply: (200, b"x" * (1 << 20)),
    ],
    ids=["cut", "rejection", "error", "flood"],
)
def test_what_does_not_hold_is_not_kept(tmp_path: Path, tsa: Tsa, spoil: Any) -> None:
    growing = Growing(tmp_path)
    tsa.spoil = spoil
    stamping = Timestamping(growing.store, growing.log, tsa.url, tsa.authority.roots, 3600)

    async def stamp() -> None:
        async with httpx.AsyncClient() as client:
            await stamping.stamp(client)

    with pytest.raises(TimestampRefused):
        asyncio.run(stamp())
    assert list(growing.store.list(layout.TIMESTAMPS)) == []


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError


def test_an_authority_that_is_down_is_counted_and_asked_again(
    tmp_path: Path, tsa: Tsa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.service.proving.timestamping._FIRST_PAUSE_SECONDS", 0.05)
    growing = Growing(tmp_path)
    tsa.spoil = lambda reply: (503, b"")
    stamping = Timestamping(growing.store, growing.log, tsa.url, tsa.authority.roots, 0.2)

    async def main() -> None:
        task = asyncio.create_task(stamping.run())
        await until(lambda: stamping.failures >= 2)
        assert "503" in stamping.problem
        tsa.spoil = None
        await until(lambda: stamping.size > 0)
        task.cancel()

    asyncio.run(main())
    assert stamping.problem == ""
    again = Timestamping(growing.store, growing.log, tsa.url, tsa.authority.roots, 3600)
    again._recall()
    assert (again.size, again.stated) == (stamping.size, stamping.stated)
    assert 3500 < again._still_fresh() <= 3600, "a restart does not ask again at once"
