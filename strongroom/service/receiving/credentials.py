"""Where forwarders put their token: every push protocol has its own place for it. Pure.

    bearer      Authorization: Bearer <token>
    splunk      Authorization: Splunk <token>
    basic       Authorization: Basic base64(<any user>:<token>); also <token>: with nothing behind the colon
    apikey      Authorization: ApiKey <token>, or base64(<any id>:<token>) as Elasticsearch writes it
    x-…         a header of that name, with the token alone

Never in the query: URLs end up in logs. What is found is compared elsewhere (tokens.py), in constant time.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

PREFIX = "sr_"


def token_in(headers: Mapping[str, str], places: tuple[str, ...]) -> str | None:
    """The token's text, None when the request names none in any of `places`. Header names are lower-case."""
    for place in places:
        if place.startswith("x-"):
            if place in headers:
                return headers[place].strip()
            continue
        scheme, _, rest = headers.get("authorization", "").strip().partition(" ")
        if scheme.lower() != place or not rest.strip():
            continue
        return _pair(rest.strip()) if place in ("basic", "apikey") else rest.strip()
    return None


def _pair(text: str) -> str:
    """The token in `user:token`, in base64 or not. What can't be read is returned as it is, and will not match."""
    if text.startswith(PREFIX):
        return text
    try:
        decoded = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        decoded = text
    user, _, secret = decoded.partition(":")
    return secret or user
