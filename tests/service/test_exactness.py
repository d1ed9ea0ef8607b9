"""Records nobody would write by hand: through HTTP, spool and segment, SQL gives back the very bytes.

Two tables, one of oddities of JSON and one of lines, and each source gets all that its format can carry: a JSON source
must take every one as a record of its own, a source of lines may quarantine what is no line of its, byte for byte.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from hashlib import sha256

import pytest

from tests.service.conftest import Service
from tests.service.test_ingest import push

EVENT_BYTES = 256 << 10  # CloudTrail's largest event

JSON_ODDITIES: Mapping[str, bytes] = {
    "duplicate keys": rb'{"eventName":"first","eventName":"second","a":1,"a":2,"userIdentity":{"arn":"x","arn":"y"}}',
    "huge numbers": b'{"n":1e400,"m":-1E-400,"i":'
    + b"9" * 5000
    + b',"z":-0,"p":1.10,"e":1E+2,"f":0.1000000000000000055}',
    "unusual white space": b'{\t"a"\r\n  :\n\n 1 ,\r"b"\t:\t[ 1 ,\n2 ] }',
    "invalid UTF-8 in a value": b'{"a":"\xff\xfe\xc3( \xed\xa0\x80 \xf0\x9f"}',
    "invalid UTF-8 in a name": b'{"\xff":1,"eventName":"\xc3"}',
    "lone surrogates escaped": rb'{"a":"\ud800","b":"\udfff x \uD83D","c":"\ud83d\ude00"}',
    "escapes": rb'{"a":"\u0000\u001f\/\b\f\u0041\\u0041","\u0061":"\"}{]["}',
    "text of every width": '{"a":"é ✓ 𝄞 \u2028\u2029\u0085\ufeff","ключ":"ß"}'.encode(),
    "nested JSON in text": json.dumps({"message": json.dumps({"detail": json.dumps({"a": ["\\", '"', {}]})})}).encode(),
    "empty names and values": b'{"":"","a":{},"b":[],"c":null,"d":{"":{"":null}}}',
    "deep": b'{"a":' * 300 + b"1" + b"}" * 300,
    "wide": b"{" + b",".join(b'"k%d":%d' % (n, n) for n in range(500)) + b"}",
    "256 KB": b'{"eventName":"Big","requestParameters":{"x":"' + b"x" * (EVENT_BYTES - 60) + b'"}}',
}
JSON_SOURCES = (
    *("cloudtrail", "cloudtraildigest", "cloudtraillake", "config", "cwlogs", "eksaudit", "guardduty", "hec", "json"),
    *("networkfirewall", "ocsf", "route53", "securityhub", "sessionmanager", "sns", "waf"),
)
LINE_ODDITIES: Mapping[str, bytes] = {
    "invalid UTF-8": b"a \xff\xfe\xc3( \xed\xa0\x80 b",
    "white space": b"  two  spaces\tand tabs \t ",
    "other line separators": "a \u2028 b \u2029 c \u0085 d \x0b e \x0c f".encode(),
    "a carriage return inside": b"a\rb",
    "a stray zero byte": b"a\x00b",
    "a byte order mark inside": b"a \xef\xbb\xbf b",
    "quotes": rb'"never closed [ " \" \\ ""',
    "escapes of a terminal": b"\x1b[31mred\x1b]0;title\x07",
    "256 KB": b"long " + b"x" * EVENT_BYTES,
    "no more than a dash": b"-",
}
FLOWS = (
    b"2 1 eni-1 10.0.0.1 10.0.0.2 1 2 6 1 1 1700000000 1700000060 ACCEPT OK",
    b"2 1 eni-1 10.0.0.1 10.0.0.2 01 2 6 +1 1 1700000000 1700000060 ACCEPT OK",
    b"2 1  eni-1 10.0.0.1 10.0.0.2 1 2 6 1 1 1700000000 1700000060 ACCEPT OK ",
    b"2 1 eni-1 10.0.0.1 10.0.0.2 1 2 6 1 " + b"9" * 400 + b" 1700000000 1700000060 ACCEPT OK",
    b"2 \xff\xfe eni-1 10.0.0.1 10.0.0.2 1 2 6 1 1 -5 99999999999999 ACCEPT OK",
    b'2 " eni-1 , ; 1.0 2e3 6 0x1 1 1700000000 1700000060 \xe2\x80\xa8 OK',
    b"- - - - - - - - - - - - - NODATA",
)


def kept(service: Service, source: str, body: bytes) -> tuple[Counter[tuple[int, str]], Counter[tuple[int, str]]]:
    """(length, SHA-256) of what SQL shows of a delivery: in its source, in quarantine."""
    answer = push(service, source, body, role="quarantiner", params={"wait": "sealed"})
    found = []
    for view in (source, "quarantine"):
        record = "coalesce(raw_bytes, encode(raw))"
        sql = f"SELECT octet_length({record}), sha256({record}) FROM {view} WHERE sequence = ?"
        found.append(Counter((size, digest) for size, digest in service.rows(sql, [answer["sequence"]])))
    assert sum(found[0].values()) + sum(found[1].values()) == answer["records"]
    return found[0], found[1]


def told(records: Mapping[str, bytes] | tuple[bytes, ...]) -> Counter[tuple[int, str]]:
    listed = records.values() if isinstance(records, Mapping) else records
    return Counter((len(record), sha256(record).hexdigest()) for record in listed)


def missing(wanted: Mapping[str, bytes], found: Counter[tuple[int, str]]) -> list[str]:
    return [name for name, record in wanted.items() if (len(record), sha256(record).hexdigest()) not in found]


@pytest.mark.parametrize("source", JSON_SOURCES)
def test_json_as_it_came(service: Service, source: str) -> None:
    records = {name: record.replace(b'"a"', b'"a-%s"' % source.encode(), 1) for name, record in JSON_ODDITIES.items()}
    in_an_array = b"[" + b" ,\n".join(records.values()) + b"]"
    found, quarantined = kept(service, source, in_an_array)
    assert missing(records, found) == [] and not quarantined
    assert found == told(records)


def test_json_one_after_another_without_anything_between(service: Service) -> None:
    found, quarantined = kept(service, "cloudtrail", b"".join(JSON_ODDITIES.values()))
    assert missing(JSON_ODDITIES, found) == [] and not quarantined


CONTAINED: Mapping[str, Callable[[bytes], bytes]] = {
    "cloudtrail": lambda records: b'{"Records" : [' + records + b"]}",
    "config": lambda records: b'{"fileVersion":"1.0","configurationItems":[' + records + b"]}",
    "cwlogs": lambda records: b'{"owner":"1","logGroup":"g","logStream":"s","logEvents":[' + records + b"]}",
    "securityhub": lambda records: b'{"version":"0","detail":{"findings":[' + records + b"]}}",
    "otlp": lambda records: b'{"resourceLogs":[{"scopeLogs":[{"scope":{},"logRecords":[' + records + b"]}]}]}",
}


@pytest.mark.parametrize("source", CONTAINED)
def test_json_in_its_envelope(service: Service, source: str) -> None:
    found, quarantined = kept(service, source, CONTAINED[source](b",".join(JSON_ODDITIES.values())))
    assert missing(JSON_ODDITIES, found) == [] and not quarantined


def test_documents_of_a_bulk_request(service: Service) -> None:
    records = {name: record for name, record in JSON_ODDITIES.items() if b"\n" not in record}
    body = b"".join(b'{"index":{"_index":"%d"}}\n%s\n' % (n, record) for n, record in enumerate(records.values()))
    found, quarantined = kept(service, "bulk", body)
    assert missing(records, found) == [] and not quarantined


def test_entries_of_loki(service: Service) -> None:
    records = {name: b'["1700000000000000000" , "x", ' + record + b"]" for name, record in JSON_ODDITIES.items()}
    body = b'{"streams":[{"stream":{"app":"x"},"values":[' + b",".join(records.values()) + b"]}]}"
    found, quarantined = kept(service, "loki", body)
    assert missing(records, found) == [] and not quarantined


@pytest.mark.parametrize("source", ["text", "syslog", "elb", "s3access", "cloudtraillake"])
@pytest.mark.parametrize("terminator", [b"\n", b"\r\n"])
def test_lines_as_they_came(service: Service, source: str, terminator: bytes) -> None:
    separator, first = (b",", [b"eventID,eventName"]) if source == "cloudtraillake" else (b" ", [])
    lines = {name: line + separator + source.encode() for name, line in LINE_ODDITIES.items()}
    found, quarantined = kept(service, source, terminator.join([*first, *lines.values()]))
    assert missing(lines, found + quarantined) == [], "of both"
    assert source not in ("text", "syslog") or not quarantined


def test_flows_whose_columns_give_them_back_and_others(service: Service) -> None:
    found, quarantined = kept(service, "vpcflow", b"\n".join(FLOWS))
    assert found + quarantined == told(FLOWS)
    names = b"version account-id srcaddr bytes unknown-field start\n"
    odd = (b"5 1 10.0.0.1 7 x 1700000000", b"5  1 10.0.0.1 07 \xff 1700000000", b"5 - - - - -", b"5 1 a b c d")
    found, quarantined = kept(service, "vpcflow", names + b"\r\n".join(odd))
    assert found == told(odd) and not quarantined


def test_an_entry_of_the_journal(service: Service) -> None:
    binary = b"\x00\xff\n=\n\n" + b"x" * 1000
    entries = (
        b"__CURSOR=s=1\nMESSAGE=a\nMESSAGE=b\nN= \xff\xfe ",
        b"__CURSOR=s=2\nMESSAGE\n" + len(binary).to_bytes(8, "little") + binary + b"\n_PID=1",
        b"__CURSOR=s=3\nMESSAGE=" + b"x" * EVENT_BYTES,
    )
    found, quarantined = kept(service, "journal", b"\n\n".join(entries) + b"\n\n")
    assert found == told(entries) and not quarantined
