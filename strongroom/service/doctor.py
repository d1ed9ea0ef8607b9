"""`strongroom doctor`: is this machine and this set-up fit, and if not, what to do.

Each check is a function that looks and changes nothing but a probe file it removes again. A failure means the service
will not work or must not be trusted; a warning, that something is weaker than it could be.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from strongroom.archive import keys
from strongroom.archive.entry import parse_timestamp
from strongroom.archive.errors import FormatError, KeyUnavailable, KeyUnusable, StrongroomError
from strongroom.archive.log import Log, holds_archive
from strongroom.archive.stores.store import ObjectStore
from strongroom.archive.trust import recall
from strongroom.service.keeping.storage import open_archive, open_log
from strongroom.service.settings import Settings, unknown_variables
from strongroom.service.state import StateFolder
from strongroom.service.tokens import TokenStore

Verdict = Literal["ok", "warning", "failure"]

_LOW_DISK = 5 << 30
_PROBE = (
    "import json, os; from strongroom.query.process import sandbox; "
    "print(json.dumps(sandbox.enter(readable=[], memory_bytes=1 << 30, parent=os.getppid())))"
)


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the examination."""

    verdict: Verdict
    check: str
    found: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(settings: Settings) -> list[Result]:
    """Every check, in an order that lets the first failure explain the later ones."""
    state = StateFolder(settings.state.absolute())
    checks: list[Callable[[], Iterator[Result]]] = [
        _python,
        _hashing,
        _sandbox,
        _clock,
        _variables,
        lambda: _archive(settings),
        lambda: _encryption(settings),
        lambda: _state(state),
        lambda: _keys(state),
        lambda: _signer(settings, state),
        lambda: _tokens(state),
        lambda: _disk(settings),
        lambda: _listening(settings),
    ]
    results: list[Result] = []
    for check in checks:
        try:
            results += check()
        except (OSError, StrongroomError) as error:
            results.append(Result("failure", check.__name__.strip("_"), str(error), "see the message"))
    return results


def _python() -> Iterator[Result]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    fit = sys.version_info >= (3, 11)
    yield Result("ok" if fit else "failure", "python", f"{version} on {sys.platform}", "" if fit else "3.11 or newer")
    if sys.platform != "linux":
        yield Result("warning", "platform", sys.platform, "the query sandbox needs Linux")


def _hashing() -> Iterator[Result]:
    begun = time.perf_counter()
    hashlib.sha256(bytes(64 << 20)).digest()
    speed = 64 / (time.perf_counter() - begun)
    slow = speed < 300
    fix = "this processor has no SHA instructions: ingestion and verification are bound by it" if slow else ""
    yield Result("warning" if slow else "ok", "hashing", f"{ssl.OPENSSL_VERSION}, SHA-256 at {speed:,.0f} MiB/s", fix)


def _sandbox() -> Iterator[Result]:
    command = [sys.executable, "-c", _PROBE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603 (our own code)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        yield Result("failure", "sandbox", reason, "queries will not run here")
        return
    for wall, standing in json.loads(done.stdout).items():
        there = standing.startswith("on")
        fix = "" if there else "use a kernel (or container profile) that allows it; queries run with one wall less"
        yield Result("ok" if there else "warning", f"sandbox: {wall}", standing, fix)


def _clock() -> Iterator[Result]:
    now = datetime.now(UTC)
    sane = now.year >= 2025
    yield Result(
        "ok" if sane else "failure", "clock", now.isoformat(timespec="seconds"), "" if sane else "set the clock"
    )


def _variables() -> Iterator[Result]:
    for name in unknown_variables():
        yield Result("warning", "environment", f"{name} is no setting", "misspelt? docs/settings.md lists all")


def _archive(settings: Settings) -> Iterator[Result]:
    if settings.archive_folder is not None:
        yield from _writable("archive", settings.archive_folder)
    store = _store(settings)
    if store is None:
        found = f"none in {settings.archive} yet"
        yield Result("ok", "archive", found, "the first `strongroom serve` or `ingest` makes it")
        return
    log = Log.open(store)
    yield Result("ok", "archive", f"{log.origin}: {log.size:,} entries; {store.description}")
    newest = parse_timestamp(log.entry(log.size - 1).written_at)
    if newest > datetime.now(UTC) + timedelta(minutes=5):
        yield Result("failure", "clock", f"behind the newest entry ({newest.isoformat()})", "set the clock")


def _encryption(settings: Settings) -> Iterator[Result]:
    """Whether what the archive's log says is needed to read it is at hand."""
    store = _store(settings)
    if store is None:
        return
    log = open_log(settings, store)
    if not log.wrapping_keys and not settings.encryption_key:
        yield Result(
            "ok", "encryption", "none by us", "docs/operators/encryption.md, if the store's provider must not read"
        )
    for declared in {one.key: one for one in log.wrapping_keys}.values():
        try:
            standing = log.contents.encryption.standing(declared.key, declared.canary)
            yield Result("ok", "encryption", f"{declared.key}: {standing}")
        except (KeyUnavailable, FormatError) as error:
            yield Result("failure", "encryption", error.message, error.hint)
    try:
        log.must_encrypt_as_declared()
    except KeyUnusable as error:
        yield Result("failure", "encryption", error.message, error.hint)


def _store(settings: Settings) -> ObjectStore | None:
    """The archive's store, None when no archive is there yet."""
    if settings.archive_folder is not None and not settings.archive_folder.is_dir():
        return None
    store = open_archive(settings)
    return store if holds_archive(store) else None


def _state(state: StateFolder) -> Iterator[Result]:
    if not state.root.is_dir():
        yield Result("ok", "state", f"none in {state.root} yet", "the first `strongroom serve` makes it")
        return
    mode = stat.S_IMODE(state.root.stat().st_mode)
    private = not mode & 0o077
    fix = "" if private else f"chmod 700 {state.root}"
    yield Result("ok" if private else "warning", "state", f"{state.root}, mode {mode:04o}", fix)
    yield from _writable("state", state.root)
    spools = list((state.root / "writers").glob("*")) if (state.root / "writers").is_dir() else []
    for spool in spools:
        waiting = sum(item.stat().st_size for item in spool.rglob("*.spool"))
        yield Result("ok", f"spool of {spool.name}", f"{waiting:,} bytes on disk")


def _keys(state: StateFolder) -> Iterator[Result]:
    for path in (state.log_key, state.receipts_key, state.tokens):
        if not path.exists():
            if state.node.exists() and path != state.tokens:
                yield Result("failure", path.name, f"{path} is missing", "restore the state folder from its backup")
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        private = not mode & 0o077
        fix = "" if private else f"chmod 600 {path}; others could read it: replace what is in it"
        locked = ", encrypted" if path != state.tokens and keys.is_encrypted(path) else ""
        yield Result("ok" if private else "failure", path.name, f"mode {mode:04o}{locked}", fix)
    if state.next_log_key.exists():
        yield Result("warning", state.next_log_key.name, "a key change is under way", "strongroom keys rotate")


def _signer(settings: Settings, state: StateFolder) -> Iterator[Result]:
    remembered, store = recall(state.signer_memory), _store(settings)
    if remembered is None or store is None:
        return
    size = Log.open(store).size
    if size < remembered.size:
        found = f"signed {remembered.size:,} entries, the archive shows {size:,}"
        yield Result("failure", "signer", found, "entries were removed: run `strongroom verify`, sign nothing")
    else:
        yield Result("ok", "signer", f"signed {remembered.size:,} of {size:,} entries")


def _tokens(state: StateFolder) -> Iterator[Result]:
    now = datetime.now(UTC)
    known = TokenStore(state.tokens).tokens() if state.tokens.exists() else []
    alive = [token for token in known if not token.expired(now)]
    fix = "" if alive else "strongroom token create --role admin --name <you>"
    yield Result("ok" if alive else "warning", "tokens", f"{len(alive)} valid", fix)


def _disk(settings: Settings) -> Iterator[Result]:
    for name, folder in (("archive", settings.archive_folder), ("state", settings.state)):
        if folder is None:
            continue
        free = shutil.disk_usage(_existing(folder.absolute())).free
        enough = free > (settings.spool_bytes if name == "state" else _LOW_DISK)
        fix = "" if enough else "make room, or set spool_bytes lower: a full disk means 503 to every forwarder"
        yield Result("ok" if enough else "warning", f"disk of {name}", f"{free / (1 << 30):,.1f} GiB free", fix)


def _listening(settings: Settings) -> Iterator[Result]:
    safe = settings.loopback or settings.tls_certificate is not None
    fix = "" if safe else "tokens would travel in the clear: set tls_certificate and tls_key, or use a TLS proxy"
    yield Result("ok" if safe else "warning", "listen", settings.listen, fix)


def _writable(name: str, folder: Path) -> Iterator[Result]:
    """The store needs create, hard link and fsync of folders; some network file systems lack one of them."""
    place = _existing(folder)
    probe, linked = place / f".doctor-{os.getpid()}", place / f".doctor-{os.getpid()}-link"
    try:
        probe.touch(mode=0o600, exist_ok=False)
        os.link(probe, linked)
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        yield Result("ok", f"{name} folder", f"{place}: create, link and fsync work")
    except OSError as error:
        fix = "give this user the folder, on a file system with hard links"
        yield Result("failure", f"{name} folder", f"{place}: {error.strerror}", fix)
    finally:
        for leftover in (linked, probe):
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.is_dir())
