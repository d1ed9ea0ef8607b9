"""Verification as the command line runs it: on the verifier's own trust, with this version's parsers.

The policy (whose signatures count) is a file of the verifier. What belongs to it lies beside it, named after it:

    <policy>.memory.json       the newest checkpoint a sound verification has seen; moves on only when sound, never back
    <policy>.tsa.pem           root certificates of the time-stamping authorities whose tokens count
    <policy>.levels/<level>    the checkpoint up to which a run of that level, or a deeper one, found all objects sound
    <policy>.progress/<level>  how far an unfinished run has come, and a lock: one run of a level at a time keeps it
                               (the service's runs have progress of their own: people can't get in their way)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from strongroom.archive import policy as policy_file
from strongroom.archive import timestamps
from strongroom.archive.encryption.wrapping import NO_KEYS, WrappingKeys
from strongroom.archive.locks import attempted, exclusive
from strongroom.archive.note import Checkpoint
from strongroom.archive.stores.store import ObjectStore
from strongroom.archive.trust import Trust, recall, remember
from strongroom.archive.verification import verify as archive_verify
from strongroom.archive.verification.findings import Level, Report
from strongroom.archive.verification.holdings import Progress
from strongroom.archive.verification.progress import Journal
from strongroom.ingest.sources import BUILT_IN, Registry
from strongroom.service.errors import TrustMissing, VerificationBusy

# A run of the level on the left has done what one of those on the right would.
_COVERS: Mapping[Level, tuple[Level, ...]] = {
    "deep": ("deep", "complete", "inventory"),
    "complete": ("complete", "inventory"),
    "inventory": ("inventory",),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """How to verify. `resume`: go on where an unfinished run of this level was; `incremental`: only what no earlier
    one has covered; `seconds`: stop after; `live`: a signer is at work; `run`: the id to report under, "" for a new
    one; `tsa_roots`: instead of the file beside the policy; `keys`: to open what is encrypted."""

    level: Level
    workers: int = 2
    fraction: float = 0.05
    resume: bool = False
    incremental: bool = False
    seconds: float = math.inf
    live: bool = False
    run: str = ""
    tsa_roots: Path | None = None
    keys: WrappingKeys = NO_KEYS


def memory_of(policy: Path) -> Path:
    """The verifier's memory that belongs to a policy file."""
    return policy.with_name(policy.name + ".memory.json")


def tsa_roots_of(policy: Path) -> Path:
    """The time-stamping authorities that belong to a policy file."""
    return policy.with_name(policy.name + ".tsa.pem")


def progress_of(policy: Path, level: Level, run: str = "") -> Path:
    """The progress of an unfinished run that belongs to a policy file; `run` is not "" for the service's."""
    return policy.with_name(policy.name + ".progress") / f"{level}{'-service' if run else ''}.json"


def read_trust(policy: Path, tsa_roots: Path | None = None) -> Trust:
    """The trust in the policy file and what lies beside it. Raises TrustMissing, FormatError."""
    beside = tsa_roots_of(policy)
    try:
        text = policy.read_text("utf-8")
        roots = tsa_roots or (beside if beside.exists() else None)
        pem = roots.read_bytes() if roots else b""
    except (OSError, UnicodeDecodeError) as error:
        raise TrustMissing(
            f"trust file {policy}: {error}",
            hint="it is made with the archive, in the state folder; name one with --trust",
        ) from None
    return Trust(policy_file.parse(text), recall(memory_of(policy)), timestamps.roots_of(pem) if pem else ())


def verify(
    store: ObjectStore, policy: Path, asked: Asked, progress: Progress | None = None, registry: Registry = BUILT_IN
) -> Report:
    """Verify, and remember the checkpoint when sound.

    Raises TrustMissing, VerificationBusy when it is to resume what is running, ObjectMissing, StoreUnavailable.
    """
    trust = read_trust(policy, asked.tsa_roots)
    path = progress_of(policy, asked.level, asked.run)
    with contextlib.ExitStack() as held:
        try:
            mine = held.enter_context(attempted(path.with_suffix(".lock")))
        except OSError:  # a policy on a medium that can't be written: verify without keeping anything
            mine = False
        if asked.resume and not mine and not asked.run:
            raise VerificationBusy(
                f"the progress of the {asked.level} verification in {path} is in use, or can't be written",
                hint="wait for the one that is running, or leave out --resume",
            )
        report = archive_verify.verify(
            store,
            trust,
            asked.level,
            rederive=Rederive(registry),
            progress=progress,
            threads=asked.workers,
            processes=asked.workers,
            fraction=asked.fraction,
            live=asked.live,
            since=_covered(policy, asked.level) if asked.incremental else None,
            journal=Journal(path) if mine else None,
            resume=asked.resume,
            seconds=asked.seconds,
            run=asked.run,
            keys=asked.keys,
        )
    if report.sound and report.checkpoint is not None:
        _remember(policy, asked.level, report.checkpoint, report)
    return report


@dataclass(frozen=True, slots=True)
class Rederive:
    """The columns that these sources derive for stored rows. Goes to the processes that verify.

    None for a source that is not there, and for a declared one that was declared otherwise when the rows were sealed.
    """

    registry: Registry

    def __call__(self, source: str, rows: pa.Table) -> pa.Table | None:
        parser = self.registry.sources.get(source)
        sealed_with = (rows.schema.metadata or {}).get(b"strongroom.declaration", b"").decode("utf-8", "replace")
        declared = self.registry.fingerprint(source)
        # What a segment says of itself excuses none of the sources that are in this program.
        if parser is None or (declared and sealed_with != declared):
            return None
        return parser.derive(rows.column("raw").to_pylist(), rows.column("context").to_pylist())


def _remember(policy: Path, level: Level, newest: Checkpoint, report: Report) -> None:
    try:
        with exclusive(memory_of(policy).with_suffix(".lock")):
            for path in (memory_of(policy), *(_level_file(policy, covered) for covered in _COVERS.get(level, ()))):
                seen = recall(path)
                if seen is None or seen.size < newest.size:
                    remember(path, newest)
    except OSError as error:
        report.notes.append(f"the verifier's memory could not be written: {error}")


def _covered(policy: Path, level: Level) -> Checkpoint | None:
    return recall(_level_file(policy, level))


def _level_file(policy: Path, level: Level) -> Path:
    return policy.with_name(policy.name + ".levels") / f"{level}.json"
