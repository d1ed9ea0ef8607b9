"""The lock canary: does this bucket's lock hold? Tried on an object made for it, at every start and once a day.

There are S3-compatible stores that take an object in COMPLIANCE mode and then let it go. So a small object is put,
locked for an hour, and everything that must not be possible is tried on it:

    claim        put on its name again, if it were free: refused, or two writers would commit two entries of one index
    overwrite    put on its name again: refused, or a newer version beside which the first is still there, unchanged
    delete       delete its version, also with the bypass of governance mode: refused
    shorten      lock it for less time, or in governance mode: refused
    remain       afterwards the first version is there with its bytes and its date

A trial that is refused shows that *these credentials* can't do it, by the lock or by having no such right. To see the
lock itself at work, run `strongroom doctor bucket` once with an administrator's credentials. What stays behind are
objects of a few bytes under `canary/`; nothing reads them, and a lifecycle rule may remove them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from strongroom.archive import layout
from strongroom.archive.errors import ArchiveError, ObjectExists, StoreRefused
from strongroom.archive.stores.s3 import S3Store
from strongroom.archive.stores.s3client import code_of, translated
from strongroom.service.alerts.alert import Alert, Severity

LEVEL = "canary"
_LOCKED = timedelta(hours=1)
_SHORTER = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing tried. `held`: the lock held; None when it could not be tried. `found`: what the store did."""

    what: str
    held: bool | None
    found: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def holds(trials: Sequence[Trial]) -> bool:
    """Whether everything could be tried and the lock held each time."""
    return bool(trials) and all(trial.held for trial in trials)


def try_locks(store: S3Store, now: datetime | None = None) -> list[Trial]:
    """Try everything. Raises nothing that the store says: it is in the trials."""
    now = now or datetime.now(UTC)
    key = layout.canary_key(now, secrets.token_hex(8))
    until = (now + _LOCKED).replace(microsecond=0)
    content = b"strongroom canary\n"
    client, where = store.client, store.place(key)
    lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}
    try:
        with translated(key):
            answer = client.put_object(
                **where, Body=content, IfNoneMatch="*", ChecksumAlgorithm="SHA256", **lock, **store.encryption
            )
    except ArchiveError as error:
        # That these credentials may not put says nothing about locks; that the bucket takes no lock says all.
        permitted = code_of(error.__cause__)[1] != 403 if hasattr(error.__cause__, "response") else True
        refused = isinstance(error, StoreRefused) and permitted
        return [Trial("put a locked object", False if refused else None, error.message)]
    version = answer.get("VersionId")
    if not version:
        return [Trial("put a locked object", False, "the bucket gave it no version")]
    exact = {**where, "VersionId": version}
    weaker = {"Mode": "COMPLIANCE", "RetainUntilDate": now + _SHORTER}
    governed = {"Mode": "GOVERNANCE", "RetainUntilDate": until}
    return [
        _claim(store, key),
        _overwrite(store, key, version, content),
        _refused("delete the version", lambda: client.delete_object(**exact)),
        _refused(
            "delete the version, bypassing governance",
            lambda: client.delete_object(**exact, BypassGovernanceRetention=True),
        ),
        _refused("shorten the lock", lambda: client.put_object_retention(**exact, Retention=weaker)),
        _refused("weaken the lock", lambda: client.put_object_retention(**exact, Retention=governed)),
        _remains(store, key, version, content, until),
    ]


def alert(origin: str, trials: Sequence[Trial], now: datetime) -> Alert:
    """What people are told: that the lock does not hold, or that it does again."""
    failed = [trial for trial in trials if not trial.held]
    if not failed:
        return Alert("recovered", "info", origin, LEVEL, "held", f"the locks of {origin} hold", "all trials held", now)
    said = "; ".join(f"{trial.what}: {trial.found}" for trial in failed)
    certain = any(trial.held is False for trial in failed)
    title = f"the locks of {origin} {'do not hold' if certain else 'could not be tried'}"
    severity: Severity = "critical" if certain else "error"
    finding = {
        "code": "LOCKS_NOT_HELD" if certain else "LOCKS_NOT_TRIED",
        "severity": severity,
        "meaning": title,
        "object": LEVEL,
        "expected": "every trial refused",
        "actual": said,
        "next_step": "Run `strongroom doctor bucket`. What a store does not keep, verification can only find gone.",
    }
    return Alert("failed", severity, origin, LEVEL, "not held", title, said, now, findings=(finding,))


def _claim(store: S3Store, key: str) -> Trial:
    what = "create what exists"
    try:
        with translated(key):
            store.client.put_object(**store.place(key), Body=b"", IfNoneMatch="*", ChecksumAlgorithm="SHA256")
    except ObjectExists:
        return Trial(what, True, "refused: the name is taken")
    except ArchiveError as error:
        return Trial(what, False if isinstance(error, StoreRefused) else None, error.message)
    return Trial(what, False, "allowed: the store ignores If-None-Match, so writers can't agree on one log")


def _overwrite(store: S3Store, key: str, version: str, content: bytes) -> Trial:
    what = "overwrite the object"
    try:
        with translated(key):
            answer = store.client.put_object(**store.place(key), Body=b"overwritten\n", ChecksumAlgorithm="SHA256")
        kept = answer.get("VersionId") != version and store.get(key, version) == content
    except (StoreRefused, ObjectExists) as error:
        return Trial(what, True, f"refused: {error.message}")
    except ArchiveError as error:
        return Trial(what, None, error.message)
    return Trial(what, kept, "a newer version, the first unchanged" if kept else "the first version was replaced")


def _refused(what: str, attempt: Callable[[], object]) -> Trial:
    try:
        with translated(what):
            attempt()
    except StoreRefused as error:
        return Trial(what, True, f"refused: {error.message}")
    except ArchiveError as error:
        return Trial(what, None, error.message)
    return Trial(what, False, "allowed")


def _remains(store: S3Store, key: str, version: str, content: bytes, until: datetime) -> Trial:
    what = "find it as it was"
    try:
        same = sha256(store.get(key, version)).digest() == sha256(content).digest()
        locked = store.protection(key, version)
    except ArchiveError as error:
        return Trial(what, False, error.message)
    date = locked.retain_until
    kept = same and locked.mode == "COMPLIANCE" and date is not None and date >= until
    shown = f"{locked.mode or 'no lock'}{f' until {date:%Y-%m-%d %H:%M:%S}Z' if date else ''}"
    return Trial(what, kept, shown if same else "its bytes are gone or changed")
