"""All real logs we have, through the command line into an archive and out again through SQL: every byte, no more."""

from __future__ import annotations

import base64
import csv
import json
import shutil
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from strongroom.archive import details
from strongroom.archive.log import Log
from strongroom.archive.stores import DirectoryStore
from strongroom.ingest.sources import SOURCES
from tests.ingest.samples import SAMPLES, SHARED, body
from tests.system.conftest import NewService
from tests.system.process import Service

pytestmark = pytest.mark.system

HAVE_JQ = shutil.which("jq") is not None

JQ_COUNT = """
[., inputs] | map(
  if type == "array" then .[] else . end
  | if (.detail? | type) == "object" and (.detail.findings? | type) == "array" then .detail.findings[]
    elif (.Records? // .findings? // .Findings? // .configurationItems? // .logEvents? | type) == "array"
    then (.Records? // .findings? // .Findings? // .configurationItems? // .logEvents?)[]
    elif type == "object" and (.items? | type) == "array" and .kind? == "EventList" then .items[]
    else . end
) | length
"""
LINES = ("text", "vpcflow", "elb", "s3access", "syslog", "sessionmanager", "cloudtraillake", "journal")
NO_RECORD = b"#"
"""The one line among the real access logs that is none: its publisher's file begins so."""


def jq_count(content: bytes) -> int:
    """How many records `jq` sees in a JSON file; -1 when it is no JSON."""
    asked = subprocess.run(["jq", "-n", f"input as $first | ($first) | {JQ_COUNT}"], input=content, capture_output=True)
    return int(asked.stdout) if asked.returncode == 0 else -1


def records_by_batch(service: Service) -> dict[int, dict[int, bytes]]:
    """Sequence → position → exact bytes, of every record of every source, as a query returns them."""
    found: dict[int, dict[int, bytes]] = defaultdict(dict)
    columns = "sequence, position, raw_bytes, raw"
    sql = " UNION ALL ".join(f"SELECT {columns} FROM {source}" for source in sorted(SOURCES.keys() - {"audit"}))
    asked = service.cli("query", "--format", "ndjson", sql, "--limit", "1000000")
    assert asked.returncode == 0, asked.stderr
    for line in asked.stdout.splitlines():
        row = json.loads(line)
        exact = row["raw"].encode() if row["raw_bytes"] is None else base64.b64decode(row["raw_bytes"]["base64"])
        assert row["position"] not in found[row["sequence"]], "twice"
        found[row["sequence"]][row["position"]] = exact
    return found


@pytest.mark.parametrize(
    "root", [SAMPLES, pytest.param(SHARED, marks=pytest.mark.skipif(not SHARED.is_dir(), reason="absent"))]
)
def test_everything_comes_out_as_it_went_in(new_service: NewService, root: Path) -> None:
    service = new_service(query_answer_bytes=1 << 30)
    done = service.cli("ingest", str(root), "--json")
    summary = json.loads(done.stdout)
    paths = [path for path in root.rglob("*") if path.is_file()]
    odd = [path for path in paths if body(path).startswith(NO_RECORD + b"\nhttp")]
    assert not summary["refused"]
    assert (done.returncode, summary["quarantined"]) == (3, len(odd))
    report = service.verify("deep")
    assert report["sound"], report["findings"]

    log = Log.open(DirectoryStore(service.archive))
    stated = [
        details.decode(log.store.get(entry.details.key))
        for entry in log.entries()
        if entry.kind == "segment" and entry.details
    ]
    batches = {batch.sequence: batch for found in stated for batch in found.batches}
    contents = {str(path): body(path) for path in paths}
    found = records_by_batch(service)
    assert sum(len(records) for records in found.values()) == sum(batch.records for batch in batches.values())
    counted: Counter[str] = Counter()
    for sequence, batch in batches.items():
        content = contents[batch.name]
        records = found[sequence]
        assert sorted(records) == list(range(batch.records))
        at = 0
        counted[batch.source] += batch.records
        if content.startswith(b"PAR1"):
            # Rows have no bytes of their own: the file is there, after the lines written out from it.
            assert records[batch.records - 1] == content
            assert batch.records == pq.read_metadata(batch.name).num_rows + 1
            continue
        for position in range(batch.records):
            at = content.index(records[position], at) + len(records[position])
        if batch.name.endswith(".csv"):
            assert batch.records == sum(1 for _ in csv.DictReader(content.decode().splitlines(keepends=True)))
        elif HAVE_JQ and batch.source not in (*LINES, "quarantine"):
            assert batch.records == jq_count(content), batch.name
    assert counted["cloudtrail"] > 100 and len(counted) >= 15


@pytest.mark.skipif(not SHARED.is_dir(), reason="the larger collection of real logs is not here")
def test_ingesting_again_takes_nothing_twice(new_service: NewService) -> None:
    service = new_service()
    folder = str(SHARED / "cloudtrail" / "AWSLogs")
    first, again = (json.loads(service.cli("ingest", folder, "--json").stdout) for _ in range(2))
    assert first["records"] == 2122
    assert (again["batches"], again["duplicates"]) == (0, first["files"])
