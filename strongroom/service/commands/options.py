"""The options that most commands share, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

ConfigOption = Annotated[
    Path | None, typer.Option("--config", envvar="STRONGROOM_CONFIG", help="TOML file with settings.")
]
ArchiveOption = Annotated[str | None, typer.Option("--archive", help="The archive: a folder, or s3://bucket/prefix.")]
StateOption = Annotated[Path | None, typer.Option("--state", help="Folder of keys, tokens, spool, memory.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsOfOption = Annotated[int | None, typer.Option("--as-of", min=1, help="Tree size of an earlier snapshot.")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Most rows.")]
FormatOption = Annotated[Literal["table", "json", "ndjson", "csv"], typer.Option("--format", "-f")]
