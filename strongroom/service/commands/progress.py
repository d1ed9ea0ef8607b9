"""How long work is shown on a terminal: how many of how many, bytes, rate, time left. Elsewhere nothing is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


class Bar:
    """Progress as a bar of bytes (ingest/fetch/backfill.py's Progress); its total is certain when all has been
    found."""

    def __init__(self, bar: Progress, things: str) -> None:
        self._bar, self._things = bar, things
        self._task = bar.add_task("listing", total=None)
        self._bytes = self._found = self._done = 0
        self._listing = True

    def found(self, objects: int, size: int) -> None:
        """So many more things, of so many bytes."""
        self._found, self._bytes = self._found + objects, self._bytes + size
        self._say()

    def found_all(self) -> None:
        """There are no more."""
        self._listing = False
        self._bar.update(self._task, total=self._bytes)
        self._say()

    def read(self, size: int) -> None:
        """So many more bytes came (negative: they come again)."""
        self._bar.advance(self._task, size)

    def done(self) -> None:
        """One more thing was dealt with."""
        self._done += 1
        self._say()

    def _say(self) -> None:
        more = " or more" if self._listing else ""
        self._bar.update(self._task, description=f"{self._done:,} of {self._found:,}{more} {self._things}")


@contextmanager
def shown(things: str) -> Iterator[Bar]:
    """A bar on standard error while the block runs, if that is a terminal. `things`: what is counted, in the plural."""
    screen = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as bar:
        yield Bar(bar, things)
