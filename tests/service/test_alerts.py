"""Alerts: who is told what and when, and each sink against a real receiver on loopback."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from strongroom.service.alerts.alert import Alert, about_failure, about_missed, about_report
from strongroom.service.alerts.dispatch import Alerts
from strongroom.service.alerts.securityhub import SecurityHubSink
from strongroom.service.alerts.sns import SnsSink
from strongroom.service.alerts.webhook import WebhookSink, read_secret, sign
from strongroom.service.errors import AlertNotSent, SettingsInvalid

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
FINDING = {
    "code": "SEGMENT_CHANGED",
    "severity": "critical",
    "meaning": "a segment's bytes are not those its entry commits to",
    "object": "segments/source=json/date=2026-11-24/w-1-0-0.parquet",
    "expected": "SHA-256 a",
    "actual": "SHA-256 b",
    "where": {"index": 3},
    "next_step": "compare",
}


def report(
    verdict: str = "tampered", level: str = "complete", findings: tuple[Any, ...] = (FINDING,)
) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "level": level,
        "origin": "logs.example.org/test",
        "run": "r1",
        "findings": list(findings),
        "incomplete": [],
    }


SOUND = report("sound", findings=())


class Remembering:
    """A sink that takes what it is given, unless told to fail."""

    def __init__(self, name: str) -> None:
        self.name, self.alerts, self.failing = name, [], False  # type: ignore[var-annotated]

    async def send(self, alert: Alert) -> None:
        if self.failing:
            raise AlertNotSent("no")
        self.alerts.append(alert)

    @property
    def kinds(self) -> list[str]:
        return [alert.kind for alert in self.alerts]


def test_trouble_is_told_once_and_its_end_too(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Remembering("a")
        alerts = Alerts([sink], tmp_path / "alerts.json", 3600)
        await alerts.report(SOUND, 1, NOW)
        assert sink.kinds == [], "a sound run after sound runs is no news"
        for _ in range(3):
            await alerts.report(report(), 2, NOW)
        assert sink.kinds == ["verdict"]
        other = FINDING | {"object": "another"}
        await Alerts([sink], tmp_path / "alerts.json", 3600).report(report(findings=(FINDING, other)), 3, NOW)
        assert sink.kinds == ["verdict", "verdict"], "more was found: that is news, also after a restart"
        alerts = Alerts([sink], tmp_path / "alerts.json", 3600)
        await alerts.report(report("sound", "quick", ()), 4, NOW)
        assert len(sink.kinds) == 2, "another level's sound run says nothing about this one"
        await alerts.report(SOUND, 5, NOW)
        await alerts.report(SOUND, 6, NOW)
        assert sink.kinds[2:] == ["recovered"]
        assert [f["object"] for f in sink.alerts[2].findings] == [FINDING["object"], "another"]

    asyncio.run(main())


def test_a_sink_that_fails_keeps_nobody_waiting_and_is_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        good, bad = Remembering("good"), Remembering("bad")
        bad.failing = True
        alerts = Alerts([good, bad], tmp_path / "alerts.json", 3600)
        await alerts.report(report(), 1, NOW)
        await alerts.report(report(), 2, NOW)
        assert (good.kinds, bad.kinds, alerts.failures) == (["verdict"], [], {"bad": 2})
        bad.failing = False
        await alerts.report(report(), 3, NOW)
        assert (good.kinds, bad.kinds) == (["verdict"], ["verdict"])

    asyncio.run(main())


def test_the_same_trouble_is_told_again_after_a_while(tmp_path: Path) -> None:
    async def main() -> None:
        sink = Remembering("a")
        alerts = Alerts([sink], tmp_path / "alerts.json", 0.05)
        await alerts.report(report(), 1, NOW)
        await asyncio.sleep(0.1)
        await alerts.report(report(), 2, NOW)
        assert sink.kinds == ["verdict", "verdict"]

    asyncio.run(main())


# Webhook


class Receiver(ThreadingHTTPServer):
    """Answers with the statuses it is given, then 200; keeps what came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses: list[int] = []
        self.received: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


ALERT = about_report(report(), (), NOW, 7)


def test_a_webhook_is_signed_against_forgery_and_replay(receiver: Receiver) -> None:
    secret = b"k" * 32
    receiver.statuses = [503, 429]
    asyncio.run(WebhookSink(receiver.url, secret, waits=(0.0, 0.0, 0.0)).send(ALERT))
    assert len(receiver.received) == 3
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1, "tries of one delivery"
    headers, body = receiver.received[-1]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.new(secret, signed, sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{mac}"
    assert abs(int(headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 60
    told = json.loads(body)
    assert (told["type"], told["data"]["verdict"]) == ("strongroom.verification.verdict", "tampered")
    assert told["data"]["findings"] == [FINDING]


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification's libraries (github.com/standard-webhooks/standard-webhooks)."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_a_webhook_that_refuses_is_not_pressed(receiver: Receiver) -> None:
    receiver.statuses = [401] * 9
    with pytest.raises(AlertNotSent, match="401"):
        asyncio.run(WebhookSink(receiver.url, b"k" * 32, waits=(0.0, 0.0)).send(ALERT))
    assert len(receiver.received) == 1
    receiver.statuses = [500] * 9
    with pytest.raises(AlertNotSent, match="500"):
        asyncio.run(WebhookSink(receiver.url, b"k" * 32, waits=(0.0, 0.0)).send(ALERT))
    assert len(receiver.received) == 4
    with pytest.raises(AlertNotSent):
        asyncio.run(WebhookSink("http://127.0.0.1:9/", b"k" * 32, waits=()).send(ALERT))


def test_a_weak_webhook_secret_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    for text in ("", "whsec_c2hvcnQ=", "whsec_!!!"):
        path.write_text(text)
        with pytest.raises(SettingsInvalid, match="webhook secret"):
            read_secret(path)
    path.write_text("whsec_" + base64.b64encode(b"x" * 24).decode() + "\n")
    assert read_secret(path) == b"x" * 24


# AWS, emulated on loopback


@pytest.fixture(scope="module")
def aws() -> Iterator[dict[str, Any]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "endpoint_url": f"http://{host}:{port}",
        "region_name": "eu-central-1",
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
    }
    server.stop()


def test_sns_tells_people_and_filters(aws: dict[str, Any]) -> None:
    sns, sqs = boto3.client("sns", **aws), boto3.client("sqs", **aws)
    topic = sns.create_topic(Name="alerts")["TopicArn"]
    queue = sqs.create_queue(QueueName="alerts")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    long = replace(ALERT, title=f"ünlucky {'x' * 200}", findings=(FINDING,) * 300)
    asyncio.run(SnsSink(topic, sns).send(long))
    [message] = sqs.receive_message(QueueUrl=queue)["Messages"]
    told = json.loads(message["Body"])
    assert told["Subject"].startswith("?nlucky x")
    assert {name: item["Value"] for name, item in told["MessageAttributes"].items()} == {
        "kind": "verdict",
        "severity": "critical",
        "level": "complete",
        "verdict": "tampered",
    }
    inside = json.loads(told["Message"])
    assert (len(inside["findings"]), inside["findings_total"]) == (50, 300)
    with pytest.raises(AlertNotSent, match="sns"):
        asyncio.run(SnsSink(topic + "-none", sns).send(ALERT))


def test_security_hub_gets_findings_and_their_end(aws: dict[str, Any]) -> None:
    hub, sts = boto3.client("securityhub", **aws), boto3.client("sts", **aws)
    hub.enable_security_hub()
    sink = SecurityHubSink(hub, sts)
    many = tuple(FINDING | {"object": f"object-{number}"} for number in range(150))
    asyncio.run(sink.send(replace(ALERT, findings=many)))
    found = _findings(hub)
    assert len(found) == 150
    one = next(f for f in found if f["ProductFields"]["strongroom/object"] == "object-7")
    assert (one["Severity"]["Label"], one["RecordState"]) == ("CRITICAL", "ACTIVE")
    assert one["Title"] == "SEGMENT_CHANGED: logs.example.org/test"
    asyncio.run(sink.send(about_report(SOUND, many[:2], NOW + timedelta(hours=1), None)))
    states = {f["ProductFields"]["strongroom/object"]: f["RecordState"] for f in _findings(hub)}
    assert (len(states), states["object-0"], states["object-2"]) == (150, "ARCHIVED", "ACTIVE")
    for alert in (about_failure("o", "quick", "r", "why", NOW), about_missed("o", "deep", NOW, NOW)):
        asyncio.run(sink.send(alert))
    assert {f["GeneratorId"] for f in _findings(hub)} == {
        "strongroom/verify/SEGMENT_CHANGED",
        "strongroom/verify/VERIFICATION_FAILED",
        "strongroom/verify/VERIFICATION_MISSED",
    }


def _findings(hub: Any) -> list[dict[str, Any]]:
    return [finding for page in hub.get_paginator("get_findings").paginate() for finding in page["Findings"]]
