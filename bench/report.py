"""How figures are told: rows of a table, and the same as JSON with every round's value.

A row says what was measured, the figure with its range, what it is held against, and the ratio. Ratios are of medians.
The JSON describes the machine in general words only: it may be published.
"""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from bench.measure import Spread

_LIBRARIES = ("duckdb", "pyarrow", "isal", "msgspec", "uvicorn")


@dataclass(frozen=True, slots=True)
class Ratio:
    """Strongroom's figure over the rival's (of medians). Whether large is good depends on the unit."""

    against: str
    value: float


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    figure: Spread
    unit: str
    ratios: tuple[Ratio, ...] = ()
    note: str = ""
    share: float | None = None
    """Of the section's whole, 0 … 1."""


@dataclass(frozen=True, slots=True)
class Section:
    """The rows that answer one question, and the facts behind them for the JSON."""

    title: str
    rows: tuple[Row, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


def machine() -> dict[str, Any]:
    """This machine and its software, in words that name nobody."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "processor": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in _LIBRARIES},
    }


def show(section: Section, console: Console) -> None:
    """Print its table."""
    table = Table("", "median", "min … max", "", "against", title=section.title, title_justify="left")
    for column in (1, 2):
        table.columns[column].justify = "right"
    for row in section.rows:
        figure = row.figure
        spread = "" if figure.low == figure.high else f"{_number(figure.low)} … {_number(figure.high)}"
        if row.share is not None:
            spread = f"{row.share:.0%}"
        against = "\n".join(f"×{ratio.value:.2f} {ratio.against}" for ratio in row.ratios)
        what = f"{row.what}\n[dim]{row.note}[/]" if row.note else row.what
        table.add_row(what, _number(figure.median), spread, row.unit, against)
    console.print(table)


def save(sections: Iterable[Section], settings: Mapping[str, Any], path: Path) -> None:
    """Write everything to `path` as JSON."""
    told = {"machine": machine(), "settings": settings, "sections": [asdict(section) for section in sections]}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n")


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
