"""Timestamps over checkpoints by an outside authority (RFC 3161), kept beside the log.

Now and then the newest checkpoint's hash is sent to the authority. Its answer must hold under the certificates this
node was given, for these bytes and this request, before it is kept as `log/timestamp/<size>.tsr`; verification holds it
against the verifier's own certificates, without the authority (archive/timestamps.py).

Sealing never waits for it: a failure is logged, counted, and tried again, each time after a longer pause. Replicas may
stamp the same checkpoint; the first answer is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import httpx
import structlog
from cryptography import x509

from strongroom.archive import layout, timestamps
from strongroom.archive.errors import FormatError, ObjectExists, StrongroomError
from strongroom.archive.log import Log
from strongroom.archive.stores.store import ObjectStore
from strongroom.service.errors import TimestampRefused
from strongroom.service.proving.cosigning import newest_checkpoint

log = structlog.get_logger(__name__)

MAX_REPLY_BYTES = 64 << 10
_TIMEOUT_SECONDS = 20.0
_FIRST_PAUSE_SECONDS = 10.0


class Timestamping:
    """Has one log's checkpoints stamped, at most every `seconds`."""

    def __init__(
        self, store: ObjectStore, log: Log, url: str, roots: Sequence[x509.Certificate], seconds: float
    ) -> None:
        self._store, self._log, self._url, self._roots, self._seconds = store, log, url, tuple(roots), seconds
        self.size = 0
        self.stated: datetime | None = None
        self.failures = 0
        self.problem = ""

    async def run(self) -> None:
        """Stamp until cancelled."""
        await asyncio.to_thread(self._recall)
        pause = _FIRST_PAUSE_SECONDS
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, follow_redirects=False) as client:
            await asyncio.sleep(self._still_fresh())
            while True:
                try:
                    await self.stamp(client)
                except (StrongroomError, httpx.HTTPError, OSError) as error:
                    self.failures += 1
                    self.problem = str(error) or type(error).__name__
                    log.warning("no timestamp", authority=self._url, failures=self.failures, detail=self.problem)
                    await asyncio.sleep(min(pause, self._seconds))
                    pause = min(2 * pause, self._seconds)
                else:
                    pause = _FIRST_PAUSE_SECONDS
                    await asyncio.sleep(self._seconds)

    async def stamp(self, client: httpx.AsyncClient) -> int | None:
        """Have the newest checkpoint stamped, unless it is; its size, None when there was nothing to do.

        Raises TimestampRefused, httpx.HTTPError, StrongroomError.
        """
        newest = await asyncio.to_thread(newest_checkpoint, self._store, self._log)
        if newest is None or newest[0] <= self.size:
            return None
        size = newest[0]
        checkpoint = await asyncio.to_thread(self._store.get, layout.checkpoint_key(size))
        asked = timestamps.request(checkpoint)
        begun = time.monotonic()
        reply = await self._ask(client, asked.data)
        try:
            stated = timestamps.verify(reply, checkpoint, self._roots, asked.nonce)
        except FormatError as error:
            raise TimestampRefused(error.message, hint="are tsa_roots the authority's certificates?") from None
        with contextlib.suppress(ObjectExists):
            await asyncio.to_thread(self._store.create, layout.timestamp_key(size), reply)
        self.size, self.stated, self.problem = size, stated, ""
        log.info("timestamp", size=size, stated=stated.isoformat(), seconds=round(time.monotonic() - begun, 3))
        return size

    async def _ask(self, client: httpx.AsyncClient, request: bytes) -> bytes:
        headers = {"Content-Type": timestamps.QUERY_TYPE, "Accept": timestamps.REPLY_TYPE}
        reply = b""
        async with client.stream("POST", self._url, content=request, headers=headers) as answer:
            if answer.status_code != 200:
                raise TimestampRefused(f"HTTP {answer.status_code}")
            async for chunk in answer.aiter_bytes():
                reply += chunk
                if len(reply) > MAX_REPLY_BYTES:
                    raise TimestampRefused(f"an answer of more than {MAX_REPLY_BYTES} bytes")
        return reply

    def _recall(self) -> None:
        """The newest timestamp there is, so that restarts don't ask more often than told."""
        sizes = [layout.size_of_statement(info.key) for info in self._store.list(layout.TIMESTAMPS)]
        for size in sorted((size for size in sizes if size is not None), reverse=True)[:1]:
            with contextlib.suppress(StrongroomError):
                checkpoint = self._store.get(layout.checkpoint_key(size))
                kept = self._store.get(layout.timestamp_key(size))
                self.stated = timestamps.verify(kept, checkpoint, self._roots)
                self.size = size

    def _still_fresh(self) -> float:
        """Seconds until the next timestamp is due; none when the clock says something odd."""
        if self.stated is None:
            return 0.0
        age = (datetime.now(UTC) - self.stated).total_seconds()
        return self._seconds - age if 0 <= age < self._seconds else 0.0
