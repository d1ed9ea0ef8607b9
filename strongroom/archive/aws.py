"""How boto3 clients are made: one at a time, each in a session of its own, over one copy of AWS's descriptions.

botocore reads the descriptions of services on first use, which is not thread-safe, and once a session: megabytes of
JSON, a fifth of a second for each client. With sessions of their own, credentials and Region are what the environment
says at the time.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

_making = threading.Lock()


def make_client(service: str, **options: Any) -> Any:
    """A thread-safe client; `options` as boto3 takes them. Raises ImportError without boto3, and botocore's errors."""
    import boto3
    from botocore.session import get_session

    with _making:
        session = get_session()
        session.register_component("data_loader", _descriptions())
        return boto3.session.Session(botocore_session=session).client(service, **options)


@cache
def _descriptions() -> Any:
    from botocore.loaders import create_loader

    return create_loader()
