"""What a question may read beside its snapshot: records that are acknowledged and not sealed yet.

Whoever takes records in has them (ingest/unsealed.py); a question that asks for them gets them from there through this
protocol, as files like segments. Nothing vouches for their content: they are under no root, nobody checks them, and no
`as_of` brings them back. So they never come uncalled, and their rows are marked (views.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from strongroom.archive.segment import UNIVERSAL
from strongroom.query.views import Files, ViewSource


class Unsealed(Protocol):
    """Records beyond a snapshot."""

    @property
    def size(self) -> int:
        """Tree size of the one snapshot that they are beyond: over any other, a row could come twice or not at all."""
        ...

    async def files(self, sources: Collection[str]) -> Mapping[str, Path]:
        """Source -> Parquet file of its records, with the columns of a segment; of these sources only.

        Raises StrongroomError.
        """
        ...

    def close(self) -> None:
        """The files are needed no more. Any number of times."""
        ...


async def files_of(unsealed: Unsealed, sources: Sequence[ViewSource]) -> Mapping[str, Files]:
    """What the views of `sources` read of it, by source. Raises what `unsealed` raises."""
    schemas = {source.name: source.schema for source in sources}
    found = await unsealed.files(schemas.keys())
    return {
        name: Files(frozenset([*UNIVERSAL.names, *schemas[name].names]), (), [path], sealed=False)
        for name, path in found.items()
    }
