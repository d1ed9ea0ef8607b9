"""`strongroom verify --source cloudtrail`: is everything AWS says it wrote in a period here, unaltered?

Digests come from a bucket, from a folder of copies, or from the archive itself; the files they name are looked for in
the archive, or where the digests lie. AWS's public keys are the verifier's own: a file he brings, what he asked AWS for
and kept beside the state folder's policy. What it says rests on the archive being sound, which the levels prove.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from strongroom.archive.entry import timestamp
from strongroom.archive.errors import ObjectMissing
from strongroom.archive.log import Log
from strongroom.archive.verification.findings import Finding
from strongroom.ingest.fetch.aws import Access
from strongroom.ingest.fetch.buckets import Buckets
from strongroom.ingest.fetch.objects import Perimeter
from strongroom.ingest.trails import cloudtrail_keys, completeness
from strongroom.ingest.trails.completeness import Files, FilesAtPlace, Outcome, SealedFiles, Tell
from strongroom.ingest.trails.digest_places import FolderPlace, Place, S3Place
from strongroom.ingest.trails.digests import DELAY, Judged, PublicKeys
from strongroom.service.checking import attestations
from strongroom.service.errors import SettingsInvalid
from strongroom.service.keeping.storage import open_log
from strongroom.service.settings import Settings
from strongroom.service.state import StateFolder

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Asked:
    """What to verify. `digests`: a folder, `s3://bucket/prefix`, or "" for those sealed in the archive; `files`: where
    log files are looked for; `keys`: file of public keys; `journal`: keeps what was hashed at the place, for the next
    run."""

    since: datetime
    until: datetime
    digests: str = ""
    files: Literal["archive", "place"] = "archive"
    keys: Path | None = None
    journal: Path | None = None
    workers: int = 8


@dataclass(slots=True)
class SourceReport:
    """The outcome. `facts`: counts and chains; `attested`: entries that say so in the archive."""

    run: str
    asked: Asked
    facts: Mapping[str, Any]
    findings: list[Finding]
    notes: list[str]
    incomplete: list[str]
    outcome: Outcome
    attested: list[int] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether every digest was valid and every file there."""
        return not self.findings and not self.incomplete

    @property
    def verdict(self) -> str:
        """In a word."""
        if self.findings:
            return "incomplete source"
        return "incomplete check" if self.incomplete else "complete"

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "source": "cloudtrail",
            "sound": self.sound,
            "verdict": self.verdict,
            "run": self.run,
            "since": timestamp(self.asked.since),
            "until": timestamp(self.asked.until),
            "digests_from": self.asked.digests or "the archive",
            "files_in": "the archive" if self.asked.files == "archive" else self.asked.digests,
            **self.facts,
            "notes": self.notes,
            "incomplete": self.incomplete,
            "findings": [finding.to_json() for finding in self.findings],
            "attested": self.attested,
        }


def period(since: str | None, until: str | None, now: datetime) -> tuple[datetime, datetime]:
    """The period asked for: by default the day that ended an hour ago, whose digests must be there. Raises
    SettingsInvalid."""
    end = _moment("--until", until) if until else now - DELAY
    start = _moment("--since", since) if since else end - _DAY
    if start >= end:
        raise SettingsInvalid("--since must be before --until", hint="times are UTC")
    return start, end


def verify(settings: Settings, asked: Asked, tell: Tell) -> SourceReport:
    """Verify. Raises what opening the archive and reading the place raise."""
    if not asked.digests and asked.files == "place":
        raise SettingsInvalid("--files place needs --digests, the place", hint="a folder, or s3://bucket/prefix")
    reach = Access(settings.pull_region, settings.pull_endpoint_url, connections=asked.workers + 4)
    log = None if asked.files == "place" else open_log(settings)
    place, prefix = _place(settings, asked, reach)
    state = StateFolder(settings.state.absolute())
    cache = state.policy.with_name("cloudtrail-keys.json")
    keys = PublicKeys(cloudtrail_keys.read(cache))
    if asked.keys is not None:
        if not asked.keys.is_file():
            raise SettingsInvalid(f"no file {asked.keys}", hint="--keys takes PEM, or JSON of list-public-keys")
        for key in cloudtrail_keys.read(asked.keys):
            keys.add(key)
    with ThreadPoolExecutor(asked.workers, thread_name_prefix="digests") as executor:
        odd: list[Finding] = []
        found: list[Judged]
        if place is not None:
            found, odd = completeness.digests_at(place, prefix, asked.since, asked.until, executor)
        else:
            assert log is not None
            known = attestations.signatures(log)
            found = list(completeness.sealed_digests(log, asked.since, asked.until, known))
        problems = []
        if asked.keys is None:
            writable = cache if state.policy.parent.is_dir() else None
            problems = cloudtrail_keys.complete(keys, found, cloudtrail_keys.asking(reach), writable)
        files, sealed = _files(asked, place, log)
        try:
            outcome = completeness.check(found, keys, files, asked.since, asked.until, executor, tell)
        finally:
            if isinstance(files, FilesAtPlace):
                files.close()
    outcome.verdict.findings += odd
    if sealed is not None:
        outcome.verdict.findings += [*sealed.findings, *completeness.without_digests(sealed, outcome)]
    if not outcome.verdict.digests and not outcome.findings:
        problems.append(f"no digest of this time in {asked.digests or 'the archive'}: nothing is proven")
    outcome.verdict.incomplete[:0] = problems
    return SourceReport(
        run=f"{datetime.now(UTC):%Y%m%dt%H%M%Sz}-cloudtrail-{secrets.token_hex(4)}",
        asked=asked,
        facts=completeness.summary(outcome),
        findings=outcome.findings,
        notes=outcome.verdict.notes,
        incomplete=outcome.verdict.incomplete,
        outcome=outcome,
    )


def attest(report: SourceReport, log: Log, sign: Callable[[], object], by: str) -> None:
    """Put a report into the archive; `by`: the writer's name. Raises what log and store raise."""
    stated = report.to_json()
    facts = {name: stated[name] for name in ("digests_from", "files_in", "verdict")}
    parts = attestations.documents(report.outcome, report.run, facts)
    report.attested = [index for index, _ in attestations.file(log, sign, by, parts, report.verdict)]


def _place(settings: Settings, asked: Asked, reach: Access) -> tuple[Place | None, str]:
    if not asked.digests:
        return None, ""
    if asked.digests.startswith("s3://"):
        bucket, _, prefix = asked.digests.removeprefix("s3://").partition("/")
        return S3Place(Buckets(reach, Perimeter.parse(f"{settings.pull_buckets},{bucket}")), bucket, prefix), prefix
    folder = Path(asked.digests)
    if not folder.is_dir():
        raise ObjectMissing(f"no folder {folder}", hint="--digests takes a folder, or s3://bucket/prefix")
    return FolderPlace(folder), ""


def _files(asked: Asked, place: Place | None, log: Log | None) -> tuple[Files, SealedFiles | None]:
    if asked.files == "place":
        assert place is not None
        return FilesAtPlace(place, asked.journal), None
    assert log is not None
    sealed = SealedFiles.of(log)
    return sealed, sealed


def _moment(option: str, text: str) -> datetime:
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%MZ", "%Y-%m-%dT%H:%M:%SZ"):
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise SettingsInvalid(f"{option} {text!r} is no time", hint="write 2026-01-31, or 2026-01-31T12:00Z")
