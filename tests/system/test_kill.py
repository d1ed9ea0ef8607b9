"""kill -9 at every arrow of the write path, and at random: what was acknowledged is there exactly once, and sound."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.system import dying
from tests.system.conftest import NewService
from tests.system.process import Service

pytestmark = [pytest.mark.system, pytest.mark.adversarial]

RANDOM_KILLS = int(os.environ.get("STRONGROOM_TEST_KILLS", "6"))
SOURCES = ("cloudtrail", "json")


def body_of(number: int) -> bytes:
    """Delivery `number`: three CloudTrail-like events whose ids say where they come from."""
    records = [
        {
            "eventID": f"{number}-{place}",
            "eventName": "GetObject",
            "eventTime": f"2026-11-{1 + number % 3:02d}T00:00:{place:02d}Z",
            "padding": random.Random(number).randbytes(200).hex(),
        }
        for place in range(3)
    ]
    return gzip.compress(json.dumps({"Records": records}).encode(), mtime=0)


class Forwarder(threading.Thread):
    """Delivers numbered batches as a careful shipper does: each again until it is acknowledged, with its own key."""

    def __init__(self, service: Service, token: str, numbers: range) -> None:
        super().__init__(daemon=True)
        self.service, self.token = service, token
        self.numbers = list(numbers)
        self.acknowledged: set[int] = set()
        self.halt = threading.Event()

    def run(self) -> None:
        for number in self.numbers:
            while not self.halt.is_set() and number not in self.acknowledged:
                if not self._deliver(number):
                    time.sleep(0.05)

    def _deliver(self, number: int) -> bool:
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Encoding": "gzip",
            "Idempotency-Key": f"key-{number}",
        }
        try:
            url = f"{self.service.url}/v1/ingest/{SOURCES[number % 2]}"
            answer = httpx.post(url, content=body_of(number), headers=headers, timeout=10)
        except (httpx.HTTPError, httpx.InvalidURL):
            return False
        if answer.status_code == 503:
            return False
        assert answer.status_code == 200, answer.text
        self.acknowledged.add(number)
        return True


def stored(service: Service) -> Counter[str]:
    """How often each event id is in the archive, over all sources."""
    asked = service.cli(
        "query",
        "--format",
        "ndjson",
        "SELECT raw->>'eventID' AS id FROM cloudtrail UNION ALL SELECT raw->>'eventID' FROM json",
    )
    assert asked.returncode == 0, asked.stderr
    return Counter(row["id"] for line in asked.stdout.splitlines() if "id" in (row := json.loads(line)))


def must_hold_exactly(service: Service, acknowledged: set[int]) -> None:
    found = stored(service)
    expected = {f"{number}-{place}" for number in acknowledged for place in range(3)}
    assert not expected - set(found), "acknowledged and lost"
    assert {count for event, count in found.items() if event in expected} <= {1}, "stored twice"
    assert set(found.values()) <= {1}
    report = service.verify("deep")
    assert report["sound"], json.dumps(report["findings"], indent=1)


@pytest.fixture
def service(new_service: NewService) -> Service:
    # Seal all the time, so that kills fall into it.
    return new_service(seal_age_seconds=0.05, seal_bytes=20_000, heartbeat_seconds=1)


@pytest.mark.parametrize("point", dying.POINTS)
def test_killed_at_each_arrow(service: Service, point: str) -> None:
    token = service.token("forwarder", "--source", "*")
    forwarder = Forwarder(service, token, range(8))
    service.start((sys.executable, str(Path(dying.__file__)), point, "2"))
    forwarder.start()
    assert service.wait() == -9, service.log
    service.start()
    forwarder.join(60)
    assert forwarder.acknowledged == set(range(8))
    service.stop()
    must_hold_exactly(service, forwarder.acknowledged)


def test_killed_at_random(service: Service) -> None:
    seed = int(os.environ.get("STRONGROOM_TEST_SEED", random.randrange(10**6)))
    print(f"STRONGROOM_TEST_SEED={seed}")
    chance = random.Random(seed)
    service.start()
    token = service.token("forwarder", "--source", "*")
    forwarders = [Forwarder(service, token, range(start, start + 100_000)) for start in range(0, 400_000, 100_000)]
    for forwarder in forwarders:
        forwarder.start()
    for _ in range(RANDOM_KILLS):
        time.sleep(chance.uniform(0.0, 1.2))
        half_an_upload(service, token, chance)
        service.kill()
        service.start()
        assert service.url, service.log
    deadline = time.monotonic() + 90  # a busy machine acknowledges little between two kills
    while sum(len(forwarder.acknowledged) for forwarder in forwarders) <= 4 * RANDOM_KILLS:
        assert time.monotonic() < deadline, service.log
        time.sleep(0.1)
    for forwarder in forwarders:
        forwarder.halt.set()
    for forwarder in forwarders:
        forwarder.join(30)
    acknowledged = set[int]().union(*(forwarder.acknowledged for forwarder in forwarders))
    with service.client(service.token("admin")) as client:
        assert client.post("/v1/seal").status_code == 200
        counters = client.get("/v1/status").json()["counters"]
    assert counters["received_records"] == (
        counters["sealed_records"] + counters["quarantined_records"] + counters["duplicate_records"]
    )
    service.stop()
    must_hold_exactly(service, acknowledged)


def test_killed_with_its_disk_lost(new_service: NewService) -> None:
    """Spooled in the bucket, a machine may go with its disk: keys and tokens are all that the next one is given."""
    service = new_service(
        spool="bucket", seal_age_seconds=0.3, seal_bytes=20_000, heartbeat_seconds=1, abandoned_seconds=0, writer="n1"
    )
    service.start()
    token = service.token("forwarder", "--source", "*")
    forwarders = [Forwarder(service, token, range(start, start + 1000)) for start in (0, 1000)]
    for forwarder in forwarders:
        forwarder.start()
    for kill in range(2):
        deadline = time.monotonic() + 60
        while any(len(forwarder.acknowledged) <= 3 * kill for forwarder in forwarders):
            assert time.monotonic() < deadline, service.log
            time.sleep(0.05)
        service.kill()
        for folder in ("writers", "signer", "query", "acts"):
            shutil.rmtree(service.state / folder, ignore_errors=True)
        (service.state / "node.json").unlink()
        service.start()
        assert service.url, service.log
    for forwarder in forwarders:
        forwarder.halt.set()
    for forwarder in forwarders:
        forwarder.join(30)
    service.stop()
    acknowledged = set[int]().union(*(forwarder.acknowledged for forwarder in forwarders))
    must_hold_exactly(service, acknowledged)


def half_an_upload(service: Service, token: str, chance: random.Random) -> None:
    """Leave a request in the middle of its body: nothing of it may count."""
    address = urlsplit(service.url)
    content = body_of(999_999)
    head = (
        f"POST /v1/ingest/cloudtrail HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Encoding: gzip\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        connection.sendall(head.encode() + content[: chance.randrange(len(content))])
