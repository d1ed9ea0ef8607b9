"""`strongroom` on a clock that a test sets: seconds in a file are added to what `datetime.now` and `time.time` say.

The monotonic clock goes on undisturbed, as it does when an operator or a time server sets the real one. The
verification the service starts takes part too.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import sys
import time
from pathlib import Path
from typing import Any

VARIABLE = "TEST_CLOCK_FILE"


def _offset() -> float:
    try:
        return float(Path(os.environ[VARIABLE]).read_text() or 0)
    except (OSError, ValueError):
        return 0.0


_REAL = datetime.datetime


class _Kind(type):
    def __instancecheck__(cls, item: object) -> bool:
        return isinstance(item, _REAL)


class SteppingDatetime(datetime.datetime, metaclass=_Kind):
    """`datetime`, but for `now`. Makes real ones, however it is asked: encoders look at the exact type."""

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        return _REAL(*arguments, **named)

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return _REAL.now(tz) + datetime.timedelta(seconds=_offset())


_TIME = time.time


def main() -> None:
    datetime.datetime = SteppingDatetime  # type: ignore[misc]
    time.time = lambda: _TIME() + _offset()
    start = asyncio.create_subprocess_exec

    async def on_this_clock(program: str, *arguments: str, **options: Any) -> Any:
        if arguments[:2] == ("-m", "strongroom.service.cli"):
            arguments = (__file__, *arguments[2:])
        return await start(program, *arguments, **options)

    asyncio.create_subprocess_exec = on_this_clock  # type: ignore[assignment]
    from strongroom.service import cli

    cli.main()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
