"""The sources of this service: those of the program, and those its settings declare."""

from __future__ import annotations

from pathlib import Path

from strongroom.ingest.sources import BUILT_IN, Registry
from strongroom.ingest.sources.custom import DeclarationError
from strongroom.service.errors import SettingsInvalid


def registry(sources_file: Path | None) -> Registry:
    """All sources there are. Raises SettingsInvalid, which names the key that is wrong."""
    if sources_file is None:
        return BUILT_IN
    try:
        return Registry(sources_file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, DeclarationError) as error:
        problem = f"setting sources_file: {sources_file}: {error}"
        raise SettingsInvalid(problem, hint="docs/sources/custom.md tells how sources are declared") from None
