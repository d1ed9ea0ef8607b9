"""Questions with blanks: SQL with declared parameters, and how given values fill them. Pure.

Rules:

1. Values are bound by DuckDB, never pasted. What a template pastes is its own text: `{window}` becomes the condition
   that a time lies in the asked window, `{window:expression}` the same for another column, `true` when no window is
   asked: then records that claim no time are in the answer too.
2. Every value is checked against its declared type before anything runs, and an unknown name is an error: a misspelt
   parameter must not leave a question quietly wider than it was meant.
3. A template says what it is about (`windowed`, a parameter's `entity`) only where that holds for every row it reads;
   then segments outside need not be opened (narrowing.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from strongroom.query.errors import ParameterInvalid
from strongroom.query.holdings.narrowing import Narrowing

ParameterType = Literal["text", "integer", "number", "boolean", "time"]

SINCE, UNTIL = "since", "until"
_WINDOW = re.compile(r"\{window(?::([A-Za-z_][\w.]*))?\}")


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One blank. Without a `default` a value must be given. `entity`: the kind of entity it names, if rule 3 holds."""

    name: str
    type: ParameterType
    description: str = ""
    default: str | int | float | bool | None = None
    entity: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A question ready to run: one SELECT, values for its parameters, and what it is about."""

    sql: str
    parameters: list[Any] | dict[str, Any] | None = None
    narrowing: Narrowing | None = None


WINDOW = (
    Parameter(SINCE, "time", "Only what happened at or after this time."),
    Parameter(UNTIL, "time", "Only what happened before this time."),
)


def has_window(sql: str) -> bool:
    """Whether the template takes `since` and `until`."""
    return _WINDOW.search(sql) is not None


def parameters_of(sql: str, declared: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
    """All parameters of a template: those declared, and the window's where it has one."""
    return (*declared, *WINDOW) if has_window(sql) else declared


def prepare(sql: str, declared: tuple[Parameter, ...], given: Mapping[str, Any], *, windowed: bool = False) -> Prepared:
    """Fill the blanks of a template. `given` may hold text for any type. Raises ParameterInvalid."""
    wanted = {parameter.name: parameter for parameter in parameters_of(sql, declared)}
    if unknown := sorted(given.keys() - wanted.keys()):
        hint = f"its parameters are {', '.join(wanted)}" if wanted else "it has none"
        raise ParameterInvalid(f"there is no parameter {unknown[0]!r}", hint=hint)
    values: dict[str, Any] = {}
    for name, parameter in wanted.items():
        value = given.get(name)
        if value is not None:
            values[name] = _checked(parameter, value)
        elif parameter.default is not None:
            values[name] = parameter.default
        elif name not in (SINCE, UNTIL):
            raise ParameterInvalid(f"the parameter {name!r} is missing", hint=parameter.description)
    since, until = values.get(SINCE), values.get(UNTIL)
    text = _WINDOW.sub(lambda found: _window(found[1] or "event_time", since, until), sql)
    bound = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}
    entities = tuple((p.entity, values[p.name]) for p in wanted.values() if p.entity and values.get(p.name))
    narrowing = Narrowing(since if windowed else None, until if windowed else None, entities=entities)
    return Prepared(text, bound or None, narrowing if narrowing != Narrowing() else None)


def moment(text: str, name: str) -> datetime:
    """A time as people write it: ISO 8601, a date alone too; without a zone it is UTC. Raises ParameterInvalid."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ParameterInvalid(
            f"{name}: {text[:60]!r} is no time", hint="write 2026-01-31 or 2026-01-31T12:00:00Z"
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _window(column: str, since: datetime | None, until: datetime | None) -> str:
    bounds = [
        f"{column} {sign} CAST(${name} AS TIMESTAMPTZ)"
        for name, sign, value in ((SINCE, ">=", since), (UNTIL, "<", until))
        if value is not None
    ]
    return f"({' AND '.join(bounds)})" if bounds else "true"


def _checked(parameter: Parameter, value: Any) -> Any:
    """A given value as the declared type has it."""
    kind, name = parameter.type, parameter.name
    match kind, value:
        case "text", str():
            return value
        case "time", str():
            return moment(value, name)
        case "boolean", bool():
            return value
        case "boolean", "true" | "false":
            return value == "true"
        case "integer", str() if re.fullmatch(r"-?[0-9]{1,18}", value):
            return int(value)
        case "integer", int() if not isinstance(value, bool) and abs(value) < 1 << 62:
            return value
        case "number", int() | float() if not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        case "number", str():
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if math.isfinite(number):
                return number
    article = "an" if kind == "integer" else "a"
    raise ParameterInvalid(f"{name}: {str(value)[:60]!r} is not {article} {kind}", hint=parameter.description)
