"""boto3 clients of the services logs are fetched from, and their failures as ours.

boto3 is installed only where AWS is used (`pip install 'strongroom[aws]'`). Credentials are its own matter: instance
roles, profiles, environment. It retries what may pass, a few times with growing pauses; what is left is said to be
passing (BucketUnavailable) or not (BucketRefused), because a caller waits for the one and gives up on the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from strongroom.archive import aws
from strongroom.ingest.errors import BucketRefused, BucketUnavailable, ObjectGone

_PASSING = frozenset(
    {
        "RequestTimeout", "RequestTimeTooSkewed", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests",
        "TooManyRequestsException", "RequestThrottled", "OverLimit", "KMS.ThrottlingException", "KmsThrottled",
        "IncompleteBody",
    }
)  # fmt: skip
_GONE = frozenset({"NoSuchKey", "NoSuchVersion", "404", "PreconditionFailed", "412", "MethodNotAllowed", "405"})
_HINT = "see docs/forwarders/s3.md for the permissions that are needed"


@dataclass(frozen=True, slots=True)
class Access:
    """How AWS is reached. "" leaves region and endpoint to AWS's usual settings; `connections` bounds those at once."""

    region: str = ""
    endpoint_url: str = ""
    connections: int = 32


def client(service: str, access: Access, region: str = "") -> Any:
    """A thread-safe client of an AWS service, in `region` if given. Raises BucketRefused."""
    try:
        import boto3  # noqa: F401 (is it there?)
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise BucketRefused("fetching from AWS needs boto3", hint="pip install 'strongroom[aws]'") from None
    config = Config(
        connect_timeout=5,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 4},
        max_pool_connections=access.connections,
        s3={"addressing_style": "path" if access.endpoint_url else "auto"},
    )
    try:
        return aws.make_client(
            service,
            region_name=region or access.region or None,
            endpoint_url=access.endpoint_url or None,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise BucketRefused(f"{service}: {error}", hint="set pull_region or AWS_REGION") from None


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Requests about `what` (for the message); their failures as BucketUnavailable, BucketRefused or ObjectGone."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        found = error.response.get("Error", {})
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        code = str(found.get("Code", status))
        said = f"{what}: {found.get('Message') or code} ({code})"
        if code in _GONE:
            raise ObjectGone(said) from None
        if status >= 500 or code in _PASSING:
            raise BucketUnavailable(said, hint="it is tried again") from error
        raise BucketRefused(said, hint=_HINT) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise BucketRefused(f"{what}: {error}", hint="give the process an AWS role or credentials") from None
    except (BotoCoreError, HTTPError, OSError) as error:
        raise BucketUnavailable(f"{what}: {error}", hint="check the network and the endpoint") from error
