"""How one bucket is reached: options, the boto3 client, and its failures as ours.

boto3 retries what may pass (throttling, 5xx, timeouts, broken connections) with growing, random pauses, and nothing
else. An answer whose headers were cut off counts as a broken connection. What is left becomes one of four errors:

    404 NoSuchKey, NoSuchVersion, 405 on a marker    ObjectMissing
    412 PreconditionFailed                           ObjectExists
    other 4xx, 501: permissions, rules, no such bucket   StoreRefused: nothing was written, and trying again is no use
    5xx, throttling, timeouts, damage on the way     StoreUnavailable: a write may or may not have happened

Source: Amazon S3 API reference, "Error responses"; boto3's "standard" retry mode.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from strongroom.archive import aws
from strongroom.archive.errors import ObjectExists, ObjectMissing, StoreRefused, StoreUnavailable
from strongroom.archive.retention.rules import Retention

LockMode = Literal["", "GOVERNANCE", "COMPLIANCE"]
MIB = 1 << 20

# Codes of answers with a 4xx status that are about one request on its way, not about what was asked.
_PASSING = frozenset(
    {
        "BadDigest", "ConditionalRequestConflict", "IncompleteBody", "OperationAborted", "RequestTimeout",
        "RequestTimeTooSkewed", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests",
        "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "KMS.ThrottlingException",
    }
)  # fmt: skip
_ABSENT = frozenset({"404", "NoSuchKey", "NoSuchVersion", "MethodNotAllowed", "405"})
_HINTS = {
    "AccessDenied": "docs/s3.md lists the permissions each role needs",
    "403": "docs/s3.md lists the permissions each role needs",
    "NoSuchBucket": "check the name, the account and the region",
    "ExpiredToken": "renew the credentials",
    "InvalidRequest": "an object is locked only in a bucket made with Object Lock",
}


@dataclass(frozen=True, slots=True)
class S3Options:
    """How a bucket is reached and what each object put there gets.

    `region` "" leaves it to AWS's usual settings (AWS_REGION, profile). `allowed_regions`: a bucket elsewhere is
    refused when the store is opened; empty means `region` alone, when that is given. `lock_mode` and `retain_days`
    are the least protection of every object; "" and 0 leave it to the bucket's own default. `retention`: the archive's
    rules; an object is locked as the rule says that its name falls under, where that is stricter. Files over
    `multipart_bytes` are put, and objects over it read, in parts of that size, `threads` at once.
    """

    region: str = ""
    endpoint_url: str = ""
    path_style: bool = False
    fips: bool = False
    lock_mode: LockMode = ""
    retain_days: int = 0
    retention: Retention = field(default_factory=Retention)
    kms_key: str = ""
    allowed_regions: tuple[str, ...] = ()
    multipart_bytes: int = 64 * MIB
    threads: int = 4
    attempts: int = 5
    timeout_seconds: float = 30.0


def make_client(options: S3Options) -> Any:
    """A thread-safe client. Raises StoreRefused when boto3 is missing or the options don't fit together."""
    try:
        import boto3  # noqa: F401 (is it there?)
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise StoreRefused("an archive in S3 needs boto3", hint="pip install 'strongroom[aws]'") from None
    # "auto" is virtual-host style where AWS's certificates allow it, but always path style at other addresses.
    style = "path" if options.path_style else "virtual" if options.endpoint_url else "auto"
    try:
        config = Config(
            connect_timeout=min(options.timeout_seconds, 5.0),
            read_timeout=options.timeout_seconds,
            retries={"mode": "standard", "total_max_attempts": options.attempts},
            max_pool_connections=32,
            use_fips_endpoint=options.fips or None,
            s3={"addressing_style": style},
            # Every checksum is ours, computed before the first byte leaves; S3-compatible stores know no other way.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        client = aws.make_client(
            "s3", region_name=options.region or None, endpoint_url=options.endpoint_url or None, config=config
        )
    except (BotoCoreError, ValueError) as error:
        raise StoreRefused(f"S3: {error}", hint="check the s3_ settings and AWS_REGION") from None

    def when_cut(attempts: int, response: Any = None, **_: Any) -> float | None:
        """Seconds to wait before the request is sent again; None for an answer that is whole, or none at all."""
        from botocore.exceptions import ConnectionClosedError

        if response is None or _is_whole(response[0]):
            return None
        if attempts >= options.attempts:
            raise ConnectionClosedError(endpoint_url=response[0].url, error="the answer's headers were cut off")
        return random.uniform(0, min(0.1 * 2.0**attempts, 10.0))  # noqa: S311

    client.meta.events.register("needs-retry.s3", when_cut)
    return client


def _is_whole(answer: Any) -> bool:
    """Whether the headers of an HTTP answer reach as far as those that say where its body ends.

    Over plain HTTP the end of a connection looks like the end of the headers, and what was cut off like an object
    without a lock or a list without names. TLS tells the difference.
    """
    stated = {name.lower() for name in answer.headers}
    return answer.status_code == 204 or not stated.isdisjoint({"content-length", "transfer-encoding"})


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Requests about `what` (for the message), their failures as the errors this module's docstring lists."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        code, status = code_of(error)
        said = f"{what}: {error.response.get('Error', {}).get('Message') or code} ({code})"
        if code in _ABSENT:
            raise ObjectMissing(said) from error
        if status == 412:
            raise ObjectExists(f"{what} exists") from None
        if (status >= 500 and status != 501) or code in _PASSING:
            raise StoreUnavailable(said, hint="it may pass: try again") from error
        raise StoreRefused(said, hint=_HINTS.get(code, "")) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise StoreRefused(f"{what}: {error}", hint="give the process an AWS role or credentials") from None
    except (BotoCoreError, HTTPError, ConnectionError) as error:
        raise StoreUnavailable(f"{what}: {error}", hint="check the network and s3_endpoint_url") from error


def code_of(error: Any) -> tuple[str, int]:
    """(error code, HTTP status) of a botocore ClientError; ("", 0) of any other error, which has no answer."""
    answer = getattr(error, "response", None)
    if not answer:
        return "", 0
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return str(answer.get("Error", {}).get("Code", status)), status
