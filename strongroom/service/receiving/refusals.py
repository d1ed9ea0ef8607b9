"""Refused deliveries leave one trace: a record of source `audit`. A flood of them must not leave a flood.

The first refusal of a kind (who, from where, what, why) is recorded at once, the further ones of the same minute in one
record with their number. Kinds are bounded: beyond that, all others of the minute are one kind, `many`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from strongroom.service.acts import Act, act

INTERVAL_SECONDS = 60.0
MAX_KINDS = 256


@dataclass(frozen=True, slots=True)
class Kind:
    """What refusals have in common. `target` is the route, never what the client wrote in its place."""

    actor: str
    role: str
    address: str
    target: str
    code: str
    status: int


_MANY = Kind("many", "", "", "many", "many", 0)


class Refusals:
    """Counts refusals and records them with `record`. Belongs to one event loop."""

    def __init__(self, record: Callable[[Act], object]) -> None:
        self._record = record
        self._seen: Counter[Kind] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def note(self, kind: Kind) -> None:
        """A delivery was refused."""
        if kind not in self._seen and len(self._seen) >= MAX_KINDS:
            kind = _MANY
        self._seen[kind] += 1
        if self._seen[kind] == 1:
            self._record(_act(kind, 1))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_SECONDS, self.flush)

    def flush(self) -> None:
        """Record what was only counted, and begin anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for kind, count in self._seen.items():
            if count > 1:
                self._record(_act(kind, count - 1))
        self._seen.clear()


def _act(kind: Kind, count: int) -> Act:
    return act(
        "push.refused",
        actor=kind.actor,
        role=kind.role,
        address=kind.address,
        outcome="failure",
        target=kind.target,
        code=kind.code,
        status=kind.status,
        count=count,
    )
