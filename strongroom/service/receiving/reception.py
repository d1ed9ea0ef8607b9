"""How a pushed body is received: under its token's limits, not for ever, and answered in time.

body        may take `body_seconds`, and one second more for each SLOWEST_BYTES that came: who sends a byte now and
            then is cut off after a minute, who sends 64 MiB over a slow line is not
answer      within ANSWER_SECONDS of the body's end: EventBridge and others wait five seconds, and then send again
            what was taken. A write that goes on after that is not taken back; the next attempt finds its key, or is
            flagged as a repetition
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from strongroom.ingest.errors import BodyTooLarge, DeliveryRefused
from strongroom.ingest.intake import Accepted, Origin
from strongroom.ingest.protocols import Delivery
from strongroom.service.errors import Forbidden, TooSlow
from strongroom.service.node import Node
from strongroom.service.receiving.fairness import Admission, Fairness, TokenLimits
from strongroom.service.routes.answers import address_of
from strongroom.service.settings import Settings
from strongroom.service.tokens import ANY_SOURCE, Principal

ANSWER_SECONDS = 3.5
SLOWEST_BYTES = 64 << 10
"""Bytes a second below which a sender is too slow, in the long run."""


class Reception:
    """One request being received."""

    def __init__(self, request: Request, principal: Principal, protocol: str, node: Node, admission: Admission) -> None:
        self._request = request
        self._principal = principal
        self._protocol = protocol
        self._node = node
        self._admission = admission
        self._deadline: asyncio.Timeout | None = None
        self.bytes = 0
        """Bytes of the body so far."""

    async def stream(self, *, empty: DeliveryRefused | None = None) -> AsyncIterator[bytes]:
        """The body as it comes. Raises LimitReached, and `empty` when there was nothing."""
        loop = asyncio.get_running_loop()
        begun, allowed = loop.time(), self._node.settings.body_seconds
        self._until(begun + allowed)
        async for chunk in self._request.stream():
            if chunk:
                self.bytes += len(chunk)
                self._admission.hold(len(chunk))
                self._until(begun + allowed + self.bytes / SLOWEST_BYTES)
                yield chunk
        if empty is not None and not self.bytes:
            raise empty
        self._until(loop.time() + ANSWER_SECONDS)

    async def whole(self, limit: int, *, empty: DeliveryRefused | None = None) -> bytes:
        """The body at once. Raises BodyTooLarge beyond `limit` bytes, and as `stream`."""
        chunks = []
        async for chunk in self.stream(empty=empty):
            if self.bytes > limit:
                raise BodyTooLarge(f"the body passes {limit} bytes", hint="send it in smaller deliveries")
            chunks.append(chunk)
        return b"".join(chunks)

    async def deliver(
        self,
        chunks: AsyncIterator[bytes],
        *,
        source: str,
        coding: str,
        key: str | None = None,
        name: str = "",
        quarantine: bool = True,
    ) -> Accepted:
        """Hand a body to the intake; when this returns it is durable. Raises what the intake raises."""
        size = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in chunks:
                size += len(chunk)
                yield chunk

        accepted = await self._node.intake.receive(
            counted(),
            source=source,
            coding=coding,
            origin=Origin(self._principal.name, self._protocol, address_of(self._request), name),
            idempotency_key=key,
            quarantine_undecodable=quarantine,
            refuse_expanding=True,
        )
        if not accepted.duplicate:
            self._admission.spooled(accepted.sequence, size)
        return accepted

    async def deliver_whole(self, delivery: Delivery, source: str) -> Accepted:
        """The same for a body that is already here."""

        async def once() -> AsyncIterator[bytes]:
            yield delivery.content

        return await self.deliver(once(), source=source, coding=delivery.coding, key=delivery.key, name=delivery.name)

    def stored(self) -> None:
        """What came so far is no longer held: its memory can be used for what follows."""
        self._admission.let_go()

    def _until(self, moment: float) -> None:
        assert self._deadline is not None
        self._deadline.reschedule(moment)


@asynccontextmanager
async def receiving(request: Request, principal: Principal, protocol: str) -> AsyncIterator[Reception]:
    """Receive one request within the block. Raises LimitReached, TooSlow, and what the block raises."""
    node: Node = request.app.state.node
    fairness: Fairness = request.app.state.fairness
    with fairness.admit(principal.token, node.intake.sealed) as admission:
        reception = Reception(request, principal, protocol, node, admission)
        try:
            async with asyncio.timeout(None) as reception._deadline:
                yield reception
        except TimeoutError:
            raise TooSlow("the request took too long", hint="send it again; smaller deliveries are quicker") from None


def destination(principal: Principal, own: str) -> str:
    """The source a protocol's records go to. Raises Forbidden when the token is not for it."""
    must_be_allowed(principal, own)
    return own


def must_be_allowed(principal: Principal, source: str) -> None:
    """Raises Forbidden when the token may not push to `source`."""
    if not principal.may_ingest(source):
        allowed = ", ".join(sorted(principal.sources)) or "none"
        raise Forbidden(f"this token may not push to source {source!r}", hint=f"its sources: {allowed}")


def destination_of_lines(principal: Principal, enveloped: str) -> str:
    """The source that lines without an envelope go to: the token's one other source, or whatever they look like.

    Raises Forbidden when the token names several, or none but `enveloped`.
    """
    others = sorted(principal.sources - {enveloped, ANY_SOURCE})
    if principal.role == "admin" or ANY_SOURCE in principal.sources:
        return "auto"
    if len(others) == 1:
        return others[0]
    raise Forbidden(
        "it is not clear which source these lines belong to", hint="use a token with one source, or one for '*'"
    )


def fairness_of(settings: Settings) -> Fairness:
    """The limits out of the settings. One token can always send one body of the greatest size."""
    share = settings.token_share
    limits = TokenLimits(
        requests_per_second=settings.token_requests_per_second,
        bytes_per_second=settings.token_bytes_per_second,
        uploads=settings.token_uploads,
        memory_bytes=max(round(settings.max_inflight_bytes * share), settings.max_body_bytes),
        spool_bytes=round(settings.spool_bytes * share),
    )
    return Fairness(limits, time.monotonic)
