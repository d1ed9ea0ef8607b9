"""What can go wrong between a question and its answer.

    StrongroomError
    └── QueryError                  position: where in the SQL, if known; transient: the same question may work later
        ├── QueryRefused            the statement check does not let this statement through
        ├── QueryInvalid            the SQL is wrong: syntax, unknown column, a value that does not convert
        ├── QueryTimeout            ran longer than the limit and was killed
        ├── QueryOutOfMemory        needed more memory than the limit
        ├── QueryTooLarge           would read more than the budget; it did not run
        ├── QueryBusy               transient: every slot is taken
        ├── QueryFailed             transient: the worker died or broke its protocol; nobody else is affected
        ├── ParameterInvalid        a value for a search or a ready question is missing, misspelt or of the wrong type
        ├── InvestigationUnknown    no ready investigation of that name
        ├── CursorInvalid           this cursor does not continue this search
        ├── SnapshotUnknown         as_of names a tree size this log does not have (yet)
        └── IntegrityFailure        a segment is not what its entry says; the query did not run

The tree's root and the rules for codes, messages and hints are in strongroom/archive/errors.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from strongroom.archive.errors import StrongroomError


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the SQL text: `line` and `column` count from 1, in characters; `offset` from 0, in characters."""

    line: int
    column: int
    offset: int

    @staticmethod
    def at_byte(sql: str, byte_offset: int) -> Position | None:
        """The place `byte_offset` bytes into the UTF-8 form of `sql` (DuckDB counts bytes); None when outside."""
        encoded = sql.encode()
        if not 0 <= byte_offset <= len(encoded):
            return None
        before = encoded[:byte_offset].decode(errors="replace")
        line_start = before.rfind("\n") + 1
        return Position(before.count("\n") + 1, len(before) - line_start + 1, len(before))


class QueryError(StrongroomError):
    """Base of everything a query can fail with."""

    code = "query"
    transient: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", position: Position | None = None) -> None:
        super().__init__(message, hint=hint)
        self.position = position

    def __str__(self) -> str:
        where = f"line {self.position.line}, column {self.position.column}: " if self.position else ""
        return where + super().__str__()


class QueryRefused(QueryError):
    """The statement is not a plain question over the views."""

    code = "query-refused"


class QueryInvalid(QueryError):
    """The database could not make sense of the statement, or of a value it met."""

    code = "query-invalid"


class QueryTimeout(QueryError):
    """The time limit ended before the query did."""

    code = "query-timeout"


class QueryOutOfMemory(QueryError):
    """The memory limit ended before the query did."""

    code = "query-memory"


class QueryTooLarge(QueryError):
    """Answering would read more bytes of segments than one query may."""

    code = "query-too-large"


class QueryBusy(QueryError):
    """Every slot, or every slot of this user, is taken."""

    code = "query-busy"
    transient = True


class QueryFailed(QueryError):
    """The worker ended in a way that is nobody's stated limit."""

    code = "query-failed"
    transient = True


class SnapshotUnknown(QueryError):
    """No such tree size."""

    code = "snapshot-unknown"


class ParameterInvalid(QueryError):
    """A parameter that is not what the question declares."""

    code = "parameter-invalid"


class InvestigationUnknown(QueryError):
    """No such ready investigation."""

    code = "investigation-unknown"


class CursorInvalid(QueryError):
    """A cursor of another search, or none at all."""

    code = "cursor-invalid"


class IntegrityFailure(QueryError):
    """Stored bytes differ from what the log commits to. An answer without them would look whole, so there is none."""

    code = "integrity-failure"

    def __init__(self, message: str, *, segment: str, expected: str, actual: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.segment = segment
        self.expected = expected
        self.actual = actual
