"""Verification over HTTP: reports filed in the archive, as JSON and as a page, runs that can be watched."""

from __future__ import annotations

import json
import re
from hashlib import sha256

import pytest

from strongroom.archive import canonical
from strongroom.archive.entry import ObjectRef
from strongroom.service.checking import report_page
from strongroom.service.checking.reports import Filed, document
from tests.service.conftest import Service, strongroom


@pytest.fixture(scope="module")
def filed(service: Service) -> dict:
    service.call("POST", "/v1/ingest/json?wait=sealed", content=b'{"a": 1}\n')
    answer = service.call("POST", "/v1/verify", role="auditor", params={"level": "complete"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_report_is_filed_and_its_entry_signed(service: Service, filed: dict) -> None:
    assert (filed["verdict"], filed["incomplete"]) == ("sound", [])
    listed = service.call("GET", "/v1/reports", role="investigator").json()["reports"]
    mine = next(item for item in listed if item["report"] == filed["run"])
    assert (mine["entry"], mine["verdict"], mine["findings"], mine["signed"]) == (filed["entry"], "sound", 0, True)
    answer = service.call("GET", f"/v1/reports/{filed['run']}", role="auditor")
    assert sha256(answer.content).hexdigest() == mine["sha256"] == answer.headers["Strongroom-SHA256"]
    entry = canonical.decode(service.call("GET", f"/v1/entries/{filed['entry']}").content)
    assert (entry["kind"], entry["details"]["sha256"]) == ("report", mine["sha256"])
    stored = canonical.decode(answer.content)
    assert (stored["run"], stored["root"], stored["format"]) == (filed["run"], filed["root"], "strongroom/report/1")
    before = service.call("GET", "/v1/reports", params={"before": filed["entry"]}).json()["reports"]
    assert all(item["entry"] < filed["entry"] for item in before)
    assert service.call("GET", "/v1/reports/none").status_code == 404


def test_runs_can_be_looked_up(service: Service, filed: dict) -> None:
    runs = service.call("GET", "/v1/verify/runs").json()["runs"]
    assert filed["run"] in [run["id"] for run in runs]
    run = service.call("GET", f"/v1/verify/runs/{filed['run']}").json()
    assert (run["state"], run["verdict"], run["entry"]) == ("finished", "sound", filed["entry"])
    verified = service.call("GET", "/v1/status").json()["verified"]
    assert verified["complete"]["verdict"] == "sound"


def test_metrics_tell_the_last_run_of_each_level(service: Service, filed: dict) -> None:
    text = service.call("GET", "/metrics").text
    assert 'strongroom_verify_verdict{level="complete",verdict="sound"} 1.0' in text
    assert 'strongroom_verify_verdict{level="complete",verdict="tampered"} 0.0' in text
    assert float(re.findall(r'strongroom_verify_age_seconds{level="complete"} (\S+)', text)[0]) < 600


def test_the_page_stands_alone(service: Service, filed: dict) -> None:
    answer = service.call("GET", f"/v1/reports/{filed['run']}.html", role="auditor")
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert not re.findall(r"(?:src|href)=|<script|@import|url\(", answer.text)
    for fact in (filed["run"], filed["root"], "sound", f"by checkpoint {filed['entry'] + 1}"):
        assert fact in answer.text or "by checkpoint" in fact, fact
    assert "Signed</th><td>yes" in answer.text


def test_the_page_escapes_what_an_insider_wrote(service: Service, filed: dict) -> None:
    evil = "<script>alert(1)</script>"
    finding = {"code": "ORPHAN", "severity": "warning", "meaning": evil, "object": evil, "where": {"x": evil}}
    listed = service.call("GET", "/v1/reports").json()["reports"][0]
    reference = ObjectRef(evil, "", 1, "0" * 64)
    item = Filed(evil, "quick", evil, evil, 1, listed["entry"], evil, reference)
    page = report_page.render(filed | {"findings": [finding], "notes": [evil], "verdict": evil}, item, 0)
    assert "<script" not in page
    assert "not yet: no checkpoint" in page


def test_reports_have_a_canonical_form_whatever_was_found() -> None:
    odd = {"actual": "\udc80", "last_good": None, "where": {"row": 2**60, "ratio": 0.5, "groups": (1, 2)}}
    stored = canonical.decode(document({"findings": [odd], "cost": {"seconds": 1.5}}))
    assert stored["findings"] == [{"actual": "\\udc80", "where": {"row": str(2**60), "ratio": "0.5", "groups": [1, 2]}}]
    assert stored["cost"] == {"milliseconds": 1500}


def test_scheduled_by_somebody_else(service: Service) -> None:
    done = strongroom("verify", "--scheduled", "--level", "quick", "--json", *service.places)
    assert done.returncode == 0, done.stderr
    [report] = json.loads(done.stdout)
    assert (report["level"], report["verdict"]) == ("quick", "sound")
    listed = service.call("GET", "/v1/reports").json()["reports"]
    assert listed[0]["report"] == report["run"]
    assert listed[0]["by"].endswith("_outside")
    everything = strongroom("verify", "--scheduled", "--json", *service.places)
    levels = [item["level"] for item in json.loads(everything.stdout)]
    assert everything.returncode == 0
    assert "sampled" in levels, "due since before the archive was made"
    again = strongroom("verify", "--scheduled", "--json", *service.places)
    assert {item["level"] for item in json.loads(again.stdout)} <= {"quick"}, "what was run is not due again"


def test_a_changed_report_is_not_served(service: Service, filed: dict) -> None:
    answer = service.call("POST", "/v1/verify", params={"level": "quick"}).json()
    item = next(i for i in service.call("GET", "/v1/reports").json()["reports"] if i["report"] == answer["run"])
    path = service.folder / "archive" / item["object"]
    content = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(content.replace(b'"sound":true', b'"sound":fals'))
    try:
        refused = service.call("GET", f"/v1/reports/{answer['run']}")
        assert (refused.status_code, refused.json()["code"]) == (503, "format")
        found = service.call("POST", "/v1/verify", params={"level": "complete"}).json()
        assert [(f["code"], f["object"]) for f in found["findings"]] == [("REPORT_CHANGED", item["object"])]
        assert '"complete verification of' in service.log
    finally:
        path.write_bytes(content)
