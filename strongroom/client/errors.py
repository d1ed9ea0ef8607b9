"""What can go wrong, as exceptions that carry what the service said (RFC 9457).

ClientError
├── Unreachable             no answer: no connection, or none in time
├── AnswerBroken            the answer broke off: what came is not the whole of it, and is not given
├── JobFailed               a job ended without a result (jobs.py)
└── Problem                 the service answered with a problem: status, code, title, detail, hint, position
    ├── Refused             400, 406, 409, 413: it will never work as it was asked
    ├── Forbidden           401, 403: the token is not good for this
    ├── NotFound            404
    ├── ArchiveDamaged      500: stored bytes are not what was sealed; tell whoever runs verification
    └── Unavailable         503: it may work later (`retry_after` seconds)
"""

from __future__ import annotations

from typing import Any

import httpx


class ClientError(Exception):
    """Base of everything this package raises."""


class Unreachable(ClientError):
    """The service did not answer."""


class AnswerBroken(ClientError):
    """The answer broke off in the middle."""


class Problem(ClientError):
    """A problem details answer. `facts` holds every member, those that have no attribute here too."""

    def __init__(self, status: int, facts: dict[str, Any], retry_after: float | None = None) -> None:
        self.status = status
        self.facts = facts
        self.code = str(facts.get("code", ""))
        self.title = str(facts.get("title", ""))
        self.detail = str(facts.get("detail", ""))
        self.hint = str(facts.get("hint", ""))
        self.position: dict[str, int] | None = facts.get("position")
        self.retry_after = retry_after
        super().__init__(self._text())

    def _text(self) -> str:
        place = f" at line {self.position['line']}, column {self.position['column']}" if self.position else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.code or self.status}: {self.detail or self.title}{place}{hint}"


class Refused(Problem):
    """It will never work as it was asked."""


class Forbidden(Problem):
    """The token is not good for this."""


class NotFound(Problem):
    """There is none."""


class ArchiveDamaged(Problem):
    """Stored bytes are not what was sealed."""


class Unavailable(Problem):
    """It may work later."""


_KINDS: dict[int, type[Problem]] = {
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    500: ArchiveDamaged,
    503: Unavailable,
}


def problem_of(response: httpx.Response) -> Problem:
    """The exception for an answer that is none. The response must have been read."""
    try:
        facts = response.json()
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        facts = {"code": "http", "title": response.reason_phrase, "detail": response.text[:500]}
    kind = _KINDS.get(response.status_code, Refused if response.status_code < 500 else Unavailable)
    wait = response.headers.get("Retry-After", "")
    return kind(response.status_code, facts, float(wait) if wait.isdigit() else None)
