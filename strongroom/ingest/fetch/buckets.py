"""Buckets that logs are fetched from: an object as a checked stream, and what a prefix holds.

An object is fetched by its version, so that what is sealed is what was announced, not what took its name since. Where
there are no versions the ETag must still be that of the announcement (If-Match): an object that was replaced is gone,
and its successor has an announcement of its own. Length and ETag are compared, boto3 checks the checksum where the
bucket keeps one, and a stream that ends early is an error. Methods block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from strongroom.ingest.errors import BucketUnavailable, ObjectMismatch
from strongroom.ingest.fetch import aws
from strongroom.ingest.fetch.aws import Access
from strongroom.ingest.fetch.objects import Perimeter, S3Object

_PAGE = 1000


class Download(Protocol):
    """An object being read. `object` has the version, ETag and size that the bucket gave."""

    object: S3Object
    metadata: dict[str, str]

    def read(self, size: int) -> bytes:
        """The next bytes, b"" at the end. Raises BucketUnavailable, also when the end came too early."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...


class Page(NamedTuple):
    """One page of a listing."""

    objects: list[S3Object]
    folders: list[str]


class S3Download:
    """A download from S3. One thread at a time."""

    def __init__(self, object: S3Object, metadata: dict[str, str], body: Any) -> None:
        self.object, self.metadata = object, metadata
        self._body, self._read = body, 0

    def read(self, size: int) -> bytes:
        """See Download.read."""
        with aws.translated(self.object.name):
            chunk: bytes = self._body.read(size)
        self._read += len(chunk)
        if not chunk and self._read != self.object.size:
            raise BucketUnavailable(f"{self.object.name}: {self._read} of {self.object.size} bytes came")
        return chunk

    def close(self) -> None:
        """See Download.close."""
        self._body.close()


class Buckets:
    """The buckets of a perimeter, through one client. Thread-safe."""

    def __init__(self, access: Access, perimeter: Perimeter) -> None:
        """Raises BucketRefused when boto3 is missing or knows no region."""
        self._client = aws.client("s3", access)
        self._perimeter = perimeter

    def open(self, wanted: S3Object) -> S3Download:
        """Begin to read an object.

        Raises OutsidePerimeter, ObjectGone, ObjectMismatch, BucketRefused, BucketUnavailable.
        """
        arguments: dict[str, Any] = {"Bucket": wanted.bucket, "Key": wanted.key, **self._owner(wanted.bucket)}
        if wanted.version:
            arguments["VersionId"] = wanted.version
        if wanted.etag:
            arguments["IfMatch"] = f'"{wanted.etag}"'
        with aws.translated(wanted.name):
            answer = self._client.get_object(ChecksumMode="ENABLED", **arguments)
        found = replace(
            wanted,
            version=answer.get("VersionId", wanted.version),
            etag=answer["ETag"].strip('"'),
            size=int(answer["ContentLength"]),
        )
        for what, said, given in (("size", wanted.size, found.size), ("ETag", wanted.etag or None, found.etag)):
            if said is not None and said != given:
                answer["Body"].close()
                raise ObjectMismatch(f"{wanted.name}: {what} {said} was announced, {given} is there")
        return S3Download(found, dict(answer.get("Metadata", {})), answer["Body"])

    def pages(self, bucket: str, prefix: str, *, below: bool = True) -> Iterator[Page]:
        """Every version of the objects whose keys begin with `prefix`, in order of keys, without delete markers.

        Versions that were replaced since are listed too: they were delivered. Without `below`, what lies in further
        folders is only named by its folder. Raises OutsidePerimeter, BucketRefused, BucketUnavailable.
        """
        one_level = {} if below else {"Delimiter": "/"}
        pages = iter(
            self._client.get_paginator("list_object_versions").paginate(
                Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": _PAGE}, **one_level, **self._owner(bucket)
            )
        )
        while True:
            with aws.translated(f"s3://{bucket}/{prefix}"):
                page = next(pages, None)
            if page is None:
                return
            yield Page(
                [
                    S3Object(bucket, item["Key"], item.get("VersionId", ""), item["ETag"].strip('"'), item["Size"])
                    for item in page.get("Versions", ())
                ],
                [item["Prefix"] for item in page.get("CommonPrefixes", ())],
            )

    def _owner(self, bucket: str) -> dict[str, str]:
        owner = self._perimeter.owner(bucket)
        return {"ExpectedBucketOwner": owner} if owner else {}
