"""The service as a process: starting, stopping, dying, and standing beside the command line."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.service.conftest import SAMPLES, Service, make_tokens, start_service, strongroom
from tests.service.test_ingest import push, trail

pytestmark = pytest.mark.system


def test_a_first_start_says_what_to_know_and_seals_at_sigterm(tmp_path: Path) -> None:
    service = start_service(tmp_path, STRONGROOM_SEAL_AGE_SECONDS="3600", STRONGROOM_NO_SUCH="1")
    assert "tamper-evident, not tamper-proof" in service.log
    assert "strongroom token create" in service.log
    assert "STRONGROOM_NO_SUCH" in service.log
    for key in ("log.pem", "receipts.pem"):
        assert (tmp_path / "state" / "keys" / key).stat().st_mode & 0o777 == 0o600
    service.tokens = make_tokens(tmp_path)
    batch = push(service, "cloudtrail", trail(5))["batch"]
    assert service.call("GET", f"/v1/batches/{batch}").json()["state"] == "spooled"
    strongroom("token", "create", "--role", "auditor", "--name", "last-minute", "--state", tmp_path / "state")
    service.stop()
    assert "Traceback" not in service.log
    counted = strongroom("query", "SELECT count(*) AS n FROM cloudtrail", "-f", "ndjson", *service.places)
    assert json.loads(counted.stdout) == {"n": 5}
    acts = "SELECT count(*) AS n FROM audit WHERE contains(detail, 'last-minute')"
    assert json.loads(strongroom("query", acts, "-f", "ndjson", *service.places).stdout) == {"n": 2}
    verified = strongroom("verify", "--level", "deep", *service.places)
    assert verified.returncode == 0, verified.stdout


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    service = start_service(tmp_path, STRONGROOM_SEAL_AGE_SECONDS="3600")
    service.tokens = make_tokens(tmp_path)
    body = trail(7)
    first = push(service, "cloudtrail", body)
    service.stop(signal.SIGKILL)
    again = start_service(tmp_path, STRONGROOM_SEAL_AGE_SECONDS="0.3")
    again.tokens = service.tokens
    try:
        assert push(again, "cloudtrail", body)["duplicate"]
        state = again.call("GET", f"/v1/batches/{first['batch']}").json()
        assert state["duplicates"] == 1
        assert again.rows("SELECT count(*) FROM cloudtrail", at_least=first["batch"]) == [[7]]
    finally:
        again.stop()


def test_the_command_line_works_beside_the_service(service: Service) -> None:
    before = service.rows("SELECT count(*) FROM vpcflow")[0][0]
    flows = next(SAMPLES.glob("*vpcflowlogs*"))
    done = strongroom("ingest", flows, *service.places)
    assert done.returncode == 0, done.stderr
    assert service.rows("SELECT count(*) FROM vpcflow")[0][0] == before + 99
    made = strongroom("token", "create", "--role", "auditor", "--name", "beside", "--state", service.folder / "state")
    answer = service.call("GET", "/v1/status", role=None, headers={"Authorization": f"Bearer {made.stdout.strip()}"})
    assert answer.status_code == 200
    deadline = time.monotonic() + 20
    question = "SELECT count(*) FROM audit WHERE action = 'token.create' AND contains(detail, 'beside')"
    while service.rows(question) != [[2]]:
        assert time.monotonic() < deadline, "the act of the command line must reach the archive"
        time.sleep(0.2)
    assert list((service.folder / "state" / "acts").glob("*.json")) == []


def test_verification_over_http_finds_the_archive_sound(service: Service) -> None:
    answer = service.call("POST", "/v1/verify", role="auditor", params={"level": "deep"})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["sound"], answer.json()["findings"]) == (True, [])


def test_metrics_count_requests_by_template(service: Service) -> None:
    service.call("GET", "/v1/batches/none-such")
    text = service.call("GET", "/metrics", role="auditor").text
    assert 'strongroom_requests_total{method="GET",route="/v1/batches/{batch}",status="404"}' in text
    assert "none-such" not in text
    assert "strongroom_sealed_records" in text


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = strongroom("serve", "--archive", tmp_path / "a", "--state", tmp_path / "s", "--listen", listen)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"strongroom: can't listen on {listen}: Address already in use"]


def test_a_second_service_on_one_state_folder_is_refused(service: Service) -> None:
    done = strongroom("serve", *service.places, "--listen", "127.0.0.1:0")
    assert done.returncode == 2
    assert "strongroom: " in done.stderr
    assert "Traceback" not in done.stderr


def test_an_archive_without_its_keys_is_not_extended(service: Service, tmp_path: Path) -> None:
    done = strongroom("serve", "--archive", service.folder / "archive", "--state", tmp_path, "--listen", "127.0.0.1:0")
    assert done.returncode == 2
    assert "has no keys for the archive" in done.stderr
