"""The end of a pipe: what comes is read as it comes, and waiting for it ends whatever happens."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from strongroom.query.process.incoming import Incoming

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def run(scene: Callable[[Incoming, int], Coroutine[Any, Any, None]], loop: Any) -> None:
    here, there = os.pipe()
    incoming = Incoming(here)
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(asyncio.wait_for(scene(incoming, there), 10))
    finally:
        incoming.close()
        os.close(there)


@pytest.mark.parametrize("loop", LOOPS)
def test_more_than_a_pipe_holds(loop: Any) -> None:
    content = os.urandom(300_000)

    async def scene(incoming: Incoming, there: int) -> None:
        def write() -> None:
            left = memoryview(content)
            while left:
                left = left[os.write(there, left) :]

        writing = asyncio.create_task(asyncio.to_thread(write))
        got = await incoming.exactly(200_000)
        while len(got) < len(content):
            part = await incoming.some(70_000)
            assert 0 < len(part) <= 70_000
            got += part
        assert got == content
        await writing

    run(scene, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_who_waits_meets_the_end_when_it_is_closed(loop: Any) -> None:
    async def scene(incoming: Incoming, there: int) -> None:
        waiting = asyncio.create_task(incoming.some(1))
        await asyncio.sleep(0.01)
        incoming.close()
        taken = os.open(os.devnull, os.O_RDONLY)  # the number is another file's now: nobody may read or watch it
        with pytest.raises(EOFError):
            await waiting
        with pytest.raises(EOFError):
            await incoming.some(1)
        os.close(taken)

    run(scene, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_who_gives_up_waiting_loses_nothing(loop: Any) -> None:
    async def scene(incoming: Incoming, there: int) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(incoming.some(1), 0.01)
        os.write(there, b"abc")
        assert await incoming.exactly(3) == b"abc"

    run(scene, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_end_in_the_middle_is_an_error(loop: Any) -> None:
    async def scene(incoming: Incoming, there: int) -> None:
        os.write(there, b"abc")
        reading = asyncio.create_task(incoming.exactly(4))
        await asyncio.sleep(0.01)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, there)  # the writing end is gone
        os.close(null)
        with pytest.raises(EOFError):
            await reading

    run(scene, loop)
