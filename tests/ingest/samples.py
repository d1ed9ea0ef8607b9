"""The real logs kept in tests/samples, and the larger collection beside the repository where there is one."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

SAMPLES = Path(__file__).parents[1] / "samples"
SHARED = Path(os.environ.get("STRONGROOM_SHARED", Path(__file__).parents[3] / "shared")) / "data"


def body(path: Path) -> bytes:
    """A file's content, gzip undone."""
    content = path.read_bytes()
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def files(root: Path) -> list[Path]:
    """All logs below `root`."""
    return sorted(p for p in root.rglob("*") if p.is_file() and p.suffix != ".md")
