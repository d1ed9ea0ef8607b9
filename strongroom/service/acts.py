"""Acts: what the service does for people and is held to. Their form as records, and how the command line leaves them.

Acts on the command line happen when no service may be running, or no archive exists yet. They are left as files in the
state folder's `acts/` before they take effect; service/audit.py takes them into the archive.
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from strongroom.archive import durable
from strongroom.archive.entry import timestamp


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


_act = msgspec.json.Decoder(Act)  # made here: see archive/details.py


def act(
    action: str, *, actor: str, role: str, address: str, outcome: str, target: str = "", id: str = "", **detail: Any
) -> Act:
    """An act of this moment; `id` of an earlier record when this one continues it."""
    facts = {"act": id or secrets.token_hex(8), "role": role, **detail}
    return Act(timestamp(datetime.now(UTC)), actor, action, target, outcome, address, facts)


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


def left(acts: Path) -> list[tuple[Path, Act | None]]:
    """The acts that were left, in order; None for one that can't be read."""
    found: list[tuple[Path, Act | None]] = []
    for path in sorted(acts.glob("*.json")):
        try:
            found.append((path, _act.decode(path.read_bytes())))
        except FileNotFoundError:
            continue  # another writer was faster
        except (OSError, msgspec.DecodeError):
            found.append((path, None))
    return found
