"""How fast are deliveries acknowledged? CloudTrail files of about 1 MB gzip over HTTP, the service on one core.

An acknowledgement promises that the body was decodable, its digest is known, and its bytes are on disk. Sealing is put
off (by settings) so that this figure is of acknowledging alone; the whole way is in pipeline.py. The client has the
other core and several connections; bodies that wait at the same time share one fsync.

Rivals, on the same core: a Python program that appends the same bytes to a file with one fdatasync for as many bodies
as there are connections, the largest groups the service could form; and decompressing and hashing the same bytes, which
the promise requires, without network or disk.

How long a sender waits is measured at half of that rate, with bodies that come at random moments whether or not the
earlier ones were answered; a wait counts from the moment the body came, so that a service that falls behind shows it.

Each delivery must be new, or it would be a duplicate: a gzip member of white space, different every time, precedes the
file's own. Wall time.
"""

from __future__ import annotations

import gzip
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from http.client import HTTPConnection
from itertools import count, repeat
from pathlib import Path
from queue import SimpleQueue

from isal import isal_zlib

from bench.generate import Kind
from bench.measure import Contestant, Runs, Sample, Spread, contest, cores
from bench.report import Ratio, Row, Section
from bench.service import serving

CONNECTIONS = 4
_ROUND_BYTES = 64 << 20
_GZIP = 31
_NEVER = 10**9
_ARRIVALS = 200
_SENDERS = 16
ACKNOWLEDGED, WRITTEN, DECODED = "acknowledged over HTTP", "plain write + fdatasync", "gunzip + SHA-256"
WAITED = "waits at half of that"
_PATH = "/v1/ingest/cloudtrail"
_HEADERS = {"Content-Type": "application/gzip", "Content-Encoding": "gzip"}
_UNSEALED = {"seal_bytes": 1 << 40, "seal_age_seconds": _NEVER, "spool_bytes": 1 << 40}


def over_http(files: Sequence[Path], folder: Path, service_core: int) -> Runs:
    """A round of deliveries over kept-alive connections; gives the service's peak memory."""
    bodies = _round([file.read_bytes() for file in files])
    with serving(folder, service_core, **_UNSEALED) as service, ThreadPoolExecutor(CONNECTIONS) as threads:

        def push(waiting: SimpleQueue[bytes]) -> None:
            connection = service.connect()
            while not waiting.empty():
                service.send(connection, "POST", _PATH, waiting.get(), _HEADERS)
            connection.close()

        def run(waiting: SimpleQueue[bytes]) -> int:
            for pushed in [threads.submit(push, waiting) for _ in range(CONNECTIONS)]:
                pushed.result()
            return service.peak_bytes()

        for number in count():
            waiting: SimpleQueue[bytes] = SimpleQueue()
            for place, body in enumerate(bodies):
                waiting.put(_white_space(number * len(bodies) + place) + body)
            yield partial(run, waiting)
    shutil.rmtree(folder)


def waits(files: Sequence[Path], folder: Path, service_core: int, per_second: float) -> Runs:
    """Bodies that come at random moments, so many a second; gives the seconds until each was answered, sorted."""
    contents = [file.read_bytes() for file in files]
    with serving(folder, service_core, **_UNSEALED) as service, ThreadPoolExecutor(_SENDERS) as threads:
        idle: SimpleQueue[HTTPConnection] = SimpleQueue()
        for _ in range(_SENDERS):
            idle.put(service.connect())

        def push(body: bytes, came: float) -> float:
            connection = idle.get()
            service.send(connection, "POST", _PATH, body, _HEADERS)
            idle.put(connection)
            return time.perf_counter() - came

        def run(first: int) -> list[float]:
            chance, pushed, moment = random.Random(first), [], time.perf_counter()
            for number in range(first, first + _ARRIVALS):
                moment += chance.expovariate(per_second)
                time.sleep(max(0.0, moment - time.perf_counter()))
                body = _white_space(number) + contents[number % len(contents)]
                pushed.append(threads.submit(push, body, moment))
            return sorted(future.result() for future in pushed)

        for number in count():
            yield partial(run, number * _ARRIVALS)
    shutil.rmtree(folder)


def written(files: Sequence[Path], folder: Path) -> Runs:
    """The same bytes to a file, synced a group at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    bodies = _round([file.read_bytes() for file in files])
    groups = [bodies[start : start + CONNECTIONS] for start in range(0, len(bodies), CONNECTIONS)]

    def run(path: Path) -> None:
        with path.open("wb", buffering=0) as file:
            for group in groups:
                for body in group:
                    file.write(body)
                os.fdatasync(file.fileno())

    for number in count():
        path = folder / f"{os.getpid()}-{number}"
        yield partial(run, path)
        path.unlink()


def decoded(files: Sequence[Path]) -> Runs:
    """The work on the content that an acknowledgement implies."""
    bodies = _round([file.read_bytes() for file in files])

    def run() -> None:
        for body in bodies:
            sha256(isal_zlib.decompress(body, wbits=_GZIP)).digest()

    return repeat(run)


def measure(files: Sequence[Path], kind: Kind, folder: Path, rounds: int, progress: Callable[[str], None]) -> Section:
    """The contest. Raises RuntimeError when a delivery was not acknowledged."""
    core, client = cores()
    entered = [
        Contestant(ACKNOWLEDGED, over_http, (files, folder / "http", core), client),
        Contestant(WRITTEN, written, (files, folder / "plain"), core),
        Contestant(DECODED, decoded, (files,), core),
    ]
    samples = contest(entered, rounds=rounds, again=WRITTEN, progress=progress)
    bodies = _round([file.read_bytes() for file in files])
    megabytes = sum(map(len, bodies)) / 1e6
    rate = Spread.rate(len(bodies) / 2, samples[ACKNOWLEDGED].wall).median
    half = Contestant(WAITED, waits, (files, folder / "half", core, rate), client)
    waited: list[float] = contest([half], rounds=1, progress=progress)[WAITED].result
    return Section(
        f"acknowledging {len(bodies)} bodies of {megabytes / len(bodies):.1f} MB gzip, service on one core, "
        f"{CONNECTIONS} connections",
        (
            _speed(samples, megabytes),
            Row(
                "the same as decoded log",
                Spread.rate(megabytes * kind.bytes / kind.gzip_bytes, samples[ACKNOWLEDGED].wall),
                "MB/s",
            ),
            _waits(waited, rate),
            Row("peak memory of the service", Spread.exactly(samples[ACKNOWLEDGED].result / 1e6), "MB"),
        ),
        {name: sample.facts() for name, sample in samples.items()} | {WAITED: waited},
    )


def _waits(waited: list[float], rate: float) -> Row:
    p50, p99 = (1000 * waited[len(waited) * percent // 100] for percent in (50, 99))
    spread = Spread(p50, 1000 * waited[0], 1000 * waited[-1])
    return Row(WAITED, spread, "ms", note=f"{p50:.0f} ms (p50), {p99:.0f} ms (p99), {rate:.0f} bodies a second")


def _speed(samples: dict[str, Sample], megabytes: float) -> Row:
    rates = {name: Spread.rate(megabytes, sample.wall) for name, sample in samples.items()}
    mine = rates[ACKNOWLEDGED]
    ratios = tuple(
        Ratio(f"{name} ({rates[name].median:,.0f})", mine.median / rates[name].median) for name in (WRITTEN, DECODED)
    )
    noise = rates[f"{WRITTEN} (again)"].median / rates[WRITTEN].median
    return Row("acknowledged, as sent", mine, "MB/s", ratios, note=f"{WRITTEN}, against itself: ×{noise:.2f}")


def _round(bodies: Sequence[bytes]) -> list[bytes]:
    """The bodies, repeated until a round is long enough to be measured."""
    return list(bodies) * max(1, -(-_ROUND_BYTES // sum(map(len, bodies))))


def _white_space(number: int) -> bytes:
    """A gzip member that decodes to white space, another one for every number."""
    return gzip.compress(f"{number:b}".replace("0", " ").replace("1", "\n").encode(), mtime=0)
