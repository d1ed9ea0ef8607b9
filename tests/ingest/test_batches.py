"""The index of batches and the rules of duplicates, with and across restarts."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace

import pytest

from strongroom.archive import note
from strongroom.ingest import receipts
from strongroom.ingest.errors import ReceiptInvalid, UnknownBatch
from tests.ingest.conftest import SENDER, House, chunks, events, lines, records, run, send

RESTARTS = ["running", "restarted", "killed", "sealed", "index-lost", "index-damaged"]


@pytest.mark.parametrize("between", RESTARTS)
def test_the_rules_of_duplicates(house: House, between: str) -> None:
    async def test() -> None:
        intake = await house.open()
        first = await send(intake, records(1, 2), key="k1")
        plain = await send(intake, records(3))
        natural = await send(intake, events(1, 2), source="cloudtrail")
        if between == "sealed":
            await intake.seal()
        if between != "running":
            await (intake.stop() if between == "restarted" else intake.abandon())
            if between == "index-lost":
                for path in house.state.glob("batches.sqlite*"):
                    path.unlink()
            if between == "index-damaged":
                (house.state / "batches.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
            intake = await house.open()

        again = await send(intake, records(1, 2), key="k1")
        assert (again.duplicate, again.batch, again.receipt) == (True, first.batch, first.receipt)
        other = await send(intake, records(9), key="k1")
        assert (other.duplicate, other.flags) == (False, ("key-reused",))
        assert (await send(intake, records(9), key="k1")).batch == other.batch
        fresh = await send(intake, records(1, 2), key="k2")
        assert (fresh.duplicate, fresh.flags) == (False, ())
        repeated = await send(intake, records(3))
        assert (repeated.duplicate, repeated.flags) == (False, ("repeated-content",))
        assert repeated.batch != plain.batch
        told = await send(intake, events(1, 2), source="cloudtrail")
        assert (told.duplicate, told.batch) == (True, natural.batch)
        elsewhere = await send(intake, events(1, 2), source="json")
        assert not elsewhere.duplicate

        await intake.seal()
        assert intake.batch(first.batch).duplicates == 1
        counters = intake.counters()
        assert (counters.sealed_batches, counters.duplicate_batches, counters.pending_batches) == (7, 3, 0)
        assert (counters.received_records, counters.duplicate_records) == (11 + 5, 5)
        await intake.stop()
        house.must_be_sound()
        assert len(house.sealed()) == len({batch.id for batch in house.sealed()}) == 7

    run(test)


def test_records_without_ids_among_them_make_a_repetition_new(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        mixed = events(1).replace(b"}]", b'}, {"eventName": "NoId"}]')
        await send(intake, mixed, source="cloudtrail")
        assert (await send(intake, mixed, source="cloudtrail")).flags == ("repeated-content",)
        await intake.stop()

    run(test)


def test_one_delivery_sent_many_times_at_once_is_stored_once(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        keyed = await asyncio.gather(*(send(intake, records(1), key="k") for _ in range(20)))
        natural = await asyncio.gather(*(send(intake, events(7), source="cloudtrail") for _ in range(20)))
        for answers in (keyed, natural):
            assert sorted(answer.duplicate for answer in answers) == [False] + [True] * 19
            assert len({answer.batch for answer in answers}) == 1
        await intake.stop()
        assert house.rows().num_rows == 2

    run(test)


def test_a_sender_that_hangs_up_does_not_get_its_batch_stored_twice(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        for wait in (0, 0.0005, 0.001, 0.002, 0.005):
            task = asyncio.create_task(send(intake, records(1), key="k"))
            await asyncio.sleep(wait)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await send(intake, records(1), key="k")
        await intake.stop()
        assert house.raws() == lines([records(1)])

    run(test)


def test_counts_of_duplicates_survive_and_an_unknown_batch_is_said_so(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        batch = (await send(intake, events(1), source="cloudtrail")).batch
        await send(intake, events(1), source="cloudtrail")
        before = intake.counters()
        await intake.abandon()
        intake = await house.open()
        assert intake.counters() == before
        assert intake.batch(batch).state == "spooled" and intake.batch(batch).records is None
        with pytest.raises(UnknownBatch):
            intake.batch("0" * 64)
        await intake.stop()

    run(test)


def test_two_writers_share_an_archive_and_learn_of_each_other(house: House) -> None:
    async def test() -> None:
        one = await house.open()
        await send(one, events(1), source="cloudtrail")
        await one.seal()
        two = await house.open(state=house.root / "other", writer_id="w2")
        assert (await send(two, events(1), source="cloudtrail")).duplicate
        await send(two, events(2), source="cloudtrail")
        await two.seal()
        await send(one, events(3), source="cloudtrail")
        await one.seal()
        assert (await send(one, events(2), source="cloudtrail")).duplicate
        assert (one.counters().sealed_batches, two.counters().sealed_batches) == (2, 1)
        await one.stop()
        await two.stop()
        house.must_be_sound()

    run(test)


def test_a_batch_whose_bytes_are_lost_is_stated_in_the_log_and_may_come_again(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        lost = await send(intake, records(1), key="k")
        await intake.abandon()
        shutil.rmtree(house.state / "spool")
        (house.state / "writer.json").unlink()
        intake = await house.open()
        incident = house.log().entry(house.log().size - 1)
        assert (incident.kind, incident.data["what"], incident.data["batches"]) == ("incident", "lost", [lost.batch])
        again = await send(intake, records(1), key="k")
        assert (again.duplicate, again.batch) == (False, lost.batch)
        await intake.stop()
        house.must_be_sound()

    run(test)


def test_details_that_are_gone_do_not_stop_deliveries(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        batch = (await send(intake, records(1), key="k")).batch
        await intake.stop()
        for info in list(house.store.list("details/")):
            (house.files / info.key).unlink()
        for path in house.state.glob("batches.sqlite*"):
            path.unlink()
        intake = await house.open()
        with pytest.raises(UnknownBatch):
            intake.batch(batch)
        assert not (await send(intake, records(1), key="k")).duplicate
        await intake.abandon()

    run(test)


def test_odd_names_cost_nobody_anything(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        odd = replace(SENDER, name="half \ud800 a name" + "x" * 3_000_000)
        answers = await asyncio.gather(
            send(intake, records(1)),
            intake.receive(chunks(records(2)), source="json", coding="", origin=odd),
            send(intake, records(3)),
        )
        assert len({answer.sequence for answer in answers}) == 3
        await intake.stop()
        assert sorted(len(batch.name) for batch in house.sealed()) == [0, 0, 1024]

    run(test)


def test_receipts_state_the_batch_and_verify_with_the_right_key_only(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        accepted = await send(intake, records(1, 2))
        await intake.stop()
        key = house.receipts.key
        receipt = receipts.verify(accepted.receipt, [key])
        assert receipt == receipts.parse(accepted.receipt)
        assert (receipt.batch, receipt.sequence, receipt.sha256, receipt.writer, receipt.epoch, receipt.source) == (
            accepted.batch, 0, accepted.sha256, "w1", 1, "json",
        )  # fmt: skip
        assert receipt.received_at == accepted.received_at
        forged = accepted.receipt.replace(f"bytes {accepted.bytes}", f"bytes {accepted.bytes + 1}")
        for text, keys in ((forged, [key]), (accepted.receipt, []), ("nonsense", [key]), ("", [key])):
            with pytest.raises(ReceiptInvalid):
                receipts.verify(text, keys)
        other = note.sign("strongroom receipt v2\n", [house.receipts]).encode()
        with pytest.raises(ReceiptInvalid):
            receipts.verify(other, [key])

    run(test)
