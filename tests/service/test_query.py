"""Questions over HTTP, to a real service: formats, snapshots, reading one's own write, and the audit of it all."""

from __future__ import annotations

import csv
import io
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strongroom.client import Client, Refused
from tests.service.conftest import Service
from tests.service.test_ingest import push, trail


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("text/html, application/x-ndjson;q=0.9", "application/x-ndjson"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.stream"),
        ("application/vnd.apache.parquet", "application/vnd.apache.parquet"),
    ],
)
def test_accept_chooses_the_format(service: Service, accept: str, media: str) -> None:
    body = {"sql": "SELECT 1 AS one, 'two' AS two"}
    answer = service.call("POST", "/v1/query", json=body, headers={"Accept": accept})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, media)
    assert int(answer.headers["Strongroom-Snapshot-Size"]) > 0
    assert len(answer.headers["Strongroom-Snapshot-Root"]) == 64
    match media.split(";")[0]:
        case "application/json":
            assert answer.json()["rows"] == [[1, "two"]]
        case "application/x-ndjson":
            assert [json.loads(line) for line in answer.text.splitlines()] == [{"one": 1, "two": "two"}]
        case "text/csv":
            assert list(csv.reader(io.StringIO(answer.text))) == [["one", "two"], ["1", "two"]]
        case "application/vnd.apache.parquet":
            assert pq.read_table(io.BytesIO(answer.content)).to_pydict() == {"one": [1], "two": ["two"]}
        case _:
            assert pa.ipc.open_stream(answer.content).read_all().to_pydict() == {"one": [1], "two": ["two"]}


@pytest.mark.parametrize("coding", ["gzip", "zstd", "identity"])
def test_answers_are_compressed_as_the_client_likes(service: Service, coding: str) -> None:
    body = {"sql": "SELECT i FROM range(20000) t(i)", "limit": 20000}
    headers = {"Accept-Encoding": coding}
    answer = service.call("POST", "/v1/query", json=body, headers=headers)
    assert answer.headers.get("Content-Encoding", "identity") == coding
    assert answer.json()["row_count"] == 20000


def test_an_answer_names_what_it_read(service: Service) -> None:
    push(service, "cloudtrail", trail(1), params={"wait": "sealed"})
    sql = "SELECT DISTINCT _segment FROM cloudtrail ORDER BY 1"
    answer = service.call("POST", "/v1/query", json={"sql": sql}, params={"segments": "true"})
    named = answer.json()["segments"]
    assert named["verified"] is True and named["read"] == len(named["names"]) == int(
        answer.headers["Strongroom-Segments"]
    )
    assert [[name] for name in sorted(named["names"])] == answer.json()["rows"]


def test_an_unknown_format_is_406(service: Service) -> None:
    answer = service.call("POST", "/v1/query", json={"sql": "SELECT 1"}, headers={"Accept": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not-acceptable")


@pytest.mark.parametrize("as_receipt", [False, True])
def test_a_question_waits_for_its_own_write(service: Service, as_receipt: bool) -> None:
    accepted = push(service, "cloudtrail", trail(4))
    rows = service.rows(
        "SELECT count(*) FROM cloudtrail WHERE sequence = $sequence",
        {"sequence": accepted["sequence"]},
        at_least=accepted["receipt"] if as_receipt else accepted["batch"],
    )
    assert rows == [[4]]


def test_a_forged_receipt_is_refused(service: Service) -> None:
    receipt = push(service, "json", b'{"a": 1}')["receipt"].replace("bytes 8", "bytes 9")
    answer = service.call("POST", "/v1/query", json={"sql": "SELECT 1"}, params={"at_least": receipt})
    assert (answer.status_code, answer.json()["code"]) == (400, "receipt-invalid")


def test_a_snapshot_can_be_asked_again(service: Service) -> None:
    question = "SELECT count(*) FROM json"
    service.call("POST", "/v1/seal")
    first = service.query(question)
    push(service, "json", b'{"later": true}', params={"wait": "sealed"})
    body = {"sql": question, "as_of": first["snapshot"]["size"]}
    again = service.call("POST", "/v1/query", json=body).json()
    assert (again["rows"], again["snapshot"]) == (first["rows"], first["snapshot"])
    assert service.rows(question)[0][0] == first["rows"][0][0] + 1


def test_a_mistake_is_shown_with_its_place(service: Service) -> None:
    answer = service.call("POST", "/v1/query", json={"sql": "SELECT 1,\n  nothing FROM cloudtrail"})
    assert (answer.status_code, answer.json()["code"]) == (400, "query-invalid")
    assert answer.json()["position"]["line"] == 2


@pytest.mark.parametrize("sql", ["COPY (SELECT 1) TO '/tmp/x'", "SELECT * FROM read_text('/etc/passwd')", "SET x = 1"])
def test_what_is_no_question_is_refused(service: Service, sql: str) -> None:
    answer = service.call("POST", "/v1/query", json={"sql": sql})
    assert (answer.status_code, answer.json()["code"]) == (400, "query-refused")


def test_a_limit_cuts_and_says_so(service: Service) -> None:
    answer = service.call("POST", "/v1/query", json={"sql": "SELECT * FROM range(100)", "limit": 7}).json()
    assert (answer["row_count"], answer["truncated"]) == (7, "rows")


def test_the_catalog_shows_what_can_be_asked(service: Service) -> None:
    tables = {table["name"]: table for table in service.call("GET", "/v1/catalog").json()["tables"]}
    assert {"cloudtrail", "vpcflow", "guardduty", "securityhub", "events", "entries", "segments"} <= set(tables)
    assert "event_time" in {column["name"] for column in tables["cloudtrail"]["columns"]}


def audited(service: Service, mark: str, expected: int) -> list[list[str]]:
    """The audit records that mention `mark`, once there are as many as expected."""
    question = (
        "SELECT actor, action, outcome, detail FROM audit WHERE contains(detail, $mark) "
        "AND NOT contains(detail, 'FROM audit') ORDER BY event_time, sequence"
    )
    deadline = time.monotonic() + 20
    while len(rows := service.rows(question, {"mark": mark})) < expected and time.monotonic() < deadline:
        time.sleep(0.2)
    return rows


def test_every_question_is_audited_before_and_after(service: Service) -> None:
    mark = uuid.uuid4().hex
    service.query("SELECT $mark AS mark", {"mark": mark})
    (started,) = audited(service, mark, 1)
    assert started[:3] == [started[0], "query", "started"]
    assert started[0].startswith("test-investigator#")
    detail = json.loads(started[3])
    assert (detail["sql"], detail["parameters"]) == ("SELECT $mark AS mark", {"mark": mark})
    assert detail["snapshot"] > 0
    _, ended = audited(service, detail["act"], 2)
    assert ended[2] == "success"
    assert json.loads(ended[3])["rows"] == 1


def test_a_refused_question_is_audited_too(service: Service) -> None:
    mark = uuid.uuid4().hex
    service.call("POST", "/v1/query", json={"sql": f"DROP TABLE {mark}"}, params={})
    detail = json.loads(audited(service, mark, 1)[0][3])
    outcomes = [row[2] for row in audited(service, detail["act"], 2)]
    assert outcomes == ["started", "failure"]


def test_a_reader_that_leaves_frees_his_place(service: Service) -> None:
    mark = uuid.uuid4().hex
    headers = {"Authorization": f"Bearer {service.tokens['auditor']}"}
    body = {"sql": f"SELECT repeat('x', 1000) AS x FROM range(100000) -- {mark}", "limit": 100_000}
    for _ in range(3):  # one more than a user may have at once
        with httpx.stream("POST", f"{service.url}/v1/query", json=body, headers=headers, timeout=60) as answer:
            assert answer.status_code == 200
            next(answer.iter_raw())
        time.sleep(0.3)
    detail = json.loads(audited(service, mark, 3)[0][3])
    assert [row[2] for row in audited(service, detail["act"], 2)] == ["started", "failure"]


def test_acts_on_tokens_are_audited_without_secrets(service: Service) -> None:
    name = f"short-lived-{uuid.uuid4().hex}"
    made = service.call("POST", "/v1/tokens", json={"role": "auditor", "name": name}).json()
    assert service.call("DELETE", f"/v1/tokens/{made['id']}").json()["revoked"]["name"] == name
    assert (
        service.call("GET", "/v1/status", role=None, headers={"Authorization": f"Bearer {made['token']}"}).status_code
        == 401
    )
    acts = audited(service, name, 3)
    assert [row[1:3] for row in acts] == [
        ["token.create", "started"],
        ["token.create", "success"],
        ["token.revoke", "success"],
    ]
    assert not any(made["token"].split("_", 2)[2] in row[3] for row in acts)


def test_what_is_not_sealed_comes_once_and_marked(service: Service) -> None:
    """While the service seals several times a second: everything acknowledged, each record once."""
    mark = str(uuid.uuid4())
    sql = (
        "SELECT count(*), count(DISTINCT raw), count(*) FILTER (NOT _sealed), count(*) FILTER (_segment IS NULL) "
        "FROM json WHERE contains(raw, $mark)"
    )
    fresh, number = 0, -1
    while number < 5 or (not fresh and number < 40):
        number += 1
        push(service, "json", json.dumps({"user": mark, "message": str(number)}).encode())
        body = {"sql": sql, "parameters": {"mark": mark}, "unsealed": True}
        answer = service.call("POST", "/v1/query", json=body)
        assert answer.status_code == 200, answer.text
        found, distinct, unsealed, unaddressed = answer.json()["rows"][0]
        assert found == distinct == number + 1 and unsealed == unaddressed
        told = answer.json()["unsealed"]
        assert told == {"batches": int(answer.headers["Strongroom-Unsealed-Batches"]), "left_out": 0}
        assert unsealed <= told["batches"]
        fresh += unsealed
    assert fresh > 0
    service.call("POST", "/v1/seal")
    assert service.rows("SELECT count(*) FROM json WHERE contains(raw, $mark)", {"mark": mark}) == [[number + 1]]


def test_a_search_and_the_client_find_what_is_not_sealed(service: Service) -> None:
    mark = str(uuid.uuid4())
    with Client(service.url, service.tokens["investigator"]) as client:
        for number in range(3):
            push(service, "json", json.dumps({"user": mark, "number": number}).encode())
            hits = list(client.search(mark, sources=["json"], unsealed=True, raw=True))
            assert sorted(json.loads(hit.raw or "")["number"] for hit in hits) == [*range(number + 1)]
            assert all(hit.sealed == (hit.address is not None) for hit in hits)
            answer = client.query("SELECT _sealed FROM json WHERE contains(raw, $m)", {"m": mark}, unsealed=True)
            assert len(answer) == number + 1
            assert answer.table["_sealed"].to_pylist().count(False) <= answer.basis.unsealed
        assert client.query("SELECT 1").basis.unsealed == 0
    params = {"q": mark, "unsealed": "true", "limit": "2"}
    page = service.call("GET", "/v1/search", params=params).json()
    assert (len(page["hits"]), page["next"], page["more"]) == (2, None, True)


def test_an_estimate_is_what_is_read_then(service: Service) -> None:
    push(service, "cloudtrail", trail(3), params={"wait": "sealed"})
    sql = "SELECT count(*) FROM cloudtrail WHERE event_time >= $since"
    with Client(service.url, service.tokens["investigator"]) as client:
        for since in ("1970-01-01", "2099-01-01"):
            told = client.estimate(sql, {"since": since})
            answer = service.call(
                "POST", "/v1/query", json={"sql": sql, "parameters": {"since": since}, "as_of": told.snapshot.size}
            )
            headers = answer.headers
            assert told.snapshot.root == headers["Strongroom-Snapshot-Root"]
            assert told.segments == int(headers["Strongroom-Segments"])
            assert told.total - told.segments == int(headers["Strongroom-Segments-Pruned"])
            assert (told.budget_bytes, told.refused) == (None, False)
        assert told.segments < told.total  # other tests may have left records of that time
        with pytest.raises(Refused, match="no view"):
            client.estimate("SELECT * FROM cloudtrial")
        ready = client.json("POST", "/v1/query/estimate", json={"investigation": "root-use"})
        assert ready["segments"]["total"] == ready["segments"]["read"] + ready["segments"]["pruned"] > 0
    service.call("POST", "/v1/seal")
    acts = service.rows("SELECT DISTINCT outcome FROM audit WHERE action = 'estimate' ORDER BY 1")
    assert acts == [["failure"], ["started"], ["success"]]


def test_an_earlier_snapshot_has_nothing_unsealed(service: Service) -> None:
    mark = str(uuid.uuid4())
    for _ in range(2):
        push(service, "json", json.dumps({"user": mark}).encode(), params={"wait": "sealed"})
    cursor = service.call("GET", "/v1/search", params={"q": mark, "limit": "1"}).json()["next"]
    refused = [
        service.call("POST", "/v1/query", json={"sql": "SELECT 1", "unsealed": True, "as_of": 1}),
        service.call("GET", "/v1/search", params={"unsealed": "true", "as_of": "1"}),
        service.call("GET", "/v1/search", params={"q": mark, "limit": "1", "unsealed": "true", "cursor": cursor}),
        service.call("POST", "/v1/queries", json={"sql": "SELECT 1", "unsealed": True}),
        service.call("POST", "/v1/query/estimate", json={"sql": "SELECT 1", "unsealed": True}),
        service.call("GET", "/v1/timeline", params={"unsealed": "true", "as_of": "1"}),
        service.call("GET", "/v1/entities/account/1", params={"unsealed": "true", "as_of": "1"}),
        service.call("POST", "/v1/investigations/denied-bursts", json={"unsealed": True, "as_of": 1}),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [
        *[(400, "parameter-invalid")] * 3,
        *[(400, "bad-request")] * 2,
        *[(400, "parameter-invalid")] * 3,
    ]
    assert "/v1/query" in refused[3].json()["detail"]


def test_questions_wait_in_line_and_who_hangs_up_leaves_it(service: Service) -> None:
    token = {"Authorization": f"Bearer {service.tokens['auditor']}", "Accept-Encoding": "identity"}
    unread = {"sql": "SELECT repeat('x', 1000) FROM range(1000000)", "limit": 1_000_000}
    mark = f"SELECT '{uuid.uuid4()}'"

    with ExitStack() as stack, ThreadPoolExecutor(1) as threads:
        for _ in range(2):  # as many of one token as run at once
            client = stack.enter_context(httpx.Client(base_url=service.url, headers=token, timeout=60))
            stack.enter_context(client.stream("POST", "/v1/query", json=unread))
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{service.url}/v1/query", json={"sql": mark}, headers=token, timeout=0.5)
        act = json.loads(audited(service, mark, 1)[0][3])["act"]
        *_, ended = audited(service, act, 2)
        assert json.loads(ended[3])["message"] == "whoever asked has hung up"
        waits = threads.submit(service.query, mark, role="auditor")
        time.sleep(0.3)
        assert not waits.done()
        stack.close()
        assert waits.result()["row_count"] == 1
