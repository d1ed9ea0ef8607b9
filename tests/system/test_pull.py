"""A service that pulls, killed while it does: every object is sealed once, and the queue ends up empty.

Messages that a killed process held come back after their visibility timeout, two minutes. So this takes five minutes,
and runs when `STRONGROOM_TEST_SLOW` is set.
"""

from __future__ import annotations

import gzip
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.buckets import CREDENTIALS, REGION, S3
from tests.ingest.conftest import records
from tests.ingest.queueing import Announced
from tests.service.conftest import Service, make_tokens, start_service

OBJECTS, RECORDS = 100, 50


@pytest.mark.system
@pytest.mark.timeout(900)
@pytest.mark.skipif("STRONGROOM_TEST_SLOW" not in os.environ, reason="set STRONGROOM_TEST_SLOW: five minutes")
def test_a_killed_service_pulls_everything_once(s3: S3, tmp_path: Path) -> None:
    place = Announced(s3, tries=100)
    place.announce()
    settings = CREDENTIALS | {
        "STRONGROOM_PULL_QUEUE": place.url,
        "STRONGROOM_PULL_BUCKETS": place.bucket,
        "STRONGROOM_PULL_REGION": REGION,
        "STRONGROOM_PULL_ENDPOINT_URL": s3.url,
    }
    for number in range(OBJECTS):
        body = records(*range(number * RECORDS, (number + 1) * RECORDS))
        place.put(f"AWSLogs/{number}.json.gz", gzip.compress(body))
    dice = random.Random(7)
    for _ in range(4):
        service = start_service(tmp_path, **settings)
        _until_pulling(service)
        time.sleep(dice.uniform(0.1, 2.0))
        service.stop(signal.SIGKILL)
    service = start_service(tmp_path, **settings)
    service.tokens = make_tokens(tmp_path)
    try:
        _until_empty(place, service)
        ((counted, distinct),) = service.rows("SELECT count(*), count(DISTINCT raw) FROM json")
        assert (counted, distinct) == (OBJECTS * RECORDS, OBJECTS * RECORDS)
        assert "strongroom_pull_dead_letters 0.0" in service.call("GET", "/metrics").text
        pulled = service.call("GET", "/v1/status").json()["pull"]
        assert (pulled["gone"], pulled["dead_letters"], pulled["held"], pulled["problem"]) == (0, 0, 0, None)
        assert service.stop() in (0, -signal.SIGTERM)  # uvicorn raises the signal again when all is done
    finally:
        service.process.kill()


def _until_pulling(service: Service) -> None:
    deadline = time.monotonic() + 60
    while '"pulling"' not in service.log:
        assert time.monotonic() < deadline, service.log
        time.sleep(0.02)


def _until_empty(place: Announced, service: Service) -> None:
    deadline = time.monotonic() + 600
    while place.waiting():
        assert time.monotonic() < deadline, service.log[-3000:]
        time.sleep(1)
