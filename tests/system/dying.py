"""The real service, but for one thing: it is killed (SIGKILL, by itself) at a named point of its write path.

    python dying.py <point> <occurrence> serve …

Points are the arrows of the write path: `<step>-before` and `<step>-after`, for the steps below. Nothing in the product
knows of this: the steps are wrapped from outside.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from strongroom.archive import layout
from strongroom.archive.stores import DirectoryStore
from strongroom.ingest.batches import Batches
from strongroom.ingest.spool import Spool
from strongroom.service import cli

STEPS = ("fsync", "index", "segment", "details", "entry", "checkpoint", "release")
POINTS = tuple(f"{step}-{when}" for step in STEPS for when in ("before", "after"))


def main() -> None:
    point, occurrence = sys.argv[1], int(sys.argv[2])
    step, _, when = point.partition("-")
    seen = 0

    def dying(function: Callable[..., Any], applies: Callable[..., bool]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal seen
            mine = applies(*args)
            seen += mine
            if mine and seen == occurrence and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **kwargs)
            if mine and seen == occurrence:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    prefixes = {
        "segment": layout.SEGMENTS,
        "details": layout.DETAILS,
        "entry": layout.ENTRIES,
        "checkpoint": layout.CHECKPOINTS,
    }
    if step in prefixes:
        prefix = prefixes[step]
        DirectoryStore.create = dying(DirectoryStore.create, lambda _, key, __: key.startswith(prefix))  # type: ignore[method-assign]
    elif step == "fsync":
        Spool._sync = dying(Spool._sync, lambda *_: True)  # type: ignore[method-assign]
    elif step == "index":
        Batches.spooled = dying(Batches.spooled, lambda *_: True)  # type: ignore[method-assign]
    elif step == "release":
        Spool.release = dying(Spool.release, lambda *_: True)  # type: ignore[method-assign]
    sys.argv = ["strongroom", *sys.argv[3:]]
    cli.main()


if __name__ == "__main__":
    main()
