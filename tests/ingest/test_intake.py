"""The face of ingest: what is accepted, what is refused and how, and what is counted."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import pytest
import zstandard

from strongroom.ingest.errors import (
    BodyTooLarge,
    DeliveryRefused,
    ExpandsTooFar,
    IntakeBusy,
    IntakeStopped,
    IntakeUnavailable,
    SpoolFull,
    UndecodableBody,
    UnknownSource,
    UnsupportedCoding,
)
from strongroom.ingest.intake import Intake
from tests.ingest.conftest import SENDER, House, chunks, events, lines, records, run, send


@pytest.mark.parametrize("encode", [bytes, gzip.compress, zstandard.compress])
def test_a_delivery_comes_back_byte_for_byte(house: House, encode: object) -> None:
    async def test() -> None:
        intake = await house.open()
        body = records(*range(3000))
        accepted = await send(intake, encode(body))  # type: ignore[operator]
        assert (accepted.bytes, accepted.source, accepted.duplicate, accepted.sequence) == (len(body), "json", False, 0)
        state = await asyncio.gather(intake.wait_sealed(accepted.batch, 10), intake.seal())
        assert (state[0].records, state[0].accepted, state[0].quarantined) == (3000, 3000, 0)
        assert state[0].entry == house.log().size - 1
        await intake.stop()
        assert house.raws() == lines([body])
        house.must_be_sound()

    run(test)


def test_the_source_is_recognised_and_broken_records_are_quarantined_alone(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        assert (await send(intake, events(1, 2), source="auto")).source == "cloudtrail"
        body = records(1) + b'\n{"broken": \n' + records(2)
        batch = (await send(intake, body)).batch
        await intake.seal()
        state = intake.batch(batch)
        assert (state.records, state.accepted, state.quarantined) == (3, 2, 1)
        counters = intake.counters()
        assert counters.received_records == counters.sealed_records + counters.quarantined_records == 5
        await intake.stop()
        found = [row for row in house.rows().to_pylist() if row["source"] == "quarantine"]
        assert [(row["raw"].strip(), row["position"]) for row in found] == [(b'{"broken":', 1)]
        assert b"json" in found[0]["context"]
        house.must_be_sound()

    run(test)


REFUSALS = [
    (b"\x1f\x8b\x08nonsense", "auto", UndecodableBody),
    (gzip.compress(b"x" * 1000, mtime=0)[:-9], "gzip", UndecodableBody),
    (b"plain", "gzip", UndecodableBody),
    (b"plain", "br", UnsupportedCoding),
    (gzip.compress(b"x" * 2_000_000, mtime=0), "gzip", ExpandsTooFar),
]


@pytest.mark.parametrize(("body", "coding", "error"), REFUSALS)
def test_what_can_not_be_decoded_is_refused_or_quarantined_as_the_caller_says(
    house: House, body: bytes, coding: str, error: type[DeliveryRefused]
) -> None:
    async def test() -> None:
        intake = await house.open(max_expanded_bytes=1_000_000)
        with pytest.raises(error) as refused:
            await send(intake, body, coding=coding)
        assert not refused.value.transient and refused.value.hint
        assert intake.counters().received_batches == 0
        kept = await send(intake, body, coding=coding, source="vpcflow", keep=True)
        assert (kept.source, kept.bytes, kept.flags) == ("quarantine", len(body), ("undecodable",))
        await intake.stop()
        (row,) = house.rows().to_pylist()
        assert (row["source"], row["raw"]) == ("quarantine", body)
        assert b"vpcflow" in row["context"] and refused.value.message.encode() in row["context"]
        house.must_be_sound()

    run(test)


def test_bounds_are_kept_and_bodies_are_drained_before_the_refusal(house: House) -> None:
    taken = 0

    async def watched(body: bytes) -> AsyncIterator[bytes]:
        nonlocal taken
        async for chunk in chunks(body):
            taken += len(chunk)
            yield chunk

    async def deliver(intake: Intake, body: bytes, source: str = "json") -> None:
        await intake.receive(watched(body), source=source, coding="", origin=SENDER)

    async def test() -> None:
        nonlocal taken
        intake = await house.open(max_body_bytes=50_000, max_inflight_bytes=60_000)
        for body, source, error in (
            (b"x" * 90_000, "json", BodyTooLarge),
            (b"x" * 40_000, "nonsense", UnknownSource),
            (b"x" * 40_000, "audit", UnknownSource),
            (b"x" * 40_000, "quarantine", UnknownSource),
        ):
            taken = 0
            with pytest.raises(error):
                await deliver(intake, body, source)
            assert taken == len(body)
        taken = 0
        with pytest.raises(BodyTooLarge):
            await deliver(intake, b"x" * 10_000_000)
        assert taken < 200_000  # an endless sender is not listened to for ever

        gate = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"1" * 40_000
            await gate.wait()

        held = asyncio.create_task(intake.receive(slow(), source="json", coding="", origin=SENDER))
        await asyncio.sleep(0.01)
        taken = 0
        with pytest.raises(IntakeBusy) as busy:
            await deliver(intake, b"2" * 30_000)
        assert busy.value.transient and taken == 30_000
        gate.set()
        await held
        await deliver(intake, b"2" * 30_000)
        await intake.stop()

    run(test)


def test_an_upload_that_breaks_off_leaves_nothing(house: House) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield b"x" * 40_000
        raise ConnectionResetError

    async def test() -> None:
        intake = await house.open(max_inflight_bytes=50_000)
        for _ in range(3):
            with pytest.raises(ConnectionResetError):
                await intake.receive(breaks(), source="json", coding="", origin=SENDER)
        assert intake.counters().received_batches == 0
        await intake.stop()

    run(test)


def test_a_full_spool_refuses_for_now_and_everything_accepted_is_sealed(house: House) -> None:
    async def test() -> None:
        intake = await house.open(spool_bytes=20_000)
        house.store.down = True
        accepted = []
        with pytest.raises(SpoolFull) as full:
            for number in range(100):
                accepted.append(records(*range(number * 100, number * 100 + 100)))
                await send(intake, accepted[-1])
        assert isinstance(full.value, IntakeUnavailable) and full.value.transient
        accepted.pop()
        assert len(accepted) > 2
        house.store.down = False
        await intake.seal()
        await send(intake, records(1))
        await intake.stop()
        assert house.raws() == lines([*accepted, records(1)])
        house.must_be_sound()

    run(test)


def test_nothing_is_accepted_before_start_or_after_stop(house: House) -> None:
    async def test() -> None:
        intake = house.intake()
        with pytest.raises(IntakeStopped):
            intake.counters()
        await intake.start()
        await intake.stop()
        with pytest.raises(IntakeStopped):
            await send(intake, records(1))
        assert intake.problem

    run(test)


def test_waiting_for_the_seal_wakes_at_once_or_times_out(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        batch = (await send(intake, records(1))).batch
        with pytest.raises(TimeoutError):
            await intake.wait_sealed(batch, 0.05)
        waiting = [asyncio.create_task(intake.wait_sealed(batch, 10)) for _ in range(5)]
        await asyncio.sleep(0)
        await intake.seal()
        done, _ = await asyncio.wait(waiting, timeout=0.2)
        assert len(done) == 5
        await intake.stop()

    run(test)


def test_the_services_own_batches_are_never_duplicates(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        act = b'{"time":"2024-05-06T10:00:00Z","actor":"me","action":"query"}'
        one = await intake.append(act, source="audit", origin=SENDER)
        two = await intake.append(act, source="audit", origin=SENDER)
        assert one.batch != two.batch and two.flags == ()
        with pytest.raises(UnknownSource):
            await intake.append(act, source="quarantine", origin=SENDER)
        await intake.stop()
        assert house.raws() == {act: 2}

    run(test)


def test_an_empty_delivery_is_a_batch_without_records(house: House) -> None:
    async def test() -> None:
        intake = await house.open()
        batch = (await send(intake, b"", source="json", coding="")).batch
        await intake.seal()
        assert (intake.batch(batch).state, intake.batch(batch).records) == ("sealed", 0)
        await intake.stop()
        house.must_be_sound()

    run(test)
