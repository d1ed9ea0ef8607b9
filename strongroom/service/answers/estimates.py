"""What a question would read, as it is told over HTTP and on the command line."""

from __future__ import annotations

from typing import Any

from strongroom.query.engine import QueryEngine, Reading


def told(engine: QueryEngine, reading: Reading) -> dict[str, Any]:
    """The estimate's members; `budget_bytes` is None where any number may be read."""
    return {
        "segments": {"total": reading.total, "read": reading.read, "pruned": reading.pruned},
        "records": reading.records,
        "bytes": reading.bytes,
        "budget_bytes": engine.limits.read_bytes or None,
        "refused": not engine.within_budget(reading),
    }
