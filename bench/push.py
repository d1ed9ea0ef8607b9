"""How fast does each push protocol acknowledge? The same lines in every protocol's clothes, the service on one core.

A delivery is 500 lines of about 200 bytes, as shippers batch them; sealing is put off, so that this is acknowledging
alone. Four connections, deliveries one after another on each; the client's bodies are made beforehand. Wall time, of
the service's core: on a busy machine the neighbours are in it. `lines of JSON` at the generic URL is what the others
are held against: it has no envelope to undo.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Spread, cores
from bench.report import Ratio, Row, Section
from bench.service import Service, serving

RECORDS, DELIVERIES, CONNECTIONS = 500, 200, 4
_NEVER = 10**9
_PLAIN = "lines of JSON"


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way to send: where, with which headers, and the body that holds the lines."""

    name: str
    path: str
    headers: Mapping[str, str]
    body: Callable[[list[str], int], bytes]


def lines(number: int) -> bytes:
    """Delivery `number` as plain JSON lines."""
    return _lines(_messages(number), number)


def _messages(number: int) -> list[str]:
    padding = "the quick brown fox jumps over the lazy dog " * 3
    return [f"delivery {number} line {place} {padding}" for place in range(RECORDS)]


def _lines(messages: list[str], number: int) -> bytes:
    return "".join(json.dumps({"message": m, "host": "edge-7"}) + "\n" for m in messages).encode()


def _hec(messages: list[str], number: int) -> bytes:
    return "".join(json.dumps({"event": m, "host": "edge-7", "time": 1_795_000_000.5}) for m in messages).encode()


def _bulk(messages: list[str], number: int) -> bytes:
    action = '{"create":{"_index":"logs"}}\n'
    return "".join(f"{action}{json.dumps({'message': m, 'host': 'edge-7'})}\n" for m in messages).encode()


def _loki(messages: list[str], number: int) -> bytes:
    values = [["1795000000000000000", m] for m in messages]
    return json.dumps({"streams": [{"stream": {"host": "edge-7"}, "values": values}]}).encode()


def _otlp(messages: list[str], number: int) -> bytes:
    records = [{"timeUnixNano": "1795000000000000000", "body": {"stringValue": m}} for m in messages]
    return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).encode()


def _firehose(messages: list[str], number: int) -> bytes:
    events = [{"id": f"{number}-{place}", "timestamp": 1, "message": m} for place, m in enumerate(messages)]
    envelope = {"messageType": "DATA_MESSAGE", "owner": "1", "logGroup": "g", "logStream": "s", "logEvents": events}
    data = base64.b64encode(gzip.compress(json.dumps(envelope).encode(), 6, mtime=0)).decode()
    return json.dumps({"requestId": f"r-{os.getpid()}-{number}", "timestamp": 1, "records": [{"data": data}]}).encode()


def _journal(messages: list[str], number: int) -> bytes:
    return "".join(f"__CURSOR=c-{number}-{p}\nPRIORITY=6\nMESSAGE={m}\n\n" for p, m in enumerate(messages)).encode()


def protocols(token: str) -> tuple[Protocol, ...]:
    """All of them, with a token that may push anywhere."""
    bearer = {"Authorization": f"Bearer {token}"}
    as_json = bearer | {"Content-Type": "application/json"}
    key = {"X-Amz-Firehose-Access-Key": token, "Content-Type": "application/json"}
    return (
        Protocol(_PLAIN, "/v1/ingest/json", bearer, _lines),
        Protocol("Splunk HEC", "/services/collector", bearer, _hec),
        Protocol("Elasticsearch bulk", "/elastic/_bulk", bearer, _bulk),
        Protocol("Loki, JSON", "/loki/api/v1/push", as_json, _loki),
        Protocol("OTLP, JSON", "/v1/logs", as_json, _otlp),
        Protocol("Firehose, gzip inside", "/v1/firehose/cwlogs", key, _firehose),
        Protocol("journal upload", "/upload", bearer, _journal),
    )


def measure(folder: Path, scale: float, rounds: int, progress: Callable[[str], None]) -> Section:
    """Rows of each protocol. Raises RuntimeError when a delivery was not acknowledged."""
    core, client = cores()
    deliveries = max(CONNECTIONS, int(DELIVERIES * scale))
    never = {"seal_bytes": 1 << 40, "seal_age_seconds": _NEVER, "spool_bytes": 1 << 40, "token_share": 1}
    never |= {"token_requests_per_second": _NEVER, "token_bytes_per_second": _NEVER}
    rates: dict[str, list[float]] = {}
    waits: dict[str, list[float]] = {}
    bytes_of: dict[str, int] = {}
    with serving(folder, core, **never) as service:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {client})
        try:
            for number in range(rounds + 1):  # the first warms up
                for protocol in protocols(service.token):
                    progress(f"push: {protocol.name}")
                    first = number * deliveries
                    bodies = [protocol.body(_messages(n), n) for n in range(first, first + deliveries)]
                    seconds, latencies = _send(service, protocol, bodies)
                    bytes_of[protocol.name] = sum(map(len, bodies))
                    if number:
                        rates.setdefault(protocol.name, []).append(seconds)
                        waits.setdefault(protocol.name, []).extend(latencies)
        finally:
            os.sched_setaffinity(0, before)
    return Section(
        f"pushing {deliveries} deliveries of {RECORDS} records by each protocol, service on one core, "
        f"{CONNECTIONS} connections",
        tuple(row for name in rates for row in _rows(name, rates, sorted(waits[name]), bytes_of[name], deliveries)),
        {name: {"wall_seconds": rates[name], "bytes": bytes_of[name]} for name in rates},
    )


def _rows(
    name: str, rates: Mapping[str, list[float]], waits: list[float], size: int, deliveries: int
) -> tuple[Row, ...]:
    mine = Spread.rate(deliveries * RECORDS, tuple(rates[name]))
    plain = Spread.rate(deliveries * RECORDS, tuple(rates[_PLAIN]))
    p50, p99 = waits[len(waits) // 2], waits[min(len(waits) - 1, len(waits) * 99 // 100)]
    megabytes = Spread.rate(size / 1e6, tuple(rates[name])).median
    note = f"{megabytes:.0f} MB/s as sent; acknowledged after {p50 * 1000:.1f} ms (p50), {p99 * 1000:.1f} ms (p99)"
    ratios = () if name == _PLAIN else (Ratio(_PLAIN, mine.median / plain.median),)
    return (Row(name, mine, "records/s", ratios, note=note),)


def _send(service: Service, protocol: Protocol, bodies: list[bytes]) -> tuple[float, list[float]]:
    """(seconds for all, seconds of each)."""

    def run(place: int) -> list[float]:
        connection, found = service.connect(), []
        for body in bodies[place::CONNECTIONS]:
            begun = time.perf_counter()
            connection.request("POST", protocol.path, body, dict(protocol.headers))
            answer = connection.getresponse()
            said = answer.read()
            if answer.status not in (200, 202, 204):
                raise RuntimeError(f"{protocol.name}: {answer.status} {said[:300]!r}")
            found.append(time.perf_counter() - begun)
        connection.close()
        return found

    begun = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        latencies = [wait for found in threads.map(run, range(CONNECTIONS)) for wait in found]
    return time.perf_counter() - begun, latencies
