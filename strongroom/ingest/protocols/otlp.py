"""OpenTelemetry's OTLP over HTTP, logs: the answers, in the encoding of the request.

Success is an ExportLogsServiceResponse: no bytes in protobuf, `{}` in JSON. A client must not send again what a partial
success rejects, so nothing is ever rejected: a partial success says 0 rejected records, and a message, when the request
went to quarantine. Errors are google.rpc.Status. Only 503 of the four retryable statuses is used. Source: OTLP
specification 1.x, "OTLP/HTTP".
"""

from __future__ import annotations

import msgspec

from strongroom.ingest.protocols import JSON, Reply
from strongroom.ingest.sources import protobuf

PROTOBUF = "application/x-protobuf"
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 413: 8, 415: 3, 503: 14}
"""HTTP status → google.rpc.Code."""
_UNKNOWN = 2


def media_type(content_type: str) -> str:
    """The encoding a request is in; JSON when it says so."""
    return JSON if "json" in content_type.lower() else PROTOBUF


def taken(encoding: str, warning: str = "") -> Reply:
    """Durable; `warning` tells that it is in quarantine."""
    if encoding == JSON:
        told = {"partialSuccess": {"rejectedLogRecords": "0", "errorMessage": warning}} if warning else {}
        return Reply(200, msgspec.json.encode(told), JSON)
    body = protobuf.encode(1, protobuf.encode(2, warning.encode())) if warning else b""
    return Reply(200, body, PROTOBUF)


def refused(encoding: str, status: int, message: str) -> Reply:
    """Nothing was taken."""
    code = _CODES.get(status, _UNKNOWN)
    if encoding == JSON:
        return Reply(status, msgspec.json.encode({"code": code, "message": message}), JSON)
    return Reply(status, protobuf.encode(1, code) + protobuf.encode(2, message.encode()), PROTOBUF)
