"""The two things SNS makes us fetch: its certificate, kept for as long as the service runs, and a confirmation.

Which URLs may be fetched is decided before (ingest/protocols/sns.py); here no redirect is followed, little is read, and
it is given up quickly, because SNS waits 15 seconds and tries again.
"""

from __future__ import annotations

from typing import Protocol

import httpx

from strongroom.service.errors import OutsideUnavailable

_SECONDS = 2.5
_MAX_BYTES = 64 << 10
_MAX_KEPT = 64


class Fetch(Protocol):
    """Fetches a URL; `keep`: what never changes under it. Raises OutsideUnavailable."""

    async def __call__(self, url: str, *, keep: bool) -> bytes: ...


class Fetcher:
    """Fetches over HTTPS."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    async def __call__(self, url: str, *, keep: bool) -> bytes:
        """The body at `url`. Raises OutsideUnavailable."""
        if keep and url in self._kept:
            return self._kept[url]
        try:
            async with httpx.AsyncClient(timeout=_SECONDS, follow_redirects=False) as client:
                answer = await client.get(url)
        except httpx.HTTPError as error:
            raise OutsideUnavailable(f"{url}: {type(error).__name__}", hint="can this machine reach it?") from None
        if answer.status_code != 200 or len(answer.content) > _MAX_BYTES:
            raise OutsideUnavailable(f"{url}: {answer.status_code}, {len(answer.content)} bytes")
        if keep and len(self._kept) < _MAX_KEPT:
            self._kept[url] = answer.content
        return answer.content
