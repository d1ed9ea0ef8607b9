"""What one query, one user and all users together may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """Limits of the query engine. All are enforced outside the process that runs the SQL, except where said.

    seconds             running time of one query; waiting for a slow reader of the answer does not count
    memory_bytes        resident memory of one query's process, its runtime (about 120 MiB) included
    spill_bytes         of temporary files of one query that needs more memory, 0 for none (query/process/spill.py)
    threads             DuckDB threads of one query
    rows, bytes         of one answer; the worker cuts there and the answer says `truncated`
    default_rows        row limit of a query that names none
    concurrency         queries at once, all users
    per_user            queries at once, one user
    queue_seconds       how long a query waits for a free slot before QueryBusy
    queued              queries that may wait for a slot, all users (slots.py)
    queued_per_user     queries that may wait for a slot, one user
    stall_seconds       how long a reader may leave an answer untouched before its query is ended
    sql_bytes           size of the statement
    read_bytes          of segments that one query may have to read, 0 for any number
    cache_bytes         verified copies of segments kept from remote stores
    cache_threads       segments fetched from a remote store at once
    cache_check         how copies an earlier process left are checked: "hash" or "stat" (query/holdings/cache.py)
    fold_bytes          of local files that hold many small segments each, 0 for none (query/holdings/folds.py)
    index_bytes         of the local indexes of entities and of texts; what does not fit is searched without them
    spare_workers       processes kept ready, so that a query does not wait for one to start
    """

    seconds: float = 30.0
    memory_bytes: int = 1 << 30
    spill_bytes: int = 2 << 30
    threads: int = 2
    rows: int = 1_000_000
    default_rows: int = 10_000
    bytes: int = 256 << 20
    concurrency: int = 4
    per_user: int = 2
    queue_seconds: float = 30.0
    queued: int = 64
    queued_per_user: int = 8
    stall_seconds: float = 30.0
    sql_bytes: int = 256 << 10
    read_bytes: int = 0
    cache_bytes: int = 10 << 30
    cache_threads: int = 8
    cache_check: Literal["hash", "stat"] = "hash"
    fold_bytes: int = 4 << 30
    index_bytes: int = 4 << 30
    spare_workers: int = 2
