"""What is not sealed, beside its snapshot: each acknowledged record once, wherever the seal is."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from strongroom.archive import segment
from strongroom.ingest import build, commit, sealer, unsealed
from strongroom.ingest.builders import Builders
from strongroom.ingest.errors import UnsealedUnreadable
from strongroom.ingest.intake import Intake
from strongroom.ingest.sources import BUILT_IN
from strongroom.ingest.unsealed import Spooled, Unsealed
from tests.ingest.conftest import LIMITS, House, events, lines, records, run, send

ALL = [*BUILT_IN.sources]


async def seen(house: House, beyond: Unsealed) -> Counter[bytes]:
    """What a question over its snapshot and over what is beyond it meets."""
    found = Counter[bytes]()
    log = house.log()
    for entry in log.entries(0, beyond.size):
        for reference in entry.segments:
            with log.contents.file(reference) as path:
                for table in segment.tables(path):
                    found.update(table.column("raw").to_pylist())
    for path in (await beyond.files(ALL)).values():
        found.update(pq.read_table(path).column("raw").to_pylist())
    beyond.close()
    return found


@pytest.mark.parametrize("diskless", [False, True])
def test_a_question_meets_each_record_once_wherever_it_comes_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, diskless: bool
) -> None:
    """Before and after every object that sealing puts: commits of two entries, and batches that arrive meanwhile."""
    monkeypatch.setattr(commit, "PART_BYTES", 1700)
    monkeypatch.setattr(sealer, "CUT_BATCHES", 2)
    days = ["2024-05-06", "2024-05-07", "2024-05-08"]
    bodies = [b"\n".join(records(n, n + 10, day=day) for day in days) for n in range(5)]

    async def test() -> None:
        house = House(tmp_path, replace(LIMITS, diskless=diskless))
        intake = await house.open()
        state = intake._open
        assert state is not None
        spooled = Spooled(state.spool, state.writer, intake._log, state.batches, Builders(0), BUILT_IN, 1 << 20)
        taken: list[tuple[int, Unsealed, int]] = []

        def effect(name: str) -> None:
            if "spool/" not in name:  # those of a delivery that is not acknowledged yet
                before = state.spool.next
                beyond = unsealed.beyond(spooled, intake.unsealed_folder, 1 << 30)
                taken.append((before, beyond, state.spool.next))

        monkeypatch.setattr(house.store.faults, "effect", effect)
        for body in bodies:
            await send(intake, body)
        await intake.seal()
        sizes = {beyond.size for _, beyond, _ in taken}
        assert len(taken) > 20 and len(sizes) == 4 and max(sizes) - min(sizes) == 6  # three commits, never half of one
        for before, beyond, after in taken:
            assert lines(bodies[:before]) <= await seen(house, beyond) <= lines(bodies[:after])
        await intake.stop()
        assert not list(intake.unsealed_folder.iterdir())

    run(test)


def test_questions_beside_deliveries_and_seals_meet_each_record_once(house: House) -> None:
    async def test() -> None:
        dice = random.Random(7)
        intake = await house.open()
        accepted: list[bytes] = []

        async def deliver() -> None:
            for number in range(24):
                body = records(number, number + 1000)
                await send(intake, body)
                accepted.append(body)
                if dice.random() < 0.3:
                    await intake.seal()

        delivering = asyncio.create_task(deliver())
        asked = 0
        while not delivering.done():
            before = list(accepted)
            beyond = await intake.unsealed()
            found, after = await seen(house, beyond), lines([*accepted, records(len(accepted), len(accepted) + 1000)])
            assert lines(before) <= found <= after
            asked += 1
        await delivering
        assert asked > 5
        assert await seen(house, await intake.unsealed()) == lines(accepted)
        await intake.stop()

    run(test)


def test_what_is_released_in_between_makes_it_begin_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        intake = await house.open()
        await send(intake, records(1))
        log, loop = intake._log, asyncio.get_running_loop()
        real = log.reached
        seals: list[int] = []

        def reached(*place: object) -> object:
            found = real(*place)  # type: ignore[arg-type]
            if not seals:
                seals.append(asyncio.run_coroutine_threadsafe(intake.seal(), loop).result())
            return found

        monkeypatch.setattr(log, "reached", reached)
        beyond = await intake.unsealed()
        assert (beyond.size, beyond.left_out) == (seals[0], 0)
        assert await seen(house, beyond) == lines([records(1)])
        await intake.stop()

    run(test)


def test_files_hold_while_they_are_asked_and_no_longer(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        await send(intake, records(1))
        await send(intake, b'{"Records": [1]}', source="cloudtrail")
        beyond = await intake.unsealed()
        await intake.seal()
        await send(intake, records(2))
        await intake.seal()  # the file that the batches were in is gone from the spool
        found = await beyond.files(["json", "quarantine"])
        assert {name: pq.read_table(path).num_rows for name, path in found.items()} == {"json": 1, "quarantine": 1}
        assert await beyond.files(["json"]) and beyond.read == 1  # other sources' batches are not even parsed
        beyond.close()
        beyond.close()
        assert not list(intake.unsealed_folder.iterdir())
        await intake.stop()

    run(test)


def test_the_newest_are_left_out_beyond_the_bound_and_counted(house: House) -> None:
    async def test() -> None:
        bodies = [records(*range(n, n + 100)) for n in range(0, 500, 100)]
        intake = await house.open(unsealed_bytes=2 * len(bodies[-1]) + 10)
        for body in bodies:
            await send(intake, body)
        beyond = await intake.unsealed()
        assert (beyond.left_out, await seen(house, beyond)) == (3, lines(bodies[:2]))
        await intake.stop()
        intake = await house.open(unsealed_bytes=1)
        await send(intake, bodies[0], key="other")
        beyond = await intake.unsealed()
        assert (beyond.left_out, (await seen(house, beyond)).total()) == (0, 600)  # one is always read
        await intake.stop()

    run(test)


def test_a_batch_that_another_writer_sealed_comes_from_there(tmp_path: Path) -> None:
    async def test() -> None:
        house = House(tmp_path)
        first = await house.open(state=tmp_path / "1", writer_id="first")
        second = await house.open(state=tmp_path / "2", writer_id="second")
        for intake in (first, second):
            await send(intake, events(1, 2), source="cloudtrail", key="same")
        await send(second, records(3))
        assert (await seen(house, await second.unsealed())).total() == 3
        await first.seal()
        second._log.refresh()
        assert set((await seen(house, await second.unsealed())).values()) == {1}
        await second.seal()
        assert set((await seen(house, await second.unsealed())).values()) == {1}
        await first.stop()
        await second.stop()

    run(test)


@pytest.mark.parametrize("failing", [MemoryError("none left"), OSError(28, "No space left on device")])
def test_what_can_not_be_parsed_now_fails_the_question_and_nothing_else(
    house: House, monkeypatch: pytest.MonkeyPatch, failing: Exception
) -> None:
    def fail(*_: object) -> None:
        raise failing

    async def test(intake: Intake) -> None:
        await send(intake, records(1))
        beyond = await intake.unsealed()
        with monkeypatch.context() as patch, pytest.raises(UnsealedUnreadable, match="could not be read"):
            patch.setattr(build, "_sort_out", fail)
            await beyond.files(["json"])
        assert await seen(house, await intake.unsealed()) == lines([records(1)])
        await intake.stop()

    async def opened(test: Callable[[Intake], object]) -> None:
        await test(await house.open())  # type: ignore[misc]

    run(lambda: opened(test))
