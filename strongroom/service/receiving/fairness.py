"""What one token may take of what all share: requests, bytes, uploads at once, memory in flight, the spool. Pure.

A flood through one token must find its own end before it is everybody's. All limits are answered alike, as trouble that
passes (503 with Retry-After): a forwarder that is asked to wait keeps its data, and one that is refused loses it. 429
would be the textbook's answer, and Fluentd, elasticsearch-js and others drop data on it.

Rates are token buckets that may go into debt: a delivery is admitted while the bucket holds anything, and is charged
when it has come, because its size is known only then. The spool's share counts what came through this process since it
started and is not sealed yet.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from strongroom.service.errors import LimitReached

_BURST_SECONDS = 2.0
_PATIENCE_SECONDS = 5.0
"""When to try again where time alone does not tell."""


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """Bounds of one token: bytes, and numbers a second."""

    requests_per_second: float
    bytes_per_second: float
    uploads: int
    memory_bytes: int
    spool_bytes: int


@dataclass(slots=True)
class _Bucket:
    rate: float
    level: float
    stamp: float

    def wait(self, now: float) -> float:
        """Seconds until something may pass, 0 when it may now."""
        self.level = min(self.rate * _BURST_SECONDS, self.level + (now - self.stamp) * self.rate)
        self.stamp = now
        return 0.0 if self.level > 0 else (1.0 - self.level) / self.rate

    def charge(self, amount: float) -> None:
        self.level -= amount


@dataclass(slots=True)
class _Use:
    requests: _Bucket
    bytes: _Bucket
    uploads: int = 0
    held: int = 0
    spooled: int = 0
    batches: deque[tuple[int, int]] = field(default_factory=deque)

    def release(self, sealed: int) -> None:
        """Forget what is sealed."""
        while self.batches and self.batches[0][0] <= sealed:
            self.spooled -= self.batches.popleft()[1]


class Admission:
    """One request that was let in."""

    def __init__(self, use: _Use, limits: TokenLimits, token: str) -> None:
        self._use, self._limits, self._token = use, limits, token
        self._held = 0

    def hold(self, size: int) -> None:
        """More bytes of it arrived. Raises LimitReached when the token's bodies in flight are more than its share."""
        self._use.bytes.charge(size)
        if self._use.held + size > self._limits.memory_bytes:
            raise LimitReached(
                f"deliveries of token {self._token} in flight hold {self._use.held} bytes", hint="send again soon"
            )
        self._use.held += size
        self._held += size

    def let_go(self) -> None:
        """Bytes of it are no longer in memory."""
        self._use.held -= self._held
        self._held = 0

    def spooled(self, sequence: int, size: int) -> None:
        """A batch of it is in the spool."""
        self._use.batches.append((sequence, size))
        self._use.spooled += size


class Fairness:
    """The use of all tokens. `clock`: seconds that only go forward. Belongs to one event loop."""

    def __init__(self, limits: TokenLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._uses: dict[str, _Use] = defaultdict(self._new)

    @contextmanager
    def admit(self, token: str, sealed: int) -> Iterator[Admission]:
        """Let a request of `token` in for the length of the block. `sealed`: the last batch that is sealed.

        Raises LimitReached.
        """
        use, limits, now = self._uses[token], self._limits, self._clock()
        use.release(sealed)
        wait = max(use.requests.wait(now), use.bytes.wait(now))
        if wait > 0:
            raise LimitReached(
                f"token {token} sends more than its share",
                hint="settings token_requests_per_second, token_bytes_per_second",
                retry_after=wait,
            )
        if use.uploads >= limits.uploads:
            raise LimitReached(
                f"token {token} has {use.uploads} uploads under way",
                hint="setting token_uploads",
                retry_after=_PATIENCE_SECONDS,
            )
        if use.spooled >= limits.spool_bytes:
            raise LimitReached(
                f"{use.spooled} bytes of token {token} wait to be sealed",
                hint="setting token_share",
                retry_after=_PATIENCE_SECONDS,
            )
        use.requests.charge(1)
        use.uploads += 1
        admission = Admission(use, limits, token)
        try:
            yield admission
        finally:
            admission.let_go()
            use.uploads -= 1

    def _new(self) -> _Use:
        now = self._clock()
        requests, size = self._limits.requests_per_second, self._limits.bytes_per_second
        return _Use(
            _Bucket(requests, requests * _BURST_SECONDS, now),
            _Bucket(size, size * _BURST_SECONDS, now),
        )
