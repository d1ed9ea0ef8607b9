"""Text for a terminal, out of bytes that strangers wrote."""

from __future__ import annotations

import json
from typing import Any


def printable(value: Any) -> str:
    """`value` as one line without control characters: what a log record holds must not steer the terminal."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
