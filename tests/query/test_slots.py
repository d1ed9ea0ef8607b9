"""The line for queries: users take turns, nobody starves, and who leaves takes nothing with him."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.query.errors import QueryBusy
from strongroom.query.limits import QueryLimits
from strongroom.query.slots import Slots


def slots_of(concurrency: int, per_user: int, *, queued: int = 100, each: int = 100, seconds: float = 60.0) -> Slots:
    limits = QueryLimits(
        concurrency=concurrency, per_user=per_user, queued=queued, queued_per_user=each, queue_seconds=seconds
    )
    return Slots(limits)


def is_as_new(slots: Slots, concurrency: int) -> bool:
    return (slots._free, slots._running, slots._line) == (concurrency, {}, {})


@given(
    concurrency=st.integers(1, 3),
    per_user=st.integers(1, 3),
    steps=st.lists(st.tuples(st.sampled_from(["ask", "ask", "end", "leave", "race"]), st.integers(0, 99)), max_size=60),
)
@settings(max_examples=150, deadline=None)
def test_users_take_turns_and_nothing_is_lost(concurrency: int, per_user: int, steps: list[tuple[str, int]]) -> None:
    slots = slots_of(concurrency, per_user)
    running: list[tuple[str, ExitStack]] = []
    waiting: list[tuple[str, asyncio.Task[None]]] = []
    # Who was served since a user began to wait, or was served himself, while there was a place for one more of his.
    passed: dict[str, list[str]] = {}

    async def query(user: str) -> None:
        place = await slots.take(user)
        stack = ExitStack()
        stack.enter_context(place)
        running.append((user, stack))
        for other in passed:
            if sum(name == other for name, _ in running) < per_user:
                passed[other].append(user)
        passed.pop(user, None)
        if any(name == user for name, task in waiting if task is not asyncio.current_task()):
            passed[user] = []

    async def settle() -> None:
        for _ in range(8):
            await asyncio.sleep(0)
        waiting[:] = [(user, task) for user, task in waiting if not task.done()]
        for user in set(passed) - {user for user, _ in waiting}:
            del passed[user]  # all of his have left
        names = [user for user, _ in running]
        assert len(names) <= concurrency
        assert all(names.count(user) <= per_user for user in names)
        able = [user for user, _ in waiting if names.count(user) < per_user]
        assert not able or len(names) == concurrency, "a place is free, and somebody could have it"
        for user, served in passed.items():
            assert len(served) == len(set(served)), f"{user} was overtaken: {served}"

    async def scene() -> None:
        for step, number in steps:
            if step == "ask":
                user = "abcd"[number % 4]
                if not any(name == user for name, _ in waiting):
                    passed[user] = []
                waiting.append((user, asyncio.create_task(query(user))))
            elif step == "leave" and waiting:
                waiting[number % len(waiting)][1].cancel()
            elif step == "end" and running:
                running.pop(number % len(running))[1].close()
            elif step == "race" and running and waiting:  # a place is given and its taker leaves, in one breath
                at_once: list[Callable[[], object]] = [
                    running.pop(number % len(running))[1].close,
                    waiting[0][1].cancel,
                ]
                for act in at_once if number % 2 else reversed(at_once):
                    act()
                passed.clear()  # the user who left may have had his turn
            await settle()
        while running or waiting:  # nobody starves: as places get free, everybody comes to his turn
            assert running, "nobody runs, and somebody waits"
            running.pop()[1].close()
            await settle()
        assert is_as_new(slots, concurrency)

    asyncio.run(scene())


def test_sixteen_users_are_served_in_turn_beside_one_who_asks_for_everything() -> None:
    slots, served = slots_of(4, 2), []

    async def query(user: str) -> None:
        with await slots.take(user):
            served.append(user)
            await asyncio.sleep(random.Random(len(served)).random() / 1000)

    async def scene() -> None:
        greedy = [asyncio.create_task(query("greedy")) for _ in range(50)]
        await asyncio.sleep(0)
        async with asyncio.TaskGroup() as group:
            for number in range(16):
                for _ in range(2):
                    group.create_task(query(f"user {number}"))
        await asyncio.gather(*greedy)
        assert is_as_new(slots, 4)

    asyncio.run(scene())
    assert len(served) == 50 + 16 * 2
    last = max(place for place, user in enumerate(served) if user != "greedy")
    assert served[:last].count("greedy") <= 2 + 2  # what ran before they came, and once for each of anybody's two


def test_line_and_wait_are_bounded() -> None:
    slots = slots_of(1, 1, queued=3, each=2, seconds=0.05)

    async def scene() -> None:
        with await slots.take("a"):
            waiting = [asyncio.create_task(slots.take(user)) for user in "aab"]
            await asyncio.sleep(0)
            with pytest.raises(QueryBusy, match="2 queries of this user"):
                await slots.take("a")
            with pytest.raises(QueryBusy, match="3 queries are waiting"):
                await slots.take("c")
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(error) for error in ended] == [QueryBusy] * 3
            assert "within 0.05 seconds" in str(ended[0])
        assert is_as_new(slots, 1)

    asyncio.run(scene())


def test_a_full_line_of_one_user_keeps_no_place_from_others() -> None:
    slots = slots_of(2, 1, queued=1, each=1)

    async def scene() -> None:
        with await slots.take("a"):
            waits = asyncio.create_task(slots.take("a"))
            await asyncio.sleep(0)
            with await slots.take("b"):  # his own place is free, though the line is full
                assert not waits.done()
        with await waits:
            pass
        assert is_as_new(slots, 2)

    asyncio.run(scene())
