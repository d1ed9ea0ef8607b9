"""The benchmark's input is the same everywhere, and the truth file is true: counted again from the files."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

from bench import generate
from strongroom.ingest.sources import SOURCES, recognise

EVENTS, FLOWS = 600, 2_000


def contents(files: list[Path]) -> list[bytes]:
    return [gzip.decompress(file.read_bytes()) for file in files]


def test_a_seed_gives_the_same_logs_and_the_truth_about_them(tmp_path: Path) -> None:
    one = generate.data_set(tmp_path / "one", events=EVENTS, flows_=FLOWS, seed=3, processes=1)
    two = generate.data_set(tmp_path / "two", events=EVENTS, flows_=FLOWS, seed=3, processes=2)
    assert one.truth == two.truth
    assert contents(one.cloudtrail) == contents(two.cloudtrail)
    assert contents(one.vpcflow) == contents(two.vpcflow)

    events = [event for content in contents(one.cloudtrail) for event in json.loads(content)["Records"]]
    stolen = [e for e in events if e["userIdentity"].get("accessKeyId") == one.truth.stolen_key]
    assert len(events) == one.truth.cloudtrail.records == EVENTS
    assert sorted((e["eventTime"], e["eventID"]) for e in stolen) == list(one.truth.stolen)
    assert len(one.truth.stolen) == 2
    refused = [e for e in events if e.get("errorCode") in ("AccessDenied", "Client.UnauthorizedOperation")]
    assert len(refused) == one.truth.denied_total > 0

    flows = [line.split() for content in contents(one.vpcflow) for line in content.decode().splitlines()[1:]]
    rejected = Counter(flow[3] for flow in flows if flow[12] == "REJECT")
    assert len(flows) == one.truth.vpcflow.records == FLOWS
    assert rejected.total() == one.truth.rejected_total
    assert rejected.most_common(1) == [one.truth.talkers[0]]


def test_every_generated_record_is_one_of_its_source(tmp_path: Path) -> None:
    made = generate.data_set(tmp_path, events=EVENTS, flows_=3 * generate.FLOWS_PER_FILE, seed=3, processes=1)
    for name, files in (("cloudtrail", made.cloudtrail), ("vpcflow", made.vpcflow)):
        for content in contents(files):
            assert recognise(content[:65_536]).name == name
            split = SOURCES[name].split(content)
            assert not split.broken
            derived = SOURCES[name].derive(split.raw[:500], split.context and split.context[:500])
            assert derived.column("event_time").null_count == 0
