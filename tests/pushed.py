"""The captured requests in tests/captures (see PROVENANCE.md there), read back into their parts."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

CAPTURES = Path(__file__).parent / "captures"
SOURCE_OF = {
    "hec": ("fluent-bit_splunk-hec_gzip", "splunk-handler_hec", "winston-splunk_hec"),
    "otlp": (
        "fluent-bit_otlp-proto_gzip",
        "otel-js_otlp-proto_chunked",
        "otel-js_otlp-json_gzip_chunked",
    ),
    "loki": ("fluent-bit_loki-json", "pino-loki", "winston-loki_json", "winston-loki_proto-snappy"),
    "bulk": ("elasticsearch-py_bulk_PUT", "fluent-bit_es-bulk", "rsyslog_es-bulk", "syslog-ng_es-bulk"),
    "journal": ("systemd-journal-upload",),
    "json": ("syslog-ng_http_ndjson", "fluentd_http_json-array", "fluent-bit_http_ndjson_gzip"),
}
"""Source → the captures whose records are its own."""
RECORDS = {"fluent-bit_splunk-hec_gzip": 3, "winston-splunk_hec": 1, "syslog-ng_es-bulk": 1, "rsyslog_es-bulk": 2}
"""How many records a capture holds."""


@dataclass(frozen=True)
class Captured:
    """One request. `headers` without those that belong to the connection."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> bytes:
        """The body with its coding undone."""
        if self.headers.get("content-encoding") == "gzip":
            return gzip.decompress(self.body)
        if self.target.startswith("/loki") and "protobuf" in self.headers.get("content-type", ""):
            size = self.body[0] & 0x7F | (self.body[1] << 7 if self.body[0] & 0x80 else 0)
            return bytes(pa.Codec("snappy").decompress(self.body, size, asbytes=True))
        return self.body


def captured(name: str) -> Captured:
    """The request of that name."""
    head, _, body = (CAPTURES / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    for name in ("host", "content-length", "transfer-encoding", "connection", "accept-encoding", "expect"):
        headers.pop(name, None)
    return Captured(method, target, headers, body)
