"""Elasticsearch's bulk API, as far as shippers need it: the handshake, and answers that are all or nothing.

Clients believe in Elasticsearch by the header `X-Elastic-Product`; the official ones refuse to go on without it after
they have sent the data. Logstash and Vector look at `/`, `/_license` and `/_cluster/health` first.

Every action gets an item in the same order, always a success: real clients lose documents whose item failed in a
request with status 200 (Fluent Bit, syslog-ng, rsyslog, Vector). `errors` and `items` are written as Fluent Bit and
Vector search for them, without white space.

rsyslog's omelasticsearch (8.2302) takes every complete answer for success and drops what a 503 refuses; only a broken
connection makes it keep its data. `keeps_only_on_reset` tells it by its missing User-Agent. Source: Elasticsearch
reference, "Bulk API"; behaviour as recorded with the clients themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from strongroom.ingest.protocols import JSON, Reply
from strongroom.ingest.sources import lenient
from strongroom.ingest.sources.bulk import pairs

VERSION = "8.14.0"
HEADERS: Mapping[str, str] = {"X-Elastic-Product": "Elasticsearch"}
_RESULTS = {
    "index": ("created", 201),
    "create": ("created", 201),
    "update": ("updated", 200),
    "delete": ("deleted", 200),
}
_REASONS = {401: "security_exception", 403: "security_exception", 413: "content_too_long_exception"}


def taken(content: bytes, batch: str, milliseconds: int) -> Reply:
    """All of a bulk request is durable. `batch` gives ids to the documents that came without."""
    items = [
        _item(operation, action, f"{batch[:16]}-{place}") for place, (operation, action) in enumerate(_actions(content))
    ]
    body = b'{"took":%d,"errors":false,"items":[%s]}' % (milliseconds, b",".join(items))
    return Reply(200, body, JSON, HEADERS)


def refused(status: int, message: str) -> Reply:
    """Nothing of a request was taken."""
    kind = _REASONS.get(status, "es_rejected_execution_exception" if status == 503 else "illegal_argument_exception")
    cause = {"type": kind, "reason": message}
    return Reply(
        status, msgspec.json.encode({"error": {"root_cause": [cause], **cause}, "status": status}), JSON, HEADERS
    )


def keeps_only_on_reset(user_agent: str, content_type: str) -> bool:
    """Whether a request is of a client that drops its data on any answer."""
    return not user_agent and content_type.lower().replace(" ", "") == "application/json;charset=utf-8"


def about(cluster: str) -> Reply:
    """`GET /`."""
    version = {
        "number": VERSION,
        "build_flavor": "default",
        "build_type": "tar",
        "build_hash": "0" * 40,
        "build_date": "2024-06-03T00:00:00.000000000Z",
        "build_snapshot": False,
        "lucene_version": "9.10.0",
        "minimum_wire_compatibility_version": "7.17.0",
        "minimum_index_compatibility_version": "7.0.0",
    }
    facts = {
        "name": "strongroom",
        "cluster_name": "strongroom",
        "cluster_uuid": cluster,
        "version": version,
        "tagline": "You Know, for Search",
    }
    return Reply(200, msgspec.json.encode(facts), JSON, HEADERS)


def license(cluster: str) -> Reply:
    """`GET /_license`."""
    return Reply(
        200,
        msgspec.json.encode({"license": {"status": "active", "uid": cluster, "type": "basic", "mode": "basic"}}),
        JSON,
        HEADERS,
    )


def health(problem: str) -> Reply:
    """`GET /_cluster/health`, `/_cat/health`."""
    told = {"cluster_name": "strongroom", "status": "green", "timed_out": False, "number_of_nodes": 1}
    return refused(503, problem) if problem else Reply(200, msgspec.json.encode(told), JSON, HEADERS)


def acknowledged() -> Reply:
    """What Beats set up before they send (templates, policies): taken note of, and nothing done."""
    return Reply(200, b'{"acknowledged":true}', JSON, HEADERS)


def _actions(content: bytes) -> Iterable[tuple[str, bytes]]:
    return ((operation, action) for operation, action, _, _ in pairs(content) if operation)


def _item(operation: str, action: bytes, id: str) -> bytes:
    result, status = _RESULTS[operation]
    named = lenient.record(action).get(operation)
    facts = named if isinstance(named, dict) else {}
    index, given = facts.get("_index"), facts.get("_id")
    item = {
        "_index": index if isinstance(index, str) else "",
        "_id": given if isinstance(given, str) and given else id,
        "_version": 1,
        "result": result,
        "_shards": {"total": 1, "successful": 1, "failed": 0},
        "_seq_no": 0,
        "_primary_term": 1,
        "status": status,
    }
    return msgspec.json.encode({operation: item})
