"""The service with its archive in a bucket, through its real process: push, seal, ask, verify, export, restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from strongroom.archive import layout
from strongroom.archive.stores.s3 import S3Store
from tests.buckets import S3
from tests.system.process import Service

SAMPLES = Path(__file__).parents[2] / "demo" / "samples"
COUNT = "SELECT count(*) AS n FROM cloudtrail"

pytestmark = pytest.mark.system


def ask(service: Service, token: str, sql: str, **after: str) -> object:
    url = f"{service.url}/v1/query"
    answer = httpx.post(url, params=after, headers=bearer(token), json={"sql": sql}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["rows"][0][0]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_the_whole_way_through_a_bucket(s3: S3, new_service: Callable[..., Service], tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    given = {name.removeprefix("STRONGROOM_").lower(): value for name, value in s3.environment.items()}
    settings = {name: value for name, value in given.items() if name.startswith("s3_")}
    settings |= {"archive": f"s3://{bucket}/logs", "s3_lock_mode": "COMPLIANCE", "s3_retain_days": "1"}
    settings |= {"seal_age_seconds": "0.3", "verify_schedule": "outside"}
    service = new_service(**settings)
    forwarder, investigator = service.token("forwarder", "--source", "cloudtrail"), service.token("investigator")
    service.start()
    assert service.url, service.log
    for path in SAMPLES.glob("*CloudTrail*"):
        url = f"{service.url}/v1/ingest/cloudtrail?wait=sealed"
        pushed = httpx.post(url, headers=bearer(forwarder), content=path.read_bytes(), timeout=60)
        assert pushed.status_code in (200, 201, 202), pushed.text
    records = ask(service, investigator, COUNT, at_least=pushed.json()["batch"])
    assert records == 590

    for level in ("inventory", "complete", "deep"):
        report = service.verify(level, "--live")
        assert report["verdict"] == "sound", report
    out = str(tmp_path / "bundle.zip")
    chosen = ("--sql", "SELECT _segment, _row FROM cloudtrail LIMIT 5", "--case", "c", "--purpose", "test")
    assert (made := service.cli("evidence", "export", "--out", out, *chosen)).returncode == 0, made.stderr
    policy = str(service.state / "verifier" / "policy")
    checked = service.cli("evidence", "verify", out, "--policy", policy)
    assert checked.returncode == 0 and "PROVEN" in checked.stdout, checked.stdout + checked.stderr

    # Another start finds everything again, and a marker that somebody put on top takes nothing offline.
    service.stop()
    client = s3.client
    client.delete_object(Bucket=bucket, Key="logs/archive.json")
    client.delete_object(Bucket=bucket, Key=f"logs/log/entry/{1:020}")
    service.start()
    assert service.url, service.log
    assert ask(service, investigator, COUNT) == records
    service.stop()
    report = service.verify("inventory")
    assert {finding["code"] for finding in report["findings"]} == {"DELETE_MARKER"}
    store = S3Store(bucket, "logs", options=s3.options)
    named = [
        info for info in store.list("") if not info.key.startswith(layout.CANARIES)
    ]  # moto lets that one be weakened
    assert {store.protection(info.key, info.version).mode for info in named} == {"COMPLIANCE"}
