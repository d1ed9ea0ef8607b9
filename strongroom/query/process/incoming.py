"""The server's end of the pipe on which a process answers, read without a copy of what is read.

asyncio's own reader gathers what comes in one buffer and copies it out again. Here bytes go from the kernel into the
object that is handed on, and to nowhere else. Nothing is read ahead: what nobody asked for stays in the pipe, which is
of a fixed size, so a slow reader stops whoever writes.
"""

from __future__ import annotations

import asyncio
import os


class Incoming:
    """The reading end `descriptor`, which it owns and closes. One reader at a time, in one event loop."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor: int | None = descriptor
        self._ready: asyncio.Future[None] | None = None

    async def some(self, most: int) -> bytes:
        """What is there, `most` bytes at most, once there is something. Raises EOFError at the end and when closed."""
        while self._descriptor is not None:
            try:
                content = os.read(self._descriptor, most)
            except BlockingIOError:
                await self._readable(self._descriptor)
                continue
            if not content:
                break
            return content
        raise EOFError

    async def exactly(self, count: int) -> bytes:
        """The next `count` bytes. Raises EOFError when it ends before."""
        parts: list[bytes] = []
        while count:
            parts.append(await self.some(count))
            count -= len(parts[-1])
        return b"".join(parts)

    def close(self) -> None:
        """Any number of times. Who waits meets the end."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        if self._ready is not None:
            self._ready.get_loop().remove_reader(descriptor)
            if not self._ready.done():
                self._ready.set_result(None)
        os.close(descriptor)

    async def _readable(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        self._ready = ready = loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_reader(descriptor, wake)
        try:
            await ready
        finally:
            if self._descriptor is not None:  # else `close` has done it, and the number may be another file's
                loop.remove_reader(descriptor)
            self._ready = None
