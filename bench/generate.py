"""Writes the benchmark's input: CloudTrail and VPC flow log files as AWS delivers them, and the truth about them.

    <folder>/cloudtrail/…json.gz     {"Records":[…]}, about 4,000 events, 1 MB compressed
    <folder>/vpcflow/…log.gz         a header line and about 28,000 lines, 1 MB compressed
    <folder>/truth.json              what the three questions must answer, counted while writing

The content depends on seed and sizes alone, not on the machine or the number of processes. (The compressed bytes also
depend on the zlib that Python was built with.) A folder that is complete is used again; `truth.json` is written last.

    python -m bench.generate FOLDER [--events N] [--flows N] [--seed N]
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

import msgspec

from bench import cloudtrail, flows, organisation

EVENTS_PER_FILE = 4_000
FLOWS_PER_FILE = 28_000
_START = 1_767_258_000  # 2026-01-01T09:00:00Z
_HOURS = 36  # crosses two midnights, so that segments of several dates come into being
_TOP = 10
_ZLIB_LEVEL = 6  # what the files in real buckets look like


class Kind(msgspec.Struct, frozen=True):
    """Totals of one kind of log. `bytes`: decoded; `gzip_bytes`: as the files lie on disk."""

    files: int
    records: int
    bytes: int
    gzip_bytes: int


class Truth(msgspec.Struct, frozen=True):
    """What was written and what the questions must answer.

    `denied`: (actor, action, refused calls), most first; `stolen`: the stolen key's (event time, event id) in order;
    `talkers`: (source address, rejected flows), most first. Ties in order of the text; the first ten only.
    """

    fingerprint: str
    cloudtrail: Kind
    vpcflow: Kind
    stolen_key: str
    denied_total: int
    denied: tuple[tuple[str, str, int], ...]
    stolen: tuple[tuple[str, str], ...]
    rejected_total: int
    talkers: tuple[tuple[str, int], ...]


class _Stamp(msgspec.Struct, frozen=True):
    """The part of a truth file that any version of this program can read."""

    fingerprint: str


@dataclass(frozen=True, slots=True)
class DataSet:
    """A generated folder."""

    folder: Path
    truth: Truth

    @property
    def cloudtrail(self) -> list[Path]:
        """CloudTrail files, in order of time."""
        return sorted((self.folder / "cloudtrail").glob("*.json.gz"))

    @property
    def vpcflow(self) -> list[Path]:
        """Flow log files, in order of time."""
        return sorted((self.folder / "vpcflow").glob("*.log.gz"))


@dataclass(frozen=True, slots=True)
class _Job:
    kind: str
    folder: Path
    seed: int
    index: int
    count: int
    start: float
    seconds: float


@dataclass(frozen=True, slots=True)
class _Written:
    kind: str
    records: int
    bytes: int
    gzip_bytes: int
    denied: list[cloudtrail.Denied]
    stolen: list[tuple[str, str]]
    rejected: Counter[str]


def data_set(
    folder: Path,
    *,
    events: int,
    flows_: int,
    seed: int,
    processes: int | None = None,
    per_file: tuple[int, int] = (EVENTS_PER_FILE, FLOWS_PER_FILE),
) -> DataSet:
    """The data set of these sizes in `folder`, written unless it is there already; `per_file`: events, flows."""
    fingerprint = _fingerprint(events, flows_, seed, per_file)
    truth_file = folder / "truth.json"
    if truth_file.exists():
        written_as = msgspec.json.decode(truth_file.read_bytes(), type=_Stamp).fingerprint
        if written_as == fingerprint:
            return DataSet(folder, msgspec.json.decode(truth_file.read_bytes(), type=Truth))
    shutil.rmtree(folder, ignore_errors=True)
    jobs = [
        *_jobs("cloudtrail", folder, seed, events, per_file[0]),
        *_jobs("vpcflow", folder, seed, flows_, per_file[1]),
    ]
    with ProcessPoolExecutor(processes or os.cpu_count(), get_context("spawn")) as pool:
        written = list(pool.map(_write, jobs))
    truth = _truth(written, fingerprint, seed)
    truth_file.write_bytes(msgspec.json.format(msgspec.json.encode(truth), indent=1))
    return DataSet(folder, truth)


def _jobs(kind: str, folder: Path, seed: int, total: int, per_file: int) -> list[_Job]:
    (folder / kind).mkdir(parents=True)
    files = -(-total // per_file)
    seconds = _HOURS * 3600 / max(1, files)
    return [
        _Job(kind, folder / kind, seed, i, min(per_file, total - i * per_file), _START + i * seconds, seconds)
        for i in range(files)
    ]


def _write(job: _Job) -> _Written:
    world = organisation.organisation(job.seed)
    arguments = (world, job.seed, job.index, job.count, job.start, job.seconds)
    denied: list[cloudtrail.Denied] = []
    stolen: list[tuple[str, str]] = []
    rejected: Counter[str] = Counter()
    if job.kind == "cloudtrail":
        trail = cloudtrail.file(*arguments)
        content, suffix = '{"Records":[' + ",".join(trail.records) + "]}", "json.gz"
        denied, stolen = trail.denied, trail.stolen
    else:
        flow = flows.file(*arguments)
        content, suffix = "\n".join(flow.lines) + "\n", "log.gz"
        rejected = flow.rejected
    compressed = gzip.compress(content.encode(), _ZLIB_LEVEL, mtime=0)
    stamp = time.strftime("%Y%m%dT%H%MZ", time.gmtime(job.start))
    (job.folder / f"{job.index:06d}_{job.kind}_{stamp}.{suffix}").write_bytes(compressed)
    return _Written(job.kind, job.count, len(content.encode()), len(compressed), denied, stolen, rejected)


def _truth(written: list[_Written], fingerprint: str, seed: int) -> Truth:
    denied = Counter((d.actor, d.action) for item in written for d in item.denied)
    rejected: Counter[str] = Counter()
    for item in written:
        rejected.update(item.rejected)
    return Truth(
        fingerprint=fingerprint,
        cloudtrail=_kind(written, "cloudtrail"),
        vpcflow=_kind(written, "vpcflow"),
        stolen_key=organisation.organisation(seed).stolen_user.key,
        denied_total=denied.total(),
        denied=tuple((*key, count) for key, count in sorted(denied.items(), key=lambda kv: (-kv[1], kv[0]))[:_TOP]),
        stolen=tuple(sorted(pair for item in written for pair in item.stolen)),
        rejected_total=rejected.total(),
        talkers=tuple(sorted(rejected.items(), key=lambda kv: (-kv[1], kv[0]))[:_TOP]),
    )


def _kind(written: list[_Written], kind: str) -> Kind:
    those = [item for item in written if item.kind == kind]
    return Kind(
        len(those), sum(i.records for i in those), sum(i.bytes for i in those), sum(i.gzip_bytes for i in those)
    )


def _fingerprint(events: int, flows_: int, seed: int, per_file: tuple[int, int]) -> str:
    """Changes whenever the content would: sizes, seed, or the generator's own code."""
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (cloudtrail, flows, organisation))
    code += Path(__file__).read_bytes()
    return sha256(json.dumps([events, flows_, seed, per_file]).encode() + code).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the benchmark's input.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--flows", type=int, default=500_000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    made = data_set(options.folder, events=options.events, flows_=options.flows, seed=options.seed)
    print(
        json.dumps(
            {
                k: msgspec.structs.asdict(v)
                for k, v in (("cloudtrail", made.truth.cloudtrail), ("vpcflow", made.truth.vpcflow))
            }
        )
    )


if __name__ == "__main__":
    main()
