"""Completeness: every log file that CloudTrail signed for, held against what is there.

Digests come from a place (a bucket, a folder of copies) or from the archive itself, where they are sealed as source
`cloudtraildigest`. The files they name are looked for

* in the archive: a sealed batch has the SHA-256 of its decoded content in the details its entry commits to, and AWS
  hashes the same bytes. A file whose hash some batch has is sealed, whatever it was called; one whose name only has
  batches with other hashes was altered; one with neither is missing;
* or at the place: each file is read, decoded and hashed.

Only valid digests are believed. What they can't say (the newest hour, the time before a chain begins) is said too.
Reading and hashing run in threads; a journal keeps what was hashed, so that a long run goes on where it was.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from strongroom.archive import details as details_format
from strongroom.archive import layout
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.log import Log
from strongroom.archive.verification.findings import Finding
from strongroom.ingest.errors import DeliveryRefused, ObjectGone
from strongroom.ingest.fetch import awslogs
from strongroom.ingest.fetch.objects import bucket_and_key
from strongroom.ingest.trails import digests
from strongroom.ingest.trails.digest_places import Place, content_hash, place_of_file, read, walk
from strongroom.ingest.trails.digests import Judged, LogFile, PublicKeys, Verdict

MARGIN = timedelta(days=1)
"""Digests so much before and after the period are read too: they vouch for those inside."""
_DIGESTS = "cloudtraildigest"

Tell = Callable[[str, int, int], None]


class Files(Protocol):
    """Where the log files are held against what digests say of them."""

    @property
    def description(self) -> str:
        """For people."""
        ...

    def hashes(self, judged: Judged, file: LogFile) -> tuple[str, ...]:
        """SHA-256 (hex) of everything that could be this file; with its own among them when it is there unaltered."""
        ...


@dataclass(slots=True)
class Checked:
    """What became of the files of one valid digest. `altered`: the file, and the hash of what is there instead."""

    judged: Judged
    sealed: int = 0
    missing: list[LogFile] = field(default_factory=list)
    altered: list[tuple[LogFile, str]] = field(default_factory=list)


@dataclass(slots=True)
class Outcome:
    """The whole: digests judged, their files checked, and everything found."""

    verdict: Verdict
    checked: list[Checked]
    since: datetime
    until: datetime

    @property
    def findings(self) -> list[Finding]:
        """In order: digests first."""
        return self.verdict.findings


# -- what the archive holds


class SealedFiles:
    """The hashes of everything sealed, and the names of CloudTrail's files, by the log's details."""

    description = "the archive"

    def __init__(self) -> None:
        self._hashes: set[bytes] = set()
        self._names: dict[str, list[str]] = {}
        self.delivered: dict[tuple[str, str], set[datetime]] = {}
        """(account, region) -> hours of the log files sealed, by their names."""
        self.findings: list[Finding] = []

    @classmethod
    def of(cls, log: Log) -> SealedFiles:
        """Read all details of a log. Those that are not what their entry commits to are a finding and not believed."""
        made = cls()
        for entry in log.entries():
            if entry.writer is None or not entry.writer.complete or entry.details is None:
                continue
            key, where = entry.details.key, {"index": entry.index}
            try:
                batches = details_format.decode(log.contents.read(entry.details)).batches
            except ObjectMissing:
                made.findings.append(Finding("DETAILS_MISSING", key, "the object the entry names", "none", where))
            except FormatError as error:
                made.findings.append(Finding("DETAILS_CHANGED", key, "what the entry commits to", error.message, where))
            else:
                for facts in batches:
                    made.add(facts.name, facts.sha256)
        return made

    def add(self, name: str, digest: str) -> None:
        """A sealed batch: its file's name, and the hash of its content."""
        self._hashes.add(bytes.fromhex(digest))
        key = (bucket_and_key(name) or ("", name))[1]
        place = awslogs.place_of(key.lstrip("/"))
        if place is not None and place.service.startswith("CloudTrail") and place.service != "CloudTrail-Digest":
            self._names.setdefault(key.rpartition("/")[2], []).append(digest)
            hour = awslogs.hour_of_file(key)
            if hour is not None:
                self.delivered.setdefault((place.account, place.region), set()).add(hour)

    def hashes(self, judged: Judged, file: LogFile) -> tuple[str, ...]:
        """See Files.hashes. AWS ends each file's name in sixteen random characters, so that it is no other's."""
        if bytes.fromhex(file.sha256) in self._hashes:
            return (file.sha256,)
        return tuple(self._names.get(file.key.rpartition("/")[2], ()))


def sealed_digests(log: Log, since: datetime, until: datetime, signatures: Mapping[str, str]) -> Iterator[Judged]:
    """The digests sealed in the archive, of the days around since … until; `signatures`: key -> known signature (hex).

    Segments that are not what their entry commits to are left out: verification of the archive finds them.
    """
    first, last = (since - MARGIN).date(), (until + MARGIN).date()
    for entry in log.entries():
        for reference in entry.segments:
            day = layout.segment_date(reference.key)
            if layout.segment_source(reference.key) != _DIGESTS or day is None or not first <= day <= last:
                continue
            try:
                content = log.contents.read(reference)
            except (ObjectMissing, FormatError):
                continue
            for raw in pq.read_table(pa.BufferReader(content), columns=["raw"]).column("raw"):
                try:
                    digest = digests.parse(raw.as_py())
                except FormatError:
                    continue
                yield Judged(digest, signatures.get(digest.key, ""), f"the archive: {digest.name}")


# -- what a place holds


class FilesAtPlace:
    """The log files where the digests lie, each read and hashed; `journal` keeps what was, None keeps nothing."""

    def __init__(self, place: Place, journal: Path | None = None) -> None:
        self._place = place
        self._known: dict[str, str] = {}
        self._journal: io.TextIOBase | None = None
        if journal is not None:
            self._known = dict(_recall(journal))
            journal.parent.mkdir(parents=True, exist_ok=True)
            self._journal = journal.open("a", encoding="utf-8", buffering=1)

    @property
    def description(self) -> str:
        """See Files.description."""
        return self._place.description

    def hashes(self, judged: Judged, file: LogFile) -> tuple[str, ...]:
        """See Files.hashes."""
        key = place_of_file(judged.found_at, judged.digest.key, file)
        known = self._known.get(key)
        if known == file.sha256:
            return (known,)
        try:
            found = content_hash(self._place, key)
        except ObjectGone:
            return ()
        except DeliveryRefused as error:
            return (f"content that can't be decoded: {error.message}",)
        if self._journal is not None and found == file.sha256:
            self._journal.write(json.dumps({"key": key, "sha256": found}) + "\n")
        return (found,)

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()


def _recall(journal: Path) -> Iterator[tuple[str, str]]:
    """What an earlier run had hashed; a line that a crash cut is left out."""
    if not journal.exists():
        return
    for line in journal.read_text("utf-8").splitlines():
        try:
            value = json.loads(line)
            yield value["key"], value["sha256"]
        except (ValueError, KeyError, TypeError):
            continue


def digests_at(
    place: Place, prefix: str, since: datetime, until: datetime, executor: Executor
) -> tuple[list[Judged], list[Finding]]:
    """The digests at a place around since … until, and findings for what has a digest's name and is none."""
    wanted = list(walk(place, prefix, (since - MARGIN).date(), (until + MARGIN).date(), executor))
    found: list[Judged] = []
    findings: list[Finding] = []
    for item, result in zip(wanted, executor.map(lambda item: read(place, item), wanted), strict=True):
        if isinstance(result, Judged):
            found.append(result)
        elif isinstance(result, str) and since < item.name.end <= until:
            chain = item.name.chain
            where = {"account": chain.account, "region": chain.region, "trail": chain.trail}
            name = place.name_of(item.key)
            findings.append(Finding("DIGEST_FORGED", name, "a digest as CloudTrail signed it", result, where))
    return found, findings


# -- both together


def check(
    found: Iterable[Judged],
    keys: PublicKeys,
    files: Files,
    since: datetime,
    until: datetime,
    executor: Executor,
    tell: Tell = lambda *_: None,
) -> Outcome:
    """Judge the digests and hold the files of the valid ones against what is there."""
    verdict = digests.judge(list(found), keys, since, until)
    checked = [Checked(judged) for judged in verdict.valid]
    pairs = [(item, file) for item in checked for file in item.judged.digest.files]
    results = executor.map(lambda pair: files.hashes(pair[0].judged, pair[1]), pairs)
    for number, ((item, file), there) in enumerate(zip(pairs, results, strict=True), 1):
        tell("log files", number, len(pairs))
        where = {"digest": item.judged.place, "account": item.judged.digest.chain.account}
        name, expected = f"s3://{file.bucket}/{file.key}", f"SHA-256 {file.sha256}"
        if file.sha256 in there:
            item.sealed += 1
        elif there:
            item.altered.append((file, there[0]))
            said = ", ".join(text if " " in text else f"SHA-256 {text}" for text in there)
            verdict.findings.append(Finding("SOURCE_FILE_ALTERED", name, expected, said, where))
        else:
            item.missing.append(file)
            actual = f"not in {files.description}"
            verdict.findings.append(Finding("SOURCE_FILE_MISSING", name, expected, actual, where))
    return Outcome(verdict, checked, since, until)


def without_digests(sealed: SealedFiles, outcome: Outcome) -> Iterator[Finding]:
    """Accounts and regions whose log files of the period are sealed, and which no digest speaks of."""
    spoken = {(judged.digest.chain.account, judged.digest.chain.region) for judged in outcome.verdict.digests}
    # A file of an hour's end may be in the digest of the next.
    first, last = outcome.since, outcome.until - digests.HOUR - digests.DELAY
    for (account, region), hours in sorted(sealed.delivered.items()):
        if (account, region) not in spoken and any(first <= hour < last for hour in hours):
            yield Finding(
                "DIGEST_MISSING",
                f"account {account}, region {region}",
                "digests over its log files",
                "log files are sealed, and no digest speaks of them",
                {"account": account, "region": region},
            )


def summary(outcome: Outcome) -> dict[str, Any]:
    """Counts, and per chain what is proven; for machines."""
    chains: dict[str, dict[str, Any]] = {}
    for item in outcome.checked:
        digest = item.judged.digest
        chain = chains.setdefault(
            str(digest.chain),
            {"account": digest.chain.account, "region": digest.chain.region, "trail": digest.chain.trail,
             "digests": 0, "files": 0, "missing": 0, "altered": 0, "first": digest.stated_end, "last": ""},
        )  # fmt: skip
        chain["digests"] += 1
        chain["files"] += len(digest.files)
        chain["missing"] += len(item.missing)
        chain["altered"] += len(item.altered)
        chain["first"], chain["last"] = min(chain["first"], digest.stated_end), max(chain["last"], digest.stated_end)
    states = [judged.state for judged in outcome.verdict.digests]
    return {
        "digests": {state: states.count(state) for state in ("valid", "forged", "unproven")},
        "files": {
            "named": sum(len(item.judged.digest.files) for item in outcome.checked),
            "there": sum(item.sealed for item in outcome.checked),
            "missing": sum(len(item.missing) for item in outcome.checked),
            "altered": sum(len(item.altered) for item in outcome.checked),
        },
        "chains": [chains[name] for name in sorted(chains)],
    }
