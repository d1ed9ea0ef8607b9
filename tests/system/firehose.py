"""A sender that behaves as Amazon Data Firehose is documented to (HTTP endpoint delivery), for want of the real one."""

from __future__ import annotations

import base64
import gzip
import json
import random
import time
import uuid
from collections.abc import Sequence

import httpx


class Firehose:
    """One delivery stream. A batch is tried with the same request id until it is taken, with growing pauses."""

    def __init__(self, url: str, access_key: str, *, pause: float = 1.0, cap: float = 120.0) -> None:
        self.attempts = 0
        self._url = url
        self._key = access_key
        self._pause = pause
        self._cap = cap
        self._arn = "arn:aws:firehose:eu-central-1:123456789012:deliverystream/test"

    def deliver(self, records: Sequence[bytes], seconds: float = 300.0) -> str:
        """Deliver one batch; its request id. Raises TimeoutError after the retry duration."""
        id, pause, deadline = str(uuid.uuid4()), self._pause, time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.attempt(id, records):
                return id
            time.sleep(pause * random.uniform(0.85, 1.15))
            pause = min(2 * pause, self._cap)
        raise TimeoutError(id)

    def attempt(self, id: str, records: Sequence[bytes]) -> bool:
        """One try; whether the answer is the one that Firehose takes for success."""
        self.attempts += 1
        told = {
            "requestId": id,
            "timestamp": time.time_ns() // 1_000_000,
            "records": [{"data": base64.b64encode(record).decode()} for record in records],
        }
        headers = {
            "X-Amz-Firehose-Protocol-Version": "1.0",
            "X-Amz-Firehose-Request-Id": id,
            "X-Amz-Firehose-Source-Arn": self._arn,
            "X-Amz-Firehose-Access-Key": self._key,
            "Content-Type": "application/json",
            "Content-Encoding": "gzip",
        }
        try:
            answer = httpx.post(self._url, content=gzip.compress(json.dumps(told).encode(), 1), headers=headers)
        except httpx.HTTPError:
            return False
        try:
            said = answer.json()
        except ValueError:
            return False
        named = answer.headers.get("content-type") == "application/json" and said.get("requestId") == id
        return answer.status_code == 200 and named and isinstance(said.get("timestamp"), int)


def log_events(first: int, count: int) -> bytes:
    """What a CloudWatch Logs subscription puts into one record: `count` numbered log events, gzipped."""
    events = [
        {"id": f"{number:056d}", "timestamp": 1_795_000_000_000 + number, "message": f"line {number:07d}"}
        for number in range(first, first + count)
    ]
    envelope = {
        "messageType": "DATA_MESSAGE",
        "owner": "123456789012",
        "logGroup": "app",
        "logStream": "edge-7",
        "subscriptionFilters": ["all"],
        "logEvents": events,
    }
    return gzip.compress(json.dumps(envelope).encode(), 6)
