"""How a command that takes logs in ends: what was refused, whether it was stopped, and an exit code that says so."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import islice

import typer

QUARANTINED = 3
SHOWN = 20


def conclude(refused: Iterable[tuple[str, str]], *, interrupted: bool, clean: bool) -> None:
    """Tell stderr the first refusals (what, why) and of a stop before the end. Raises typer.Exit unless `clean`."""
    for what, reason in islice(refused, SHOWN):
        print(f"strongroom: refused {what}: {reason}", file=sys.stderr)
    if interrupted:
        print("strongroom: stopped before the end; repeat it to go on", file=sys.stderr)
    if not clean:
        raise typer.Exit(QUARANTINED)
