"""Answers: rows as Arrow, and what they rest on."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pyarrow as pa

from strongroom.client.direct import BODY
from strongroom.client.errors import AnswerBroken

if TYPE_CHECKING:
    import pandas
    import polars

_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The tree an answer was computed on. `size` as `as_of` asks the same again."""

    size: int
    root: str


@dataclass(frozen=True, slots=True)
class Basis:
    """What an answer rests on: its snapshot, how many segments were read, and that all of them were verified.

    `unsealed`: how many batches were read that are in no snapshot yet, when they were asked for; `left_out`: how many
    newer ones were not.
    """

    snapshot: Snapshot
    segments: int
    verified: bool
    unsealed: int = 0
    left_out: int = 0

    @classmethod
    def of_headers(cls, headers: Mapping[str, str]) -> Basis:
        """As headers state it."""
        snapshot = Snapshot(int(headers["Strongroom-Snapshot-Size"]), headers["Strongroom-Snapshot-Root"])
        return cls(
            snapshot,
            int(headers["Strongroom-Segments"]),
            headers.get("Strongroom-Verified") == "true",
            int(headers.get("Strongroom-Unsealed-Batches", 0)),
            int(headers.get("Strongroom-Unsealed-Left-Out", 0)),
        )

    @classmethod
    def of_body(cls, body: Mapping[str, Any]) -> Basis:
        """As a JSON answer states it."""
        snapshot, segments = body["snapshot"], body["segments"]
        beside = body.get("unsealed", {"batches": 0, "left_out": 0})
        seen = Snapshot(snapshot["size"], snapshot["root"])
        return cls(seen, segments["read"], segments["verified"], beside["batches"], beside["left_out"])


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows, whole. `truncated` is "" or the limit that cut them: "rows", "bytes"."""

    table: pa.Table
    basis: Basis
    truncated: str = ""

    @property
    def snapshot(self) -> Snapshot:
        """The tree it was computed on."""
        return self.basis.snapshot

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def rows(self) -> list[dict[str, Any]]:
        """Each row as a dict of Python values."""
        found: list[dict[str, Any]] = self.table.to_pylist()
        return found

    def addresses(self) -> list[tuple[str, int]]:
        """(segment, row) of each row, for proofs and evidence. Raises KeyError when the question did not ask for it."""
        return list(zip(self.table["_segment"].to_pylist(), self.table["_row"].to_pylist(), strict=True))

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a pandas frame. Raises ModuleNotFoundError without pandas."""
        return self.table.to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """The rows as a polars frame. Raises ModuleNotFoundError without polars."""
        import polars

        frame = polars.from_arrow(self.table)
        assert isinstance(frame, polars.DataFrame)
        return frame


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a question would read: `segments` of `total`, with so many records and bytes.

    `budget_bytes`: what it may read, None for any number; `refused`: whether it would read more.
    """

    snapshot: Snapshot
    segments: int
    total: int
    records: int
    bytes: int
    budget_bytes: int | None
    refused: bool

    @classmethod
    def of_body(cls, body: Mapping[str, Any]) -> Estimate:
        """As the service tells it."""
        snapshot, segments = Snapshot(**body["snapshot"]), body["segments"]
        facts = {name: body[name] for name in ("records", "bytes", "budget_bytes", "refused")}
        return cls(snapshot, segments["read"], segments["total"], **facts)


@dataclass(frozen=True, slots=True)
class Hit:
    """One record that a search found, in the columns of the view `events`, and its address: None while not `sealed`."""

    source: str
    event_time: str | None
    account: str | None
    region: str | None
    actor: str | None
    action: str | None
    target: str | None
    source_address: str | None
    outcome: str | None
    severity: str | None
    event_id: str | None
    message: str | None
    address: dict[str, Any] | None
    raw: str | None = None
    sealed: bool = True


@dataclass(frozen=True, slots=True)
class Timeline:
    """Counts by time. `counted`: "details" (the log's own committed counts) or "records"; each bucket has start, group,
    records."""

    bucket: str
    by: str
    counted: str
    buckets: list[dict[str, Any]]
    without_time: int
    basis: Basis

    @property
    def table(self) -> pa.Table:
        """The buckets, start as text."""
        kinds = {"start": pa.string(), "group": pa.string(), "records": pa.int64()}
        return pa.Table.from_pylist(self.buckets, pa.schema(kinds))


@dataclass(frozen=True, slots=True)
class Entity:
    """Everything about one entity: each list has value, records, first_seen, last_seen, the most frequent first."""

    kind: str
    value: str
    records: int
    first_seen: str | None
    last_seen: str | None
    sources: list[dict[str, Any]]
    actions: list[dict[str, Any]]
    outcomes: list[dict[str, Any]]
    regions: list[dict[str, Any]]
    accounts: list[dict[str, Any]]
    peers: dict[str, list[dict[str, Any]]]
    basis: Basis


class Stream:
    """An answer on its way, batch by batch. `truncated` is known when the batches have ended."""

    def __init__(self, response: httpx.Response) -> None:
        self.basis = Basis.of_headers(response.headers)
        self.truncated = ""
        # Bytes that need no decoding are read into place.
        plain = None if "Content-Encoding" in response.headers else response.extensions.get(BODY)
        self._body = plain or io.BufferedReader(_Body(response), _BUFFER_BYTES)
        try:
            self._reader = pa.ipc.open_stream(self._body)
        except (httpx.TransportError, pa.ArrowInvalid) as error:
            raise _broken(error) from error
        self.schema: pa.Schema = self._reader.schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while True:
            try:
                batch, facts = self._reader.read_next_batch_with_custom_metadata()
            except StopIteration:
                self._end()
                return
            except (httpx.TransportError, pa.ArrowInvalid, OSError) as error:
                raise _broken(error) from error
            if facts and b"strongroom.truncated" in facts:
                self.truncated = facts[b"strongroom.truncated"].decode()
            if batch.num_rows:
                yield batch

    def _end(self) -> None:
        """Read the end of the response, too: to leave before it would look to the service like giving up."""
        try:
            while self._body.read(_BUFFER_BYTES):
                pass
        except httpx.TransportError as error:
            raise _broken(error) from error

    def answer(self) -> Answer:
        """All of it."""
        return Answer(pa.Table.from_batches(list(self), self.schema), self.basis, self.truncated)


class _Body(io.RawIOBase):
    """A response's bytes as a file, read as they come."""

    def __init__(self, response: httpx.Response) -> None:
        self._chunks = response.iter_bytes()
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _broken(error: BaseException) -> AnswerBroken:
    return AnswerBroken(f"the answer broke off: {error}; ask again, or look at the service's log")
