"""One token's flood ends at its own share; refusals leave few traces; tokens are found where clients put them."""

from __future__ import annotations

import asyncio
import base64
from contextlib import ExitStack

import pytest

from strongroom.service.acts import Act
from strongroom.service.errors import LimitReached
from strongroom.service.receiving.credentials import token_in
from strongroom.service.receiving.fairness import Fairness, TokenLimits
from strongroom.service.receiving.refusals import MAX_KINDS, Kind, Refusals

LIMITS = TokenLimits(requests_per_second=10, bytes_per_second=1000, uploads=2, memory_bytes=500, spool_bytes=800)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_uploads_at_once() -> None:
    fairness = Fairness(LIMITS, Clock())
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(fairness.admit("flood", -1))
        with pytest.raises(LimitReached, match="under way"), fairness.admit("flood", -1):
            pass
        with fairness.admit("other", -1):
            pass
    with fairness.admit("flood", -1):
        pass


def test_requests_a_second() -> None:
    clock = Clock()
    fairness = Fairness(LIMITS, clock)
    admitted = 0
    with pytest.raises(LimitReached) as refused:
        for _ in range(100):
            with fairness.admit("flood", -1):
                admitted += 1
    assert admitted == 20  # two seconds' worth at once
    assert 0 < refused.value.retry_after <= 0.2
    with fairness.admit("other", -1):
        pass
    clock.now += 1.0
    for _ in range(10):
        with fairness.admit("flood", -1):
            pass


def test_bytes_a_second_are_charged_when_they_came() -> None:
    clock = Clock()
    fairness = Fairness(LIMITS, clock)
    for _ in range(5):
        with fairness.admit("flood", -1) as admission:
            admission.hold(450)
    with pytest.raises(LimitReached) as refused, fairness.admit("flood", -1):
        pass
    clock.now += refused.value.retry_after
    with fairness.admit("flood", -1):
        pass


def test_memory_in_flight() -> None:
    fairness = Fairness(LIMITS, Clock())
    with fairness.admit("flood", -1) as first, fairness.admit("flood", -1) as second:
        first.hold(400)
        with pytest.raises(LimitReached):
            second.hold(101)
        first.let_go()
        second.hold(500)
    with fairness.admit("flood", -1) as again:
        again.hold(500)


def test_the_spools_share_is_free_again_once_sealed() -> None:
    fairness = Fairness(LIMITS, Clock())
    with fairness.admit("flood", -1) as admission:
        admission.spooled(0, 500)
        admission.spooled(1, 400)
    with pytest.raises(LimitReached, match="sealed"), fairness.admit("flood", -1):
        pass
    with fairness.admit("other", -1), fairness.admit("flood", 0):
        pass


def test_refusals_are_recorded_once_and_then_counted() -> None:
    acts: list[Act] = []

    async def run() -> None:
        refusals = Refusals(acts.append)
        for number in range(MAX_KINDS + 50):
            for _ in range(2):
                refusals.note(Kind("unauthenticated", "", f"192.0.2.{number}", "/v1/logs", "unauthenticated", 401))
        assert len(acts) == MAX_KINDS + 1
        refusals.flush()

    asyncio.run(run())
    assert sum(act.detail["count"] for act in acts) == 2 * (MAX_KINDS + 50)
    assert len(acts) <= 2 * (MAX_KINDS + 1)
    assert {act.outcome for act in acts} == {"failure"}


@pytest.mark.parametrize(
    ("headers", "places", "found"),
    [
        ({"authorization": "Bearer sr_1_x"}, ("bearer",), "sr_1_x"),
        ({"authorization": "bearer  sr_1_x"}, ("bearer",), "sr_1_x"),
        ({"authorization": "Splunk sr_1_x"}, ("bearer",), None),
        ({"authorization": "Splunk sr_1_x"}, ("splunk", "basic"), "sr_1_x"),
        ({"authorization": "Basic " + base64.b64encode(b"any:sr_1_x").decode()}, ("basic",), "sr_1_x"),
        ({"authorization": "Basic " + base64.b64encode(b"sr_1_x:").decode()}, ("basic",), "sr_1_x"),
        ({"authorization": "Basic !!"}, ("basic",), "!!"),
        ({"authorization": "ApiKey sr_1_x"}, ("apikey",), "sr_1_x"),
        ({"authorization": "ApiKey " + base64.b64encode(b"id:sr_1_x").decode()}, ("apikey",), "sr_1_x"),
        ({"x-api-key": "sr_1_x"}, ("bearer", "x-api-key"), "sr_1_x"),
        ({}, ("bearer", "basic", "x-api-key"), None),
        ({"authorization": "Bearer "}, ("bearer",), None),
    ],
)
def test_where_clients_put_their_token(headers: dict[str, str], places: tuple[str, ...], found: str | None) -> None:
    assert token_in(headers, places) == found
