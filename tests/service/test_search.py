"""Search, timelines and entities against plain Python over the same records; pages that hold still."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.ingest.samples import SAMPLES, body, files
from tests.service.conftest import Service, make_tokens, start_service

SOURCES = ("cloudtrail", "vpcflow", "guardduty", "syslog")
Hit = dict[str, Any]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("searched")
    tokens = make_tokens(folder)
    running = start_service(folder)
    running.tokens = tokens
    for source in SOURCES:
        for path in files(SAMPLES / source):
            if path.suffix != ".parquet":
                running.call("POST", f"/v1/ingest/{source}", role="quarantiner", content=body(path))
    running.call("POST", "/v1/seal")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def events(logs: Service) -> list[Hit]:
    """Everything there is, as the view `events` has it."""
    answer = logs.call(
        "POST",
        "/v1/query",
        role="investigator",
        json={"sql": "SELECT * FROM events WHERE source <> 'audit'", "limit": 100_000},
        headers={"Accept": "application/x-ndjson"},
    )
    return [json.loads(line) for line in answer.text.splitlines()]


def search(service: Service, **params: Any) -> dict[str, Any]:
    answer = service.call("GET", "/v1/search", role="investigator", params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def every(service: Service, **params: Any) -> list[Hit]:
    """All hits, page by page."""
    found, page = [], search(service, **params)
    found += page["hits"]
    while page["next"]:
        page = search(service, **params, cursor=page["next"])
        found += page["hits"]
    return found


def places(hits: list[Hit]) -> list[tuple[str, int]]:
    return [(hit["address"]["segment"], hit["address"]["row"]) for hit in hits]


def newest_first(events: list[Hit]) -> list[tuple[str, int]]:
    by_address = sorted(events, key=lambda e: (e["_segment"], e["_row"]))
    by_time = sorted(by_address, key=lambda e: e["event_time"] or "", reverse=True)
    return [(event["_segment"], event["_row"]) for event in by_time]


@pytest.mark.parametrize(
    ("params", "keep"),
    [
        ({"source": ["cloudtrail", "guardduty"]}, lambda e: e["source"] in ("cloudtrail", "guardduty")),
        ({"source": SOURCES, "q": "StopLogging"}, lambda e: "StopLogging" in e["raw"]),
        (
            {"source": SOURCES, "q": ["stoplogging", "TESTER"], "ignore_case": "true"},
            lambda e: "stoplogging" in e["raw"].lower() and "tester" in e["raw"].lower(),
        ),
        ({"source": SOURCES, "outcome": ["denied", "failure"]}, lambda e: e["outcome"] in ("denied", "failure")),
        (
            {"source": "cloudtrail", "since": "2023-07-10", "until": "2023-07-10T12:10Z", "account": "123837392027"},
            lambda e: e["source"] == "cloudtrail" and e["account"] == "123837392027"
            and e["event_time"] and "2023-07-10T00" <= e["event_time"] < "2023-07-10T12:10",
        ),
        ({"source": SOURCES, "region": "us-west-2"}, lambda e: e["region"] == "us-west-2"),
        (
            {"entity": "address:192.168.10.20"},
            lambda e: e["source_address"] == "192.168.10.20" or '"192.168.10.20"' in e["raw"],
        ),
        ({"q": "no record has this text: ä☃"}, lambda e: False),
        ({"entity": "access_key:AKIANOBODY", "source": "vpcflow"}, lambda e: False),
    ],
    ids=lambda value: "" if callable(value) else str(value),
)  # fmt: skip
def test_hits_are_those_that_match_newest_first(logs: Service, events: list[Hit], params: Any, keep: Any) -> None:
    hits = every(logs, **params, limit=1000)
    assert places(hits) == newest_first([event for event in events if keep(event)])


def test_an_address_is_found_in_every_column_and_source(logs: Service) -> None:
    rows = logs.rows("SELECT destination_address FROM vpcflow WHERE destination_address IS NOT NULL LIMIT 1")
    address = rows[0][0]
    either = "SELECT count(*) FROM vpcflow WHERE $a IN (source_address, destination_address)"
    packet = " OR $a IN (packet_source_address, packet_destination_address)"
    expected = logs.rows(either + packet, {"a": address})[0][0]
    hits = every(logs, entity=f"address:{address}", limit=1000)
    assert len([hit for hit in hits if hit["source"] == "vpcflow"]) == expected > 0


def test_pages_hold_still_while_the_log_grows(logs: Service) -> None:
    whole = every(logs, source="cloudtrail", limit=1000)
    page = search(logs, source="cloudtrail", limit=13)
    found = page["hits"]
    event = {"eventTime": "2099-01-01T00:00:00Z", "eventName": "Later", "eventSource": "x", "eventID": "later"}
    logs.call("POST", "/v1/ingest/cloudtrail", role="quarantiner", json=[event], params={"wait": "sealed"})
    sizes = {page["snapshot"]["size"]}
    while page["next"]:
        page = search(logs, source="cloudtrail", limit=97, cursor=page["next"])
        sizes.add(page["snapshot"]["size"])
        found = found + page["hits"]
    assert found == whole
    assert len(sizes) == 1
    assert search(logs, source="cloudtrail", limit=1)["hits"][0]["action"] == "x:Later"


def test_a_hit_leads_to_its_proof(logs: Service) -> None:
    (hit,) = search(logs, source="cloudtrail", limit=1, raw="true")["hits"]
    address = hit["address"]
    proof = logs.call("GET", f"/v1/proof/{address['entry']}/{address['position']}/{address['row']}").json()
    assert proof["segment"]["key"] == address["segment"]
    assert json.loads(hit["raw"])


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/csv", "application/vnd.apache.parquet"])
def test_other_formats_come_as_one_stream(logs: Service, accept: str) -> None:
    params = {"source": "cloudtrail", "limit": 300}
    answer = logs.call("GET", "/v1/search", params=params, headers={"Accept": accept})
    expected = places(every(logs, **params)[:300])
    assert answer.headers["Strongroom-Verified"] == "true"
    if accept == "text/csv":
        assert len(answer.text.splitlines()) >= 300
    elif accept == "application/x-ndjson":
        lines = [json.loads(line) for line in answer.text.splitlines() if "$truncated" not in line]
        assert [(line["_segment"], line["_row"]) for line in lines] == expected
    else:
        table = pq.read_table(io.BytesIO(answer.content))
        assert list(zip(table["_segment"].to_pylist(), table["_row"].to_pylist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"entity": "colour:red"}, "parameter-invalid"),
        ({"entity": "address"}, "parameter-invalid"),
        ({"since": "yesterday"}, "parameter-invalid"),
        ({"source": "nothing"}, "parameter-invalid"),
        ({"cursor": "nonsense"}, "cursor-invalid"),
        ({"limit": 0}, "bad-request"),
    ],
    ids=str,
)
def test_mistakes_are_named(logs: Service, params: dict[str, Any], code: str) -> None:
    answer = logs.call("GET", "/v1/search", params=params)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_a_cursor_goes_with_its_search(logs: Service) -> None:
    cursor = search(logs, source="cloudtrail", limit=1)["next"]
    answer = logs.call("GET", "/v1/search", params={"source": "vpcflow", "cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "cursor-invalid")


def timeline(service: Service, **params: Any) -> dict[str, Any]:
    answer = service.call("GET", "/v1/timeline", role="investigator", params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("by", ["none", "source"])
@pytest.mark.parametrize("bucket", ["hour", "day"])
@pytest.mark.parametrize("window", [{}, {"since": "2023-07-10T12:00Z", "until": "2023-07-11T00:00Z"}])
def test_committed_counts_are_the_records(logs: Service, bucket: str, by: str, window: dict[str, str]) -> None:
    size = logs.query("SELECT 1")["snapshot"]["size"]
    params = {"bucket": bucket, "by": by, "source": SOURCES, "as_of": size} | window
    cheap = timeline(logs, **params)
    # A filter that every record passes makes it count them.
    dear = timeline(logs, **params, q="")
    assert (cheap["counted"], dear["counted"]) == ("details", "records")
    assert (cheap["buckets"], cheap["without_time"]) == (dear["buckets"], dear["without_time"])
    assert cheap["segments"]["read"] == 0 and cheap["snapshot"] == dear["snapshot"]


def test_a_timeline_counts_what_matches(logs: Service, events: list[Hit]) -> None:
    found = timeline(logs, bucket="minute", by="outcome", source="cloudtrail", q="kms.amazonaws.com")
    expected = Counter(
        (event["event_time"][:16], event["outcome"])
        for event in events
        if event["source"] == "cloudtrail" and "kms.amazonaws.com" in event["raw"] and event["event_time"]
    )
    assert {(item["start"][:16], item["group"]): item["records"] for item in found["buckets"]} == expected
    assert found["bucket"] == "minute"


def test_the_bucket_suits_the_time(logs: Service) -> None:
    def chosen(since: str, until: str) -> Any:
        return timeline(logs, source="cloudtrail", since=since, until=until)["bucket"]

    assert chosen("2023-07-10T12:00Z", "2023-07-10T14:00Z") == "minute"
    assert chosen("2023-07-01", "2023-07-14") == "hour"
    assert chosen("2020-01-01", "2024-01-01") == "day"
    assert timeline(logs, source="cloudtrail")["bucket"] == "day"


def test_a_timeline_as_arrow(logs: Service) -> None:
    headers = {"Accept": "application/vnd.apache.arrow.stream"}
    answer = logs.call("GET", "/v1/timeline", params={"bucket": "day", "source": "cloudtrail"}, headers=headers)
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.column_names == ["start", "group", "records"]


def test_everything_about_a_key(logs: Service) -> None:
    rows = logs.rows(
        "SELECT access_key_id, event_time, source_address, region, raw FROM cloudtrail WHERE access_key_id IS NOT NULL"
    )
    key = Counter(row[0] for row in rows).most_common(1)[0][0]
    mine = [row for row in rows if row[0] == key]
    found = logs.call("GET", f"/v1/entities/access_key/{key}", role="investigator", params={"top": 500}).json()
    assert found["records"] == len(mine)
    times = [row[1] for row in mine if row[1]]
    assert (found["first_seen"], found["last_seen"]) == (min(times), max(times))
    addresses = {item["value"]: item["records"] for item in found["peers"]["address"]}
    assert addresses == Counter(row[2] for row in mine if row[2])
    assert {item["value"]: item["records"] for item in found["regions"]} == Counter(row[3] for row in mine if row[3])
    arns = Counter(json.loads(row[4])["userIdentity"].get("arn") for row in mine)
    principals = {item["value"]: item["records"] for item in found["peers"]["principal"]}
    assert {arn: principals[arn] for arn in arns if arn} == {arn: n for arn, n in arns.items() if arn}
    assert key not in {item["value"] for item in found["peers"]["access_key"]}
    assert found["segments"]["verified"] is True


def test_entities_with_slashes_and_strangers(logs: Service) -> None:
    arn = logs.rows("SELECT arn FROM cloudtrail WHERE contains(arn, '/') LIMIT 1")[0][0]
    assert logs.call("GET", f"/v1/entities/principal/{arn}").json()["records"] > 0
    unknown = logs.call("GET", "/v1/entities/address/203.0.113.255").json()
    assert (unknown["records"], unknown["first_seen"], unknown["sources"]) == (0, None, [])
    wrong = logs.call("GET", "/v1/entities/colour/red")
    assert (wrong.status_code, wrong.json()["code"]) == (400, "parameter-invalid")


def test_looking_is_recorded(logs: Service) -> None:
    search(logs, q="a very particular text", source="syslog")
    logs.call("POST", "/v1/seal")
    question = "SELECT action, outcome FROM audit WHERE contains(detail, 'particular') AND NOT contains(detail, 'FROM')"
    assert logs.rows(question) == [["search", "started"]]
