"""Everything about one entity, across all sources: when, what, with whom. Pure: from an entity to SQL, and back.

An entity is a kind and a value: an address, a principal, an access key, a resource, a host, an account, an event id.
Its records are those that have the value in any column of its kind (search.py, rule 2). Peers are the other entities
in these records, each with the number of records it shares: the next steps of an investigation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from strongroom.query.questions.prepared import Prepared
from strongroom.query.questions.search import Bound, Filters, hits, narrowing
from strongroom.query.views import ViewSource, literal, quoted

FACETS = ("source", "action", "outcome", "region", "account")
PEERS = ("address", "principal", "access_key", "resource", "host", "account")
_PEER = "STRUCT(kind VARCHAR, value VARCHAR)[]"

# Names and expressions are ours, quoted; values of a question are bound, never pasted.
# ruff: noqa: S608


def pivot(kind: str, filters: Filters, views: Sequence[ViewSource], *, top: int) -> Prepared:
    """The question for (facet, value, records, first, last); `filters` names the entity, of `kind`.

    Facets are FACETS, and `peer:<kind>`: the `top` most frequent values of each, in these views.
    """
    bound = Bound()
    more = {view.name: {"_peers": _peers(view)} for view in views} or {"": {"_peers": ""}}  # no view: no row either
    found = hits(filters, views, bound, more)
    value = bound.add(filters.entities[0][1])
    facets = " UNION ALL ".join(
        f"SELECT {literal(name)} AS facet, {quoted(name)} AS value, count(*) AS records, min(event_time) AS first, "
        f"max(event_time) AS last FROM found WHERE {quoted(name)} IS NOT NULL GROUP BY ALL"
        for name in FACETS
    )
    peers = (
        "SELECT 'peer:' || peer.kind AS facet, peer.value AS value, count(*) AS records, min(event_time) AS first, "
        f"max(event_time) AS last FROM "
        f"(SELECT event_time, unnest(list_distinct(CAST(_peers AS {_PEER}))) AS peer FROM found) "
        f"WHERE peer.value IS NOT NULL AND NOT (peer.kind = {literal(kind)} AND peer.value = {value}) GROUP BY ALL"
    )
    columns = "facet, value, records, first, last"
    ranked = (
        f"SELECT {columns}, row_number() OVER (PARTITION BY facet ORDER BY records DESC, value) AS rank "
        f"FROM (SELECT {columns} FROM facets UNION ALL SELECT {columns} FROM peers)"
    )
    sql = (
        f"WITH found AS MATERIALIZED ({found}), facets AS ({facets}), peers AS ({peers}), ranked AS ({ranked}) "
        f"SELECT {columns} FROM ranked WHERE rank <= {bound.add(top)} OR facet = 'source' "
        "ORDER BY facet, records DESC, value"
    )
    return Prepared(sql, bound.used(sql), narrowing(filters))


def shown(rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The rows of `pivot` as one document."""
    by_facet: dict[str, list[Mapping[str, Any]]] = {}
    for facet, value, records, first, last in rows:
        item = {"value": value, "records": records, "first_seen": first, "last_seen": last}
        by_facet.setdefault(facet, []).append(item)
    sources = by_facet.get("source", [])
    return {
        "records": sum(item["records"] for item in sources),
        "first_seen": min((item["first_seen"] for item in sources if item["first_seen"]), default=None),
        "last_seen": max((item["last_seen"] for item in sources if item["last_seen"]), default=None),
        **{f"{name}s": by_facet.get(name, []) for name in FACETS},
        "peers": {kind: by_facet.get(f"peer:{kind}", []) for kind in PEERS},
    }


def _peers(view: ViewSource) -> str:
    """The entities of a row, as a list of (kind, value)."""
    texts = {column.name for column in view.schema if str(column.type) in ("string", "large_string")}
    columns = [(kind, name) for kind in PEERS for name in view.entities.get(kind, ())]
    one = [f"struct_pack(kind := {literal(k)}, value := {quoted(n)})" for k, n in columns if n in texts]
    many = [
        f"list_transform({quoted(n)}, lambda x: struct_pack(kind := {literal(k)}, value := x))"
        for k, n in columns
        if n not in texts
    ]
    single = f"CAST(list_value({', '.join(one)}) AS {_PEER})" if one else f"CAST([] AS {_PEER})"
    parts = [single, *(f"coalesce(CAST({item} AS {_PEER}), CAST([] AS {_PEER}))" for item in many)]
    joined = parts[0]
    for part in parts[1:]:
        joined = f"list_concat({joined}, {part})"
    return joined
