"""Sealing an encrypted archive: each try makes other envelopes, and still everything is sealed exactly once."""

from __future__ import annotations

from pathlib import Path

import pytest

from strongroom.archive.encryption import envelope
from strongroom.archive.encryption.wrapping import LocalWrapper, WrappingKeys
from strongroom.archive.errors import KeyUnusable, KeyWithheld
from strongroom.ingest import commit
from tests.ingest.conftest import Faults, House, lines, records, run, send
from tests.ingest.test_sealer import killed_in_turn, seal_or_die

OLD, NEW = LocalWrapper(b"1" * 32), LocalWrapper(b"2" * 32)
DAYS = ["2024-05-06", "2024-05-07"]
BODIES = [b"\n".join(records(n, n + 10, day=day) for day in DAYS) for n in range(2)]


@pytest.mark.adversarial
def test_killed_before_and_after_every_put_it_finds_its_own_envelopes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "PART_BYTES", 800)  # two entries

    async def test() -> None:
        for kill_at in range(40):
            house = House(tmp_path / str(kill_at), wrapping=WrappingKeys(NEW))
            if not await killed_in_turn(house, BODIES, [kill_at]):
                break
            log = house.log()
            kinds = [entry.kind for entry in log.entries()]
            assert "incident" not in kinds  # nothing was put twice
            assert kinds.count("policy") == 1
            named = {reference.key for entry in log.entries() for reference in entry.objects}
            assert {info.key for info in house.store.inner.list("segments/")} <= named
            for key in named:
                stored = house.store.inner.get(key)
                assert key.endswith(".enc") and stored.startswith(envelope.MAGIC)
        assert 10 < kill_at < 39

    run(test)


def test_other_bytes_under_its_name_are_an_orphan(tmp_path: Path) -> None:
    """An envelope of something else, by whoever has the key, and what is no envelope at all."""
    house = House(tmp_path, wrapping=WrappingKeys(NEW))

    async def test() -> None:
        intake = await house.open()
        await send(intake, BODIES[0])
        house.store.faults = Faults(2)  # the key's entry, then killed before the first segment
        assert not await seal_or_die(intake)
        house.store.faults = Faults()
        name = "segments/source=json/date={}/w1-1-00000000000000000000-00000000000000000000.parquet.enc"
        house.store.create(name.format(DAYS[0]), house.log().contents.seal(name.format(DAYS[0]), b"something else"))
        house.store.create(name.format(DAYS[1]), b"no envelope")
        await intake.abandon()
        intake = await house.open()
        await intake.seal()
        await intake.stop()

    run(test)
    orphans = [entry.data["key"] for entry in house.log().entries() if entry.kind == "incident"]
    assert [key.split("/")[2] for key in orphans] == [f"date={day}" for day in DAYS]
    assert house.raws() == lines(BODIES[:1])
    house.must_be_sound()


def test_it_waits_for_a_key_that_is_withheld_and_rotates_to_another(tmp_path: Path) -> None:
    class Withheld(LocalWrapper):
        def generate(self, context: object) -> tuple[bytes, bytes]:
            raise KeyWithheld("the key is disabled")

    house = House(tmp_path, wrapping=WrappingKeys(OLD))

    async def test() -> None:
        intake = await house.open()
        await send(intake, BODIES[0])
        await intake.seal()
        await intake.stop()
        house.wrapping = WrappingKeys(Withheld(b"2" * 32), [OLD])
        intake = await house.open()
        await send(intake, BODIES[1])  # acknowledged all the same
        with pytest.raises(KeyWithheld, match="disabled"):
            await intake.seal()
        await intake.abandon()
        house.wrapping = WrappingKeys(NEW, [OLD])
        intake = await house.open()
        await intake.seal()
        await intake.stop()

    run(test)
    assert house.raws() == lines(BODIES)
    assert [one.key for one in house.log().wrapping_keys] == [OLD.key_id, NEW.key_id]
    house.must_be_sound()


def test_a_writer_without_a_key_puts_nothing_into_an_encrypted_archive(tmp_path: Path) -> None:
    house = House(tmp_path, wrapping=WrappingKeys(OLD))

    async def test() -> None:
        intake = await house.open()
        await send(intake, BODIES[0])
        await intake.seal()
        await intake.stop()
        house.wrapping = WrappingKeys(None, [OLD])
        intake = await house.open()
        await send(intake, BODIES[1])
        with pytest.raises(KeyUnusable, match="no key to encrypt with"):
            await intake.seal()
        await intake.abandon()

    run(test)
    assert all(info.key.endswith(".enc") for info in house.store.inner.list("segments/"))
    assert house.raws() == lines(BODIES[:1])
