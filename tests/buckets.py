"""Buckets on a real S3 API on loopback: moto's server in a process of its own, started once for all that asks.

A test asks for `s3` (tests/conftest.py) and makes buckets with it. Another S3 can stand in: its address in
`STRONGROOM_TEST_S3`, its credentials in the usual AWS variables, and what it can't do, for the tests that need it, in
`STRONGROOM_TEST_S3_LACKS`: `conditions` (If-None-Match), `checksums` (SHA-256 kept and checked), `regions`, `kms`.

With `STRONGROOM_TEST_STORE=s3` (`make test-s3`) the archives of all tests that ask for `store_at` or `location_of` lie
in a bucket instead of a folder. Tests that reach for the folder's files then skip themselves: they play an insider who
changes files, and what an insider can do to a bucket is tests/archive/test_safeguards.py.
"""

from __future__ import annotations

import atexit
import functools
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PosixPath
from typing import Any, NoReturn

import pytest

from strongroom.archive.stores.directory import DirectoryStore
from strongroom.archive.stores.s3 import S3Store
from strongroom.archive.stores.s3client import S3Options, make_client
from tests import kms_api

CREDENTIALS = {name: os.environ.get(name, value) for name, value in kms_api.ENVIRONMENT.items()}
REGION = CREDENTIALS["AWS_REGION"]


@dataclass(frozen=True)
class S3:
    """One S3 API. `environment` is what a process needs to reach it."""

    url: str

    def needs(self, *abilities: str) -> None:
        """Skip the test where the server lacks one."""
        if lacking := set(abilities) & set(os.environ.get("STRONGROOM_TEST_S3_LACKS", "").split(",")):
            pytest.skip(f"this S3 lacks {', '.join(sorted(lacking))}")

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

    @functools.cached_property
    def client(self) -> Any:
        """A boto3 client: whoever has the bucket's credentials, an insider included."""
        return make_client(self.options)

    def new_bucket(self, *, lock: bool = True) -> str:
        """A new bucket's name; versioned, with Object Lock, unless told otherwise."""
        name = f"strongroom-test-{secrets.token_hex(6)}"
        where = {} if REGION == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": REGION}}
        self.client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=lock, **where)
        return name

    def new_store(self, *, lock: bool = True, prefix: str = "", **options: Any) -> S3Store:
        """A store in a new bucket of its own."""
        return S3Store.open(self.new_bucket(lock=lock), prefix, options=replace(self.options, **options))


@contextmanager
def running() -> Iterator[S3]:
    """The S3 that `STRONGROOM_TEST_S3` names, or moto's for as long as the context lasts."""
    os.environ.update(CREDENTIALS)
    if address := os.environ.get("STRONGROOM_TEST_S3"):
        yield S3(address)
        return
    with kms_api.running() as url:
        yield S3(url)


@functools.cache
def shared() -> S3:
    """One for the whole test run, started when the first test asks."""
    until_exit = ExitStack()
    atexit.register(until_exit.close)
    return until_exit.enter_context(running())


def in_buckets() -> bool:
    """Whether the archives of tests lie in buckets."""
    return os.environ.get("STRONGROOM_TEST_STORE") == "s3"


def location_of(folder: Path) -> str:
    """Where the archive of a test is whose folder would be `folder`."""
    return f"s3://{_bucket(folder)}/{_prefix(folder)}" if in_buckets() else str(folder)


def environment() -> dict[str, str]:
    """What a process needs to open the archives of tests."""
    return shared().environment if in_buckets() else {}


def store_at(folder: Path) -> Any:
    """The store of the archive whose folder would be `folder`, made when it is missing."""
    if in_buckets():
        return S3Store.open(_bucket(folder), _prefix(folder), options=shared().options)
    return DirectoryStore(folder, create=True)


def files_of(folder: Path) -> Path:
    """The archive's folder, for a test that changes its files; where there is none, using it skips the test."""
    return _NoFolder(folder) if in_buckets() else folder


@functools.cache
def _bucket(folder: Path) -> str:
    """One for each archive: moto's lists take as long as their bucket is full, whatever their prefix."""
    return shared().new_bucket()


def _prefix(folder: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_=./-]", "-", str(folder)).strip("/")


def _skip(*_: object) -> NoReturn:
    pytest.skip("plays with the archive's files")


class _NoFolder(PosixPath):
    __truediv__ = absolute = exists = glob = iterdir = rglob = __fspath__ = __str__ = _skip
