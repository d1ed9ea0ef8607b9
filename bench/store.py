"""What the bucket store costs beside plain boto3: put and get of whole objects, MB/s, on the same server.

Plain boto3 is `put_object` and `get_object` with nothing asked for; S3Store states and checks each object's SHA-256,
creates only where the name is free, locks and marks what it puts, and splits what is larger than `multipart_bytes`.
Both write files and read into memory, over a client made alike. The bucket is versioned, on moto's server on
loopback, without a delay: the least favourable place for whoever computes something. Wall time, moto's included;
believe the ratios.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from bench.measure import Contestant, Runs, Spread, contest
from bench.report import Ratio, Row, Section
from strongroom.archive.stores.s3 import S3Store
from strongroom.archive.stores.s3client import make_client
from tests.buckets import S3, running

OBJECTS = {64 << 10: 32, 8 << 20: 4, 64 << 20: 1}
"""Bytes of an object, and how many of it one round takes."""
PLAIN = ", plain boto3"
_TWICE = "put 8 MiB"


def putting(url: str, bucket: str, folder: Path, size: int, plain: bool) -> Runs:
    """`OBJECTS[size]` objects put under new names; gives the bytes."""
    path, put, names, number = _file(folder, size), _put(url, bucket, plain), secrets.token_hex(4), count()

    def run() -> int:
        for _ in range(OBJECTS[size]):
            put(f"{names}/{next(number)}", path)
        return OBJECTS[size] * size

    while True:
        yield run


def getting(url: str, bucket: str, folder: Path, size: int, plain: bool) -> Runs:
    """The same, read back into memory; gives the bytes. Raises RuntimeError when they are others."""
    path, put, names = _file(folder, size), _put(url, bucket, plain), secrets.token_hex(4)
    store, client = _store(url, bucket), _client(url)
    keys = [f"{names}/{number}" for number in range(OBJECTS[size])]
    for key in keys:
        put(key, path)
    content = path.read_bytes()

    def run() -> int:
        found = b""
        for key in keys:
            found = client.get_object(Bucket=bucket, Key=key)["Body"].read() if plain else store.get(key)
        if found != content:
            raise RuntimeError(f"{len(found)} other bytes came back")
        return OBJECTS[size] * size

    while True:
        yield run


def measure(folder: Path, rounds: int, progress: Callable[[str], None]) -> Section:
    """Every size, both ways, by both, on one server."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = {
        f"{what} {_said(size)}": (prepare, size)
        for size in OBJECTS
        for what, prepare in (("put", putting), ("get", getting))
    }
    with running() as s3:
        bucket = s3.new_bucket()
        entered = [
            Contestant(f"{task}{by}", prepare, (s3.url, bucket, folder, size, by == PLAIN))
            for task, (prepare, size) in tasks.items()
            for by in ("", PLAIN)
        ]
        samples = contest(entered, rounds=rounds, again=_TWICE, progress=progress)
    rows = []
    for task, (_, size) in tasks.items():
        amount = OBJECTS[size] * size / 1e6
        mine, theirs = (Spread.rate(amount, samples[f"{task}{by}"].wall) for by in ("", PLAIN))
        ratios = [Ratio(f"plain boto3 ({theirs.median:,.0f})", mine.median / theirs.median)]
        if task == _TWICE:
            again = Spread.rate(amount, samples[f"{task} (again)"].wall)
            ratios.append(Ratio("against itself", again.median / mine.median))
        rows.append(Row(task, mine, "MB/s", tuple(ratios)))
    facts = {name: sample.facts() for name, sample in samples.items()}
    return Section("a bucket's objects, against plain boto3", tuple(rows), facts)


def _store(url: str, bucket: str) -> S3Store:
    return S3Store.open(bucket, options=replace(S3(url).options, lock_mode="GOVERNANCE", retain_days=1))


def _client(url: str) -> Any:
    return make_client(S3(url).options)


def _put(url: str, bucket: str, plain: bool) -> Callable[[str, Path], object]:
    if not plain:
        return _store(url, bucket).create
    client = _client(url)

    def put(key: str, path: Path) -> None:
        with path.open("rb") as body:
            client.put_object(Bucket=bucket, Key=key, Body=body)

    return put


def _file(folder: Path, size: int) -> Path:
    path = folder / f"{size}-{secrets.token_hex(4)}"
    path.write_bytes(secrets.token_bytes(size))
    return path


def _said(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
