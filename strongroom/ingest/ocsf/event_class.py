"""A class of events as a view: its columns, and the parts of it that sources have. The words most classes share.

A part says for each column what it is in its source, as SQL over the source's columns; `raw` is the record as text.
What every event has comes from the source's mapping to the view `events` and is not said again: time, account, region,
outcome (as `status`), severity, identity, message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from strongroom.ingest.sources import journal, syslog
from strongroom.ingest.sources.source import Source

VERSION = "1.1.0"

TEXT, BIG, INT, BOOL = "VARCHAR", "BIGINT", "INTEGER", "BOOLEAN"
UIDS = "STRUCT(uid VARCHAR)[]"

_COMMON: Mapping[str, str] = {
    "time": BIG,
    "time_dt": "TIMESTAMPTZ",
    **dict.fromkeys(("class_uid", "category_uid", "activity_id", "severity_id", "status_id"), INT),
    "type_uid": BIG,
    **dict.fromkeys(
        ("class_name", "category_name", "activity_name", "type_name", "severity", "status", "message"), TEXT
    ),
    **{f"metadata.{name}": TEXT for name in ("uid", "version", "product.name", "product.vendor_name")},
    **{f"cloud.{name}": TEXT for name in ("provider", "account.uid", "region", "zone")},
}
ACTOR = {
    **{f"actor.user.{n}": TEXT for n in ("type", "name", "uid", "uid_alt", "account.uid", "credential_uid")},
    "actor.session.issuer": TEXT,
    "actor.session.is_mfa": BOOL,
    "actor.session.created_time": BIG,
    "actor.invoked_by": TEXT,
    "actor.idp.name": TEXT,
}
API = {
    f"api.{name}": TEXT
    for name in ("operation", "version", "service.name", "request.uid", "response.error", "response.message")
}
HTTP = {
    **{f"http_request.{n}": TEXT for n in ("user_agent", "http_method", "version", "url.hostname", "url.path", "uid")},
    "http_response.code": INT,
}
USER = {f"user.{name}": TEXT for name in ("name", "uid", "uid_alt")}


def endpoint(side: str) -> Mapping[str, str]:
    names = ("ip", "hostname", "domain", "svc_name", "instance_uid", "interface_uid", "vpc_uid", "subnet_uid")
    return {
        **{f"{side}_endpoint.{name}": TEXT for name in names},
        f"{side}_endpoint.port": INT,
        f"{side}_endpoint.intermediate_ips": "VARCHAR[]",
    }


BOTH_ENDS = {**endpoint("src"), **endpoint("dst")}
CONNECTION = {
    "connection_info.protocol_num": INT,
    "connection_info.protocol_name": TEXT,
    "connection_info.protocol_ver": TEXT,
    "connection_info.tcp_flags": INT,
    "connection_info.direction_id": INT,
    "connection_info.direction": TEXT,
}
DISPOSITION = {"disposition_id": INT, "disposition": TEXT}
FINDING = {
    **{f"finding_info.{name}": TEXT for name in ("uid", "title", "desc")},
    "finding_info.types": "VARCHAR[]",
    **{f"finding_info.{n}_time": BIG for n in ("created", "modified", "first_seen", "last_seen")},
    "resources": "STRUCT(uid VARCHAR, type VARCHAR)[]",
    "remediation.desc": TEXT,
}


_LINUX: tuple[Source, ...] = (journal.SOURCE, syslog.SOURCE)

DISPOSITIONS = {0: "Unknown", 1: "Allowed", 2: "Blocked", 16: "No Action"}


@dataclass(frozen=True)
class Part:
    """The events of a class that one source has. `where`, `activity` and values are SQL over the source's columns."""

    source: Source
    where: str
    activity: str
    """The class's number for what was done."""
    product: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class OcsfClass:
    """One class as a view."""

    name: str
    class_uid: int
    class_name: str
    category_uid: int
    category_name: str
    activities: Mapping[int, str]
    own: Mapping[str, str]
    """The class's own columns, written with dots, and their SQL types."""
    parts: tuple[Part, ...]

    @property
    def columns(self) -> Mapping[str, str]:
        """All columns of the view with their SQL types."""
        return {**_COMMON, **self.own}

    @property
    def description(self) -> str:
        """For people."""
        return (
            f"OCSF {self.class_name} ({self.class_uid}) from {', '.join(sorted({p.source.name for p in self.parts}))}"
        )

    def values(self, part: Part) -> Mapping[str, str]:
        """What each column is in a part."""
        assert part.values.keys() <= self.columns.keys(), part.values.keys() - self.columns.keys()
        return {**self._common(part), **part.values}

    def _common(self, part: Part) -> Mapping[str, str]:
        events = part.source.events
        outcome, severity, activity = f"({events['outcome']})", f"lower({events['severity']})", f"({part.activity})"
        return {
            "time": "epoch_ms(event_time)",
            "time_dt": "event_time",
            "class_uid": str(self.class_uid),
            "class_name": f"'{self.class_name}'",
            "category_uid": str(self.category_uid),
            "category_name": f"'{self.category_name}'",
            "activity_id": activity,
            "activity_name": named(activity, self.activities),
            "type_uid": f"{self.class_uid * 100} + {activity}",
            "type_name": f"'{self.class_name}: ' || coalesce({named(activity, self.activities)}, 'Unknown')",
            "severity_id": f"coalesce({numbered(severity, _SEVERITIES)}, 1)",
            "severity": f"coalesce({named(numbered(severity, _SEVERITIES), _SEVERITY_NAMES)}, 'Informational')",
            "status_id": f"CASE {outcome} WHEN 'success' THEN 1 WHEN 'failure' THEN 2 WHEN 'denied' THEN 2 ELSE 0 END",
            "status": f"CASE {outcome} WHEN 'success' THEN 'Success' WHEN 'failure' THEN 'Failure'"
            " WHEN 'denied' THEN 'Failure' ELSE 'Unknown' END",
            "message": events["message"],
            "metadata.uid": events["event_id"],
            "metadata.version": f"'{VERSION}'",
            "metadata.product.name": f"'{part.product}'",
            "metadata.product.vendor_name": "'Linux'" if part.source in _LINUX else "'AWS'",
            "cloud.provider": "NULL" if part.source in _LINUX else "'AWS'",
            "cloud.account.uid": events["account"],
            "cloud.region": events["region"],
        }


_SEVERITIES = {"informational": 1, "low": 2, "medium": 3, "high": 4, "critical": 5, "fatal": 6}
_SEVERITY_NAMES = {number: name.capitalize() for name, number in _SEVERITIES.items()}


def named(number: str, names: Mapping[int, str]) -> str:
    whens = " ".join(f"WHEN {key} THEN '{name}'" for key, name in names.items())
    return f"CASE {number} {whens} END"


def numbered(name: str, numbers: Mapping[str, int]) -> str:
    whens = " ".join(f"WHEN '{key}' THEN {number}" for key, number in numbers.items())
    return f"CASE {name} {whens} END"


def json_text(*paths: str) -> str:
    # TRY: DuckDB refuses what other parsers take (half a surrogate pair), and one record must not fail a whole query.
    found = ", ".join(f"nullif(TRY(raw->>'$.{path}'), '')" for path in paths)
    return f"coalesce({found})"


def milliseconds(time: str) -> str:
    return f"epoch_ms(TRY_CAST({time} AS TIMESTAMPTZ))"
