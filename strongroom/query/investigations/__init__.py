"""Ready investigations: questions that somebody who knows attacks has already written, as data.

Each is one TOML file in this folder: what it asks, what it shows, its parameters, one SELECT over the views, what its
columns mean, and what to ask next. Every row of every answer carries `_segment` and `_row`: the record itself, or,
where a row sums up many, the first of them (the largest, for sums), so that a proof starts from it.

docs/investigations.md is made from these files (a test compares), and each is held against a computation of its own
over the raw records (tests/service/test_investigations.py).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from strongroom.query.errors import InvestigationUnknown
from strongroom.query.questions.prepared import Parameter, Prepared, parameters_of, prepare

ADDRESS_COLUMNS = {
    "_segment": "address of the record, or of the first (largest) of those the row sums up",
    "_row": "its row in that segment",
}


class Investigation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ready question. `attack`: MITRE ATT&CK techniques; `sources`: the views it reads; `windowed`: prepared.py."""

    title: str
    question: str
    shows: str
    sources: tuple[str, ...]
    windowed: bool
    sql: str
    columns: dict[str, str]
    follow_ups: tuple[str, ...]
    attack: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    name: str = ""

    def prepare(self, given: Mapping[str, Any]) -> Prepared:
        """The question with its blanks filled. Raises ParameterInvalid."""
        return prepare(self.sql, self.parameters, given, windowed=self.windowed)

    def public(self) -> dict[str, Any]:
        """All of it, for people and programs."""
        shown: dict[str, Any] = msgspec.to_builtins(self)
        shown["parameters"] = msgspec.to_builtins(parameters_of(self.sql, self.parameters))
        shown["shows"] = " ".join(self.shows.split())
        shown["sql"] = self.sql.strip()
        shown["columns"] = self.columns | ADDRESS_COLUMNS
        return shown


@cache
def library() -> Mapping[str, Investigation]:
    """Every investigation by its name, in order of names."""
    found = {}
    for file in sorted(files(__name__).iterdir(), key=lambda item: item.name):
        if file.name.endswith(".toml"):
            name = file.name.removesuffix(".toml")
            content = tomllib.loads(file.read_text("utf-8"))
            found[name] = msgspec.convert(content | {"name": name}, Investigation)
    return found


def investigation(name: str) -> Investigation:
    """One of them. Raises InvestigationUnknown."""
    try:
        return library()[name]
    except KeyError:
        raise InvestigationUnknown(
            f"there is no investigation {name!r}", hint=f"there are {', '.join(library())}"
        ) from None
