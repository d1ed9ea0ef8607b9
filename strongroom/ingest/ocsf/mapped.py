"""Events that came in OCSF already: the part of every view that the source `ocsf` has.

Each column is the member of the same path, as the record has it. Where the schema renamed a member since the release
candidate of 1.0, in which Security Lake's first tables are, its older path is asked as well; its classes with another
number then, API Activity and Security Finding, are told by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from strongroom.ingest.ocsf.event_class import TEXT, OcsfClass, Part
from strongroom.ingest.sources import ocsf

_OLDER: Mapping[str, str] = {
    "actor.user.uid_alt": "actor.user.uuid",
    "user.uid_alt": "user.uuid",
    "actor.user.account.uid": "actor.user.account_uid",
    "cloud.account.uid": "cloud.account_uid",
    "actor.session.is_mfa": "actor.session.mfa",
    "is_mfa": "mfa",
    "remediation.desc": "finding.remediation.desc",
}
_FINDING, _OLDER_FINDING = "finding_info.", "finding."
_HAS_COMPLIANCE = "TRY(raw->>'$.compliance.status') IS NOT NULL"
_WHERE: Mapping[int, str] = {
    6003: "class_uid = 6003 OR class_name = 'API Activity'",
    2004: f"class_uid = 2004 OR (class_uid = 2001 AND NOT {_HAS_COMPLIANCE})",
    2003: f"class_uid = 2003 OR (class_uid = 2001 AND {_HAS_COMPLIANCE})",
}
# What the class itself says, or what is computed from it: not asked of the record.
_OF_THE_VIEW = frozenset(
    {"time", "time_dt", "class_uid", "class_name", "category_uid", "category_name", "activity_id"}
    | {"type_uid", "type_name", "metadata.version"}
)


def with_mapped(item: OcsfClass) -> OcsfClass:
    """The class with one more part."""
    values = {name: _value(name, kind) for name, kind in item.columns.items() if name not in _OF_THE_VIEW}
    values |= {"cloud.account.uid": "account", "metadata.uid": "event_id", "activity_name": "activity_name"}
    part = Part(ocsf.SOURCE, _WHERE.get(item.class_uid, f"class_uid = {item.class_uid}"), "activity_id", "", values)
    return replace(item, parts=(*item.parts, part))


def _value(column: str, kind: str) -> str:
    older = column.replace(_FINDING, _OLDER_FINDING) if column.startswith(_FINDING) else _OLDER.get(column)
    paths = [column] if older is None else [column, older]
    return f"coalesce({', '.join(_member(path, kind) for path in paths)})"


def _member(path: str, kind: str) -> str:
    # TRY: DuckDB refuses what other parsers take (half a surrogate pair), and one record must not fail a whole query.
    if kind == TEXT:
        return f"nullif(TRY(raw->>'$.{path}'), '')"
    arrow = "->" if kind.endswith("[]") else "->>"
    return f"TRY_CAST(TRY(raw{arrow}'$.{path}') AS {kind})"
