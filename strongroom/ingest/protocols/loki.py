"""Grafana Loki's push API: 204 for what is durable, text for what is refused.

Protobuf comes as one raw snappy block without saying so in Content-Encoding; a missing Content-Type means protobuf,
too. Source: Grafana Loki, "Loki HTTP API", push.
"""

from __future__ import annotations

from strongroom.ingest.protocols import Reply

TEXT = "text/plain; charset=utf-8"


def coding(content_type: str, content_encoding: str) -> str:
    """The coding of a request's body."""
    if content_encoding:
        return content_encoding
    return "identity" if "json" in content_type.lower() else "snappy"


def taken() -> Reply:
    """Durable."""
    return Reply(204, media_type=TEXT)


def refused(status: int, message: str) -> Reply:
    """Nothing was taken."""
    return Reply(status, message.encode() + b"\n", TEXT)
