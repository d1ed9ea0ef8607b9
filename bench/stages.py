"""Where does sealing spend its time? One build, with a stop-watch around each of its stages.

The parts of `ingest.build` are wrapped where it calls them, so this is the real build, not a replay. A stage's time is
its own: what a wrapped stage inside it takes is not counted twice. Reading back is one stage, the hashing in it
included. What no stage covers (assembling tables, sorting, summaries) is "the rest". CPU time, like all of seal.py.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa

from bench.measure import Contestant, Runs, Spread, contest, cores
from bench.report import Row, Section
from bench.seal import spooled
from strongroom.archive import segment
from strongroom.ingest import build as building
from strongroom.ingest import builders, spool
from strongroom.ingest.sources import SOURCES

READ, DECODE, DIGEST, SPLIT, DERIVE = "read spool", "decompress", "digest", "split", "derive columns"
WRITE, LEAVES, REST = "write Parquet, read back", "hash leaves, tree", "sort and the rest"
ORDER = (READ, DECODE, DIGEST, SPLIT, DERIVE, REST, WRITE, LEAVES)


class StopWatch:
    """Adds up own CPU time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    def around(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, timed as `stage`."""

        @functools.wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            with self._on(stage):
                return function(*arguments, **options)

        return timed

    @contextmanager
    def _on(self, stage: str) -> Iterator[None]:
        self._lap()
        self._running.append(stage)
        try:
            yield
        finally:
            self._lap()
            self._running.pop()

    def _lap(self) -> None:
        now = time.process_time()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


def profiling(source: str, files: Sequence[Path], folder: Path) -> Runs:
    """Builds all cuts under the watch; gives seconds by stage."""
    builders.keep_memory()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    jobs = spooled(source, files, folder)
    kind = SOURCES[source]

    def run() -> dict[str, float]:
        watch = StopWatch()
        with ExitStack() as patches:
            for owner, name, stage in (
                (spool, "read", READ),
                (building, "decode_whole", DECODE),
                (building, "sha256", DIGEST),
                (kind, "split", SPLIT),
                (kind, "derive", DERIVE),
                (segment, "write", WRITE),
                (segment, "leaf_hashes", LEAVES),
                (segment, "root_of", LEAVES),
            ):
                patches.enter_context(patch.object(owner, name, watch.around(stage, getattr(owner, name))))
            build = watch.around(REST, building.build)
            for job in jobs:
                build(job)
        return dict(watch.seconds)

    return repeat(run)


def measure(source: str, files: Sequence[Path], records: int, folder: Path, progress: Callable[[str], None]) -> Section:
    """The profile of one source, from one build after a warm one."""
    core, _ = cores()
    folder.mkdir(parents=True)
    entered = [Contestant("profile", profiling, (source, files, folder), core)]
    sample = contest(entered, rounds=1, progress=progress)["profile"]
    seconds: dict[str, float] = sample.result
    total = sum(seconds.values())
    rows = tuple(
        Row(
            stage,
            Spread.exactly(1e6 * seconds.get(stage, 0.0) / records),
            "µs/record",
            share=seconds.get(stage, 0.0) / total,
        )
        for stage in ORDER
    )
    return Section(f"{source}: where sealing spends its time, in one core", rows, {"seconds": seconds})
