"""Alerts by HTTP POST, signed as Standard Webhooks describes (standardwebhooks.com), so that ready-made receivers fit.

`webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over `<webhook-id>.<webhook-timestamp>.<body>`. The time is
part of what is signed: a receiver refuses what is older than a few minutes, and an id it has seen.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec

from strongroom.service.alerts.alert import Alert
from strongroom.service.errors import AlertNotSent, SettingsInvalid

_PREFIX = "whsec_"
_TIMEOUT_SECONDS = 10.0


class WebhookSink:
    """POSTs alerts to `url`. 2xx is taken; 5xx, 429 and broken connections are tried again, all else is refused."""

    name = "webhook"

    def __init__(
        self,
        url: str,
        secret: bytes,
        *,
        waits: tuple[float, ...] = (1.0, 4.0, 16.0),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`waits`: seconds before each further try."""
        self._url, self._secret, self._waits, self._clock = url, secret, waits, clock

    async def send(self, alert: Alert) -> None:
        body = msgspec.json.encode({"type": f"strongroom.verification.{alert.kind}", "data": alert.to_json()})
        delivery = f"msg_{secrets.token_hex(12)}"
        said = ""
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, follow_redirects=False) as client:
            for wait in (0.0, *self._waits):
                await asyncio.sleep(wait)
                try:
                    answer = await client.post(self._url, content=body, headers=self._headers(delivery, body))
                except httpx.HTTPError as error:
                    said = str(error) or type(error).__name__
                    continue
                if answer.is_success:
                    return
                said = f"HTTP {answer.status_code}"
                if answer.status_code < 500 and answer.status_code != 429:
                    break
        raise AlertNotSent(f"webhook {httpx.URL(self._url).host}: {said}")

    def _headers(self, delivery: str, body: bytes) -> dict[str, str]:
        """Fresh for each try: the time is of the try, the id of the delivery."""
        moment = str(int(self._clock()))
        return {
            "Content-Type": "application/json",
            "webhook-id": delivery,
            "webhook-timestamp": moment,
            "webhook-signature": sign(self._secret, delivery, moment, body),
        }


def sign(secret: bytes, delivery: str, moment: str, body: bytes) -> str:
    """The signature header of one try."""
    mac = hmac.digest(secret, b".".join((delivery.encode(), moment.encode(), body)), "sha256")
    return f"v1,{base64.b64encode(mac).decode()}"


def read_secret(path: Path) -> bytes:
    """The secret in a file: `whsec_` and base64, of at least 24 bytes. Raises SettingsInvalid."""
    hint = f"make one: echo {_PREFIX}$(openssl rand -base64 32) > {path}"
    try:
        text = path.read_text("ascii").strip()
        secret = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (OSError, ValueError, binascii.Error) as error:
        raise SettingsInvalid(f"webhook secret {path}: {error}", hint=hint) from None
    if len(secret) < 24:
        raise SettingsInvalid(f"webhook secret {path}: shorter than 24 bytes", hint=hint)
    return secret
