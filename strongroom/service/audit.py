"""The service's own log: every query and every administrative act is a record of source `audit`, sealed like the rest.

Rules:

1. A query is recorded before it runs; when that fails, the query does not run. What became of it is a second record.
2. Acts on the command line happen when no service may be running, or no archive exists yet. They are left as files in
   the state folder's `acts/` before they take effect; the next writer on this state folder takes them in and removes
   each file after its record is durable. A crash between the two records an act twice, with the same id, never not.
3. Nobody can push to source `audit` (auth.INTERNAL_SOURCES): what stands there, the service wrote.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import secrets
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog

from strongroom.archive import durable
from strongroom.archive.entry import timestamp
from strongroom.ingest.intake import Accepted, Origin

log = structlog.get_logger(__name__)


class Act(msgspec.Struct, frozen=True):
    """One thing that was done, as a record (columns: ingest/sources/audit.py).

    `outcome` is started, success or failure; `detail` carries at least `act`, the id that ties the records of one act
    together, and `role`.
    """

    time: str
    actor: str
    action: str
    target: str
    outcome: str
    address: str
    detail: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.detail["act"])

    def encode(self) -> bytes:
        return msgspec.json.encode(self)


class Appender(Protocol):
    """The part of the intake that the audit needs."""

    async def append(self, content: bytes, *, source: str, origin: Origin) -> Accepted: ...


def act(
    action: str, *, actor: str, role: str, address: str, outcome: str, target: str = "", id: str = "", **detail: Any
) -> Act:
    """An act of this moment; `id` of an earlier record when this one continues it."""
    facts = {"act": id or secrets.token_hex(8), "role": role, **detail}
    return Act(timestamp(datetime.now(UTC)), actor, action, target, outcome, address, facts)


class Audit:
    """Writes acts into the archive."""

    def __init__(self, appender: Appender, acts: Path) -> None:
        self._appender = appender
        self._acts = acts
        self._pending: set[asyncio.Task[None]] = set()

    async def record(self, done: Act) -> None:
        """Durably record an act. Raises what the intake raises: the caller then must not act."""
        await self._append(done.encode(), done.actor, done.address)

    def record_soon(self, done: Act) -> None:
        """Record an act from where waiting is impossible, such as a request whose client has left."""
        task = asyncio.create_task(self._record_or_report(done))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def settle(self) -> None:
        """Wait for what `record_soon` began."""
        await asyncio.gather(*self._pending)

    async def collect(self) -> int:
        """Take in the acts the command line left. Returns how many."""
        waiting = await asyncio.to_thread(_left_acts, self._acts)
        for path, done in waiting:
            await self._append(done.encode(), done.actor, done.address)
            path.unlink(missing_ok=True)
        return len(waiting)

    async def _append(self, content: bytes, actor: str, address: str) -> None:
        origin = Origin(forwarder=actor, protocol="audit", address=address)
        await self._appender.append(content, source="audit", origin=origin)

    async def _record_or_report(self, done: Act) -> None:
        try:
            await self.record(done)
        except Exception:
            # Its first record is durable; the missing second one shows as an act without an outcome.
            log.exception("the outcome of an act could not be recorded", act=done.id, action=done.action)


def leave(acts: Path, done: Act) -> None:
    """Durably leave an act for the next writer. Raises OSError: the caller then must not act."""
    acts.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Names sort by time, so that acts are taken in as they happened.
    name = f"{done.time.replace(':', '').replace('.', '')}-{done.id}"
    durable.replace(acts / f"{name}.json", done.encode())


def local_act(action: str, *, outcome: str, target: str = "", id: str = "", **detail: Any) -> Act:
    """An act by the person at this machine's command line."""
    who = f"{local_user()}@{socket.gethostname()}"
    return act(action, actor=who, role="local", address="", outcome=outcome, target=target, id=id, **detail)


def local_user() -> str:
    """The name of who runs this process, or his number where he has no name (containers)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"


def _left_acts(acts: Path) -> list[tuple[Path, Act]]:
    found: list[tuple[Path, Act]] = []
    for path in sorted(acts.glob("*.json")):
        try:
            found.append((path, msgspec.json.decode(path.read_bytes(), type=Act)))
        except FileNotFoundError:
            continue  # another writer was faster
        except (OSError, msgspec.DecodeError) as error:
            log.error("an act left by the command line can't be read", path=str(path), error=str(error))
    return found
