"""boto3, which is installed only where AWS is used (`pip install strongroom[aws]`), and its errors as ours.

Region, credentials and endpoints are boto3's own matter (AWS_REGION, AWS_ENDPOINT_URL, instance roles, …).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from strongroom.service.errors import AlertNotSent, SettingsInvalid


def client(service: str) -> Any:
    """A client of an AWS service, with few tries: an alert that is not taken is sent again later anyway.

    Raises SettingsInvalid when boto3 is not installed.
    """
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise SettingsInvalid(
            "alerts to AWS need boto3, which is not installed", hint="install it: pip install 'strongroom[aws]'"
        ) from None
    bounds = Config(connect_timeout=10, read_timeout=20, retries={"total_max_attempts": 4, "mode": "standard"})
    return boto3.client(service, config=bounds)


async def call(who: str, function: Callable[..., dict[str, Any]], **arguments: Any) -> dict[str, Any]:
    """Call a client's method in a thread. Raises AlertNotSent."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return await asyncio.to_thread(function, **arguments)
    except (BotoCoreError, ClientError) as error:
        raise AlertNotSent(f"{who}: {error}") from None
