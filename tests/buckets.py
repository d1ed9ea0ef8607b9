"""Buckets on a real S3 API on loopback: moto's server in a process of its own, started once for all that asks.

A test asks for `s3` (tests/conftest.py) and makes buckets with it. Another S3 can stand in: the address in
`STRONGROOM_TEST_S3`, its credentials in the usual AWS variables.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from strongroom.archive.stores.s3 import S3Store
from strongroom.archive.stores.s3client import S3Options, make_client
from tests import kms_api

REGION = "eu-central-1"


@dataclass(frozen=True)
class S3:
    """One S3 API. `environment` is what a process needs to reach it."""

    url: str

    @property
    def options(self) -> S3Options:
        return S3Options(region=REGION, endpoint_url=self.url, path_style=True, attempts=3, timeout_seconds=20)

    @property
    def environment(self) -> dict[str, str]:
        """Settings and credentials of a service whose archive is in a bucket here."""
        return CREDENTIALS | {
            "STRONGROOM_S3_REGION": REGION,
            "STRONGROOM_S3_ENDPOINT_URL": self.url,
            "STRONGROOM_S3_PATH_STYLE": "true",
        }

    @property
    def client(self) -> Any:
        """A boto3 client: whoever has the bucket's credentials, an insider included."""
        return make_client(self.options)

    def new_bucket(self, *, lock: bool = True) -> str:
        """A new bucket's name; versioned, with Object Lock, unless told otherwise."""
        name = f"strongroom-test-{secrets.token_hex(6)}"
        self.client.create_bucket(
            Bucket=name,
            ObjectLockEnabledForBucket=lock,
            CreateBucketConfiguration={"LocationConstraint": REGION},
        )
        return name

    def new_store(self, *, lock: bool = True, prefix: str = "", **options: Any) -> S3Store:
        """A store in a new bucket of its own."""
        return S3Store.open(self.new_bucket(lock=lock), prefix, options=replace(self.options, **options))


CREDENTIALS = {name: os.environ.get(name, value) for name, value in kms_api.ENVIRONMENT.items()}


@contextmanager
def running() -> Iterator[S3]:
    """The S3 that `STRONGROOM_TEST_S3` names, or moto's for as long as the context lasts."""
    os.environ.update(CREDENTIALS)
    if address := os.environ.get("STRONGROOM_TEST_S3"):
        yield S3(address)
        return
    with kms_api.running() as url:
        yield S3(url)
