"""Access logs of the three kinds of load balancers."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from strongroom.ingest.sources import SOURCES, accesslog
from tests.ingest.rows import derived, events, sample, some
from tests.ingest.samples import SAMPLES, body

CLASSIC = (
    b"2015-05-13T23:39:43.945958Z my-loadbalancer 192.168.131.39:2817 10.0.0.1:80 0.000073 0.001048 0.000057 200 200 0 "
    b'29 "GET http://www.example.com:80/ HTTP/1.1" "curl/7.38.0" - -'
)


def test_application_load_balancer() -> None:
    row = sample("elb", "lambda-promtail-alb.log.gz")[1]
    some(
        row,
        format="application",
        type="https",
        account="123456789012",
        region="us-east-1",
        source_address="12.34.178.90.32",
        source_port=39054,
        target_address=None,
        target_seconds=-1.0,
        status=404,
        method="GET",
        url="https://5.334.234.101:443/",
        actions="fixed-response",
        extra=None,
    )
    assert row["event_time"] == datetime(2022, 12, 6, 17, 42, 19, 86095, tzinfo=UTC)


def test_network_load_balancer() -> None:
    row = sample("elb", "lambda-promtail-nlb.log.gz")[1]
    some(
        row,
        format="network",
        listener="g3d4b5e8bb8464cd",
        target_port=443,
        handshake_milliseconds=2,
        alpn_preferences='"h2","http/1.1"',
        created_at=datetime(2020, 4, 1, 8, 51, 20, tzinfo=UTC),
        status=None,
    )


def test_classic_load_balancer_beside_the_others() -> None:
    content = body(SAMPLES / "elb" / "clo-alb.log.gz") + b"\n" + CLASSIC
    classic = derived("elb", content)[-1]
    some(classic, format="classic", load_balancer="my-loadbalancer", sent_bytes=29, user_agent="curl/7.38.0")
    some(events("elb", content)[-1], action="GET", outcome="success", target="http://www.example.com:80/")


def test_connections_to_an_application_load_balancer() -> None:
    name = "written-connection.log"
    accepted, expired, without, broken = sample("elb", name)
    some(
        accepted,
        format="connection",
        source_address="198.51.100.24",
        source_port=49812,
        listener="443",
        handshake_milliseconds=12,
        client_certificate_subject="CN=partner.example.com,O=Partner,C=DE",
        client_certificate_serial="0A1B2C3D4E5F6071",
        tls_verify_status="Success",
        connection_trace_id="TID_0f6b2f0c1f9d4b7e8a4de0a5c6b7d8e9",
    )
    some(expired, handshake_milliseconds=None, tls_verify_status="Failed:ClientCertExpired")
    some(without, source_address="2001:db8::7", client_certificate_subject=None, tls_verify_status=None)
    some(broken, tls_version=None, tls_verify_status="Failed:UnmappedConnectionError")
    shown = events("elb", body(SAMPLES / "elb" / name))
    assert [row["outcome"] for row in shown] == ["success", "denied", "success", "failure"]
    assert {row["action"] for row in shown} == {"connect"}


def test_new_fields_at_the_end_are_kept_and_a_shortened_line_is_read_as_far_as_it_goes() -> None:
    line = body(SAMPLES / "elb" / "clo-alb.log.gz").splitlines()[0]
    # Later formats have a connection id and three about rewriting.
    longer, shorter = derived("elb", line + b" TID_1 - - -" + b' new "field two"\n' + line.partition(b' "-" "-"')[0])
    some(longer, connection_trace_id="TID_1", extra=["new", "field two"])
    some(shorter, actions="forward", targets=None)


def test_what_is_no_access_line_is_broken_alone() -> None:
    content = body(SAMPLES / "elb" / "aws-waf-automation-alb.log.gz")
    found = SOURCES["elb"].split(content)
    assert [b.raw for b in found.broken] == [b"#"] and len(found.raw) == 100
    assert found.positions == list(range(1, 101))


def test_quotes_of_strangers_do_not_shift_fields() -> None:
    assert accesslog.fields(rb'a "b \"c\" d" [06/Feb/2019:00:00:38 +0000] "e "f" g" -') == [
        "a",
        r"b \"c\" d",
        "06/Feb/2019:00:00:38 +0000",
        'e "f" g',
        "-",
    ]
    assert accesslog.fields(b'a "b c') == ["a", '"b', "c"]


def test_hostile_lines_cost_linear_time() -> None:
    started = time.perf_counter()
    for hostile in (b'"' + rb"\"" * 100_000, b'"' * 100_001, b"[" * 200_000, b'a"' * 100_000, b"\\" * 200_000):
        accesslog.fields(CLASSIC + hostile)
        SOURCES["elb"].split(hostile)
        SOURCES["s3access"].split(hostile)
    assert time.perf_counter() - started < 3
