"""Large objects, in parts: put as a multipart upload, read as parallel ranges of one version. Memory stays bounded.

What is put in parts has no SHA-256 of its own on the S3 side but a composite one: the SHA-256 over the parts' SHA-256s.
Each part is checked by S3 as it arrives, and the composite can be recomputed by whoever knows the parts' size; it says
nothing by itself about the SHA-256 an entry states. An upload that fails is aborted; what a crash leaves unfinished is
no object and is for the bucket's lifecycle rule to sweep up.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from strongroom.archive.stores.s3client import S3Options

_CHUNK = 1 << 20
_MOST_PARTS = 10_000


def put(client: Any, options: S3Options, where: Mapping[str, str], path: Path, headers: Mapping[str, Any]) -> Any:
    """Put the file as one object if its name is free; returns S3's answer. Raises botocore's errors."""
    size = path.stat().st_size
    part_bytes = max(options.multipart_bytes, -(-size // _MOST_PARTS))
    upload = client.create_multipart_upload(**where, ChecksumAlgorithm="SHA256", **headers)["UploadId"]

    def put_part(number: int) -> dict[str, Any]:
        start = number * part_bytes
        checksum = _digest(path, start, part_bytes)
        from s3transfer.utils import ReadFileChunk

        with ReadFileChunk.from_filename(str(path), start, part_bytes) as body:
            answer = client.upload_part(
                **where, UploadId=upload, PartNumber=number + 1, Body=body, ChecksumSHA256=checksum
            )
        return {"PartNumber": number + 1, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

    try:
        with ThreadPoolExecutor(options.threads) as pool:  # a part is streamed from the file, never held
            parts = list(pool.map(put_part, range(-(-size // part_bytes))))
        return client.complete_multipart_upload(
            **where, UploadId=upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
        )
    except BaseException:
        with suppress(Exception):
            client.abort_multipart_upload(**where, UploadId=upload)
        raise


def fetch(client: Any, options: S3Options, where: Mapping[str, str], etag: str, size: int, path: Path) -> None:
    """Write the object of `size` bytes (a version, or while it has `etag`) to `path`. Raises botocore's errors."""
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)
        descriptor = file.fileno()

        def get_range(start: int) -> None:
            stop = min(start + options.multipart_bytes, size)
            answer = client.get_object(**where, IfMatch=etag, Range=f"bytes={start}-{stop - 1}")
            for chunk in answer["Body"].iter_chunks(_CHUNK):
                os.pwrite(descriptor, chunk, start)
                start += len(chunk)

        with ThreadPoolExecutor(options.threads) as pool:
            for _ in pool.map(get_range, range(0, size, options.multipart_bytes)):
                pass


def composite(path: Path, part_bytes: int) -> str:
    """The checksum S3 keeps for the file put in parts of this size: base64, with the number of parts."""
    size = path.stat().st_size
    digests = [_sha256(_slices(path, start, part_bytes)) for start in range(0, size, part_bytes)]
    return f"{b64encode(sha256(b''.join(digests)).digest()).decode()}-{len(digests)}"


def _digest(path: Path, start: int, length: int) -> str:
    return b64encode(_sha256(_slices(path, start, length))).decode()


def _sha256(chunks: Iterator[bytes]) -> bytes:
    digest = sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()


def _slices(path: Path, start: int, length: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while length and (chunk := file.read(min(_CHUNK, length))):
            length -= len(chunk)
            yield chunk
