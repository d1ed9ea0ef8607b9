"""uvicorn's HTTP protocol, with what it leaves open: a time for the head of a request, and a way to break off.

uvicorn waits for ever for a request to begin and for its head to end. Here a connection whose next request's head is
not complete in time is closed, so that a thousand silent connections hold nothing for longer than that. (The body has
its own time: reception.py. The pause between two requests has uvicorn's.)

`scope["strongroom.abort"]` closes the connection without an answer, for the few clients that keep their data only then.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

ABORT = "strongroom.abort"


def bounded(head_seconds: float) -> type[HttpToolsProtocol]:
    """The protocol class for uvicorn's setting `http`."""

    class Bounded(HttpToolsProtocol):
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._wait_no_longer()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.scope[ABORT] = self.transport.abort  # type: ignore[literal-required]
            if self._waiting is None:
                self._wait()

        def on_headers_complete(self) -> None:
            self._wait_no_longer()
            super().on_headers_complete()

        def _wait(self) -> None:
            self._waiting = self.loop.call_later(head_seconds, self.transport.abort)

        def _wait_no_longer(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

    return Bounded
