"""Every ready investigation against a computation of its own: plain Python over the raw records, no SQL, no columns.

The logs are all those of tests/samples, and, where the larger collection stands beside the repository, its CloudTrail
too, with a whole attack in it. Expectations read the records as `raw` gives them and know nothing of views.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from strongroom.query.investigations import library
from tests.ingest.samples import SAMPLES, SHARED, body, files
from tests.service.conftest import QUIET, Service, make_tokens, start_service
from tests.service.test_pages import REPOSITORY, page

SOURCES = (
    "cloudtrail",
    "vpcflow",
    "guardduty",
    "syslog",
    "journal",
    "s3access",
    "route53",
    "securityhub",
    "eksaudit",
    "waf",
)
ATTACK = ("cloudtrail/AWSLogs", "cloudtrail/stratus-detonation", "vpcflow")
Event = dict[str, Any]
Row = tuple[Any, ...]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("investigated")
    tokens = make_tokens(folder)
    running = start_service(folder, **QUIET)
    running.tokens = tokens
    for source in SOURCES:
        found = files(SAMPLES / source)
        for folder in ATTACK if SHARED.is_dir() else ():
            found += files(SHARED / folder) if folder.startswith(source) else []
        found = [path for path in found if path.suffix != ".parquet"]
        # Lines of flow logs belong under their own header; everything else may be joined into one delivery.
        contents = [body(path) for path in found] if source == "vpcflow" else [b"\n".join(map(body, found))]
        for content in contents:
            answer = running.call("POST", f"/v1/ingest/{source}", role="quarantiner", content=content)
            assert answer.status_code == 200, answer.text
    running.call("POST", "/v1/seal")
    yield running
    running.stop()


def investigate(service: Service, name: str, **parameters: Any) -> list[dict[str, Any]]:
    known = (service.url, name, *sorted(parameters.items()))
    if known not in _ANSWERS:  # several tests look at the same answer
        _ANSWERS[known] = _investigate(service, name, **parameters)
    return _ANSWERS[known]


_ANSWERS: dict[Any, list[dict[str, Any]]] = {}


def _investigate(service: Service, name: str, **parameters: Any) -> list[dict[str, Any]]:
    answer = service.call(
        "POST", f"/v1/investigations/{name}", role="investigator", json={"parameters": parameters, "limit": 100_000}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["truncated"] is None
    names = [column["name"] for column in answer.json()["columns"]]
    return [dict(zip(names, row, strict=True)) for row in answer.json()["rows"]]


@pytest.fixture(scope="module")
def events(logs: Service) -> list[Event]:
    """CloudTrail's records, read as JSON and nothing else."""
    rows = logs.rows("SELECT raw, context FROM cloudtrail")
    return [json.loads(raw) | {"_envelope": json.loads(context) if context else {}} for raw, context in rows]


@pytest.fixture(scope="module")
def flows(logs: Service) -> list[dict[str, str | None]]:
    """Flow records: each line's fields under the names of its header, `-` as None."""
    found = []
    for raw, context in logs.rows("SELECT raw, context FROM vpcflow"):
        header = (context or DEFAULT_FLOW).split()
        found.append({n: None if v == "-" else v for n, v in zip(header, raw.split(), strict=False)})
    return found


@pytest.fixture(scope="module")
def sealed(logs: Service) -> dict[str, int]:
    """Records of each segment."""
    return dict(logs.rows("SELECT segment, records FROM segments"))


DEFAULT_FLOW = (
    "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"
)


# -- a record's facts, by hand


def at(event: Event) -> datetime | None:
    for text in (event.get("eventTime"), event["_envelope"].get("time")):
        try:
            found = datetime.fromisoformat(text)
        except (TypeError, ValueError):
            continue
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None


def who(event: Event) -> Any:
    identity = event.get("userIdentity") or {}
    issuer = (identity.get("sessionContext") or {}).get("sessionIssuer") or {}
    for value in (
        identity.get("userName"),
        issuer.get("userName"),
        identity.get("arn"),
        identity.get("invokedBy"),
        identity.get("principalId"),
    ):
        if value is not None:
            return value
    return None


def identity(event: Event) -> Event:
    return event.get("userIdentity") or {}


def account(event: Event) -> Any:
    return event.get("recipientAccountId") or identity(event).get("accountId") or event["_envelope"].get("account")


def key(event: Event) -> Any:
    return identity(event).get("accessKeyId") or None


def error(event: Event) -> Any:
    return event.get("errorCode") or None


def asked(event: Event) -> Event:
    found = event.get("requestParameters")
    return found if isinstance(found, dict) else {}


def instant(moment: datetime | None) -> Any:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def named(events: list[Event], *names: str) -> list[Event]:
    return [event for event in events if event.get("eventName") in names]


def network(address: str) -> Any:
    """The network an IP address is in, None for what is no address."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return None
    return ":".join(address.split(":")[:3]) if ":" in address else ".".join(address.split(".")[:2])


def words(text: str) -> list[str]:
    return text.split()


def same(rows: list[dict[str, Any]], columns: str, expected: list[Row]) -> None:
    """The rows have these values in these columns, as often."""
    found = Counter(repr(tuple(row[name] for name in columns.split())) for row in rows)
    wanted = Counter(map(repr, expected))
    assert (found - wanted, wanted - found) == (Counter(), Counter())


# -- each investigation


def test_defence_evasion(logs: Service, events: list[Event]) -> None:
    rows = investigate(logs, "defence-evasion")
    # What the investigation must find is written down here once more, from AWS's documentation, not read from its SQL.
    calls = {
        "cloudtrail": "StopLogging DeleteTrail UpdateTrail PutEventSelectors PutInsightSelectors",
        "guardduty": "DeleteDetector UpdateDetector CreateIPSet UpdateIPSet DeleteMembers DisassociateMembers "
        "StopMonitoringMembers CreateFilter ArchiveFindings DeletePublishingDestination",
        "config": "StopConfigurationRecorder DeleteConfigurationRecorder DeleteDeliveryChannel DeleteConfigRule",
        "securityhub": "DisableSecurityHub BatchDisableStandards",
        "ec2": "DeleteFlowLogs",
        "route53resolver": "DeleteResolverQueryLogConfig DisassociateResolverQueryLogConfig",
        "logs": "DeleteLogGroup DeleteLogStream PutRetentionPolicy DeleteSubscriptionFilter",
        "wafv2": "DeleteLoggingConfiguration",
        "organizations": "LeaveOrganization",
        "monitoring": "DeleteAlarms DisableAlarmActions",
        "events": "DisableRule DeleteRule RemoveTargets",
        "s3": "PutBucketLogging PutBucketLifecycle PutBucketLifecycleConfiguration",
        "macie2": "DisableMacie",
        "inspector2": "Disable",
    }
    wanted = {(f"{service}.amazonaws.com", name) for service, names in calls.items() for name in names.split()}
    expected = [e for e in events if (e.get("eventSource"), e.get("eventName")) in wanted]
    same(
        rows,
        "event_time actor source_address event_name error_code",
        [(instant(at(e)), who(e), e.get("sourceIPAddress"), e["eventName"], error(e)) for e in expected],
    )
    assert {"StopLogging", "DeleteTrail"} <= {row["event_name"] for row in rows}


def test_root_use(logs: Service, events: list[Event]) -> None:
    expected = [
        e
        for e in events
        if identity(e).get("type") == "Root"
        and identity(e).get("invokedBy") is None
        and e.get("eventType") != "AwsServiceEvent"
    ]
    assert expected
    same(
        investigate(logs, "root-use"),
        "event_time account event_name",
        [(instant(at(e)), account(e), e.get("eventName")) for e in expected],
    )


def console(event: Event) -> Any:
    answer = event.get("responseElements")
    return answer.get("ConsoleLogin") if isinstance(answer, dict) else None


def mfa(event: Event) -> bool:
    attributes = ((identity(event).get("sessionContext") or {}).get("attributes") or {}).get("mfaAuthenticated")
    said = attributes if attributes is not None else (event.get("additionalEventData") or {}).get("MFAUsed")
    return str(said).lower() in ("true", "yes")


def test_console_logins_without_mfa(logs: Service, events: list[Event]) -> None:
    expected = [e for e in named(events, "ConsoleLogin") if console(e) == "Success" and not mfa(e)]
    assert expected
    same(
        investigate(logs, "console-logins-without-mfa"),
        "event_time account source_address identity_type",
        [(instant(at(e)), account(e), e.get("sourceIPAddress"), identity(e).get("type")) for e in expected],
    )


def test_failed_logins(logs: Service, events: list[Event]) -> None:
    groups: dict[Row, list[Event]] = defaultdict(list)
    for e in named(events, "ConsoleLogin"):
        if console(e) == "Failure":
            name = next((v for v in map(identity(e).get, ("userName", "arn", "principalId")) if v is not None), None)
            groups[account(e), name, e.get("sourceIPAddress")].append(e)
    assert groups
    expected = []
    for group, found in groups.items():
        first = min((moment for e in found if (moment := at(e))), default=None)
        expected.append((*group, len(found), instant(first)))
    same(investigate(logs, "failed-logins"), "account actor source_address failures first_failure", expected)


def test_denied_bursts(logs: Service, events: list[Event]) -> None:
    def denied(e: Event) -> bool:
        code, message = str(e.get("errorCode") or "").lower(), str(e.get("errorMessage") or "").lower()
        return any(word in code for word in ("denied", "unauthorized", "forbidden")) or "failed auth" in message

    groups: dict[Row, int] = defaultdict(int)
    for e in events:
        moment = at(e)
        if denied(e) and moment is not None:
            span = moment - timedelta(
                minutes=moment.minute % 10, seconds=moment.second, microseconds=moment.microsecond
            )
            groups[instant(span), account(e), who(e), e.get("sourceIPAddress")] += 1
    rows = investigate(logs, "denied-bursts", least=2)
    found = [row for row in rows if row["source"] == "cloudtrail"]
    same(
        found,
        "span account actor source_address denials",
        [(*group, number) for group, number in groups.items() if number >= 2],
    )
    assert found


def made_key(e: Event) -> tuple[Any, Any]:
    answer = e.get("responseElements") if isinstance(e.get("responseElements"), dict) else {}
    assert isinstance(answer, dict)
    made, credentials = answer.get("accessKey") or {}, answer.get("credentials") or {}
    new = made.get("accessKeyId") or credentials.get("accessKeyId")
    return new, made.get("userName") or (answer.get("federatedUser") or {}).get("arn")


def test_key_chains(logs: Service, events: list[Event]) -> None:
    uses: dict[Any, int] = defaultdict(int)
    for e in events:
        uses[key(e)] += 1
    chosen = [e for e in named(events, "CreateAccessKey", "GetFederationToken", "GetSessionToken") if not error(e)]
    assert chosen
    expected = [(instant(at(e)), who(e), *made_key(e), uses.get(made_key(e)[0] or "-", 0)) for e in chosen]
    same(investigate(logs, "key-chains"), "event_time maker new_key made_for calls", expected)


def test_privilege_changes(logs: Service, events: list[Event]) -> None:
    names = words("""
        AttachUserPolicy AttachRolePolicy AttachGroupPolicy PutUserPolicy PutRolePolicy PutGroupPolicy
        CreatePolicy CreatePolicyVersion SetDefaultPolicyVersion UpdateAssumeRolePolicy AddUserToGroup
        AddRoleToInstanceProfile CreateLoginProfile UpdateLoginProfile DeleteUserPermissionsBoundary
        DeleteRolePermissionsBoundary PutUserPermissionsBoundary PutRolePermissionsBoundary
        DeactivateMFADevice
    """)
    chosen = [e for e in named(events, *names) if e.get("eventSource") == "iam.amazonaws.com"]
    assert chosen

    def grants_all(e: Event) -> bool:
        document = asked(e).get("policyDocument") or ""
        everything = re.search(r'"Action"\s*:\s*(\[\s*)?"(\*|\*:\*)"', document if isinstance(document, str) else "")
        return "policy/AdministratorAccess" in json.dumps(asked(e)) or everything is not None

    def favoured(e: Event) -> Any:
        fields = ("userName", "roleName", "groupName", "policyArn", "instanceProfileName")
        return next((asked(e)[f] for f in fields if asked(e).get(f) is not None), None)

    rows = investigate(logs, "privilege-changes")
    same(
        rows,
        "event_time actor event_name favoured grants_all",
        [(instant(at(e)), who(e), e["eventName"], favoured(e), grants_all(e)) for e in chosen],
    )
    assert any(row["grants_all"] for row in rows)


def test_secret_reads(logs: Service, events: list[Event]) -> None:
    names = words("GetSecretValue BatchGetSecretValue GetParameter GetParameters GetParametersByPath GetPasswordData")
    sources = ("secretsmanager.amazonaws.com", "ssm.amazonaws.com", "ec2.amazonaws.com")
    groups: dict[Row, list[Event]] = defaultdict(list)
    for e in named(events, *names):
        if e.get("eventSource") in sources:
            groups[account(e), who(e), e.get("sourceIPAddress"), e["eventName"]].append(e)

    def secret(e: Event) -> Any:
        for field in ("secretId", "name", "names", "path", "instanceId"):
            if asked(e).get(field) is not None:
                return json.dumps(asked(e)[field])
        return json.dumps(e.get("requestParameters")) if e.get("requestParameters") is not None else None

    expected = []
    for group, found in groups.items():
        different = {secret(e) for e in found} - {None}
        if len(different) >= 2:
            expected.append((*group, len(found), len(different), sum(error(e) is not None for e in found)))
    rows = investigate(logs, "secret-reads", least=2)
    same(rows, "account actor source_address event_name reads secrets refused", expected)
    assert rows or not SHARED.is_dir()


def test_shared_access_keys(logs: Service, events: list[Event]) -> None:
    groups: dict[Any, list[Event]] = defaultdict(list)
    for e in events:
        if key(e) and identity(e).get("invokedBy") is None and network(str(e.get("sourceIPAddress"))):
            groups[key(e)].append(e)
    expected = []
    for name, found in groups.items():
        networks = sorted({network(e["sourceIPAddress"]) for e in found})
        if len(networks) >= 2:
            addresses, programs = {e["sourceIPAddress"] for e in found}, {e.get("userAgent") for e in found} - {None}
            expected.append((name, len(found), len(networks), len(addresses), len(programs), networks))
    rows = investigate(logs, "shared-access-keys")
    same(rows, "access_key_id calls networks addresses programs network_names", expected)
    assert rows


def test_instance_credentials_outside(logs: Service, events: list[Event]) -> None:
    groups: dict[Any, list[Event]] = defaultdict(list)
    for e in events:
        principal, address = str(identity(e).get("principalId")), e.get("sourceIPAddress")
        session = re.search(r":i-[0-9a-f]{8,17}$", principal)
        outside = address and "amazonaws.com" not in address and address != "AWS Internal"
        if identity(e).get("type") == "AssumedRole" and session and identity(e).get("invokedBy") is None and outside:
            groups[principal].append(e)
    expected = []
    for least in (1, 2):
        expected = [
            (name, len(found), sorted({e["sourceIPAddress"] for e in found}))
            for name, found in groups.items()
            if len({e["sourceIPAddress"] for e in found}) >= least
        ]
        rows = investigate(logs, "instance-credentials-outside", least=least)
        same(rows, "principal_id calls address_list", expected)
    assert groups


@pytest.mark.parametrize("hours", [0, 0.25, 24])
def test_new_networks(logs: Service, events: list[Event], hours: float) -> None:
    places: dict[Row, datetime] = {}
    for e in events:
        moment, net = at(e), network(str(e.get("sourceIPAddress")))
        holder = who(e)
        if moment and net and holder is not None and identity(e).get("invokedBy") is None:
            place = (account(e), holder, net)
            places[place] = min(moment, places.get(place, moment))
    known: dict[Row, datetime] = {}
    for (acct, holder, _), moment in places.items():
        known[acct, holder] = min(moment, known.get((acct, holder), moment))
    expected = [
        (instant(moment), *place)
        for place, moment in places.items()
        if moment > known[place[:2]] and moment - known[place[:2]] >= timedelta(hours=hours)
    ]
    same(investigate(logs, "new-networks", known_hours=hours), "first_seen account actor network", expected)
    assert expected or hours


def test_new_regions(logs: Service, events: list[Event]) -> None:
    used: dict[Row, datetime] = {}
    for e in events:
        moment, region = at(e), e.get("awsRegion") or e["_envelope"].get("region")
        if moment and region and str(e.get("readOnly")).lower() == "false":
            place = (account(e), region)
            used[place] = min(moment, used.get(place, moment))
    first: dict[Any, datetime] = {}
    for (acct, _), moment in used.items():
        first[acct] = min(moment, first.get(acct, moment))
    expected = [
        (instant(moment), acct, region)
        for (acct, region), moment in used.items()
        if moment > first[acct] and moment - first[acct] >= timedelta(hours=1)
    ]
    assert expected
    same(investigate(logs, "new-regions", known_hours=1), "first_seen account region", expected)


def test_rejected_scans(logs: Service, flows: list[dict[str, str | None]]) -> None:
    rejected: dict[Any, list[dict[str, str | None]]] = defaultdict(list)
    accepted: dict[Any, int] = defaultdict(int)
    for flow in flows:
        if flow.get("action") == "REJECT":
            rejected[flow.get("srcaddr")].append(flow)
        elif flow.get("action") == "ACCEPT":
            accepted[flow.get("srcaddr")] += 1
    expected = []
    for address, found in rejected.items():
        ports, destinations = ({f.get(n) for f in found} - {None} for n in ("dstport", "dstaddr"))
        if len(ports) >= 2 or len(destinations) >= 2:
            expected.append((address, len(found), len(ports), len(destinations), accepted.get(address, 0)))
    rows = investigate(logs, "rejected-scans", least=2)
    same(rows, "source_address flows ports destinations accepted", expected)
    assert rows


def test_large_transfers(logs: Service, flows: list[dict[str, str | None]]) -> None:
    sums: dict[Row, int] = defaultdict(int)
    for flow in flows:
        source, target = flow.get("srcaddr"), flow.get("dstaddr")
        if flow.get("action") == "ACCEPT" and source and target and flow.get("bytes"):
            sums[source, target] += int(flow["bytes"] or 0) if private(source) and not private(target) else 0
    expected = [(*pair, number) for pair, number in sums.items() if number >= 100]
    assert expected
    same(investigate(logs, "large-transfers", megabytes=0.0001), "source_address destination_address bytes", expected)


def private(address: str) -> bool:
    ranges = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "169.254.0.0/16")
    parsed = ipaddress.ip_address(address)
    return any(parsed in ipaddress.ip_network(r) for r in ranges if ipaddress.ip_network(r).version == parsed.version)


def test_findings_in_context(logs: Service, events: list[Event], flows: list[dict[str, str | None]]) -> None:
    minutes = 60 * 24 * 365 * 20  # the samples are of different years: look far around
    rows = investigate(logs, "findings-in-context", severity=1, minutes=minutes)
    findings = [json.loads(raw) for (raw,) in logs.rows("SELECT raw FROM guardduty WHERE severity >= 1")]
    assert len(rows) == len(findings) > 0
    for row in rows:
        calls = [
            e
            for e in events
            if at(e)
            and (
                (row["access_key_id"] and key(e) == row["access_key_id"])
                or (row["source_address"] and e.get("sourceIPAddress") == row["source_address"])
            )
        ]
        seen = [
            f for f in flows if row["source_address"] and row["source_address"] in (f.get("srcaddr"), f.get("dstaddr"))
        ]
        seen = [f for f in seen if f.get("start")]
        assert (row["calls"], row["flows"]) == (len(calls), len(seen)), row
        assert row["failed_calls"] == sum(error(e) is not None for e in calls)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A finding, calls and flows in and outside its time, and guesses at a host's door."""
    folder = tmp_path_factory.mktemp("staged")
    tokens = make_tokens(folder)
    service = start_service(folder, **QUIET)
    service.tokens = tokens
    finding = {
        "schemaVersion": "2.0", "accountId": "1", "region": "eu-west-1", "id": "f", "type": "Recon:EC2/Portscan",
        "severity": 5, "updatedAt": "2026-01-31T12:30:00Z", "createdAt": "2026-01-31T12:00:00Z",
        "resource": {"resourceType": "AccessKey", "accessKeyDetails": {"accessKeyId": "AKIAX"}},
        "service": {
            "eventFirstSeen": "2026-01-31T12:00:00Z", "eventLastSeen": "2026-01-31T12:30:00Z",
            "action": {"actionType": "NETWORK_CONNECTION", "networkConnectionAction": {
                "remoteIpDetails": {"ipAddressV4": "192.0.2.7"}}},
        },
    }  # fmt: skip

    def call(minute: str, address: str, access_key: str, error_code: str | None = None) -> Event:
        made = {"eventTime": f"2026-01-31T{minute}Z", "eventName": "X", "eventSource": "s", "sourceIPAddress": address}
        return made | {"userIdentity": {"accessKeyId": access_key}} | ({"errorCode": error_code} if error_code else {})

    calls = [
        call("11:59:00", "192.0.2.7", "AKIAY"),
        call("12:10:00", "192.0.2.7", "AKIAX", "AccessDenied"),
        call("12:20:00", "198.51.100.1", "AKIAX"),
        call("12:20:00", "198.51.100.1", "AKIAZ"),
        call("13:30:00", "192.0.2.7", "AKIAX"),
    ]
    at_noon = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp())
    flows = [
        DEFAULT_FLOW,
        f"2 1 eni-1 192.0.2.7 10.0.0.1 1 22 6 1 40 {at_noon} {at_noon + 1} REJECT OK",
        f"2 1 eni-1 10.0.0.1 192.0.2.7 22 1 6 1 60 {at_noon} {at_noon + 1} ACCEPT OK",
        f"2 1 eni-1 10.0.0.1 192.0.2.8 22 1 6 1 60 {at_noon} {at_noon + 1} ACCEPT OK",
        f"2 1 eni-1 192.0.2.7 10.0.0.1 1 22 6 1 40 {at_noon + 9000} {at_noon + 9001} REJECT OK",
    ]
    guesses = [
        f"Jan 31 12:00:{second:02} bastion sshd[{second}]: Failed password for invalid user {name} "
        f"from 192.0.2.7 port 4{second:03} ssh2"
        for second, name in enumerate(["root", "admin", "oracle", "root"])
    ]
    guesses += ["Jan 31 12:01:00 bastion sshd[9]: Accepted password for root from 192.0.2.7 port 4999 ssh2"]
    guesses += ["Jan 31 12:01:00 bastion sshd[8]: Failed password for root from 198.51.100.1 port 4999 ssh2"]
    # The journal of two hosts, one of which sends its syslog, too. Whoever only claims to be sshd is not believed.
    entries = [
        (f"c{number}", host, program, f"{told} from {address} port 4999 ssh2")
        for number, (host, program, told, address) in enumerate(
            [
                ("bastion", "sshd", "Failed password for root", "192.0.2.7"),
                *[("gate", "sshd", f"Failed password for invalid user u{n}", "203.0.113.9") for n in range(3)],
                ("gate", "sh", "Accepted password for root", "203.0.113.9"),
                ("gate", "sshd", "Accepted publickey for alice", "198.51.100.2"),
            ]
        )
    ]
    journal = "\n".join(
        f"__CURSOR={cursor}\n__REALTIME_TIMESTAMP={at_noon * 10**6}\n_HOSTNAME={host}\nSYSLOG_IDENTIFIER=sshd\n"
        f"_COMM={program}\nMESSAGE={message}\n"
        for cursor, host, program, message in entries
    )
    contents = {
        "journal": journal + "\n",
        "guardduty": json.dumps([finding]),
        "cloudtrail": json.dumps(calls),
        "vpcflow": "\n".join(flows),
        "syslog": "\n".join(guesses),
    }
    for source, content in contents.items():
        service.call("POST", f"/v1/ingest/{source}", role="quarantiner", content=content)
    service.call("POST", "/v1/seal")
    yield service
    service.stop()


def test_findings_are_joined_with_what_is_around_them(staged: Service) -> None:
    (row,) = investigate(staged, "findings-in-context", minutes=5)
    assert (row["calls"], row["actions"], row["failed_calls"]) == (3, 1, 1)
    assert (row["flows"], row["rejected_flows"], row["flow_bytes"]) == (2, 1, 100)


def test_shared_outside(logs: Service, events: list[Event]) -> None:
    names = words("""
        ModifySnapshotAttribute ModifyImageAttribute ModifyDBSnapshotAttribute
        ModifyDBClusterSnapshotAttribute PutBucketPolicy PutBucketAcl PutObjectAcl
        DeleteBucketPublicAccessBlock DeletePublicAccessBlock PutKeyPolicy CreateGrant AddPermission20150331v2
        AddLayerVersionPermission20181031 CreateResourceShare AssociateResourceShare SetRepositoryPolicy
        AuthorizeSnapshotAccess
    """)
    chosen = named(events, *names)
    assert chosen

    def everybody(e: Event) -> bool:
        def look(value: Any, name: str = "") -> bool:
            if isinstance(value, dict):
                return any(look(inner, field) for field, inner in value.items())
            if isinstance(value, list):
                return any(look(inner, name) for inner in value)
            if isinstance(value, str) and value.startswith("{"):
                return look(json.loads(value))
            of_whom = ("group", "Principal", "principal", "AWS", "valuesToAdd")
            return (name in of_whom and value in ("all", "*")) or (isinstance(value, str) and "AllUsers" in value)

        return look(asked(e))

    rows = investigate(logs, "shared-outside")
    same(
        rows,
        "event_time actor event_name everybody error_code",
        [(instant(at(e)), who(e), e["eventName"], everybody(e), error(e)) for e in chosen],
    )


def test_opened_to_the_world(logs: Service, events: list[Event]) -> None:
    names = words("AuthorizeSecurityGroupIngress ModifySecurityGroupRules CreateNetworkAclEntry ReplaceNetworkAclEntry")
    open_to_all = ('"0.0.0.0/0"', '"::/0"')
    expected = [e for e in named(events, *names) if any(text in json.dumps(asked(e)) for text in open_to_all)]
    assert expected
    same(
        investigate(logs, "opened-to-the-world"),
        "event_time actor event_name",
        [(instant(at(e)), who(e), e["eventName"]) for e in expected],
    )


def test_remote_execution(logs: Service, events: list[Event]) -> None:
    names = words("""
        SendCommand StartSession ResumeSession SendSSHPublicKey SendSerialConsoleSSHPublicKey ExecuteCommand
        EnableSerialConsoleAccess UpdateFunctionCode20150331v2 UpdateFunctionConfiguration20150331v2
        CreateFunction20150331
    """)
    expected = named(events, *names)
    expected += [e for e in named(events, "ModifyInstanceAttribute") if "userData" in asked(e)]
    assert expected
    same(
        investigate(logs, "remote-execution"),
        "event_time actor event_name error_code",
        [(instant(at(e)), who(e), e["eventName"], error(e)) for e in expected],
    )


def test_ways_back_in(logs: Service, events: list[Event]) -> None:
    names = words("""
        CreateUser CreateAccessKey CreateLoginProfile UpdateLoginProfile CreateRole UpdateAssumeRolePolicy
        CreateSAMLProvider UpdateSAMLProvider CreateOpenIDConnectProvider CreateTrustAnchor CreateProfile
        GetFederationToken AddPermission20150331v2 UploadSSHPublicKey CreateServiceSpecificCredential
        CreateVirtualMFADevice
    """)
    services = ("iam", "sts", "rolesanywhere", "lambda")
    sources = {f"{name}.amazonaws.com" for name in services}
    expected = [e for e in named(events, *names) if e.get("eventSource") in sources]
    assert expected
    same(
        investigate(logs, "ways-back-in"),
        "event_time actor event_name error_code",
        [(instant(at(e)), who(e), e["eventName"], error(e)) for e in expected],
    )


def test_access_key(logs: Service, events: list[Event]) -> None:
    used: dict[Any, int] = defaultdict(int)
    for e in events:
        used[key(e)] += key(e) is not None
    busiest = max(used, key=lambda name: used[name])
    groups: dict[Row, list[Event]] = defaultdict(list)
    for e in events:
        if key(e) == busiest:
            groups[str(e["eventSource"]).replace(".amazonaws.com", ""), e["eventName"]].append(e)
    expected = [
        (*name, len(found), sum(error(e) is not None for e in found), sorted({e["sourceIPAddress"] for e in found}))
        for name, found in groups.items()
    ]
    same(investigate(logs, "access-key", key=busiest), "service event_name calls failed addresses", expected)


def test_host_logins(staged: Service) -> None:
    """Against what the lines and entries say, read as text."""
    said = re.compile(r"(Failed|Accepted) \S+ for (?:invalid user )?(\S+) from (\S+) port")
    attempts = []
    for (raw,) in staged.rows("SELECT raw FROM syslog"):
        host, (result, user, address) = raw.split()[3], said.search(raw).groups()
        attempts.append(("syslog", host, address, result, user))
    for (raw,) in staged.rows("SELECT raw FROM journal"):
        facts = dict(line.split("=", 1) for line in raw.splitlines())
        if facts["_COMM"] == "sshd":
            result, user, address = said.search(facts["MESSAGE"]).groups()
            attempts.append(("journal", facts["_HOSTNAME"], address, result, user))
    for least in (1, 3, 5):
        expected = []
        for address in {attempt[2] for attempt in attempts}:
            own = [attempt for attempt in attempts if attempt[2] == address]
            failed = [attempt for attempt in own if attempt[3] == "Failed"]
            if len(failed) >= least:
                users, hosts = {attempt[4] for attempt in failed}, {attempt[1] for attempt in own}
                logs = sorted({attempt[0] for attempt in own})
                expected.append((address, len(failed), len(own) - len(failed), len(users), len(hosts), logs))
        rows = investigate(staged, "host-logins", least=least)
        same(rows, "source_address failures succeeded users hosts logs", expected)
        assert rows


def test_bucket_sweeps(logs: Service) -> None:
    groups: dict[Row, set[str]] = defaultdict(set)
    for (raw,) in logs.rows("SELECT raw FROM s3access"):
        _, bucket, rest = raw.split(" ", 2)
        fields = rest[rest.index("]") + 2 :].split(" ")
        address, requester, _, operation, object_key = fields[:5]
        if operation.startswith("REST.GET.OBJECT"):
            groups[bucket, None if requester == "-" else requester, address].add(object_key)
    expected = [(*group, len(keys - {"-"})) for group, keys in groups.items() if len(keys - {"-"}) >= 1]
    rows = investigate(logs, "bucket-sweeps", least=1)
    same(rows, "bucket_name requester source_address objects", expected)


# -- all of them


def test_every_investigation_is_held_against_a_computation() -> None:
    tested = set(re.findall(r"investigate\(.*?\"([a-z-]+)\"", (REPOSITORY / __file__).read_text(), re.DOTALL))
    assert set(library()) <= tested


@pytest.mark.parametrize("name", sorted(library()))
def test_columns_addresses_and_windows(logs: Service, sealed: dict[str, int], name: str) -> None:
    """Columns are those that are documented, each row leads to a record, and a window leaves out what is outside."""
    given = {"key": "AKIATFQR7NSC8Q4X20BJ"} if name == "access-key" else {}
    rows = investigate(logs, name, **given)
    described = logs.call("GET", f"/v1/investigations/{name}").json()
    times, *_ = described["columns"]
    for row in rows[:1]:
        assert list(row) == list(described["columns"])
        assert 0 <= row["_row"] < sealed[row["_segment"]]
    if times in ("event_time", "first_seen"):
        low, high = "2023-07-10T12:00:00.000000Z", "2023-07-10T12:20:00.000000Z"
        inside = investigate(logs, name, **given, since=low, until=high)
        assert inside == [row for row in rows if row[times] and low <= row[times] < high]


def test_blanks_are_checked(logs: Service) -> None:
    def problem(name: str, **parameters: Any) -> tuple[int, str]:
        answer = logs.call("POST", f"/v1/investigations/{name}", json={"parameters": parameters})
        return answer.status_code, answer.json()["code"]

    assert problem("denied-bursts", leest=1) == (400, "parameter-invalid")
    assert problem("denied-bursts", least="many") == (400, "parameter-invalid")
    assert problem("denied-bursts", since="yesterday") == (400, "parameter-invalid")
    assert problem("access-key") == (400, "parameter-invalid")
    assert problem("nothing-of-the-kind") == (404, "investigation-unknown")


def test_its_page_is_made_from_it() -> None:
    from strongroom.query.investigations.page import rendered

    assert page("investigations.md") == rendered()
