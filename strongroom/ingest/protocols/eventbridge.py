"""Amazon EventBridge API destinations: one event a request, answered within 5 seconds.

The event's own `id` is the key: EventBridge tries for up to a day, and every try is the same event. An input
transformer may have made anything of the event; what has no id has no key. 4xx is final, 503 is tried again. Source:
Amazon EventBridge user guide, "API destinations" and "Events".
"""

from __future__ import annotations

import msgspec

from strongroom.ingest.protocols import JSON, Reply


class _Event(msgspec.Struct):
    id: str
    source: str
    type: str = msgspec.field(name="detail-type")


_event = msgspec.json.Decoder(_Event)  # made here: see archive/details.py


def key(content: bytes) -> str | None:
    """The key of an event, None for what is no whole event."""
    try:
        event = _event.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return f"eventbridge {event.id}" if event.id else None


def taken() -> Reply:
    """Durable."""
    return Reply(200, b"{}", JSON)


def refused(status: int, message: str) -> Reply:
    """Nothing was taken."""
    return Reply(status, msgspec.json.encode({"message": message}), JSON)
