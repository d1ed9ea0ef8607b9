"""Where does sealing spend its time? One build, with a stop-watch around each of its stages.

The parts of `ingest.build` are wrapped where it calls them, so this is the real build, not a replay. A stage's time is
its own: what a wrapped stage inside it takes is not counted twice. What no stage covers (sorting, summaries) is "the
rest". CPU time, like all of seal.py.

The last row is what no cleverer Python could save: decompressing, the digest, Parquet's own writing and reading, and
the hashes, all of them native code, held against pyarrow in the same run. What lies between it and the figure of
seal.py is ours.
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
import pyarrow.parquet as pq

from bench import baselines
from bench.measure import Contestant, Runs, Spread, contest, cores
from bench.report import Ratio, Row, Section
from bench.seal import COLUMNS, spooled
from strongroom.archive import segment
from strongroom.ingest import build as building
from strongroom.ingest import builders, spool
from strongroom.ingest.sources import SOURCES

READ, DECODE, DIGEST, SPLIT, DERIVE = "read spool", "decompress", "digest", "split", "derive columns"
TABLES, LEAVES, REST = "tables, lines, comparing", "hash leaves, tree", "sort and the rest"
ENCODE, BACK = "write Parquet", "read Parquet back"
ORDER = (READ, DECODE, DIGEST, SPLIT, DERIVE, REST, TABLES, ENCODE, BACK, LEAVES)
NATIVE = (DECODE, DIGEST, ENCODE, BACK, LEAVES)


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
                (segment, "write", TABLES),
                (pq.ParquetWriter, "write_table", ENCODE),
                (pq.ParquetWriter, "close", ENCODE),
                (pq.ParquetFile, "read_row_group", BACK),
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
    entered = [
        Contestant("profile", profiling, (source, files, folder), core),
        Contestant(COLUMNS, baselines.columns, (source, files, folder / "columns.parquet"), core),
    ]
    samples = contest(entered, rounds=1, progress=progress)
    seconds: dict[str, float] = samples["profile"].result
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
    native, rival = sum(seconds.get(stage, 0.0) for stage in NATIVE), samples[COLUMNS].cpu[0]
    floor = Row(
        "if the native parts were all",
        Spread.exactly(records / native),
        "records/s",
        (Ratio(f"{COLUMNS} ({records / rival:,.0f})", rival / native),),
        note=" + ".join(NATIVE),
    )
    return Section(f"{source}: where sealing spends its time, in one core", (*rows, floor), {"seconds": seconds})
