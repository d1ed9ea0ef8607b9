"""AWS Systems Manager Session Manager: what was typed and shown in shell sessions.

Two deliveries. Streamed to CloudWatch Logs, a session is JSON objects with a few lines of terminal output each. Written
to S3 at its end, it is the terminal's output from `Script started on …` on; there each line is a record and the first
one their context. Terminal output is kept as it is, control sequences and all. A line has no time of its own; the time
of the first and the last one is written in them.

Field reference: AWS Systems Manager user guide, "Logging session data".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from strongroom.ingest.sources import lines, times
from strongroom.ingest.sources.declared import CONTEXT, JsonSource, events
from strongroom.ingest.sources.fields import ACCOUNT_OF_ARN, Convert, field
from strongroom.ingest.sources.source import TEXTS, TIME, Contexts, Found, Split

_START = b"Script started on "
_MOMENT = re.compile(r"Script (?:started|done) on (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:[+-]\d\d:?\d\d)?)")


class SessionManager(JsonSource):
    """See the module."""

    def recognise(self, head: bytes) -> bool:
        """Either delivery."""
        return super().recognise(head) or head.removeprefix(lines.BOM).startswith(_START)

    def split(self, body: bytes) -> Split:
        """Objects, or the lines of a transcript."""
        if not body.removeprefix(lines.BOM).startswith(_START):
            return super().split(body)
        # Terminals may send anything, but a session that is no text at all would still begin with text.
        reason = lines.binary(body)
        if reason is not None:
            return lines.whole(body, reason)
        found = Found()
        first, *others = lines.lines(body)
        found.record(first)
        found.extend(others, first)
        return found.split()

    def records(self, raw: Sequence[bytes], context: Contexts) -> list[Mapping[str, Any]]:
        """Lines of a transcript as if they were streamed."""
        records = super().records(raw, context)
        for row, line in enumerate(raw):
            started = None if context is None else context[row]
            if started is not None and started.startswith(_START):
                records[row] = {"sessionData": [_text(line)], CONTEXT: {"started": _text(started)}}
            elif line.startswith(_START):
                records[row] = {"sessionData": [_text(line)], CONTEXT: {"started": _text(line)}}
        return records


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _moment(value: Any) -> int | None:
    """The time in a transcript's first or last line."""
    text = value[0] if isinstance(value, list) and len(value) == 1 else value
    match = _MOMENT.match(text) if isinstance(text, str) else None
    return times.microseconds(match[1]) if match else None


def _time(value: Any) -> int | None:
    return times.microseconds(value) if isinstance(value, str | int) else _moment(value)


_SESSION_TIME: Convert = _time

SOURCE = SessionManager(
    name="sessionmanager",
    description="Shell sessions of AWS Systems Manager Session Manager",
    columns=(
        field("event_time", "eventTime", "sessionData", type=TIME, convert=_SESSION_TIME),
        field("session_id", "sessionId"),
        field("instance_id", "target.id"),
        field("account", "userIdentity.arn", convert=ACCOUNT_OF_ARN),
        field("region", "awsRegion"),
        field("arn", "userIdentity.arn"),
        field("run_as_user", "runAsUser"),
        field("session_data", "sessionData", type=TEXTS),
        field("started_at", f"{CONTEXT}.started", type=TIME, convert=_moment),
    ),
    events=events(
        "sessionmanager",
        account="account",
        region="region",
        actor="arn",
        action="'session output'",
        target="instance_id",
        message="array_to_string(session_data, '\n')",
    ),
    sort=("session_id", "event_time"),
    summary_columns=("account", "session_id", "instance_id", "arn"),
    marks=(("sessionId", "sessionData"),),
)
