"""Sixteen investigators at once, of a real service: what they get done together, how long each waits, and what it costs
those who push logs meanwhile.

Every investigator has a token of his own and asks all questions of investigate.py, each begun at another one. The same
questions by one investigator, one after the other, are what they are held against; equal answers, on one snapshot.

Then four connections push deliveries of 500 lines for some seconds, alone and with the sixteen beside them, sealing
going on as it does. At the end every acknowledged line must be in the archive.

Who is told to come again (503) does so, and his wait counts. Everything shares the machine's cores, the clients too.
Wall time.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from itertools import count, cycle
from pathlib import Path

from bench import rivals
from bench.investigate import ENGINE, NEEDLES, QUESTIONS, looked_for, statement
from bench.measure import Quantiles, Spread
from bench.push import RECORDS, lines
from bench.report import Ratio, Row, Section
from bench.rivals import Rows
from bench.service import Service, serving
from strongroom.service.state import StateFolder
from strongroom.service.tokens import TokenStore

INVESTIGATORS, CONNECTIONS = 16, 4
PUSHING_SECONDS = 5.0
_INDEX_SECONDS = 120.0
_NEVER = 10**9
_LIMITS = {
    "spool_bytes": 1 << 40,
    "token_share": 1,
    "token_requests_per_second": _NEVER,
    "token_bytes_per_second": _NEVER,
    "query_threads": rivals.THREADS,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it is sent, and what must come back."""

    body: bytes
    expected: Rows


@dataclass(slots=True)
class _Told:
    """What some investigators met, in seconds, and how often they were told to come again."""

    waits: list[float] = field(default_factory=list)
    busy: int = 0


class _Investigator:
    """One connection with one token."""

    def __init__(self, service: Service, token: str) -> None:
        self._connection: HTTPConnection = service.connect()
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def ask(self, asked: Asked, told: _Told) -> None:
        """Raises RuntimeError for any answer but the right one."""
        begun = time.perf_counter()
        while True:
            self._connection.request("POST", "/v1/query", asked.body, self._headers)
            response = self._connection.getresponse()
            content = response.read()
            if response.status != 503:
                break
            told.busy += 1
            time.sleep(float(response.headers.get("Retry-After", 1)))
        told.waits.append(time.perf_counter() - begun)
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {content[:300]!r}")
        rows = rivals.as_text(json.loads(content)["rows"])
        if rows != asked.expected:
            raise RuntimeError(f"{len(rows)} rows, not {len(asked.expected)}: {asked.body!r}")


def measure(folder: Path, rounds: int, progress: Callable[[str], None]) -> Section:
    """Over the archive in `folder`, to which the pushed lines are added."""
    values, plain = looked_for(folder / "archive"), rivals.plain(folder / "archive")
    tokens = TokenStore(StateFolder(folder / "state").tokens)
    names = [f"investigator-{number}" for number in range(INVESTIGATORS)]
    made = [tokens.create("investigator", name=name, now=datetime.now(UTC))[1] for name in names]
    seconds: dict[str, list[float]] = {"together": [], "one by one": []}
    rates: dict[str, list[float]] = {"alone": [], "beside": []}
    alone, together, beside = _Told(), _Told(), _Told()
    acknowledged, numbers = 0, count()
    with serving(folder, **_LIMITS) as service:
        before = _lines_sealed(service)
        asked = _questions(service, values, plain)
        crowd = [_Investigator(service, token) for token in made]
        shuffle = random.Random(0)
        for number in range(rounds + 1):  # the first warms up
            for phase in shuffle.sample(["together", "one by one", "alone", "beside"], 4):
                progress(f"crowd: {phase}, round {number} of {rounds}")
                if phase in seconds:
                    told = together if phase == "together" else alone
                    taken = _all(crowd, asked, told if number else _Told(), at_once=phase == "together")
                    if number:
                        seconds[phase].append(taken)
                    continue
                with _investigating(crowd if phase == "beside" else [], asked, beside if number else _Told()):
                    pushed = _push(service, numbers)
                acknowledged += pushed
                if number:
                    rates[phase].append(pushed / PUSHING_SECONDS)
                service.send(service.connect(), "POST", "/v1/seal", None, {})
        found = _lines_sealed(service) - before
    if found != acknowledged:
        raise RuntimeError(f"{acknowledged} lines were acknowledged, {found} are in the archive")
    return _section(seconds, rates, alone, together, beside, len(asked))


def _section(
    seconds: dict[str, list[float]],
    rates: dict[str, list[float]],
    alone: _Told,
    together: _Told,
    beside: _Told,
    questions: int,
) -> Section:
    total = INVESTIGATORS * questions
    many, one = (Spread.rate(total, seconds[name]) for name in ("together", "one by one"))
    lone, shared = (Spread.of(rates[name]) for name in ("alone", "beside"))
    each = {"together": together, "one by one": alone, "beside": beside}
    waits = {name: Quantiles.of([1e3 * wait for wait in told.waits]) for name, told in each.items()}
    rows = [
        Row(
            f"{INVESTIGATORS} investigators at once",
            many,
            "questions/s",
            (Ratio(f"one after the other ({one.median:.1f})", many.median / one.median),),
            note=f"{together.busy} times told to come again, for {len(together.waits)} questions",
        ),
        *(
            Row(f"wait, {name}", waits[name].spread, "ms p50", note=f"p99 {waits[name].p99:,.0f} ms")
            for name in ("together", "one by one", "beside")
        ),
        Row(
            "lines acknowledged, with the investigators beside",
            shared,
            "/s",
            (Ratio(f"without ({lone.median:,.0f})", shared.median / lone.median),),
            note="every acknowledged line is in the archive",
        ),
    ]
    facts = {name: {"seconds": seconds[name]} for name in seconds} | {name: {"rates": rates[name]} for name in rates}
    return Section(f"{INVESTIGATORS} investigators, {questions} questions each, answers equal", tuple(rows), facts)


def _questions(service: Service, values: dict[str, str], plain: rivals.Ask) -> list[Asked]:
    """Every question, on one snapshot; the service has its index when this returns."""
    connection, headers = service.connect(), {"Content-Type": "application/json"}

    def say(path: str, question: dict[str, object]) -> dict[str, object]:
        said: dict[str, object] = json.loads(
            service.send(connection, "POST", path, json.dumps(question).encode(), headers)
        )
        return said

    first = say("/v1/query/estimate", {"sql": "SELECT 1"})
    size = first["snapshot"]["size"]  # type: ignore[index]
    needles = [statement(question, ENGINE, values) for question in QUESTIONS[:NEEDLES]]
    deadline = time.monotonic() + _INDEX_SECONDS
    while time.monotonic() < deadline:
        readings = [say("/v1/query/estimate", {"sql": sql, "as_of": size})["segments"] for sql in needles]
        if all(2 * reading["read"] < reading["total"] for reading in readings):  # type: ignore[index]
            break
        time.sleep(0.5)
    return [
        Asked(
            json.dumps({"sql": statement(question, ENGINE, values), "as_of": size, "limit": 1_000_000}).encode(),
            plain(statement(question, rivals.PLAIN, values)),
        )
        for question in QUESTIONS
    ]


def _all(crowd: list[_Investigator], asked: list[Asked], told: _Told, *, at_once: bool) -> float:
    """Every investigator asks everything; seconds."""

    def work(number: int) -> None:
        for place in range(len(asked)):
            crowd[number].ask(asked[(number + place) % len(asked)], told)

    begun = time.perf_counter()
    with ThreadPoolExecutor(INVESTIGATORS if at_once else 1) as threads:
        for _ in threads.map(work, range(len(crowd))):
            pass
    return time.perf_counter() - begun


@contextmanager
def _investigating(crowd: list[_Investigator], asked: list[Asked], told: _Told) -> Iterator[None]:
    """They ask again and again while this lasts."""
    over = threading.Event()

    def work(number: int) -> None:
        for place in cycle(range(len(asked))):
            if over.is_set():
                return
            crowd[number].ask(asked[(number + place) % len(asked)], told)

    with ThreadPoolExecutor(INVESTIGATORS) as threads:
        running = [threads.submit(work, number) for number in range(len(crowd))]
        try:
            yield
        finally:
            over.set()
        for work_done in running:
            work_done.result()


def _push(service: Service, numbers: Iterator[int]) -> int:
    """Lines that were acknowledged in PUSHING_SECONDS."""
    deadline = time.perf_counter() + PUSHING_SECONDS

    def work(_: int) -> int:
        connection, sent = service.connect(), 0
        while time.perf_counter() < deadline:
            service.send(connection, "POST", "/v1/ingest/json", lines(next(numbers)), {})
            sent += RECORDS
        return sent

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return sum(threads.map(work, range(CONNECTIONS)))


def _lines_sealed(service: Service) -> int:
    body = json.dumps({"sql": "SELECT count(*) FROM json"}).encode()
    said = service.send(service.connect(), "POST", "/v1/query", body, {"Content-Type": "application/json"})
    return int(json.loads(said)["rows"][0][0])
