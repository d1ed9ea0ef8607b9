"""`strongroom pull` and `strongroom backfill`, as a person runs them, against real S3 and SQS APIs."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.buckets import CREDENTIALS, REGION, S3
from tests.ingest.conftest import events, records
from tests.ingest.queueing import Announced
from tests.service.conftest import REPOSITORY, STRONGROOM, strongroom

ORG = "AWSLogs/o-abc123"


class Place(Announced):
    """A bucket like that of a Landing Zone, and an archive to fill from it."""

    def run(self, folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
        environment = CREDENTIALS | {"STRONGROOM_PULL_REGION": REGION, "STRONGROOM_PULL_ENDPOINT_URL": self.s3.url}
        places = ["--archive", folder / "archive", "--state", folder / "state"]
        done = strongroom(*arguments, "--json", *places, **environment)
        assert done.returncode in (0, 1, 3), done.stderr
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def place(s3: S3) -> Place:
    made = Place(s3)
    for account in ("111122223333", "444455556666"):
        for day in (5, 6, 7):
            key = f"{ORG}/{account}/CloudTrail/eu-west-1/2024/05/{day:02d}/{account}_CloudTrail_{day}.json.gz"
            made.put(key, gzip.compress(events(int(account[:3]) * 100 + day), mtime=0))
    made.put(f"{ORG}/111122223333/Config/ConfigWritabilityCheckFile", b"")
    made.put("CloudWatchLogs/2024/05/06/10/firehose-1", records(1, 2))
    made.put("undated/notes.json", records(3))
    return made


def test_a_backfill_takes_the_days_asked_for_and_goes_on_where_it_was(place: Place, tmp_path: Path) -> None:
    root = f"s3://{place.bucket}/"
    days = ["--since", "2024-05-06", "--until", "2024-05-06"]
    code, missing = place.run(tmp_path / "new", "backfill", root, "--source", "json")  # makes the archive; all of it
    assert (code, missing["taken"], missing["records"]) == (0, 8, 9)

    code, some = place.run(tmp_path, "backfill", root, *days)
    # Two trails and the group of that day, and the file that says nothing of days.
    assert (code, some["listed"], some["taken"], some["empty"], some["records"]) == (0, 5, 4, 1, 5)
    code, held = place.run(tmp_path, "backfill", root, "--reconcile")
    assert (code, held["listed"], held["sealed"], held["missing"], held["empty"]) == (1, 9, 4, 4, 1)
    assert all("/2024/05/05/" in name or "/2024/05/07/" in name for name in held["names"])
    code, rest = place.run(tmp_path, "backfill", root)
    assert (code, rest["listed"], rest["known"], rest["taken"], rest["duplicates"]) == (0, 9, 4, 4, 0)
    assert place.run(tmp_path, "backfill", root, "--reconcile")[0] == 0
    # A new version of an object is another object.
    place.put("undated/notes.json", records(4))
    code, held = place.run(tmp_path, "backfill", f"{root}undated/", "--reconcile")
    assert (code, held["sealed"], held["missing"]) == (1, 1, 1)
    assert held["names"][0].startswith(f"{root}undated/notes.json?versionId=")


def test_a_backfill_can_be_stopped_and_repeated(place: Place, tmp_path: Path) -> None:
    objects = 150
    for number in range(objects):
        place.put(f"many/{number:03d}.json", records(number))
    places = ["--archive", str(tmp_path / "archive"), "--state", str(tmp_path / "state")]
    environment = CREDENTIALS | {"STRONGROOM_PULL_REGION": REGION, "STRONGROOM_PULL_ENDPOINT_URL": place.s3.url}
    process = subprocess.Popen(
        [*STRONGROOM, "backfill", f"s3://{place.bucket}/many/", "--source", "json", "--json", *places],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environment | {"PYTHONPATH": str(REPOSITORY)},
        text=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(
        path.stat().st_size > 2000 for path in (tmp_path / "state").rglob("*.spool")
    ):
        time.sleep(0.005)
    process.terminate()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 3 and "repeat it" in errors, errors
    stopped = json.loads(output)
    assert stopped["interrupted"] and stopped["taken"] < objects
    code, rest = place.run(tmp_path, "backfill", f"s3://{place.bucket}/many/", "--source", "json")
    assert (code, rest["listed"], rest["interrupted"]) == (0, objects, False)
    assert rest["known"] >= stopped["taken"] and rest["known"] + rest["duplicates"] + rest["taken"] == objects
    code, held = place.run(tmp_path, "backfill", f"s3://{place.bucket}/many/", "--reconcile")
    assert (code, held["sealed"], held["missing"]) == (0, objects, 0)


def test_a_backfill_says_that_something_was_quarantined(place: Place, tmp_path: Path) -> None:
    place.put("odd/a.json", records(1) + b"\n{broken\n")
    place.put("odd/b.json.gz", gzip.compress(records(2))[:-9])
    code, filled = place.run(tmp_path, "backfill", f"s3://{place.bucket}/odd/", "--source", "json")
    assert (code, filled["taken"], filled["accepted"], filled["quarantined"], filled["refused"]) == (3, 2, 1, 2, 0)
    # Taken is taken: again there is nothing to do, and nothing to complain of.
    code, again = place.run(tmp_path, "backfill", f"s3://{place.bucket}/odd/", "--source", "json")
    assert (code, again["known"], again["records"]) == (0, 2, 0)


def test_what_the_queue_announced_is_known_to_a_backfill(place: Place, tmp_path: Path) -> None:
    place.announce()
    place.put("undated/more.json", records(9))
    arguments = ["pull", "--once", "--queue", place.url, "--buckets", place.bucket]
    code, counts = place.run(tmp_path, *arguments)
    assert (code, counts["objects"], place.waiting()) == (0, 1, 0)
    code, filled = place.run(tmp_path, "backfill", f"s3://{place.bucket}/undated/")
    assert (code, filled["listed"], filled["known"], filled["taken"]) == (0, 2, 1, 1)


def test_a_place_or_a_day_that_is_none_is_said_in_one_line(tmp_path: Path) -> None:
    for arguments in (
        ["backfill", "bucket/prefix"],
        ["backfill", "s3://b-1/", "--since", "yesterday"],
        ["pull"],
        ["pull", "--queue", "q"],
    ):
        done = strongroom(*arguments, "--state", tmp_path / "state", "--archive", tmp_path / "archive")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
