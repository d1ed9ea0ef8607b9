"""Who may run a query now, and who is next: a line in which the users take turns.

Rules:

1. At most `concurrency` queries run, at most `per_user` of one user. Whoever finds no place waits.
2. A free place goes to the user who stands first, if he may run one more; then he stands last. So while somebody can
   be served, everybody else is served once at most before him, however many queries they have waiting.
3. The line is bounded, in all and for each user, and so is the wait: beyond these a query is refused (QueryBusy).
4. Whoever stops waiting leaves nothing behind, even when he was given a place at that very moment.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Iterator

from strongroom.query.errors import QueryBusy
from strongroom.query.limits import QueryLimits


class Slots:
    """Places for queries, and the line for them. Use from one event loop."""

    def __init__(self, limits: QueryLimits) -> None:
        self._limits = limits
        self._free = limits.concurrency
        self._running: Counter[str] = Counter()
        self._line: dict[str, deque[asyncio.Future[None]]] = {}  # users in the order of their turns; none is empty

    async def take(self, user: str) -> contextlib.AbstractContextManager[None]:
        """Wait for a place, at most `queue_seconds`; it is free again when the context ends. Raises QueryBusy."""
        turn = self._join(user)
        try:
            async with asyncio.timeout(self._limits.queue_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._give_back(user)
            else:
                self._leave(user, turn)
            if isinstance(error, TimeoutError):
                raise QueryBusy(
                    f"no place was free within {self._limits.queue_seconds:g} seconds: {self._limits.concurrency} "
                    f"queries run at once, {self._limits.per_user} of one user",
                    hint="try again soon, or make it a job, which waits by itself",
                ) from None
            raise
        return self._held(user)

    def _join(self, user: str) -> asyncio.Future[None]:
        """A turn, which is done when its place is there. Raises QueryBusy when the line is full."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.setdefault(user, deque()).append(turn)
        self._serve()
        if turn.done():
            return turn
        mine, all_ = len(self._line[user]), sum(map(len, self._line.values()))
        if mine <= self._limits.queued_per_user and all_ <= self._limits.queued:
            return turn
        self._leave(user, turn)
        whose = f"{mine - 1} queries of this user" if mine > self._limits.queued_per_user else f"{all_ - 1} queries"
        raise QueryBusy(f"{whose} are waiting already", hint="wait for one of them to end")

    def _serve(self) -> None:
        """Give the free places to those whose turn it is."""
        while self._free:
            user = next((user for user in self._line if self._running[user] < self._limits.per_user), None)
            if user is None:
                return
            turn = self._line[user].popleft()
            if not turn.cancelled():  # else he has stopped waiting, and is about to say so
                turn.set_result(None)
                self._free -= 1
                self._running[user] += 1
                self._line[user] = self._line.pop(user)
            if not self._line[user]:
                del self._line[user]

    @contextlib.contextmanager
    def _held(self, user: str) -> Iterator[None]:
        try:
            yield
        finally:
            self._give_back(user)

    def _give_back(self, user: str) -> None:
        self._free += 1
        self._running[user] -= 1
        if not self._running[user]:
            del self._running[user]
        self._serve()

    def _leave(self, user: str, turn: asyncio.Future[None]) -> None:
        waiting = self._line.get(user, deque())
        with contextlib.suppress(ValueError):  # passed over already
            waiting.remove(turn)
        if not waiting:
            self._line.pop(user, None)
