"""Stopping in order: what a command does when it is told to end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def on_signal(stop: Callable[[], object]) -> None:
    """Call `stop` in the running loop at the first SIGTERM or SIGINT; the next one ends the process as usual."""
    loop = asyncio.get_running_loop()

    def once() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        stop()

    for number in _SIGNALS:
        with suppress(RuntimeError, ValueError, NotImplementedError):  # not in the main thread: somebody else's loop
            loop.add_signal_handler(number, once)
