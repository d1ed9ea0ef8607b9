"""Finding without SQL: search, timelines, and everything about one entity.

Each is one question to the engine (query/questions/search.py, timeline.py, pivots.py), recorded and answered like any
other (service/answers/answering.py). JSON comes in pages with a cursor; the other formats come as one stream, up to
`limit`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from strongroom.query.holdings.narrowing import KINDS
from strongroom.query.questions import pivots, search, timeline
from strongroom.query.questions.prepared import moment
from strongroom.query.questions.search import Cursor, Filters
from strongroom.query.questions.timeline import Bucket, By
from strongroom.query.views import MARK, ViewSource
from strongroom.service.answers import answering
from strongroom.service.answers.answering import Asker, Asking
from strongroom.service.node import Node
from strongroom.service.routes.answers import Json, node_of
from strongroom.service.routes.query import MAY_ASK, AcceptHeader
from strongroom.service.tokens import Principal

router = APIRouter(tags=["search"])

PAGE_HITS = 1000
_TOP = 20
_COUNT_ROWS = 100_000

_HIT: dict[str, Any] = {
    "source": "cloudtrail",
    "event_time": "2023-07-10T12:20:11.000000Z",
    "account": "123837392027",
    "region": "us-east-1",
    "actor": "bert-jan",
    "action": "cloudtrail:StopLogging",
    "target": None,
    "source_address": "192.168.10.20",
    "outcome": "success",
    "severity": None,
    "event_id": "0b7f6e5c-…",
    "message": None,
    "address": {"entry": 12, "position": 0, "segment": "segments/source=cloudtrail/…", "row": 17},
}
_BASIS: dict[str, Any] = {
    "snapshot": {"size": 42, "root": "9c1d…"},
    "segments": {"read": 3, "verified": True},
}


async def filters(
    q: Annotated[
        list[str] | None, Query(description="Text that the record has, letter by letter; may be repeated.")
    ] = None,
    ignore_case: Annotated[bool, Query(description="Let `q` match in any case (slower).")] = False,
    entity: Annotated[
        list[str] | None,
        Query(
            description=f"`kind:value`, compared with every column of the kind ({', '.join(KINDS)}); may be repeated.",
            examples=["address:192.0.2.7"],
        ),
    ] = None,
    since: Annotated[
        str | None, Query(description="Only what happened at or after this time (ISO 8601; UTC unless it says).")
    ] = None,
    until: Annotated[str | None, Query(description="Only what happened before this time.")] = None,
    source: Annotated[list[str] | None, Query(description="Only these sources; may be repeated.")] = None,
    account: Annotated[list[str] | None, Query(description="Only these accounts; may be repeated.")] = None,
    region: Annotated[list[str] | None, Query(description="Only these regions; may be repeated.")] = None,
    outcome: Annotated[
        list[str] | None, Query(description="Only these outcomes: success, failure, denied; may be repeated.")
    ] = None,
) -> Filters:
    """What a hit must be, from the query string. Raises ParameterInvalid."""
    return Filters(
        texts=tuple(q or ()),
        ignore_case=ignore_case,
        entities=tuple(search.entity(item) for item in entity or ()),
        since=_moment(since, "since"),
        until=_moment(until, "until"),
        sources=tuple(source or ()),
        accounts=tuple(account or ()),
        regions=tuple(region or ()),
        outcomes=tuple(outcome or ()),
    )


Wanted = Annotated[Filters, Depends(filters)]
Unsealed = Annotated[
    bool,
    Query(
        description="Look through what is acknowledged and not sealed yet, too, without `cursor` and `as_of`. Hits of "
        "a search say `sealed`, those that are not have no address, and there is one page."
    ),
]


@router.get(
    "/v1/search",
    summary="Search all records",
    responses={
        200: {
            "description": "Hits, newest first. JSON: a page, and `next` while there are more.",
            "content": {
                **answering.OPENAPI_CONTENT,
                "application/json": {"example": {**_BASIS, "hits": [_HIT], "next": "eyJz…"}},
            },
        }
    },
)
async def search_records(
    request: Request,
    principal: Annotated[Principal, Depends(MAY_ASK)],
    wanted: Wanted,
    limit: Annotated[
        int, Query(ge=1, description=f"Most hits: of a JSON page at most {PAGE_HITS}, of other formats any number.")
    ] = 100,
    cursor: Annotated[str | None, Query(description="`next` of the page before, all else the same.")] = None,
    as_of: Annotated[int | None, Query(ge=1, description="Tree size of an earlier answer's snapshot.")] = None,
    raw: Annotated[bool, Query(description="Add the record itself.")] = False,
    unsealed: Unsealed = False,
    accept: AcceptHeader = "*/*",
) -> Response:
    """Look through every source at once; each hit has the address its proof starts from."""
    node = node_of(request)
    format = answering.negotiate(accept)
    after = None if cursor is None else search.read_cursor(cursor, wanted)
    size = as_of if after is None else after.size
    looked_through = search.searched(wanted, node.views)
    asking = await _begin(request, principal, "search", as_of=size, unsealed=unsealed, format=format, limit=limit)
    views = looked_through if unsealed else _with_segments(node, looked_through)
    question = search.search(wanted, views, after=after, raw=raw, marked=unsealed)
    if format != "json":
        answer = await asking.run(question, format=format, limit=limit)
        return answering.answered(request, asking, answer, format)
    limit = min(limit, PAGE_HITS)
    answer, rows = await asking.rows(question, limit=limit + 1)
    hits = [_addressed(node, hit) for hit in rows.named()]
    # A page cut by bytes is continued like any other.
    more = len(hits) > limit or (rows.truncated == "bytes" and bool(hits))
    hits = hits[:limit]
    following = None
    if more and not unsealed:  # the next page would meet what was sealed meanwhile once more, or not at all
        last = hits[-1]
        place = Cursor(
            answer.snapshot.size,
            wanted.digest,
            last["event_time"],
            last["address"]["segment"],
            last["address"]["row"],
        )
        following = place.text()
    asking.succeeded(rows=len(hits))
    told = {**answering.basis(answer), **asking.basis, "hits": hits, "next": following}
    if unsealed:
        told["more"] = more
    return Json(told, headers=answering.stated(answer) | asking.stated)


@router.get(
    "/v1/timeline",
    summary="Count records over time",
    responses={
        200: {
            "description": "Counts by time and group",
            "content": {
                **answering.OPENAPI_CONTENT,
                "application/json": {
                    "example": {
                        **_BASIS,
                        "counted": "details",
                        "bucket": "hour",
                        "by": "source",
                        "buckets": [{"start": "2023-07-10T12:00:00.000000Z", "group": "cloudtrail", "records": 1204}],
                        "without_time": 0,
                    }
                },
            },
        }
    },
)
async def timeline_of_records(
    request: Request,
    principal: Annotated[Principal, Depends(MAY_ASK)],
    wanted: Wanted,
    bucket: Annotated[Bucket | None, Query(description="Length of a bucket; by default what suits the time.")] = None,
    by: Annotated[By, Query(description="What to tell apart.")] = "source",
    as_of: Annotated[int | None, Query(ge=1, description="Tree size of an earlier answer's snapshot.")] = None,
    unsealed: Unsealed = False,
    accept: AcceptHeader = "*/*",
) -> Response:
    """For charts. With no filter but time and source, it is answered from the counts the log itself commits to."""
    node = node_of(request)
    format = answering.negotiate(accept)
    looked_through = search.searched(wanted, node.views)
    asking = await _begin(request, principal, "timeline", as_of=as_of, unsealed=unsealed, format=format, by=by)
    counts = await asyncio.to_thread(node.counts.of, asking.size, [view.name for view in looked_through])
    if bucket is None:
        bucket = timeline.automatic(timeline.span_of(counts or {}, wanted))
    if format == "json" and counts is not None and not unsealed and timeline.countable(wanted, bucket, by):
        rows = timeline.from_counts(counts, wanted, bucket, by)
        basis = {
            "snapshot": {"size": asking.size, "root": node.log.root(asking.size).hex()},
            "segments": {"read": 0, "verified": True},
        }
        asking.succeeded(rows=len(rows))
        return Json({**basis, "counted": "details", **_chart(rows, bucket, by)})
    views = looked_through if unsealed else _with_segments(node, looked_through)
    question = timeline.timeline(wanted, views, bucket, by)
    if format != "json":
        answer = await asking.run(question, format=format, limit=_COUNT_ROWS)
        return answering.answered(request, asking, answer, format)
    answer, found = await asking.rows(question, limit=_COUNT_ROWS)
    asking.succeeded(rows=len(found.rows))
    chart = _chart(found.rows, bucket, by)
    if found.truncated:
        chart["truncated"] = found.truncated
    told = {**answering.basis(answer), **asking.basis, "counted": "records", **chart}
    return Json(told, headers=answering.stated(answer) | asking.stated)


@router.get(
    "/v1/entities/{kind}/{value:path}",
    summary="Everything about one entity",
    responses={
        200: {
            "description": "When it was seen, in what, doing what, with whom",
            "content": {
                "application/json": {
                    "example": {
                        **_BASIS,
                        "kind": "access_key",
                        "value": "AKIAIOSFODNN7EXAMPLE",
                        "records": 1928,
                        "first_seen": "2023-07-10T11:42:18.000000Z",
                        "last_seen": "2023-07-10T12:37:50.000000Z",
                        "sources": [{"value": "cloudtrail", "records": 1928, "first_seen": "…", "last_seen": "…"}],
                        "actions": [{"value": "kms:Decrypt", "records": 161, "first_seen": "…", "last_seen": "…"}],
                        "outcomes": [],
                        "regions": [],
                        "accounts": [],
                        "peers": {"address": [{"value": "192.168.10.20", "records": 1542}], "principal": []},
                    }
                }
            },
        }
    },
)
async def entity_in_records(
    request: Request,
    principal: Annotated[Principal, Depends(MAY_ASK)],
    kind: Annotated[str, Path(description=f"One of {', '.join(KINDS)}.")],
    value: Annotated[str, Path(description="The value, exactly.")],
    wanted: Wanted,
    top: Annotated[int, Query(ge=1, le=1000, description="Most values of each list.")] = _TOP,
    as_of: Annotated[int | None, Query(ge=1, description="Tree size of an earlier answer's snapshot.")] = None,
    unsealed: Unsealed = False,
) -> Response:
    """First and last seen, sources, actions, outcomes, and the other entities in the same records: what to ask next."""
    node = node_of(request)
    wanted = search.about(wanted, f"{kind}:{value}")
    looked_through = search.searched(wanted, node.views)
    asking = await _begin(request, principal, "entity", as_of=as_of, unsealed=unsealed)
    views = looked_through if unsealed else _with_segments(node, looked_through)
    question = pivots.pivot(kind, wanted, views, top=top)
    answer, rows = await asking.rows(question, limit=node.engine.limits.rows)
    shown = pivots.shown(rows.rows)
    asking.succeeded(rows=shown["records"])
    body = {**answering.basis(answer), **asking.basis, "kind": kind, "value": value, **shown}
    return Json(body, headers=answering.stated(answer) | asking.stated)


async def _begin(
    request: Request, principal: Principal, action: str, *, as_of: int | None, unsealed: bool = False, **facts: Any
) -> Asking:
    """Record what is looked for, in words that can be asked again."""
    asker = Asker.of(request, principal)
    return await Asking.begin(
        node_of(request),
        asker,
        action,
        as_of=as_of,
        unsealed=unsealed,
        target=request.url.path,
        asked=str(request.url.query),
        **facts,
    )


def _with_segments(node: Node, views: Sequence[ViewSource]) -> list[ViewSource]:
    """Those views that have any rows: each view a statement names costs time to bind, empty or not."""
    present = node.engine.sources
    return [view for view in views if view.name in present]


def _addressed(node: Node, hit: dict[str, Any]) -> dict[str, Any]:
    """A hit with its address in one member, and where in the log its segment is named; none while it is not sealed."""
    segment, row = hit.pop("_segment"), hit.pop("_row")
    if MARK in hit:
        hit["sealed"] = hit.pop(MARK)
    if segment is None:
        return {**hit, "address": None}
    entry, position = node.engine.place(segment) or (None, None)
    return {**hit, "address": {"entry": entry, "position": position, "segment": segment, "row": row}}


def _chart(rows: list[list[Any]], bucket: Bucket, by: By) -> dict[str, Any]:
    timed = [{"start": start, "group": group, "records": n} for start, group, n in rows if start is not None]
    untimed = sum(n for start, _, n in rows if start is None)
    return {"bucket": bucket, "by": by, "buckets": timed, "without_time": untimed}


def _moment(text: str | None, name: str) -> datetime | None:
    return None if text is None else moment(text, name)
