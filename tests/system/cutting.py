"""A proxy between a forwarder and the service that cuts connections: also before the answer to what is durable."""

from __future__ import annotations

import asyncio
import random
import threading


class CuttingProxy:
    """Listens on a free port of loopback in a thread of its own; cuts every `every`-th answer, on average."""

    def __init__(self, target: int, every: int = 25) -> None:
        self.cuts = 0
        self._target = target
        self._every = every
        self._chance = random.Random(7)
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        ready = threading.Event()
        threading.Thread(target=self._run, args=(ready,), daemon=True).start()
        ready.wait(10)
        assert self._server is not None
        self.port = int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        ready.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        both = [
            asyncio.create_task(self._pass(reader, inner_writer, cutting=False)),
            asyncio.create_task(self._pass(inner_reader, writer, cutting=True)),
        ]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        for end in (writer, inner_writer):
            end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, cutting: bool) -> None:
        try:
            while data := await reader.read(1 << 16):
                if cutting and b"100 Continue" not in data[:40] and self._chance.random() < 1 / self._every:
                    self.cuts += 1
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            return
