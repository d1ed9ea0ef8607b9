"""Read a refused body to its end before answering.

A client that is still sending when the answer comes may see a reset instead of the status, and then drops or retries
at random. So every answer of 400 and above waits until the body was read, up to a bound in bytes and time; beyond the
bound the connection is closed after the answer. Plain ASGI: a middleware that buffers would break streaming.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATIENCE_SECONDS = 20.0


class Drain:
    """ASGI middleware; `cap` is the most bytes read and thrown away for one refusal."""

    def __init__(self, app: ASGIApp, cap: int) -> None:
        self._app = app
        self._cap = cap

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        ended = False

        async def watched() -> Message:
            nonlocal ended
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                ended = True
            return message

        async def drained(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400 and not ended:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(_discard(watched, self._cap), PATIENCE_SECONDS)
                if not ended:
                    message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
            await send(message)

        await self._app(scope, watched, drained)


async def _discard(receive: Receive, cap: int) -> None:
    """Read until the body ends, the client leaves, or `cap` bytes were thrown away."""
    while cap > 0:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
        cap -= len(message.get("body", b""))
