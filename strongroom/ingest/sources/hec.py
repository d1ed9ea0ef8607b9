"""Events of the Splunk HTTP Event Collector: `{"event": …, "time": …, "host": …, "sourcetype": …}`, one after another.

A record is the whole envelope as it was sent, event and metadata together: the sender wrote them as one object, and the
metadata belong to this event alone. Envelopes come concatenated without separator, one a line, or in an array. What
the event holds is reached by path: `raw->>'$.event.user'`. `time` is seconds since 1970, as a number or as text.
Source: Splunk, "Format events for HTTP Event Collector".
"""

from __future__ import annotations

from strongroom.ingest.sources.declared import JsonSource, events
from strongroom.ingest.sources.fields import field
from strongroom.ingest.sources.source import TIME

SOURCE = JsonSource(
    name="hec",
    description="Events of the Splunk HTTP Event Collector, with their metadata",
    columns=(
        field("event_time", "time", "event.time", "event.timestamp", type=TIME),
        field("host", "host"),
        field("sourcetype", "sourcetype"),
        field("origin", "source"),
        field("index", "index"),
        field("severity", "event.severity", "event.level", "fields.severity", "fields.level"),
        field("actor", "event.user", "event.user.name", "event.userName", "event.actor", "fields.user"),
        field("action", "event.action", "event.eventName", "fields.action"),
        field("source_address", "event.src_ip", "event.src", "event.sourceIPAddress", "event.client_ip", "fields.src"),
        field("message", "event", "event.message", "event.message.msg", "event.msg", "event.log", "event.line"),
    ),
    events=events(
        "hec",
        actor="actor",
        action="coalesce(action, sourcetype)",
        target="coalesce(host, origin)",
        source_address="source_address",
        severity="lower(severity)",
        message="message",
    ),
    sort=("sourcetype", "host", "event_time"),
    summary_columns=("host", "sourcetype", "index", "source_address"),
    marks=(("event", "sourcetype"), ("event", "time", "host")),
)
