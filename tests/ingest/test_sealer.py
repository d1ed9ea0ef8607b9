"""From spool to seal: exactly once, whatever dies in between."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import time
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest

from strongroom.archive import layout
from strongroom.archive.entry import WriterRange
from strongroom.archive.errors import SignerRefused, StoreUnavailable
from strongroom.ingest import build, commit, recovery, sealer
from strongroom.ingest.batches import Batches
from strongroom.ingest.builders import WORKER_BYTES, Builders, WorkerDied
from strongroom.ingest.cuts import Cuts
from strongroom.ingest.errors import SealConflict, WriterFenced
from strongroom.ingest.intake import Intake
from strongroom.ingest.spool import Spool
from tests.ingest.conftest import Faults, House, Killed, events, lines, records, run, send


async def seal_or_die(intake: Intake) -> bool:
    """Seal everything; False when the kill came first."""
    sealing = asyncio.create_task(intake.seal())
    await asyncio.wait({sealing, intake._sealing}, return_when=asyncio.FIRST_COMPLETED)
    if sealing.done():
        await sealing
        return True
    sealing.cancel()
    assert isinstance(intake._sealing.exception(), Killed)
    return False


def spooled_files(house: House) -> list[Path]:
    return [path for path in (house.state / "spool").rglob("*.spool") if path.stat().st_size > 100]


async def killed_in_turn(house: House, bodies: list[bytes], kills: list[int]) -> bool:
    """Store `bodies`, then live as many lives as there are kills, each killed at the effect of that number, and one
    more that seals. Returns whether every kill came about."""
    intake = await house.open()
    for number, body in enumerate(bodies):
        await send(intake, body, key=str(number))
    deaths = 0
    for kill in kills:
        house.store.faults = Faults(kill)
        deaths += not await seal_or_die(intake)
        house.store.faults = Faults()
        await intake.abandon()
        intake = await house.open()
    for number, body in enumerate(bodies):
        assert (await send(intake, body, key=str(number))).duplicate
    await intake.seal()
    counters = intake.counters()
    assert (counters.sealed_batches, counters.pending_batches) == (len(bodies), 0)
    await intake.stop()
    assert house.raws() == lines(bodies)
    assert [batch.sequence for batch in house.sealed()] == list(range(len(bodies)))
    assert not spooled_files(house)
    house.must_be_sound()
    return deaths == len(kills)


def inject(monkeypatch: pytest.MonkeyPatch, house: House) -> None:
    """Besides the store and the signer: die before each step on this machine's own disk."""

    def die_before(owner: type, name: str) -> None:
        real = getattr(owner, name)

        def faulty(*args: object) -> object:
            house.store.faults.effect(f"before {owner.__name__}.{name}")
            return real(*args)

        monkeypatch.setattr(owner, name, faulty)

    die_before(Cuts, "add")
    die_before(Cuts, "done")
    die_before(Batches, "follow")
    die_before(Spool, "release")


@pytest.mark.adversarial
def test_killed_before_and_after_every_effect_everything_is_sealed_exactly_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crash table: parts of two entries, two dates each, and a kill at each step in turn."""
    monkeypatch.setattr(commit, "PART_BYTES", 1700)
    days = ["2024-05-06", "2024-05-07", "2024-05-08"]
    bodies = [b"\n".join(records(n, n + 10, day=day) for day in days) for n in range(2)]

    async def test() -> None:
        for kill_at in range(100):
            house = House(tmp_path / str(kill_at))
            with monkeypatch.context() as patch:
                inject(patch, house)
                if not await killed_in_turn(house, bodies, [kill_at]):
                    break
        assert 20 < kill_at < 99  # every effect was died at, and in the end none was left
        parts = [entry.writer for entry in house.log().entries() if entry.kind == "segment"]
        assert [(part.part, part.parts) for part in parts if part] == [(1, 2), (2, 2)]

    run(test)


@pytest.mark.adversarial
@pytest.mark.parametrize("seed", range(8))
def test_killed_again_and_again_everything_is_sealed_exactly_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    async def test() -> None:
        monkeypatch.setattr(commit, "PART_BYTES", 1700)
        monkeypatch.setattr(sealer, "CUT_BATCHES", 2)
        dice = random.Random(seed)
        bodies = [b"\n".join(records(n, day=f"2024-05-{day}") for day in (10, 11, 12)) for n in range(5)]
        house = House(tmp_path / "house")
        inject(monkeypatch, house)
        await killed_in_turn(house, bodies, [dice.randrange(25) for _ in range(5)])

    run(test)


def test_what_was_fsynced_but_never_indexed_or_answered_is_sealed_once(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        await send(intake, records(1), key="a")
        state = intake._open
        assert state is not None
        state.spool._on_durable = lambda group: None  # what a kill between fsync and index leaves
        await send(intake, records(2), key="b")
        await intake.abandon()
        intake = await house.open()
        assert (await send(intake, records(2), key="b")).duplicate
        await intake.stop()
        assert house.raws() == lines([records(1), records(2)])
        house.must_be_sound()

    run(test)


def test_late_data_of_many_dates_in_one_batch_goes_under_its_own_dates_in_parts(house: House) -> None:
    async def test() -> None:
        days = [date(2015, 1, 1) + timedelta(days=37 * n) for n in range(100)]
        body = b"\n".join(records(n, day=str(day)) for n, day in enumerate(days)) + b'\n{"n": "no time"}'
        intake = await house.open()
        batch = (await send(intake, body)).batch
        await intake.seal()
        assert intake.batch(batch).records == 101
        await intake.stop()
        entries = [entry for entry in house.log().entries() if entry.kind == "segment"]
        assert len(entries) > 1 and sum(len(entry.segments) for entry in entries) == 101
        found = {layout.segment_date(ref.key) for entry in entries for ref in entry.segments}
        assert found > set(days) and len(found) == 101
        assert house.raws() == lines([body])
        house.must_be_sound()

    run(test)


def test_a_taken_name_is_adopted_if_equal_and_avoided_and_declared_if_not(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        taken = [
            layout.segment_key("json", date(2024, 5, 6), "w1", 1, 0, 0),
            layout.details_key("w1", 1, 0, 0),
        ]
        for key in taken:
            house.store.inner.create(key, b"torn or foreign")
        await send(intake, records(1))
        await intake.stop()
        (entry,) = [entry for entry in house.log().entries() if entry.kind == "segment"]
        assert entry.segments[0].key.endswith("-r1.parquet")
        assert entry.details is not None and entry.details.key.endswith("-r1.json")
        orphans = [entry.data for entry in house.log().entries() if entry.kind == "incident"]
        assert [(data["what"], data["key"]) for data in orphans] == [("orphan", key) for key in taken]
        house.must_be_sound()

    run(test)


def test_parts_in_the_log_that_differ_from_the_rebuilt_ones_stop_the_sealer(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        monkeypatch.setattr(commit, "PART_BYTES", 900)
        intake = await house.open()
        await send(intake, records(1) + b"\n" + records(2, day="2024-05-07"))
        house.store.faults = Faults(-1)
        real = commit.Committer._put_details

        def dies_at_part_2(self: commit.Committer, *args: object) -> object:
            if args[1].part == 2:  # type: ignore[attr-defined]
                raise Killed
            return real(self, *args)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(commit.Committer, "_put_details", dies_at_part_2)
            assert not await seal_or_die(intake)
        await intake.abandon()
        cuts = house.state / "spool" / "1" / "cuts.json"
        (cut,) = json.loads(cuts.read_bytes())
        cuts.write_text(json.dumps([cut | {"seed": "00" * 32}]))
        intake = await house.open()
        with pytest.raises(SealConflict):
            await intake.seal()
        assert isinstance(intake.problem, SealConflict)
        with pytest.raises(SealConflict):
            await intake.stop()
        assert spooled_files(house)

    run(test)


def test_the_store_may_be_away_acknowledging_goes_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(sealer, "_FIRST_PAUSE", 0.01)
        intake = await house.open()
        house.store.down = True
        await send(intake, records(1))
        with pytest.raises(StoreUnavailable):
            await intake.seal()
        assert isinstance(intake.problem, StoreUnavailable)
        await send(intake, records(2))
        assert intake.oldest_pending_seconds > 0
        house.store.down = False
        await intake.seal()
        assert intake.problem is None and intake.oldest_pending_seconds == 0
        await intake.stop()
        assert house.raws() == lines([records(1), records(2)])

    run(test)


def test_a_signer_that_refuses_stops_sealing_but_keeps_the_spool(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        await send(intake, records(1))

        def refuses() -> object:
            raise SignerRefused("the store was rolled back")

        intake._sealer._sign = refuses
        with pytest.raises(SignerRefused):
            await intake.seal()
        assert isinstance(intake.problem, SignerRefused)
        await send(intake, records(2))
        with pytest.raises(SignerRefused):
            await intake.stop()
        intake = await house.open()
        await intake.stop()
        assert house.raws() == lines([records(1), records(2)])
        house.must_be_sound()

    run(test)


def test_cuts_come_by_size_and_by_age_and_heartbeats_in_silence(house: House) -> None:
    async def test() -> None:
        intake = await house.open(seal_bytes=3000, seal_age_seconds=0.2, heartbeat_seconds=0.3)
        first = await send(intake, records(*range(80)))
        await intake.wait_sealed(first.batch, 0.15 + 5)
        started = time.monotonic()
        small = await send(intake, records(1))
        await intake.wait_sealed(small.batch, 5)
        assert time.monotonic() - started > 0.15
        beats: list[WriterRange | None] = []
        async with asyncio.timeout(20):
            while len(beats) < 3:
                await asyncio.sleep(0.2)
                beats = [entry.writer for entry in house.log().entries() if entry.kind == "heartbeat"]
        assert all(beat and beat.empty for beat in beats)
        assert beats[-1] and beats[-1].first == 2
        await intake.stop()
        house.must_be_sound()

    run(test)


def test_a_cut_is_bounded_by_what_its_batches_hold(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(sealer, "CUT_BATCHES", 3)
        intake = await house.open()
        bodies = [records(n) for n in range(8)]
        for body in bodies:
            await send(intake, body)
        await intake.seal()
        ranges = [(e.writer.first, e.writer.last) for e in house.log().entries() if e.writer and e.kind == "segment"]
        assert ranges == [(0, 2), (3, 5), (6, 7)]
        await intake.stop()
        assert house.raws() == lines(bodies)

    run(test)


def test_a_batch_that_kills_its_worker_is_isolated_and_quarantined_whole(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = build.build

    def hostile(job: build.Job) -> build.Built:
        if not job.cut.whole and any(place.sequence == 3 for place in job.frames):
            raise MemoryError
        return real(job)

    async def test() -> None:
        monkeypatch.setattr(sealer, "build", hostile)
        intake = await house.open()
        bodies = [records(n, n + 10) for n in range(6)]
        sent = [await send(intake, body) for body in bodies]
        await intake.seal()
        states = [intake.batch(accepted.batch) for accepted in sent]
        assert [(state.accepted, state.quarantined) for state in states] == [(2, 0)] * 3 + [(0, 1)] + [(2, 0)] * 2
        assert states[3].flags == ("parser-died",)
        await intake.stop()
        assert house.raws() == lines([*bodies[:3], *bodies[4:]]) + Counter([bodies[3]])
        house.must_be_sound()

    run(test)


def test_a_parser_that_fails_costs_its_batch_no_byte_and_others_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: object, body: bytes) -> None:
        raise RecursionError

    async def test() -> None:
        intake = await house.open()
        await send(intake, records(1))
        batch = (await send(intake, events(1), source="cloudtrail")).batch
        monkeypatch.setattr(type(build.SOURCES["cloudtrail"]), "split", fails)
        await intake.seal()
        assert (intake.batch(batch).quarantined, intake.batch(batch).flags) == (1, ("parser-failed",))
        await intake.stop()
        monkeypatch.undo()
        assert house.raws() == lines([records(1)]) + Counter([events(1)])
        house.must_be_sound()

    run(test)


def test_a_lost_state_directory_starts_the_next_epoch(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        await send(intake, records(1))
        await intake.stop()
        shutil.rmtree(house.state)
        intake = await house.open()
        accepted = await send(intake, records(2))
        assert accepted.sequence == 0 and "writer w1 2 0" in accepted.receipt
        await intake.stop()
        assert house.raws() == lines([records(1), records(2)])
        house.must_be_sound()

    run(test)


def test_a_spool_restored_from_a_backup_seals_nothing_twice_and_loses_nothing(house: House) -> None:
    async def test() -> None:
        backup = house.root / "backup"
        intake = await house.open()
        for number in range(3):
            await send(intake, records(number), key=str(number))
        await intake.abandon()
        shutil.copytree(house.state, backup)
        intake = await house.open()
        await send(intake, records(3), key="3")
        await intake.seal()
        await intake.stop()
        shutil.rmtree(house.state)
        shutil.copytree(backup, house.state)
        intake = await house.open()
        assert (await send(intake, records(3), key="3")).duplicate
        accepted = await send(intake, records(4), key="4")
        assert (accepted.sequence, intake.batch(accepted.batch).epoch) == (0, 2)
        await intake.stop()
        assert house.raws() == lines(records(n) for n in range(5))
        house.must_be_sound()

    run(test)


def test_a_second_instance_under_one_id_fences_the_first_whose_batches_move_on(house: House) -> None:
    async def test() -> None:
        one = await house.open()
        first = await send(one, records(1))
        two = await house.open(state=house.root / "other")
        await send(two, records(2))
        with pytest.raises(WriterFenced):
            await one.seal()
        with pytest.raises(WriterFenced):
            await one.stop()
        await two.stop()
        # Had the second claimed its epoch a moment later, the first would have put objects already.
        house.store.inner.create(layout.segment_key("json", date(2024, 5, 6), "w1", 1, 0, 0), b"put, never named")
        one = await house.open()
        assert one.batch(first.batch).epoch == 3
        await one.stop()
        assert house.raws() == lines([records(1), records(2)])
        assert [path.name for path in (house.state / "spool").iterdir()] == ["3"]
        house.must_be_sound()

    run(test)


def test_moving_into_a_new_epoch_may_be_interrupted(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        one = await house.open()
        for number in range(3):
            await send(one, records(number))
        await one.abandon()
        two = await house.open(state=house.root / "other")
        await two.stop()
        with monkeypatch.context() as patch:

            def killed(path: Path, **_: object) -> None:
                if path.name == "1":
                    raise Killed

            patch.setattr(recovery.shutil, "rmtree", killed)
            with pytest.raises(Killed):
                await house.open()
        one = await house.open()
        await one.stop()
        assert house.raws() == lines(records(n) for n in range(3))
        house.must_be_sound()

    run(test)


def die() -> None:
    os._exit(9)


def test_a_worker_that_dies_or_wants_too_much_memory_costs_one_try() -> None:
    async def test() -> None:
        builders = Builders(1)
        try:
            with pytest.raises(WorkerDied):
                await builders.run(die)
            assert await builders.run(len, b"abc") == 3
            with pytest.raises(WorkerDied, match="memory"):
                await builders.run(bytes, WORKER_BYTES + 1)
            with pytest.raises(ValueError, match="invalid literal"):
                await builders.run(int, "x")
        finally:
            builders.close()

    run(test)


def test_workers_build_several_cuts_at_once_and_commit_them_in_order(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        monkeypatch.setattr(sealer, "CUT_BATCHES", 2)
        intake = await house.open(workers=2)
        bodies = [records(*range(n * 100, n * 100 + 100)) for n in range(8)]
        for body in bodies:
            await send(intake, body)
        await intake.seal()
        await intake.stop()
        ranges = [e.writer.first for e in house.log().entries() if e.writer and e.kind == "segment"]
        assert ranges == [0, 2, 4, 6]
        assert house.raws() == lines(bodies)
        house.must_be_sound()

    run(test)
