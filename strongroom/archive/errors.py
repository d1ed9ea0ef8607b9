"""Every error Strongroom raises on purpose descends from one tree.

    StrongroomError
    ├── ArchiveError
    │   ├── ObjectExists        create-if-absent lost: somebody else holds the name
    │   ├── ObjectMissing       no such object
    │   ├── StoreUnavailable    the store did not answer, or the outcome of a write is unknown; try again
    │   │   ├── KeyUnavailable  what holds a key did not answer; try again
    │   │   │   └── KeyWithheld a key that encrypted objects is disabled, deleted, denied or unknown here
    │   │   └── StoreRefused    the store said no and will again: permissions, or a rule of its own; nothing was written
    │   ├── FormatError         stored or received bytes break docs/format.md
    │   ├── KeyUnusable         a key is missing, malformed, or must not be used here
    │   └── SignerRefused       the signer will not sign what the store shows
    ├── ingest/errors.py: IngestError …
    └── query/errors.py:  QueryError …

Each class has a stable `code`. A message says what is wrong and where; `hint` says what to do about it. HTTP turns them
into RFC 9457 problem details in one place (service/problems.py), the command line into exit codes in one place
(service/cli.py). What verification discovers is not an exception but a value: a finding
(archive/verification/findings.py).
"""

from __future__ import annotations

from typing import ClassVar


class StrongroomError(Exception):
    """Base of all errors raised on purpose: a message for a person, a hint, a stable code."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ArchiveError(StrongroomError):
    """Something about the archive itself."""

    code = "archive"


class ObjectExists(ArchiveError):
    """Create-if-absent found the name taken."""

    code = "object-exists"


class ObjectMissing(ArchiveError):
    """No object of that name."""

    code = "object-missing"


class StoreUnavailable(ArchiveError):
    """The store failed in a way that may pass; the outcome of a write is unknown until read back."""

    code = "store-unavailable"


class KeyUnavailable(StoreUnavailable):
    """The service that holds a key failed in a way that may pass; nothing was signed, sealed or read."""

    code = "key-unavailable"


class KeyWithheld(KeyUnavailable):
    """A wrapping key is disabled, deleted, denied or unknown here: batches wait, what it sealed can't be read."""


class StoreRefused(StoreUnavailable):
    """The store refused, and will again until somebody changes permissions or settings; nothing was written."""

    code = "store-refused"


class FormatError(ArchiveError):
    """Bytes that break the archive format."""

    code = "format"


class KeyUnusable(ArchiveError):
    """A signing or verification key is missing, malformed, or not usable here."""

    code = "key"


class SignerRefused(ArchiveError):
    """The signer found the store inconsistent with its memory or with the format and will not sign."""

    code = "signer-refused"
