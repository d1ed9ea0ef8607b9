"""What a bucket costs and brings: commits by one and four writers, acknowledgement without a disk, the query cache.

The bucket is on moto's server, on loopback, behind a proxy that adds the delay a bucket in the same Region has: up to
`DELAY_SECONDS` a request, at random. moto does some hundred requests a second and no more, so rates at its limit are
its own; believe the ratios. Wall time, all of it waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime
from hashlib import sha256
from itertools import count
from pathlib import Path
from secrets import token_bytes, token_hex

import pyarrow as pa
import pyarrow.parquet as pq

from bench.measure import Contestant, Runs, Spread, contest
from bench.report import Ratio, Row, Section
from strongroom.archive import keys, layout
from strongroom.archive.encryption.contents import Contents
from strongroom.archive.encryption.encryption import Encryption
from strongroom.archive.entry import Draft, WriterRange
from strongroom.archive.log import Log
from strongroom.archive.stores.s3 import S3Store
from strongroom.ingest.diskless import Bucket, BucketRules
from strongroom.ingest.frames import BatchHeader
from strongroom.ingest.spool import DISK, Spool
from strongroom.ingest.writer import Writer
from strongroom.query.holdings.cache import SegmentCache
from strongroom.query.holdings.segments import Segment
from tests import buckets
from tests.faults import FaultProxy, Odds

DELAY_SECONDS = 0.04
COMMITS, BATCHES, BATCH_BYTES, TOGETHER = 12, 64, 20_000, 32
SEGMENTS, SEGMENT_BYTES = 12, 4 << 20
_ORIGIN = "logs.example.org/bench"


@contextmanager
def _bucket(url: str) -> Iterator[S3Store]:
    with FaultProxy(url, Odds(latency_seconds=DELAY_SECONDS)) as proxy:
        yield buckets.S3(proxy.url).new_store()


def committing(url: str, writers: int) -> Runs:
    """`COMMITS` entries, by so many writers at once, each with a log of its own."""
    with _bucket(url) as store:
        signers = keys.generate(_ORIGIN)
        Log.create(store, _ORIGIN, [one.key.vkey() for one in signers], datetime.now(UTC))
        logs = [Log.open(store) for _ in range(writers)]
        number = count()

        def write(writer: int, first: int) -> None:
            for place in range(COMMITS // writers):
                sequence = first * (COMMITS // writers) + place
                draft = Draft("heartbeat", datetime.now(UTC), WriterRange(f"w{writer}", 1, sequence, sequence))
                logs[writer].append(draft)

        def run() -> None:
            first = next(number)
            threads = [threading.Thread(target=write, args=(writer, first)) for writer in range(writers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        while True:
            yield run


def spooling(url: str, folder: Path, in_bucket: bool, together: int) -> Runs:
    """`BATCHES` batches acknowledged, `together` senders waiting at a time."""
    with _bucket(url) as store:
        log = Log.create(store, _ORIGIN, [one.key.vkey() for one in keys.generate(_ORIGIN)], datetime.now(UTC))
        bucket = Bucket(log, Writer("w1", 1), BucketRules(), lambda: datetime.now(UTC))
        spool = Spool(
            folder, epoch=1, limit_bytes=1 << 40, on_durable=lambda _: None, durability=bucket if in_bucket else DISK
        )
        body = token_bytes(BATCH_BYTES)

        def send(_: int) -> None:
            header = BatchHeader(token_hex(32), "json", "identity", "0" * 64, len(body), 0, "f", "http", "::1")
            spool.append(header, [body]).result()

        with ThreadPoolExecutor(together) as senders:

            def run() -> None:
                for _ in senders.map(send, range(BATCHES)):
                    pass

            while True:
                yield run


def reading(url: str, folder: Path, hit: bool, threads: int) -> Runs:
    """All segments ready to be queried: fetched and checked, or found where they are."""
    with _bucket(url) as store:
        segments = [_segment(store, number, folder) for number in range(SEGMENTS)]
        for number in count():
            fetch = Contents(store, Encryption("")).fetch
            place = folder / f"cache-{0 if hit else number}"
            cache = SegmentCache(store, place, fetch=fetch, max_bytes=1 << 40, threads=threads)
            if hit:
                cache.ensure(segments)
                cache.close()
                cache = SegmentCache(store, place, fetch=fetch, max_bytes=1 << 40, threads=threads)

            def run(cache: SegmentCache = cache) -> None:
                cache.ensure(segments)

            yield run
            cache.close()


def _segment(store: S3Store, number: int, folder: Path) -> Segment:
    key = layout.segment_key("json", date(2026, 1, 1), "w1", 1, number, number)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "segment.parquet"
    pq.write_table(pa.table({"raw": [token_bytes(1 << 16) for _ in range(SEGMENT_BYTES >> 16)]}), path)
    content = path.read_bytes()
    version = store.create(key, content).version
    digest = sha256(content).hexdigest()
    now = datetime.now(UTC)
    return Segment(key, "json", "2026-01-01", 1, now, 1, len(content), digest, "", None, None, number, version)


def measure(folder: Path, rounds: int, progress: Callable[[str], None]) -> Section:
    """All of it, on one server."""
    with buckets.running() as s3:
        spools = [(where, together) for where in ("disk", "bucket") for together in (1, TOGETHER)]
        entered = [
            Contestant("1 writer", committing, (s3.url, 1)),
            Contestant("4 writers", committing, (s3.url, 4)),
            *(
                Contestant(f"{where}, {n}", spooling, (s3.url, folder / f"{where}-{n}", where == "bucket", n))
                for where, n in spools
            ),
            Contestant("miss, 1 at a time", reading, (s3.url, folder / "miss-1", False, 1)),
            Contestant("miss", reading, (s3.url, folder / "miss", False, 8)),
            Contestant("hit", reading, (s3.url, folder / "hit", True, 8)),
        ]
        samples = contest(entered, rounds=rounds, progress=progress)
    commits = {name: Spread.rate(COMMITS, samples[name].wall) for name in ("1 writer", "4 writers")}
    batches = {name: Spread.rate(BATCHES, sample.wall) for name, sample in samples.items() if ", " in name}
    megabytes = SEGMENTS * SEGMENT_BYTES / 1e6
    copies = {name: Spread.rate(megabytes, samples[name].wall) for name in ("miss, 1 at a time", "miss", "hit")}

    def against(rates: dict[str, Spread], mine: str, *others: str) -> tuple[Ratio, ...]:
        return tuple(
            Ratio(f"{other} ({rates[other].median:,.0f})", rates[mine].median / rates[other].median) for other in others
        )

    one, many = "bucket, 1", f"bucket, {TOGETHER}"
    return Section(
        f"a bucket that answers within {1000 * DELAY_SECONDS:.0f} ms: {BATCHES} batches of {BATCH_BYTES // 1000} kB, "
        f"{SEGMENTS} segments of {SEGMENT_BYTES >> 20} MiB",
        (
            Row("entries committed, 4 writers", commits["4 writers"], "/s", against(commits, "4 writers", "1 writer")),
            Row("acknowledged, one sender", batches[one], "/s", against(batches, one, "disk, 1")),
            Row(
                f"acknowledged, {TOGETHER} senders",
                batches[many],
                "/s",
                against(batches, many, f"disk, {TOGETHER}", one),
            ),
            Row("segments fetched, 8 at a time", copies["miss"], "MB/s", against(copies, "miss", "miss, 1 at a time")),
            Row("segments in the cache, after a restart", copies["hit"], "MB/s", against(copies, "hit", "miss")),
        ),
        {name: sample.facts() for name, sample in samples.items()},
    )
