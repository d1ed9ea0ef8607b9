"""The spool in the bucket: an empty disk loses nothing, and nothing comes twice."""

from __future__ import annotations

import asyncio
import random
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from strongroom.archive import layout
from strongroom.archive.encryption.wrapping import LocalWrapper, WrappingKeys
from strongroom.archive.errors import StoreUnavailable
from strongroom.archive.log import Log
from strongroom.archive.stores import ObjectInfo
from strongroom.ingest import commit, sealer, spool
from strongroom.ingest.diskless import Bucket, BucketRules
from strongroom.ingest.errors import IntakeStopped, SpoolUnavailable
from strongroom.ingest.intake import Intake
from strongroom.ingest.spool import Spool
from strongroom.ingest.takeover import Takeover
from strongroom.ingest.writer import Writer
from tests.ingest.conftest import LIMITS, Faults, FaultyStore, House, Killed, events, lines, records, run, send
from tests.ingest.test_sealer import seal_or_die
from tests.ingest.test_spool import header

pytestmark = pytest.mark.adversarial


def diskless_house(folder: Path) -> House:
    return House(folder, replace(LIMITS, diskless=True))


def lose_disk(house: House) -> None:
    """The state directory goes with its machine: keys and archive are elsewhere."""
    shutil.rmtree(house.state, ignore_errors=True)


def spool_objects(house: House) -> list[layout.SpoolName]:
    names = [layout.parse_spool(info.key) for info in house.store.inner.list(layout.SPOOL)]
    return [name for name in names if name is not None and not name.cut]


async def must_have(intake: Intake, pending: int) -> None:
    async with asyncio.timeout(10):
        while intake.counters().pending_batches < pending:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def must_be_there_once(house: House, intake: Intake, bodies: list[bytes]) -> None:
    """Everything acknowledged is known, is sealed by now, and exactly once."""
    for number, body in enumerate(bodies):
        assert (await send(intake, body, key=str(number))).duplicate
    await intake.seal()
    await intake.stop()
    house.signer.sign()  # as the service does when it starts: the crash may have come after the last entry
    assert house.raws() == lines(bodies)
    house.must_be_sound()


def test_an_acknowledgement_means_in_the_bucket_and_requests_share_a_put(tmp_path: Path) -> None:
    async def test() -> None:
        house = diskless_house(tmp_path)
        house.store.faults = Faults()
        intake = await house.open()
        bodies = [records(number) for number in range(40)]
        answers = await asyncio.gather(*(send(intake, body, key=str(n)) for n, body in enumerate(bodies)))
        puts = [name for name in house.store.faults.seen if name.startswith("after spool/")]
        assert 1 <= len(puts) < 20
        assert sum(name.last - name.first + 1 for name in spool_objects(house)) == 40
        await intake.abandon()
        lose_disk(house)
        intake = await house.open()
        for answer in answers:  # the receipt that was given is the one that is given again
            again = intake.batch(answer.batch)
            assert (again.batch, again.sha256, again.received_at) == (answer.batch, answer.sha256, answer.received_at)
        await must_be_there_once(house, intake, bodies)

    run(test)


def test_killed_at_every_effect_with_its_disk_lost_everything_is_sealed_exactly_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits of two entries, killed before and after each object is created, then started on an empty disk."""
    monkeypatch.setattr(commit, "PART_BYTES", 1700)
    days = ["2024-05-06", "2024-05-07", "2024-05-08"]
    bodies = [b"\n".join(records(n, n + 10, day=day) for day in days) for n in range(2)]

    async def test() -> None:
        for kill_at in range(100):
            house = diskless_house(tmp_path / str(kill_at))
            intake = await house.open()
            for number, body in enumerate(bodies):
                await send(intake, body, key=str(number))
            house.store.faults = Faults(kill_at)
            alive = await seal_or_die(intake)
            house.store.faults = Faults()
            await intake.abandon()
            lose_disk(house)
            await must_be_there_once(house, await house.open(), bodies)
            if alive:
                break
        assert 10 < kill_at < 99

    run(test)


class OutsideTheSpool(Faults):
    """Kills anywhere but in the spool's own thread, whose death would leave callers waiting in this one process."""

    def effect(self, name: str) -> None:
        if layout.SPOOL not in name or name.endswith(".cut"):
            super().effect(name)


@pytest.mark.parametrize("seed", range(4))
def test_killed_again_and_again_also_while_taking_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(sealer, "CUT_BATCHES", 2)
    dice = random.Random(seed)
    bodies = [records(n, day=f"2024-05-{10 + n}") for n in range(6)]
    house = diskless_house(tmp_path)
    real = Takeover._is_kept

    def faulty(self: Takeover, batch: str) -> bool:
        house.store.faults.effect("before a batch is taken over")
        return real(self, batch)

    monkeypatch.setattr(Takeover, "_is_kept", faulty)

    async def test() -> None:
        intake = await house.open()
        for number, body in enumerate(bodies):
            await send(intake, body, key=str(number))
        deaths = 0
        for _ in range(6):
            house.store.faults = OutsideTheSpool(dice.randrange(14))
            await intake.abandon()
            if dice.random() < 0.7:
                lose_disk(house)
            try:
                intake = await house.open()
                deaths += not await seal_or_die(intake)
            except Killed:
                deaths += 1
            house.store.faults = Faults()
        assert deaths > 1
        await intake.abandon()
        await must_be_there_once(house, await house.open(), bodies)

    run(test)


def test_the_spool_may_move_between_disk_and_bucket(tmp_path: Path) -> None:
    async def test() -> None:
        house = diskless_house(tmp_path)
        bodies = [records(number) for number in range(4)]
        for number, body in enumerate(bodies):
            intake = await house.open(diskless=number % 2 == 0)
            assert not (await send(intake, body, key=str(number))).duplicate
            await intake.abandon()
        await must_be_there_once(house, await house.open(diskless=False), bodies)

    run(test)


def test_a_group_that_was_given_up_is_void_when_it_comes_true_after_all(tmp_path: Path) -> None:
    """The put of batch 0 fails for its sender, and lands when a group of the same numbers is acknowledged."""

    class Late(FaultyStore):
        late: tuple[str, bytes] | None = None
        losing = False

        def create(self, key: str, content: bytes | Path, **options: object) -> ObjectInfo:
            if self.losing and key.startswith(layout.SPOOL):
                assert isinstance(content, bytes)
                self.late = (key, content)
                raise StoreUnavailable("the answer was lost")
            return super().create(key, content, **options)  # type: ignore[arg-type]

    async def test() -> None:
        house = diskless_house(tmp_path)
        house.store = Late(house.store.inner)
        house.rules = BucketRules(give_up_seconds=0)
        intake = await house.open()
        house.store.losing = True
        with pytest.raises(SpoolUnavailable):
            await send(intake, records(1, 2, 3))
        house.store.losing = False
        await send(intake, records(4), key="a")
        late = house.store.late
        assert late is not None
        house.store.inner.create(*late)
        assert {(name.first, name.attempt) for name in spool_objects(house)} == {(0, 0), (0, 1)}
        await intake.abandon()
        lose_disk(house)
        intake = await house.open()
        await intake.seal()
        await intake.stop()
        assert house.raws() == lines([records(4)])
        house.must_be_sound()

    run(test)


def test_a_lost_answer_is_put_again_under_the_same_name(tmp_path: Path) -> None:
    class Stuttering(FaultyStore):
        lost = 0

        def create(self, key: str, content: bytes | Path, **options: object) -> ObjectInfo:
            info = super().create(key, content, **options)  # type: ignore[arg-type]
            if key.startswith(layout.SPOOL) and self.lost < 2:
                self.lost += 1
                raise StoreUnavailable("the answer was lost")
            return info

    house = diskless_house(tmp_path)
    store = Stuttering(house.store.inner)
    bucket = Bucket(Log.open(store), Writer("w1", 1), BucketRules(), lambda: datetime.now(UTC))
    seen: list[int] = []
    made = Spool(
        tmp_path / "copies",
        epoch=1,
        limit_bytes=1 << 20,
        on_durable=lambda group: seen.extend(sequence for sequence, _ in group),
        durability=bucket,
    )
    try:
        assert made.append(header(0), [b"one"]).result(10) == 0
        assert made.append(header(1), [b"two"]).result(10) == 1
        assert [spool.read(place)[1] for place in made.frames(0, 1)] == [b"one", b"two"]
    finally:
        made.close()
    assert seen == [0, 1]
    assert [(name.first, name.last, name.attempt) for name in spool_objects(house)] == [(0, 0, 0), (1, 1, 0)]


def test_what_is_no_spool_object_is_reported_and_passed_over(tmp_path: Path) -> None:
    async def test() -> None:
        house = diskless_house(tmp_path)
        intake = await house.open()
        await send(intake, records(1), key="0")
        await intake.abandon()
        lose_disk(house)
        planted = layout.spool_key("w1", 1, 1, 3)
        house.store.inner.create(planted, b"anything")
        intake = await house.open()
        await must_be_there_once(house, intake, [records(1)])
        incidents = [entry.data for entry in house.log().entries() if entry.kind == "incident"]
        assert [data["key"] for data in incidents if data["what"] == "unreadable"] == [planted]

    run(test)


def test_a_fenced_instance_stops_acknowledging_and_its_last_batches_are_taken_over(tmp_path: Path) -> None:
    """Two processes under one writer id: what the old one acknowledged before it knew is sealed by the new one."""

    async def test() -> None:
        house = diskless_house(tmp_path)
        old = await house.open()
        await send(old, records(1), key="0")
        new = await house.open(state=tmp_path / "elsewhere", takeover_seconds=0.05)
        assert new.counters().pending_batches == 1
        await send(old, records(2), key="1")  # it has not seen the log yet
        old._log.refresh()
        with pytest.raises(IntakeStopped, match="took over"):
            await send(old, records(3), key="2")
        await must_have(new, 2)
        await new.seal()
        await old.abandon()
        await must_be_there_once(house, new, [records(1), records(2)])

    run(test)


def test_a_writer_that_does_not_come_back_is_taken_over(tmp_path: Path) -> None:
    async def test() -> None:
        house = diskless_house(tmp_path)
        gone = await house.open(writer_id="gone")
        await send(gone, records(1), key="0")
        await gone.abandon()
        heir = await house.open(
            state=tmp_path / "heir", writer_id="heir", takeover_seconds=0.05, abandoned_seconds=0.01
        )
        await must_have(heir, 1)
        await must_be_there_once(house, heir, [records(1)])
        assert max(house.log().epochs("gone")) == 2

    run(test)


@pytest.mark.parametrize("in_bucket", [False, True])
def test_the_same_delivery_at_two_writers_is_sealed_once(tmp_path: Path, in_bucket: bool) -> None:
    async def test() -> None:
        house = House(tmp_path, replace(LIMITS, diskless=in_bucket))
        first = await house.open(state=tmp_path / "1", writer_id="first")
        second = await house.open(state=tmp_path / "2", writer_id="second")
        both, own = events(1, 2), [records(3), records(4, day="2024-06-01")]
        here = await send(first, both, source="cloudtrail", key="same")
        there = await send(second, both, source="cloudtrail", key="same")
        assert here.batch == there.batch
        assert not there.duplicate
        await send(first, own[0], key="first")
        await send(second, own[1], key="second")
        # Both cuts are built with the batch in them; the second to commit finds it in the log.
        await asyncio.gather(first.seal(), second.seal())
        for intake in (first, second):
            intake._log.refresh()
            await intake.follow()
            state = intake.batch(here.batch)
            assert (state.state, state.records, state.duplicates) == ("sealed", 2, 1)
            assert (await send(intake, both, source="cloudtrail", key="same")).duplicate
            counters = intake.counters()
            assert counters.pending_batches == 0
            assert counters.received_records == (
                counters.sealed_records + counters.quarantined_records + counters.duplicate_records
            )
            await intake.stop()
        assert sum(house.raws().values()) == 4
        assert sorted(batch.records for batch in house.sealed()) == [0, 1, 1, 2]
        house.must_be_sound()

    run(test)


def test_an_encrypted_archive_spools_envelopes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a delivery is readable in the bucket; a lost disk and a half-finished commit lose nothing either."""
    monkeypatch.setattr(commit, "PART_BYTES", 1700)
    bodies = [b"\n".join(records(n, day=f"2024-05-0{day}") for day in (6, 7, 8)) for n in range(2)]
    house = House(tmp_path, replace(LIMITS, diskless=True), wrapping=WrappingKeys(LocalWrapper(b"1" * 32)))

    async def test() -> None:
        intake = await house.open()
        for number, body in enumerate(bodies):
            await send(intake, body, key=str(number))
        stored = [info.key for info in house.store.inner.list(layout.SPOOL)]
        assert stored
        for key in stored:
            assert key.endswith(layout.ENCRYPTED)
            assert b"2024-05-06" not in house.store.inner.get(key)
        house.store.faults = AfterPart()
        assert not await seal_or_die(intake)
        house.store.faults = Faults()
        await intake.abandon()
        lose_disk(house)
        await must_be_there_once(house, await house.open(), bodies)

    class AfterPart(Faults):
        """Kills once the first of two entries of a commit is in the log."""

        def effect(self, name: str) -> None:
            if name.startswith("after log/entry/"):
                raise Killed(name)

    run(test)
