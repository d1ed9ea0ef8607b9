"""How figures are made: contests between things that do the same work, in one run, on the same core.

Rules, learnt the hard way (run one after the other, the first of two equal things often loses by 20 %):

* Every contestant lives in a process of its own from the start of the contest to its end, pinned to one core where the
  figure is said to be of one core (`core`), with the garbage collector off, as the builders have it.
* A round runs each contestant once, in an order shuffled anew, and alone: the others wait. A first round warms caches
  and is thrown away.
* A figure is the median with its range, never a best of. What it is compared with was measured in the same rounds. A
  contestant may run as its own rival (`again`): how far the ratio of the two is from 1 is the noise of the contest.
* Preparing (opening, reading inputs into memory) is not timed; what `run` does is. Figures "of one core" are of CPU
  time (all threads of the process): on a machine with other work, wall time measures the neighbours. What waits for
  disks, sockets or other processes is of wall time, and says so. Both are in the JSON.
"""

from __future__ import annotations

import gc
import os
import random
import resource
import statistics
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

Runs = Iterator[Callable[[], Any]]
Prepare = Callable[..., Runs]
"""Called once in the contestant's process with its arguments. Each round takes the next run from the iterator, which is
not timed and may prepare or clear away, and calls it, which is. At the end the iterator is closed."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way of doing the work. `prepare` is a function of a module, `arguments` pickle; `core` None: any core."""

    name: str
    prepare: Prepare
    arguments: tuple[Any, ...] = ()
    core: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """What one contestant needed each round, in seconds; its process's largest memory; what its last run returned."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    peak_bytes: int
    result: Any

    def facts(self) -> dict[str, Any]:
        """For the JSON."""
        return {"wall_seconds": self.wall, "cpu_seconds": self.cpu, "peak_bytes": self.peak_bytes}


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and its range."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def rate(cls, amount: float, seconds: Sequence[float]) -> Spread:
        """`amount` per second."""
        return cls.of([amount / value for value in seconds])

    @classmethod
    def exactly(cls, value: float) -> Spread:
        """What is not a matter of time."""
        return cls(value, value, value)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of how long many small things took."""

    p50: float
    p99: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles:
        ordered = sorted(values)
        p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        return cls(statistics.median(ordered), p99, ordered[0], ordered[-1])

    @property
    def spread(self) -> Spread:
        """The median and all there was."""
        return Spread(self.p50, self.low, self.high)


class ContestantFailed(Exception):
    """A contestant raised; the traceback from its process is the message."""


def cores() -> tuple[int, int]:
    """The core for what is measured, and another one for what feeds it (the same one where there is only one)."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def contest(
    contestants: Sequence[Contestant],
    *,
    rounds: int,
    again: str = "",
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Sample]:
    """Run the contest. Names map to samples; with `again`, the named one's second entry is under `<name> (again)`."""
    entered = list(contestants)
    entered += [Contestant(f"{c.name} (again)", c.prepare, c.arguments, c.core) for c in contestants if c.name == again]
    stages = [_Stage(contestant) for contestant in entered]
    try:
        for stage in stages:
            stage.ready()
        shuffle = random.Random(seed)
        for number in range(rounds + 1):
            order = list(stages)
            shuffle.shuffle(order)
            for stage in order:
                progress(
                    f"{stage.contestant.name}, round {number} of {rounds}"
                    if number
                    else f"{stage.contestant.name}, warming"
                )
                stage.play(counts=number > 0)
        return {stage.contestant.name: stage.finish() for stage in stages}
    finally:
        for stage in stages:
            stage.close()


class _Stage:
    """A contestant's process, seen from outside."""

    def __init__(self, contestant: Contestant) -> None:
        context = get_context("spawn")
        self.contestant = contestant
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_live, args=(theirs, contestant), daemon=False)
        self._process.start()
        theirs.close()
        self._rounds: list[tuple[float, float]] = []
        self._result: Any = None

    def ready(self) -> None:
        self._receive()

    def play(self, *, counts: bool) -> None:
        self._pipe.send("play")
        wall, cpu, self._result = self._receive()
        if counts:
            self._rounds.append((wall, cpu))

    def finish(self) -> Sample:
        self._pipe.send("finish")
        peak = self._receive()
        self._process.join()
        wall, cpu = zip(*self._rounds, strict=True)
        return Sample(wall, cpu, peak, self._result)

    def close(self) -> None:
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()

    def _receive(self) -> Any:
        try:
            kind, value = self._pipe.recv()
        except EOFError:
            raise ContestantFailed(
                f"{self.contestant.name}: its process ended (exit code {self._process.exitcode})"
            ) from None
        if kind == "failed":
            raise ContestantFailed(f"{self.contestant.name}:\n{value}")
        return value


def _live(pipe: Connection, contestant: Contestant) -> None:
    try:
        if contestant.core is not None:
            os.sched_setaffinity(0, {contestant.core})
        gc.disable()
        runs = contestant.prepare(*contestant.arguments)
        run = next(runs)
        pipe.send(("ready", None))
        while pipe.recv() == "play":
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            result = run()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            pipe.send(("played", (wall, cpu, result)))
            run = next(runs)
        if isinstance(runs, Generator):
            runs.close()
        pipe.send(("finished", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
    except EOFError:
        return  # the contest was broken off
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))
