"""How long what is sealed must be kept: rules by source, and which object falls under which. Pure.

A rule is a mode and a number of days from sealing, as in S3 Object Lock: COMPLIANCE binds everybody, GOVERNANCE can be
lifted by whoever has the permission to. Which rule an object falls under follows from its name alone, so every writer
and every verifier comes to the same answer:

* A segment falls under its source's rule, or the default where the source has none.
* Everything else (entries, details, checkpoints, cosignatures, timestamps, tiles, orders, reports, archive.json) falls
  under the strictest rule: the longest time and the strongest mode of all. A record is proven by its entry and by a
  checkpoint over the whole log before it. With the log kept shorter than the segments, the last years of a segment's
  life would be years in which it can't be proven; and the log is small.
* Spool objects and canaries fall under none: they are short-lived, and are locked as whoever puts them says.

What a rule gave when an object was sealed is a **promise** and stands in the entry (docs/format.md §4.6). A rule
changed later binds what is sealed later. Promises are only ever extended, by orders (archive/retention/orders.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

from strongroom.archive import entry as entries
from strongroom.archive import layout
from strongroom.archive.errors import FormatError

Mode = Literal["GOVERNANCE", "COMPLIANCE"]
MODES: tuple[Mode, ...] = ("GOVERNANCE", "COMPLIANCE")  # ascending strength

DEFAULT = "default"
MEMBER = "retention"  # of an entry's data
SPOOL = "spool/"

_RULE = re.compile(r"(?:(?P<mode>GOVERNANCE|COMPLIANCE)\s+)?(?P<days>[1-9][0-9]{0,5})(?:\s*d(?:ays?)?)?", re.IGNORECASE)
MAX_DAYS = 36_500  # what S3 takes


@dataclass(frozen=True, slots=True)
class Rule:
    """Keep for `days` from sealing."""

    mode: Mode
    days: int

    def __str__(self) -> str:
        return f"{self.mode} {self.days} days"


@dataclass(frozen=True, slots=True)
class Promise:
    """Kept until this moment (aware, whole seconds), locked in this mode."""

    mode: Mode
    until: datetime


@dataclass(frozen=True, slots=True)
class Retention:
    """The rules of one archive. Without any nothing is promised, and the store's own rule applies."""

    default: Rule | None = None
    sources: Mapping[str, Rule] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.default is not None or bool(self.sources)

    @property
    def strictest(self) -> Rule | None:
        """The longest time and the strongest mode of all rules."""
        return _strictest(rule for rule in (self.default, *self.sources.values()) if rule is not None)

    def rule_of(self, key: str) -> Rule | None:
        """The rule an object falls under, None when nothing is promised for it."""
        if key.startswith((SPOOL, layout.CANARIES)):
            return None
        source = layout.segment_source(key)
        return self.strictest if source is None else self.sources.get(source, self.default)

    def promise(self, key: str, now: datetime) -> Promise | None:
        """What is promised for an object that is sealed `now`."""
        rule = self.rule_of(key)
        if rule is None:
            return None
        # Up to the second: S3 keeps no more, and a lock must never end before its promise.
        until = (now + timedelta(days=rule.days, microseconds=999_999)).replace(microsecond=0)
        return Promise(rule.mode, until.astimezone(UTC))

    def raised_to(self, floor: Rule | None) -> Retention:
        """These rules, none of them weaker or shorter than `floor`: a bucket's default retention."""
        if floor is None:
            return self
        sources = {source: _raised(rule, floor) for source, rule in self.sources.items()}
        return Retention(_raised(self.default, floor) if self.default else floor, sources)


def parse(rules: Mapping[str, str]) -> Retention:
    """The rules in their written form: source (or `default`) -> `COMPLIANCE 400 days`, `GOVERNANCE 90`, `365`.

    Without a mode: COMPLIANCE. Raises FormatError, which names the source.
    """
    parsed: dict[str, Rule] = {}
    for source, text in rules.items():
        match = _RULE.fullmatch(text.strip())
        if match is None or int(match["days"]) > MAX_DAYS:
            raise FormatError(f"retention of {source}: {text!r} is not like `COMPLIANCE 400 days`")
        if source != DEFAULT and not layout.SOURCE_NAME.fullmatch(source):
            raise FormatError(f"retention: {source!r} is no source's name")
        parsed[source] = Rule(cast(Mode, (match["mode"] or "COMPLIANCE").upper()), int(match["days"]))
    return Retention(parsed.pop(DEFAULT, None), parsed)


def stated(promises: Mapping[str, Promise]) -> dict[str, Any]:
    """The member `retention` of an entry's data: what is promised for the segments it names, by source."""
    return {
        source: {"mode": promise.mode, "until": entries.timestamp(promise.until)}
        for source, promise in sorted(promises.items())
    }


def promised(entry: entries.Entry, key: str) -> Promise | None:
    """What an entry promises for an object it names (or for itself), None when it promises nothing that can be read.

    `mode` is COMPLIANCE for objects other than segments only where the entry says so for one of its segments; else
    GOVERNANCE, the weakest that counts.
    """
    said = _said(entry)
    source = layout.segment_source(key)
    if source is not None:
        return said.get(source)
    if entry.retain_until is None:
        return None
    mode: Mode = "COMPLIANCE" if any(promise.mode == "COMPLIANCE" for promise in said.values()) else "GOVERNANCE"
    return Promise(mode, entries.parse_timestamp(entry.retain_until))


def _said(entry: entries.Entry) -> dict[str, Promise]:
    """The promises by source in an entry's data; what is malformed there promises nothing."""
    member = entry.data.get(MEMBER)
    found: dict[str, Promise] = {}
    for source, promise in member.items() if isinstance(member, dict) else ():
        try:
            mode, until = promise["mode"], entries.parse_timestamp(promise["until"])
        except (TypeError, KeyError, FormatError):
            continue
        if mode in MODES:
            found[source] = Promise(mode, until)
    return found


def _raised(rule: Rule, floor: Rule) -> Rule:
    return cast(Rule, _strictest((rule, floor)))


def _strictest(rules: Iterable[Rule]) -> Rule | None:
    known = tuple(rules)
    if not known:
        return None
    return Rule(max((rule.mode for rule in known), key=MODES.index), max(rule.days for rule in known))
