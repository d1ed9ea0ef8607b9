"""The Splunk HTTP Event Collector: what it says to whom.

Deliveries that name a channel get an `ackId`, and `/services/collector/ack` tells whether what it stands for is
*sealed*, which is more than durable. An ack id is the batch's place in the log of this writer (epoch and sequence, one
number below 2^53, which also JavaScript holds exactly): nothing has to be remembered for it, it outlives restarts, and
an id that was never given is simply not sealed. It says nothing about the channel, so an unknown channel is no error:
Vector takes any 4xx here for "all delivered".

Codes and texts are Splunk's ("Troubleshoot HTTP Event Collector", status codes). Only code 9 with 503 is used for what
may pass; Splunk's own 500 and 429 make clients drop data. An empty body is code 5, which Firehose's Splunk destination
asks for to see whether a collector is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from strongroom.ingest.protocols import Reply

CHANNEL_HEADER = "x-splunk-request-channel"
_SEQUENCE_BITS = 40
_MAX_EPOCH = 1 << 13
_MAX_ACKS = 100_000


class _Asked(msgspec.Struct):
    acks: list[int]


_asked = msgspec.json.Decoder(_Asked)  # made here: see archive/details.py


def taken(ack: int | None = None) -> Reply:
    """Durable; `ack` when the client named a channel."""
    answer: dict[str, object] = {"text": "Success", "code": 0}
    if ack is not None:
        answer["ackId"] = ack
    return Reply(200, msgspec.json.encode(answer))


def refused(status: int, *, token_missing: bool = False, empty: bool = False) -> Reply:
    """Nothing was taken."""
    if empty:
        return _coded(400, 5, "No data")
    if status == 401:
        return _coded(401, 2, "Token is required") if token_missing else _coded(403, 4, "Invalid token")
    if status == 403:
        return _coded(403, 4, "Invalid token")
    if status == 503:
        return _coded(503, 9, "Server is busy")
    return _coded(status, 6, "Invalid data format")


def healthy(problem: str) -> Reply:
    """Whether deliveries would be accepted now."""
    return _coded(503, 18, "HEC is unhealthy, queues are full") if problem else _coded(200, 17, "HEC is healthy")


def ack_id(epoch: int, sequence: int) -> int | None:
    """The ack id of a batch; None when it can't be said in one number (after thousands of new state folders)."""
    if not (0 <= epoch < _MAX_EPOCH and 0 <= sequence < 1 << _SEQUENCE_BITS):
        return None
    return epoch << _SEQUENCE_BITS | sequence


def place_of(ack: int) -> tuple[int, int]:
    """(epoch, sequence) of an ack id."""
    return ack >> _SEQUENCE_BITS, ack & ((1 << _SEQUENCE_BITS) - 1)


def asked(content: bytes) -> Sequence[int]:
    """The ids an ack query asks for; none when it can't be read."""
    try:
        return [ack for ack in _asked.decode(content).acks[:_MAX_ACKS] if 0 <= ack < 1 << 53]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []


def acks(ids: Sequence[int], sealed: Callable[[int], bool]) -> Reply:
    """The answer to an ack query."""
    return Reply(200, msgspec.json.encode({"acks": {str(ack): sealed(ack) for ack in ids}}))


def _coded(status: int, code: int, text: str) -> Reply:
    return Reply(status, msgspec.json.encode({"text": text, "code": code}))
