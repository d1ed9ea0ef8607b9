"""Verification as the service and the command line run it: on the verifier's own trust, with this version's parsers.

The policy (whose signatures count) is a file of the verifier, and beside it lies his memory `<policy>.memory.json`: the
newest checkpoint a sound verification has seen. Only a sound verification moves the memory on, and never backwards.

Over HTTP, verification is the command line in a process of its own, at lower priority: it reads the whole archive, and
must not take the event loop, the memory or the interpreter lock from acknowledging deliveries.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from strongroom.archive import policy as policy_file
from strongroom.archive import verify as archive_verify
from strongroom.archive.findings import Level, Report
from strongroom.archive.holdings import Progress
from strongroom.archive.stores.store import ObjectStore
from strongroom.archive.trust import Trust, recall, remember
from strongroom.ingest.sources import SOURCES
from strongroom.service.errors import TrustMissing, VerificationBusy, VerificationFailed
from strongroom.service.locks import exclusive

_NICENESS = 10


def memory_of(policy: Path) -> Path:
    """The verifier's memory that belongs to a policy file."""
    return policy.with_name(policy.name + ".memory.json")


def read_trust(policy: Path) -> Trust:
    """The trust in the policy file and the memory beside it. Raises TrustMissing, FormatError."""
    try:
        text = policy.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrustMissing(
            f"trust file {policy}: {error}",
            hint="it is made with the archive, in the state folder; name one with --trust",
        ) from None
    return Trust(policy_file.parse(text), recall(memory_of(policy)))


def verify(store: ObjectStore, policy: Path, level: Level, progress: Progress | None = None) -> Report:
    """Verify, and remember the checkpoint when sound. Raises TrustMissing, ObjectMissing, StoreUnavailable."""
    trust = read_trust(policy)
    report = archive_verify.verify(store, trust, level, rederive=rederive, progress=progress)
    newest = report.checkpoint
    if report.sound and newest is not None and (trust.memory is None or newest.size > trust.memory.size):
        try:
            with exclusive(memory_of(policy).with_suffix(".lock")):
                seen = recall(memory_of(policy))
                if seen is None or seen.size < newest.size:
                    remember(memory_of(policy), newest)
        except OSError as error:
            report.notes.append(f"the verifier's memory could not be written: {error}")
    return report


def rederive(source: str, rows: pa.Table) -> pa.Table | None:
    """The columns this version derives for stored rows, None for a source it does not know."""
    parser = SOURCES.get(source)
    if parser is None:
        return None
    return parser.derive(rows.column("raw").to_pylist(), rows.column("context").to_pylist())


class Verifier:
    """Runs verifications for the service, one at a time, each in a process of its own."""

    def __init__(self, archive: Path, policy: Path, seconds: float) -> None:
        self._archive = archive
        self._policy = policy
        self._seconds = seconds
        self._busy = asyncio.Lock()

    async def run(self, level: Level) -> dict[str, Any]:
        """The report, sound or not. Raises VerificationBusy, VerificationFailed."""
        if self._busy.locked():
            raise VerificationBusy("a verification is running", hint="wait for it")
        async with self._busy:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "strongroom.service.cli", "verify", "--json", "--level", level),
                *("--archive", str(self._archive), "--trust", str(self._policy)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            try:
                with contextlib.suppress(ProcessLookupError):
                    os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
                output, errors = await asyncio.wait_for(process.communicate(), self._seconds)
            except TimeoutError:
                raise VerificationFailed(
                    f"not finished within {self._seconds:g} seconds",
                    hint="raise verify_seconds, or use the command line",
                ) from None
            finally:
                # Also when the client left or the service stops: nobody would read the report.
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode not in (0, 1):
            raise VerificationFailed(errors.decode(errors="replace").strip() or f"exit code {process.returncode}")
        return cast(dict[str, Any], json.loads(output))
