"""Who may run a query now: a bound for everybody together, and one for each user, so that nobody takes all places."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator

from strongroom.query.errors import QueryBusy
from strongroom.query.limits import QueryLimits


class Slots:
    """How many queries run at once, in all and of one user."""

    def __init__(self, limits: QueryLimits) -> None:
        self._limits = limits
        self._all = asyncio.Semaphore(limits.concurrency)
        self._users: Counter[str] = Counter()

    async def take(self, user: str) -> contextlib.AbstractContextManager[None]:
        """Wait for a slot, at most `queue_seconds`. Raises QueryBusy. The slot is free again when the context ends."""
        if self._users[user] >= self._limits.per_user:
            raise QueryBusy(
                f"{self._limits.per_user} queries of this user are running", hint="wait for one of them to end"
            )
        self._users[user] += 1
        try:
            await asyncio.wait_for(self._all.acquire(), self._limits.queue_seconds)
        except BaseException as error:
            self._leave(user)
            if isinstance(error, TimeoutError):
                raise QueryBusy(f"{self._limits.concurrency} queries are running", hint="try again soon") from None
            raise
        return self._held(user)

    @contextlib.contextmanager
    def _held(self, user: str) -> Iterator[None]:
        try:
            yield
        finally:
            self._all.release()
            self._leave(user)

    def _leave(self, user: str) -> None:
        self._users[user] -= 1
        if not self._users[user]:
            del self._users[user]
