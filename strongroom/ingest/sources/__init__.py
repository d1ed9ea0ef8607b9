"""Log sources: one module each, registry.py lists them.

source.py       what a source is                    times.py      event times
lines.py        text bodies                         lenient.py    reading odd records
jsonsplit.py    JSON bodies → exact records         fields.py     columns declared as paths
documents.py    one document and its records        outline.py    what a body looks like
repair.py       records around damage               declared.py   sources that need no code of their own
accesslog.py    lines of fields in quotes           custom.py     sources declared by operators
csvsplit.py     CSV bodies → exact rows
"""

from __future__ import annotations

from strongroom.ingest.sources.registry import BUILT_IN, HEAD_BYTES, SOURCES, Registry
from strongroom.ingest.sources.source import Broken, Source, Split

__all__ = ["BUILT_IN", "HEAD_BYTES", "SOURCES", "Broken", "Registry", "Source", "Split", "recognise"]

recognise = BUILT_IN.recognise
"""The built-in source that a body beginning so most likely belongs to."""
