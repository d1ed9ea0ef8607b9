"""System logs of Linux hosts."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from strongroom.ingest.sources import SOURCES
from tests.ingest.rows import derived, events, sample, some


def test_both_rfcs() -> None:
    new, old = sample("syslog", "cribl-RFC5424-RFC3164.log")
    some(new, format="rfc5424", host="testbox", program="mdonnelly", pid=42, facility=1, severity="notice")
    some(new, message_id="1396134", message="foo=bar this=that base=ball gizmo=sprocket", written_time=None)
    assert new["structured_data"] == '[timeQuality tzKnown="1" isSynced="1" syncAccuracy="93066"]'
    assert new["event_time"] == datetime(2022, 7, 11, 17, 34, 31, 363862, tzinfo=UTC)
    some(old, format="rfc3164", host="testbox", pid=42, event_time=None, written_time="Jul 11 10:34:35")


def test_devices_that_leave_out_the_host() -> None:
    rows = sample("syslog", "cribl-netgear.log")
    some(rows[0], host="mdonnelly-router", program="dhcpd3", severity="informational")
    some(rows[2], host=None, program="dropbear", pid=25092, source_address="222.186.30.76", source_port=19708)


def test_audit_daemon() -> None:
    rows = sample("syslog", "splunk-auditd-and-secure.log")
    some(
        rows[0],
        format="auditd",
        audit_type="ADD_USER",
        audit_serial="1722950859.266:6994",
        executable="/usr/sbin/useradd",
        user_name="ubuntu",
        result="success",
        source_address=None,
        event_time=datetime(2024, 8, 6, 13, 27, 39, 266000, tzinfo=UTC),
    )
    some(rows[4], audit_type="SERVICE_STOP", user_name=None, result="success")


@pytest.mark.parametrize(
    ("message", "user", "address", "port", "result"),
    [
        ("Accepted publickey for u from 85.245.107.41 port 54259 ssh2: RSA", "u", "85.245.107.41", 54259, "success"),
        ("Failed password for root from 2001:db8::1 port 22 ssh2", "root", "2001:db8::1", 22, "denied"),
        # The user is who somebody says he is, also when that looks like the rest of the line.
        (
            "Failed password for invalid user x from 192.0.2.66 port 1 ssh2 from 198.51.100.9 port 4022 ssh2",
            "x from 192.0.2.66 port 1 ssh2", "198.51.100.9", 4022, "denied",
        ),
        ("Invalid user  from 198.51.100.9", None, "198.51.100.9", None, "denied"),
        ("Disconnected from invalid user a b 198.51.100.9 port 5 [preauth]", "a b", "198.51.100.9", 5, None),
        ("Received disconnect from 198.51.100.9: 11: Bye Bye [preauth]", None, "198.51.100.9", None, None),
        ("pam_unix(sshd:auth): authentication failure; logname= uid=0 tty=ssh ruser= rhost=198.51.100.9  user=root",
         "root", "198.51.100.9", None, "denied"),
        ("pam_unix(sshd:session): session opened for user ubuntu by (uid=0)", "ubuntu", None, None, "success"),
        ("Server listening on 0.0.0.0 port 22.", None, None, None, None),
    ],
)  # fmt: skip
def test_logins(message: str, user: str | None, address: str | None, port: int | None, result: str | None) -> None:
    (row,) = derived("syslog", f"Mar 27 13:08:09 host sshd[1361]: {message}".encode())
    some(row, user_name=user, source_address=address, source_port=port, result=result, message=message)


def test_sudo_and_iso_times() -> None:
    (row,) = derived(
        "syslog",
        b"2024-05-06T10:00:00.123456+02:00 web1 sudo:   bob : 3 incorrect password attempts ; TTY=pts/0 ; USER=root",
    )
    some(row, format="rsyslog", user_name="bob", result="denied")
    assert row["event_time"] == datetime(2024, 5, 6, 8, 0, 0, 123456, tzinfo=UTC)


def test_other_lines_stay_in_place() -> None:
    content = b"<13>Jul 11 10:34:35 h p: first\n\tcontinued\n<999>x\n<13>Jul 11 10:34:36 h p: last\n"
    rows = derived("syslog", content)
    assert [r["message"] for r in rows] == ["first", None, None, "last"]
    assert SOURCES["syslog"].split(content).raw[1] == b"\tcontinued"
    assert [e["message"] for e in events("syslog", content)][1] == "\tcontinued"


def test_hostile_lines_cost_linear_time() -> None:
    started = time.perf_counter()
    head = b"<13>1 2022-07-11T10:34:31Z h p 1 m "
    hostile = (head + b"[" * 50_000, head + b'[a="' + rb"\"" * 25_000, b"Jul 11 10:34:35 h sshd[1]: Failed x for "
               + b" from 1.1.1.1 port" * 3000, b"type=A msg=audit(1722950859.266:1): " + b'exe="' * 10_000)  # fmt: skip
    for line in hostile:
        assert SOURCES["syslog"].derive([line] * 10, None).num_rows == 10
    assert time.perf_counter() - started < 3
