"""Columns, source by source, on real samples and on what real samples lack."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.ingest.sources import SOURCES, quarantine, recognise, times
from tests.ingest.samples import SAMPLES, body


def _rows(name: str, content: bytes) -> list[dict[str, Any]]:
    source = SOURCES[name]
    found = source.split(content)
    assert not found.broken
    return source.derive(found.raw, found.context).to_pylist()


def _sample(name: str, file: str) -> list[dict[str, Any]]:
    """A sample, read by the named source, whichever it belongs to."""
    return _rows(name, body(next(SAMPLES.rglob(file))))


def _some(row: dict[str, Any], **wanted: object) -> None:
    assert {name: row[name] for name in wanted} == wanted


# ── cloudtrail ──


def test_cloudtrail_of_a_real_account() -> None:
    rows = _sample("cloudtrail", "*_7xgocspSowgK0Gto.json.gz")
    assert len(rows) == 29
    _some(
        rows[0],
        event_time=datetime(2023, 7, 10, 11, 42, 36, tzinfo=UTC),
        event_id="293ba626-3be5-4a26-ab1b-0f4c54f49959",
        event_name="GetStorageLensConfiguration",
        account="123837392027",
        user_name="benjamin",
        access_key_id="ASIATFQR7NSCTM3XVF6B",
        mfa=True,
        invoked_by="AWS Internal",
        read_only=True,
        error_code=None,
    )
    assert rows[1]["resource_arns"] == ["arn:aws:s3:::baker221b-bucketssecuritylogsbef08b3e-13nrzhi7fcs7w"]


def test_cloudtrail_console_login_says_mfa_beside_the_identity() -> None:
    (row,) = _sample("cloudtrail", "aws.initial-access*")
    _some(row, event_name="ConsoleLogin", mfa=False, tls_version="TLSv1.3", identity_type="IAMUser")


def test_cloudtrail_in_an_envelope_and_insights() -> None:
    (row,) = _sample("cloudtrail", "event-cloud-trail-create-bucket.json")
    _some(row, event_name="CreateBucket", bucket_name="custodian-create-bucket-v4", identity_type="Root")
    (insight,) = _sample("cloudtrail", "streamalert-insights.json")
    _some(insight, event_type="AwsCloudTrailInsight", event_category="Insight", region="eu-central-1")
    assert insight["event_name"] and insight["event_source"]
    _some(insight, insight_type="ApiCallRateInsight", insight_state="Start")


def test_cloudtrail_envelope_fills_what_the_event_lacks() -> None:
    (row,) = _rows(
        "cloudtrail",
        b'{"detail":{"eventName":"A","eventTime":"..."},"account":12345,"region":"eu-west-1","time":"2017-01-01T00:20:50Z"}',
    )
    _some(row, account="12345", region="eu-west-1", event_time=datetime(2017, 1, 1, 0, 20, 50, tzinfo=UTC))


def test_cloudtrail_mistyped_fields_cost_only_themselves() -> None:
    rows = _rows(
        "cloudtrail",
        b'{"eventName":"A","userIdentity":{"type":5,"userName":"u","sessionContext":{"attributes":'
        b'{"mfaAuthenticated":"true"}}},"readOnly":"false","resources":"none","requestParameters":"x","errorCode":["a"]}'
        b'{"eventName":"\xff","userIdentity":null,"awsRegion":"r","requestParameters":{"bucketName":"b\\udc00"}}',
    )
    _some(rows[0], event_name="A", identity_type=None, user_name="u", mfa=True, read_only=False, error_code=None)
    _some(rows[1], event_name="\ufffd", region="r", bucket_name="b\ufffd")


def test_cloudtrail_large_events_stay_whole() -> None:
    content = body(SAMPLES / "cloudtrail" / "splunk-data-sources.jsonl.gz")
    found = SOURCES["cloudtrail"].split(content)
    assert max(map(len, found.raw)) > 60_000
    assert b"\n".join(found.raw) == content.rstrip(b"\n")


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ("", "success"),
        (',"errorCode":"AccessDenied"', "denied"),
        (',"errorCode":"Client.UnauthorizedOperation"', "denied"),
        (',"errorCode":"NoSuchBucket","errorMessage":"gone"', "failure"),
        (',"errorMessage":"Failed authentication"', "denied"),
    ],
)
def test_cloudtrail_outcome(fields: str, outcome: str) -> None:
    source = SOURCES["cloudtrail"]
    table = source.derive([f'{{"eventName":"A"{fields}}}'.encode()], None)
    with duckdb.connect() as connection:
        connection.register("t", table)
        assert connection.sql(f"SELECT {source.events['outcome']} FROM t").fetchall() == [(outcome,)]


# ── vpcflow ──

V5 = (
    "version srcaddr dstaddr srcport dstport protocol start end type packets bytes account-id vpc-id subnet-id"
    " instance-id interface-id region az-id sublocation-type sublocation-id action tcp-flags pkt-srcaddr pkt-dstaddr"
    " pkt-src-aws-service pkt-dst-aws-service traffic-path flow-direction log-status"
)
V5_LINE = (
    "5 192.0.2.9 10.0.0.71 80 34210 6 1616729292 1616729349 IPv4 14 15044 123456789012 vpc-1 subnet-1 i-1 eni-1"
    " eu-west-1 euw1-az3 - - ACCEPT 19 192.0.2.9 10.0.0.71 S3 - 8 ingress OK"
)


def test_vpcflow_default_format_with_nodata() -> None:
    rows = _sample("vpcflow", "clo-vpcflow.log")
    assert len(rows) == 17
    _some(rows[0], version=2, log_status="NODATA", source_address=None, bytes=None, extra=None)
    _some(rows[3], source_address="205.185.127.13", destination_port=9034, protocol=17, bytes=147, action="ACCEPT")
    assert rows[3]["event_time"] == rows[3]["start_time"] == datetime.fromtimestamp(1651646509, UTC)


def test_vpcflow_any_order_of_fields_and_unknown_ones() -> None:
    content = f"{V5} new-field odd-thing\n{V5_LINE} hello -\n".encode()
    (row,) = _rows("vpcflow", content)
    _some(row, source_address="192.0.2.9", tcp_flags=19, traffic_path=8, packet_source_service="S3", region="eu-west-1")
    assert row["extra"] == [("new-field", "hello")]
    assert row["sublocation_id"] is None


def test_vpcflow_transit_gateway_and_parquet_spelling_of_names() -> None:
    content = (
        b"version resource_type account_id tgw_id srcaddr packets_lost_no_route\n6 TransitGateway 1 tgw-9 10.0.0.1 3\n"
    )
    (row,) = _rows("vpcflow", content)
    _some(row, resource_type="TransitGateway", account="1", tgw_id="tgw-9", packets_lost_no_route=3)


def test_vpcflow_without_header_is_the_default_format_or_broken() -> None:
    line = b"2 123456789010 eni-1 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK"
    found = SOURCES["vpcflow"].split(line + b"\r\n" + line + b"\r\nwhat is this\r\n")
    assert recognise(line).name == "vpcflow"
    assert found.raw == [line, line] and found.context is None and found.positions == [0, 1]
    assert [(b.position, b.raw) for b in found.broken] == [(2, b"what is this")]
    assert SOURCES["vpcflow"].derive(found.raw, None)["destination_port"].to_pylist() == [22, 22]


def test_vpcflow_joined_files_keep_each_its_header() -> None:
    first, second = b"version srcaddr bytes", b"srcaddr version bytes"
    found = SOURCES["vpcflow"].split(
        b"\n".join([first, b"3 10.0.0.1 5", second, b"10.0.0.2 3 6", first, b"3 10.0.0.3 7"])
    )
    assert found.raw == [b"3 10.0.0.1 5", b"10.0.0.2 3 6", b"3 10.0.0.3 7"]
    assert found.context == [first, second, first]
    table = SOURCES["vpcflow"].derive(found.raw, found.context)
    assert table["source_address"].to_pylist() == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert table["bytes"].to_pylist() == [5, 6, 7]


def test_vpcflow_lines_that_do_not_fit_are_broken_alone() -> None:
    content = b"version srcaddr bytes\n3 10.0.0.1 5\n3 10.0.0.2\n3  10.0.0.3 7\n3 10.0.0.4 8 9\n"
    found = SOURCES["vpcflow"].split(content)
    assert found.raw == [b"3 10.0.0.1 5", b"3  10.0.0.3 7"] and found.positions == [0, 2]
    assert [b.raw for b in found.broken] == [b"3 10.0.0.2", b"3 10.0.0.4 8 9"]


_CELLS = st.sampled_from(
    [
        "-",
        "5",
        "0",
        "-3",
        "x",
        "",
        "0x1f",
        "007",
        "+4",
        "1e3",
        "99999999999999999999",
        "70000",
        "ACCEPT",
        "\ufffd",
        "a\tb",
        "\r",
    ]
)


@given(st.lists(st.lists(_CELLS, min_size=5, max_size=5), min_size=1, max_size=6))
def test_vpcflow_a_line_has_the_same_columns_in_any_company(cells: list[list[str]]) -> None:
    """The fast and the slow way agree, value for value."""
    header = b"version srcaddr bytes start unknown-field"
    lines = [" ".join(line).encode() for line in cells]
    source = SOURCES["vpcflow"]
    together = source.derive(lines, [header] * len(lines))
    alone = pa.concat_tables([source.derive([line], [header]) for line in lines])
    assert together.to_pylist() == alone.to_pylist()


# ── findings ──


def test_guardduty_in_its_three_deliveries() -> None:
    (exported,) = _sample("guardduty", "aws-automated-response*")
    _some(
        exported,
        finding_id="16afba5c5c43e07c9e3e5e2e544e95df",
        finding_type="Canary:EC2/Stateless.IntegTest",
        severity=5.0,
        instance_id="i-05746eb48123455e0",
        source_port=22,
        blocked=False,
    )
    (api,) = _sample("guardduty", "aws-cli-get-findings.json")
    _some(api, user_name="testuser", access_key_id="ASIASZ4SI7REEEXAMPLE", resource_type="AccessKey")
    (envelope,) = _sample("guardduty", "Discovery-RDS*")
    _some(envelope, source_address="1.2.3.4", action_type="RDS_LOGIN_ATTEMPT", count=2)
    assert envelope["finding_version"] == "4d45b480b4504647b8096428a2ad4c82@1760013770819000"


def test_securityhub_in_asff_and_ocsf() -> None:
    (row,) = _sample("securityhub", "cis-15.json")
    _some(
        row,
        severity="MEDIUM",
        compliance_status="FAILED",
        control_id="1.5",
        workflow_status="NEW",
        account="111111111111",
    )
    (ocsf,) = _rows(
        "securityhub",
        b'{"class_uid":2003,"time":1700000000123,"severity":"High","severity_id":4,"cloud":{"account":{"uid":"1"},'
        b'"region":"eu-west-1"},"finding_info":{"uid":"f-1","title":"T","types":["a","b"]},"compliance":{"status":"Fail"},'
        b'"resources":[{"uid":"arn:x","type":"AwsS3Bucket"},{"uid":"arn:y"}],"activity_name":"Create",'
        b'"vulnerabilities":[{"cve":{"uid":"CVE-2024-1"}},{"cve":{"uid":"CVE-2024-2"}}],"remediation":{"desc":"patch"}}',
    )
    _some(
        ocsf, class_uid=2003, finding_id="f-1", account="1", finding_types=["a", "b"], resource_ids=["arn:x", "arn:y"]
    )
    _some(ocsf, activity="Create", vulnerability_ids=["CVE-2024-1", "CVE-2024-2"], remediation="patch")
    assert ocsf["event_time"] == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)


# ── the others ──


def test_json_records_inherit_from_their_envelope() -> None:
    (row,) = _sample("json", "newrelic-cwl-vpc-flow.json")
    _some(row, log_group="/aws/vpc/flow-logs", log_stream="eni-9f825df9-all", account="463657938898")
    assert row["event_time"] == datetime.fromtimestamp(1548934870, UTC) and row["message"].endswith("NODATA")
    items = _sample("json", "clo-config-history.json")
    assert [item["event_type"] for item in items] == ["AWS::Lambda::Function"] * 2


def test_text_reads_syslog_and_access_logs() -> None:
    new, old = _sample("text", "cribl-RFC5424-RFC3164.log")
    _some(new, host="testbox", program="mdonnelly", facility=1, severity="notice")
    assert new["event_time"] == datetime(2022, 7, 11, 17, 34, 31, 363862, tzinfo=UTC)
    _some(old, host="testbox", program="mdonnelly", event_time=None)
    (access,) = _sample("text", "lambda-promtail-s3accesslog.log")
    assert access["event_time"] == datetime(2019, 2, 6, 0, 0, 38, tzinfo=UTC)


def test_audit_and_quarantine() -> None:
    (act,) = _rows(
        "audit", b'{"time":"2024-01-02T03:04:05.678901Z","actor":"a","action":"query","detail":{"sql":"SELECT 1"}}'
    )
    _some(act, actor="a", action="query", detail='{"sql":"SELECT 1"}', outcome=None)
    why = quarantine.why("cloudtrail", "not valid JSON: x")
    table = SOURCES["quarantine"].derive([b"\xff", b"y", b"z"], [why, None, b"no json"])
    assert table["intended_source"].to_pylist() == ["cloudtrail", None, None]
    assert table["reason"].to_pylist() == ["not valid JSON: x", None, None]


# ── times ──


@pytest.mark.parametrize(
    ("written", "microseconds"),
    [
        ("2023-07-10T11:45:00Z", 1688989500_000000),
        ("2023-07-10 11:45:00.1234567", 1688989500_123456),
        ("2023-07-10T13:45:00+02:00", 1688989500_000000),
        ("2023-07-10T06:15:00-0530", 1688989500_000000),
        ("2023-07-10", 1688947200_000000),
        (1688989500, 1688989500_000000),
        ("1688989500123", 1688989500_123000),
        (1688989500123456, 1688989500_123456),
        (1688989500123456789, 1688989500_123456),
        (1688989500.25, 1688989500_250000),
        ("2023-13-10T11:45:00Z", None),
        ("2023-07-10T11:45:60Z", None),
        ("0000-07-10T11:45:00Z", None),
        ("yesterday", None),
        ("nan", None),
        (True, None),
        (7, None),
        ([], None),
    ],
)
def test_times(written: object, microseconds: int | None) -> None:
    assert times.microseconds(written) == microseconds


@given(
    st.lists(
        st.none()
        | st.from_regex(
            r"[12][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{1,7})?Z", fullmatch=True
        )
    )
)
def test_times_are_the_same_in_any_company(values: list[str | None]) -> None:
    assert times.array(values).cast(pa.int64()).to_pylist() == [
        None if v is None else times.microseconds(v) for v in values
    ]
