"""`make bench [SCALE=1] [ROUNDS=3]`: generate, measure, print each part as it ends, write bench/results.json.

SCALE multiplies the 100,000 CloudTrail events and 500,000 flow lines (1,000,000 for investigations); ONLY names the
parts to run, separated by commas.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from rich.console import Console

from bench import (
    acknowledge,
    ask,
    crowd,
    encrypt,
    generate,
    investigate,
    many,
    pipeline,
    prove,
    push,
    report,
    seal,
    service,
    stages,
    store,
    stream,
)
from bench.generate import DataSet
from bench.report import Section

EVENTS, FLOWS, SEED = 100_000, 500_000, 7
INVESTIGATING = ("investigate", "wide", "stream", "crowd")
INVESTIGATED_FLOWS = 1_000_000
PARTS = (
    *("acknowledge", "push", "seal", "stages", "cores", "pipeline", "prove", "encrypt", "store", "many"),
    *("ask", "small", *INVESTIGATING),
)
_HERE = Path(__file__).parent
_WIDTH = 130


def main() -> int:
    scale, rounds = float(os.environ.get("SCALE", "1")), int(os.environ.get("ROUNDS", "3"))
    only = [part for part in os.environ.get("ONLY", "").split(",") if part] or list(PARTS)
    if unknown := set(only) - set(PARTS):
        print(f"bench: no such part: {', '.join(sorted(unknown))}; there is {', '.join(PARTS)}", file=sys.stderr)
        return 2
    events, flows = int(EVENTS * scale), int(FLOWS * scale)
    screen, begun = Console(), time.monotonic()
    if not screen.is_terminal:
        screen.width = _WIDTH
    with _status() as progress, _scratch() as scratch:
        sections: list[Section] = []
        for section in chain(
            _sections(events, flows, scratch, rounds, only, progress),
            _investigating(events, int(INVESTIGATED_FLOWS * scale), scratch, rounds, only, progress),
        ):
            sections.append(section)
            report.show(section, screen)
            settings = {"events": events, "flows": flows, "seed": SEED, "rounds": rounds, "parts": only}
            report.save(sections, settings, _HERE / "results.json")  # what is broken off keeps what it has
    described = ", ".join(f"{name} {value}" for name, value in report.machine().items())
    screen.print(f"{time.monotonic() - begun:.0f} s; {described}; all rounds in bench/results.json", style="dim")
    return 0


def _sections(
    events: int, flows: int, scratch: Path, rounds: int, only: list[str], progress: Callable[[str], None]
) -> Iterator[Section]:
    """All parts but those of investigators."""
    if not set(only) - set(INVESTIGATING):
        return
    progress("generating logs")
    data = generate.data_set(_HERE / "data" / f"scale-{events / EVENTS:g}", events=events, flows_=flows, seed=SEED)
    kinds = (
        ("cloudtrail", data.cloudtrail, data.truth.cloudtrail),
        ("vpcflow", data.vpcflow, data.truth.vpcflow),
    )
    if "acknowledge" in only:
        yield acknowledge.measure(data.cloudtrail, data.truth.cloudtrail, scratch / "acknowledge", rounds, progress)
    if "push" in only:
        yield push.measure(scratch / "push", data.truth.cloudtrail.records / EVENTS, rounds, progress)
    for name, files, kind in kinds:
        if "seal" in only:
            yield seal.measure(name, files, kind, scratch / f"seal-{name}", rounds, progress)
        if "stages" in only:
            yield stages.measure(name, files, kind.records, scratch / f"stages-{name}", progress)
    if "cores" in only:
        yield seal.measure_cores(kinds, scratch / "cores", rounds, progress)
    if "pipeline" in only:
        yield pipeline.measure(kinds, scratch / "pipeline", rounds, progress)
    if "encrypt" in only:
        yield encrypt.measure(scratch / "encrypt", rounds, progress)
    if "store" in only:
        yield store.measure(scratch / "store", rounds, progress)
    if "many" in only:
        yield many.measure(scratch / "many", rounds, progress)
    if {"prove", "ask", "small"} & set(only):
        progress("building the archive to ask")
        archive = scratch / "ask"
        summary = service.ingest([data.folder / "cloudtrail", data.folder / "vpcflow"], archive)
        if summary["accepted"] != data.truth.cloudtrail.records + data.truth.vpcflow.records:
            raise RuntimeError(f"the archive to ask lacks records: {summary}")
        if "small" in only:
            investigate.make_ready(archive)
        if "prove" in only:
            yield prove.measure(archive / "archive", archive / "state", scratch / "prove", rounds, progress)
        if "ask" in only:
            yield ask.measure(data, archive, rounds, progress)
        if "small" in only:
            yield ask.measure_small(archive, rounds, progress)


def _investigating(
    events: int, flows: int, scratch: Path, rounds: int, only: list[str], progress: Callable[[str], None]
) -> Iterator[Section]:
    """The same amounts in many small segments, as a year of an archive has them."""
    if not set(only) & set(INVESTIGATING):
        return
    data, archive = _in_segments(investigate.SEGMENTS, events, flows, scratch / "investigate", progress)
    if "investigate" in only:
        yield investigate.measure(archive, data.folder, rounds, progress)
    if "wide" in only:
        _, wide = _in_segments(investigate.WIDE, events, flows, scratch / "wide", progress)
        yield investigate.measure_wide(archive, wide, rounds, progress)
        shutil.rmtree(wide)
    if "stream" in only:
        yield stream.measure(archive, rounds, progress)
    if "crowd" in only:
        yield crowd.measure(archive, rounds, progress)


def _in_segments(
    segments: int, events: int, flows: int, folder: Path, progress: Callable[[str], None]
) -> tuple[DataSet, Path]:
    """So many events and flows, and an archive of them in `segments` segments, half of each kind."""
    progress(f"building an archive of {segments} segments")
    per_file = (max(1, 2 * events // segments), max(1, 2 * flows // segments))
    files = _HERE / "data" / f"investigate-{events}-{flows}-{segments}"
    data = generate.data_set(files, events=events, flows_=flows, seed=SEED, per_file=per_file)
    summary = service.ingest([data.folder / "cloudtrail", data.folder / "vpcflow"], folder, seal_bytes=1)
    if summary["accepted"] != events + flows:
        raise RuntimeError(f"the archive to investigate lacks records: {summary}")
    progress(f"indexing and folding {segments} segments")
    investigate.make_ready(folder)
    return data, folder


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder on the repository's disk (a memory file system would make syncing free), emptied before and after."""
    folder = _HERE / "data" / "scratch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """What is running now, on a terminal."""
    screen = Console(stderr=True)
    with screen.status("starting") as status:
        yield (lambda what: status.update(what)) if screen.is_terminal else (lambda what: None)


if __name__ == "__main__":
    sys.exit(main())
