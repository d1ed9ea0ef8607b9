"""The demo's bucket: an S3 API on loopback (moto's, a test server), and what an insider tries on what lies in it."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from strongroom.archive.stores.s3client import S3Options, make_client

_REGION = "eu-central-1"
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo", "AWS_REGION": _REGION}
Attempt = tuple[str, str]


@contextmanager
def running() -> Iterator[dict[str, str]]:
    """A locked bucket; what a process must have in its environment to keep its archive there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    os.environ.update(_CREDENTIALS)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(url, server)
        bucket = f"demo-{secrets.token_hex(4)}"
        _client(url).create_bucket(
            Bucket=bucket,
            ObjectLockEnabledForBucket=True,
            CreateBucketConfiguration={"LocationConstraint": _REGION},
        )
        yield _CREDENTIALS | {
            "STRONGROOM_ARCHIVE": f"s3://{bucket}/archive",
            "STRONGROOM_S3_REGION": _REGION,
            "STRONGROOM_S3_ENDPOINT_URL": url,
            "STRONGROOM_S3_PATH_STYLE": "true",
            "STRONGROOM_S3_LOCK_MODE": "COMPLIANCE",
            "STRONGROOM_S3_RETAIN_DAYS": "1",
        }
    finally:
        server.kill()
        server.wait()


def attempts(environment: dict[str, str]) -> Iterator[Attempt]:
    """What whoever holds the bucket's credentials can try on one segment, and what the store says to each."""
    client = _client(environment["STRONGROOM_S3_ENDPOINT_URL"])
    bucket = environment["STRONGROOM_ARCHIVE"].split("/")[2]
    page = client.list_object_versions(Bucket=bucket, Prefix="archive/segments/source=cloudtrail/")
    segment = max(page["Versions"], key=lambda item: int(item["Size"]))
    where = {"Bucket": bucket, "Key": segment["Key"]}
    exact = where | {"VersionId": segment["VersionId"]}
    yield "delete the segment's version", _said(lambda: client.delete_object(**exact))
    yield (
        "the same, bypassing governance",
        _said(lambda: client.delete_object(**exact, BypassGovernanceRetention=True)),
    )
    yield "put other content on its name", _said(lambda: client.put_object(**where, Body=b"nothing happened here"))
    yield "delete the name", _said(lambda: client.delete_object(**where))


def _said(attempt: Any) -> str:
    from botocore.exceptions import ClientError

    try:
        answer = attempt()
    except ClientError as error:
        return f"refused: {error.response['Error']['Code']}"
    return "a delete marker, on top" if answer.get("DeleteMarker") else "a newer version, on top"


def _client(url: str) -> Any:
    return make_client(S3Options(region=_REGION, endpoint_url=url, path_style=True))


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{url}/moto-api/", timeout=1)
            return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    raise SystemExit("the S3 API of the demo did not start: pip install 'moto[server]'")
