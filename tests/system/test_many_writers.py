"""Four writers and two verifiers on one bucket, on a bad day: random kills, lost disks, a network that loses answers.

What must hold at the end: one linear log; every acknowledged delivery sealed, none twice, though forwarders send what
they have no answer for to another writer, under the same key; no verification ever unsound.
"""

from __future__ import annotations

import json
import os
import queue
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from strongroom.archive import details, keys
from strongroom.archive.log import Log
from strongroom.archive.policy import Policy
from strongroom.archive.stores.copies import local_file
from strongroom.archive.trust import Trust
from strongroom.archive.verification.verify import verify
from strongroom.ingest.batches import ELSEWHERE
from tests import buckets
from tests.faults import FaultProxy, Odds
from tests.system import replica
from tests.system.replica import ORIGIN, TRY_AGAIN, Setup

pytestmark = [pytest.mark.system, pytest.mark.adversarial, pytest.mark.timeout(900)]

CHAOS_SECONDS = float(os.environ.get("STRONGROOM_TEST_CHAOS_SECONDS", "8"))
ROOT = Path(__file__).parents[2]
WRITERS, VERIFIERS, FORWARDERS = 4, 2, 4
FINE = {"sound", "sound-so-far,-unsigned-tail", "incomplete-check", "unable"}
"""Verdicts on an archive that is written to meanwhile, through a network that may not answer."""
BAD_DAY = Odds(
    slow_down=0.02,
    error=0.02,
    lost_request=0.01,
    lost_answer=0.01,
    wrong_error=0.01,
    half_answer=0.005,
    late=0.005,
    stall=0.001,
    latency_seconds=0.01,
)


@dataclass
class Process:
    """One process and what it said."""

    setup: Setup
    role: str
    folder: Path
    said: list[str] = field(default_factory=list)
    waiting: dict[int, queue.SimpleQueue[str]] = field(default_factory=dict)

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        errors = (self.folder.parent / f"{self.folder.name}.log").open("ab")
        command = [sys.executable, "-m", replica.__name__, self.role, self.setup.argument]
        self.child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        threading.Thread(target=self._listen, args=(self.child,), daemon=True).start()

    def _listen(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            self.said.append(line.strip())
            words = line.split()
            if len(words) == 3 and words[0] in ("acknowledged", "refused"):
                answer = self.waiting.pop(int(words[1]), None)
                if answer is not None:
                    answer.put(line.strip())
        for answer in list(self.waiting.values()):
            answer.put("gone")

    def deliver(self, number: int, seconds: float) -> str:
        """What the process answers, "" when it does not."""
        answer = self.waiting[number] = queue.SimpleQueue[str]()
        try:
            assert self.child.stdin is not None
            self.child.stdin.write(f"{number}\n")
            self.child.stdin.flush()
            return answer.get(timeout=seconds)
        except (OSError, ValueError, queue.Empty):
            return ""

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()

    def go_on(self) -> None:
        """Start again if it ended by itself because the store could not be reached."""
        if self.child.poll() is not None:
            assert self.child.returncode == TRY_AGAIN, self.errors()
            self.start()

    def end(self) -> None:
        """Ask it to seal and end."""
        assert self.child.stdin is not None
        with suppress(BrokenPipeError):
            self.child.stdin.close()

    def errors(self) -> str:
        return (self.folder.parent / f"{self.folder.name}.log").read_text()[-3000:]


class Forwarder(threading.Thread):
    """Delivers numbers, each to a writer by chance and again to another one until it is acknowledged."""

    def __init__(self, writers: list[Process], numbers: range, seed: int) -> None:
        super().__init__(daemon=True)
        self.writers, self.numbers, self.chance = writers, numbers, random.Random(seed)
        self.acknowledged: dict[int, str] = {}
        self.halt = threading.Event()

    def run(self) -> None:
        for number in self.numbers:
            while not self.halt.is_set() and number not in self.acknowledged:
                # Now and then two writers get it at once; and who does not answer soon is not waited for.
                if self.chance.random() < 0.2:
                    self.chance.choice(self.writers).deliver(number, 0.01)
                answer = self.chance.choice(self.writers).deliver(number, self.chance.choice((0.3, 3.0))).split()
                if answer[:1] == ["acknowledged"]:
                    self.acknowledged[number] = answer[2]
                else:
                    self.halt.wait(0.05)
            if self.halt.is_set():
                return


@contextmanager
def running(processes: list[Process]) -> Iterator[None]:
    try:
        for process in processes:
            process.start()
        yield
    finally:
        for process in processes:
            process.kill()


def test_one_log_whatever_happens(s3: buckets.S3, tmp_path: Path) -> None:
    seed = int(os.environ.get("STRONGROOM_TEST_SEED", random.randrange(10**6)))
    print(f"STRONGROOM_TEST_SEED={seed}")
    chance = random.Random(seed)
    store = s3.new_store()
    signers = keys.load_or_create(tmp_path / "log.pem", ORIGIN)
    Log.create(store, ORIGIN, [one.key.vkey() for one in signers], datetime.now(UTC))
    with FaultProxy(s3.url, replace(BAD_DAY, seed=seed)) as proxy:

        def process(role: str, name: str, diskless: bool) -> Process:
            folder = tmp_path / name
            setup = Setup(
                proxy.url, buckets.REGION, store.bucket, str(tmp_path / "log.pem"), str(folder), name, diskless
            )
            return Process(setup, role, folder)

        writers = [process("writer", f"w{number}", number % 2 == 0) for number in range(WRITERS)]
        verifiers = [process("verifier", f"v{number}", False) for number in range(VERIFIERS)]
        forwarders = [Forwarder(writers, range(start, 10**9, FORWARDERS), seed + start) for start in range(FORWARDERS)]
        with running(writers + verifiers):
            for forwarder in forwarders:
                forwarder.start()
            kills = torment(writers, forwarders, chance)
            for forwarder in forwarders:
                forwarder.halt.set()
            for forwarder in forwarders:
                forwarder.join(30)
            proxy.calm()
            settle(writers)
            assert all(verifier.child.poll() is None for verifier in verifiers), [one.errors() for one in verifiers]
    acknowledged = {number: batch for forwarder in forwarders for number, batch in forwarder.acknowledged.items()}
    verdicts = [line.split() for verifier in verifiers for line in verifier.said]
    log = Log.open(store)
    print(
        f"{len(acknowledged)} acknowledged, {kills} kills, {log.size} entries, faults {dict(proxy.done)}, "
        f"verdicts {Counter(words[0] for words in verdicts)}, {repeated(log)} sealed elsewhere"
    )
    assert len(acknowledged) > 5
    must_hold_exactly(log, acknowledged)
    report = verify(store, Trust(Policy(tuple(one.key for one in signers))), "deep")
    assert report.sound, report.findings
    assert any(words[0] == "sound" for words in verdicts)
    assert [words for words in verdicts if words[0] not in FINE] == [], "a verification was alarmed"


def torment(writers: list[Process], forwarders: list[Forwarder], chance: random.Random) -> int:
    """Kill and start writers until the time is over and something was acknowledged; the number of kills."""
    over, latest = time.monotonic() + CHAOS_SECONDS, time.monotonic() + CHAOS_SECONDS + 60
    kills = 0
    while time.monotonic() < over or sum(len(one.acknowledged) for one in forwarders) <= 5:
        assert time.monotonic() < latest, [writer.errors() for writer in writers]
        time.sleep(chance.uniform(0.5, 4.0))
        for writer in writers:
            writer.go_on()
        victim = chance.choice(writers)
        if "ready" not in victim.said:
            continue  # give it a chance to have done something
        victim.kill()
        kills += 1
        if victim.setup.diskless and chance.random() < 0.7:
            shutil.rmtree(victim.folder)
        victim.said.clear()
        victim.start()
    return kills


def settle(writers: list[Process]) -> None:
    """End every writer in order: it seals what it holds. One that was just started takes over first."""
    for writer in writers:
        writer.end()
    for writer in writers:
        while writer.child.wait(120) != 0:
            writer.go_on()
            writer.end()


def must_hold_exactly(log: Log, acknowledged: dict[int, str]) -> None:
    found: Counter[str] = Counter()
    for entry in log.entries():
        for reference in entry.segments:
            with local_file(log.store, reference.key, reference.version) as path:
                table = pq.read_table(path, columns=["raw"], partitioning=None)
            found.update(json.loads(raw)["id"] for raw in table.column("raw").to_pylist())
    expected = {f"{number}-{place}" for number in acknowledged for place in range(3)}
    assert not expected - set(found), "acknowledged and lost"
    assert set(found.values()) <= {1}, "stored twice"
    sealed = Counter(fact.id for fact in facts(log) if ELSEWHERE not in fact.flags)
    assert {sealed[batch] for batch in acknowledged.values()} == {1}


def facts(log: Log) -> Iterator[details.BatchFacts]:
    for entry in log.entries():
        if entry.details is not None:
            yield from details.decode(log.store.get(entry.details.key)).batches


def repeated(log: Log) -> int:
    return sum(ELSEWHERE in fact.flags for fact in facts(log))
