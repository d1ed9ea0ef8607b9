"""The process that runs SQL of strangers: `python -m strongroom.query.process.worker <settings>`, started by pool.py.

Order matters. Everything is imported, then the operating system's walls go up (sandbox.py), and only then is anything
of a query read. Each query gets a connection of its own to a database that no other user has met (databases.py):

1. Ask: the statement check (guard.py) answers which views the statement names, and which of their rows (where.py).
2. Grant: the views are made, over the files of this query, with the columns that the statement mentions; only now does
   it meet the database itself.
3. The answer streams in frames; writing blocks when the server does not read, so a slow reader slows the query, not
   the memory. Row and byte limits cut here and say so.

What was made for the query ends with its connection; after anything but a whole answer the database is thrown away. The
process is too, when anything unusual happened: the server kills it and starts another. It does not watch its own time:
that is the server's task (pool.py), which needs nobody's cooperation; a limit on processor time in the kernel stands
behind the server.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.ipc

from strongroom.query import results
from strongroom.query.errors import Position, QueryError
from strongroom.query.holdings import index
from strongroom.query.process import extraction, frames, guard, instants, mentions, sandbox, where
from strongroom.query.process.databases import Databases, open_database

BATCH_ROWS, WIDE_BATCH_ROWS = 2048, 16_384
"""Rows encoded at once: of text, whose first rows should come soon, and of Arrow and Parquet, whose columns should be
long: each batch has a cost of its own, to whoever makes it and to whoever reads it."""
PIECE_BYTES = 256 << 10
PIPE_BYTES = 1 << 20
SLICE_BYTES, WIDE_SLICE_BYTES = 1 << 20, 2 << 20
_BUFFERS = min(os.sysconf("SC_IOV_MAX"), 1024)  # that the kernel takes at once
# What has no form in JSON, CSV or Parquet, and what Arrow's readers do not know.
_TEXT_ONLY = frozenset({"interval", "time with time zone", "bit", "bignum", "variant", "union", "geometry", "time_ns"})
_TEXT_IN_ARROW = _TEXT_ONLY - {"interval", "union"}
_EXPLAIN = "EXPLAIN "
_AT_BINDING = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)


class Ended(Enum):
    """How a request ended."""

    WHOLE = "as it should"
    REFUSED = "by a fault of the request"
    UNFIT = "so that this process may serve no other"


class Settings(msgspec.Struct, frozen=True):
    """What the server tells the process on its command line, as JSON.

    `folders`: what of `readable` SQL may read. `spill`: the folder for what does not fit into memory, "" for none.
    """

    readable: list[str]
    folders: list[str]
    spill: str
    spill_bytes: int
    memory_bytes: int
    threads: int
    sql_bytes: int
    parent: int


def main() -> None:
    """Serve queries until the pipe closes."""
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    incoming, outgoing = _take_pipes()
    try:
        status = sandbox.enter(
            readable=[Path(path) for path in settings.readable],
            memory_bytes=2 * settings.memory_bytes + (256 << 20),
            parent=settings.parent,
            writable=Path(settings.spill) if settings.spill else None,
            file_bytes=settings.spill_bytes,
        )
        databases = Databases(
            partial(
                open_database,
                folders=settings.folders,
                memory_bytes=settings.memory_bytes,
                threads=settings.threads,
                spill=settings.spill,
                spill_bytes=settings.spill_bytes,
            )
        )
    except (sandbox.SandboxError, duckdb.Error) as error:
        _send(outgoing, frames.Failure("query-failed", f"{type(error).__name__}: {error}"))
        return
    sys.setrecursionlimit(10_000)  # syntax trees are deep; DuckDB refuses them beyond 1,000 levels
    _send(outgoing, frames.Ready(status))
    ended = Ended.WHOLE
    while ended is not Ended.UNFIT:
        databases.prepare(lambda: bool(select.select([incoming], [], [], 0)[0]))
        request = _receive(incoming)
        if request is None:
            return
        with databases.connection(request.owner if isinstance(request, frames.Ask) else "") as database:
            if isinstance(request, frames.Ask):
                ended = _serve(request, database, incoming, outgoing, settings)
            else:
                ended = _index(request, database, outgoing) if isinstance(request, frames.Index) else Ended.UNFIT
        if ended is not Ended.WHOLE:
            databases.forget()


def _serve(
    ask: frames.Ask,
    database: duckdb.DuckDBPyConnection,
    incoming: BinaryIO,
    outgoing: BinaryIO,
    settings: Settings,
) -> Ended:
    """One query."""
    sandbox.allow_processor_seconds(ask.cpu_seconds)
    try:
        checked = guard.check(ask.sql, ask.views, database, max_bytes=settings.sql_bytes)
        wanted = where.conditions(checked.tree, checked.views, where.Constants(ask.parameters, database))
        mentioned = mentions.columns(checked.tree)
        columns = None if mentioned is None else sorted(mentioned)
        _send(outgoing, frames.Tables(sorted(checked.views), wanted, columns))
        made = instants.called(checked.tree)
        for name in made:
            database.execute(instants.making(name))
        grant = _receive(incoming)
        if not isinstance(grant, frames.Grant):
            return Ended.WHOLE if isinstance(grant, frames.Drop) else Ended.UNFIT
        _prepare(database, grant)

        def widen() -> bool:
            """Make the views anew, with all columns, if they have not all."""
            if columns is None:
                return False
            _send(outgoing, frames.Widen())
            wider = _receive(incoming)
            for statement in wider.setup if isinstance(wider, frames.Grant) else []:
                database.execute(statement)
            return True

        def plain() -> bool:
            """Leave DuckDB's functions as they are, if some were made anew."""
            count = len(made)
            while made:
                database.execute(instants.dropping(made.pop()))
            return count > 0

        explained = grant.explained if checked.explains else []
        for said in answer(ask, checked, database, widen, explained, plain):
            if isinstance(said, list):
                _write(outgoing, [frames.encode(frames.Data(sum(map(len, said)))), *said])
            else:
                _send(outgoing, said)
    except QueryError as error:
        offset = error.position.offset if error.position else -1
        _send(outgoing, frames.Failure(error.code, error.message, error.hint, offset))
        return Ended.REFUSED
    except (MemoryError, pa.ArrowMemoryError):
        _send(outgoing, frames.Failure("query-memory", "the query needed more memory than it may have"))
        return Ended.UNFIT
    except (duckdb.Error, pa.ArrowException) as error:
        failure = _failure(error, ask.sql)
        _send(outgoing, failure)
        return Ended.REFUSED if failure.kind in ("query-invalid", "query-refused") else Ended.UNFIT
    return Ended.WHOLE


def _index(request: frames.Index, database: duckdb.DuckDBPyConnection, outgoing: BinaryIO) -> Ended:
    """What indexes keep of files."""
    sandbox.allow_processor_seconds(request.cpu_seconds)
    words, filters = bytearray(), []
    try:
        for file in request.files:
            found, packed = extraction.extract(
                database, file.path, kinds=request.kinds, fields=file.fields, stored_bytes=file.bytes
            )
            words += index.words(found, file.number)
            filters.append(packed)
    except (duckdb.Error, pa.ArrowException, MemoryError) as error:
        _send(outgoing, frames.Failure("query-failed", f"{type(error).__name__}: {error}"))
        return Ended.UNFIT
    _send(outgoing, frames.Indexed(bytes(words), filters))
    return Ended.WHOLE


def _prepare(database: duckdb.DuckDBPyConnection, grant: frames.Grant) -> None:
    """Tables and views of this query."""
    for name, stream in grant.tables.items():
        table = pa.ipc.open_stream(stream).read_all()
        database.register("_given", table)
        database.execute(f'CREATE TEMP TABLE "{name}" AS SELECT * FROM _given')  # noqa: S608
        database.unregister("_given")
    for statement in grant.setup:
        database.execute(statement)


def answer(
    ask: frames.Ask,
    checked: guard.Checked,
    database: duckdb.DuckDBPyConnection,
    widen: Callable[[], bool],
    explained: Sequence[tuple[str, str]] = (),
    plain: Callable[[], bool] = lambda: False,
) -> Iterator[frames.Begin | results.Parts | frames.End]:
    """Begin, the answer's bytes, End. Begin is held back until they begin, so that early failures come before it."""
    relation = _bound(checked.sql, ask.parameters or None, database, widen, plain)
    if explained:
        plan = [*explained, *relation.fetchall()]
        columns = [pa.array([row[place] for row in plan], pa.string()) for place in (0, 1)]
        relation = database.from_arrow(pa.table(columns, names=relation.columns))
    types = [str(kind) for kind in relation.types]
    if checked.ordered:  # then few rows need no sorting of all. Elsewhere a limit would keep DuckDB to one thread
        relation = relation.limit(ask.rows + 1)
    relation = _expressible(relation, ask.format)
    encoder = results.encoder(ask.format)
    pieces = _Pieces(frames.Begin(list(zip(results.unique(relation.columns), types, strict=True))))
    columnar = ask.format in ("arrow", "parquet")
    with relation.to_arrow_reader(WIDE_BATCH_ROWS if columnar else BATCH_ROWS) as reader:
        names = results.unique(reader.schema.names)
        schema = pa.schema([field.with_name(name) for field, name in zip(reader.schema, names, strict=True)])
        yield from pieces.add(encoder.begin(schema, types, ask.snapshot))
        rows, truncated = 0, ""
        for batch in _slices(reader, WIDE_SLICE_BYTES if columnar else SLICE_BYTES):
            if rows + batch.num_rows > ask.rows:
                batch, truncated = batch.slice(0, ask.rows - rows), "rows"
            content = encoder.rows(batch) if batch.num_rows else []
            if pieces.total + sum(map(len, content)) > ask.bytes:
                truncated = "bytes"
                break
            rows += batch.num_rows
            yield from pieces.add(content)
            if truncated:
                break
    yield from pieces.finish(encoder.end(rows, truncated))
    yield frames.End(rows, truncated)


def _bound(
    sql: str,
    parameters: list[Any] | dict[str, Any] | None,
    database: duckdb.DuckDBPyConnection,
    widen: Callable[[], bool],
    plain: Callable[[], bool] = lambda: False,
) -> duckdb.DuckDBPyRelation:
    """The statement, bound to the views. Its errors come without their place in the text; EXPLAIN's have it."""
    try:
        return database.sql(sql, params=parameters)
    except duckdb.Error as error:
        if plain():
            return _bound(sql, parameters, database, widen)
        if not isinstance(error, _AT_BINDING):
            raise
        if widen():
            return _bound(sql, parameters, database, lambda: False)
        database.execute(_EXPLAIN + sql, parameters).fetchall()
        raise


class _Pieces:
    """Gathers small encoded batches into pieces worth a message."""

    def __init__(self, begin: frames.Begin) -> None:
        self._begin: frames.Begin | None = begin
        self._waiting: results.Parts = []
        self._waiting_bytes = self.total = 0

    def add(self, content: results.Parts) -> Iterator[frames.Begin | results.Parts]:
        size = sum(map(len, content))
        self._waiting += content
        self._waiting_bytes += size
        self.total += size
        if self._waiting_bytes >= PIECE_BYTES:
            yield from self.finish([])

    def finish(self, content: results.Parts) -> Iterator[frames.Begin | results.Parts]:
        if self._begin is not None:
            yield self._begin
            self._begin = None
        piece = self._waiting + content
        self._waiting, self._waiting_bytes = [], 0
        if any(map(len, piece)):
            yield piece


def _expressible(relation: duckdb.DuckDBPyRelation, format: str) -> duckdb.DuckDBPyRelation:
    """The relation with columns cast to text (or HUGEINT to DECIMAL) where the format has no form for their type."""
    text_only = _TEXT_IN_ARROW if format == "arrow" else _TEXT_ONLY
    columns, changed = [], False
    for number, (name, kind) in enumerate(zip(relation.columns, relation.types, strict=True), 1):
        target = "VARCHAR" if _contains(kind, text_only) else None
        if format in ("arrow", "parquet") and kind.id in ("hugeint", "uhugeint"):
            target = "DECIMAL(38, 0)"
        quoted = '"' + name.replace('"', '""') + '"'
        columns.append(f"CAST(#{number} AS {target}) AS {quoted}" if target else f"#{number} AS {quoted}")
        changed |= target is not None
    return relation.project(", ".join(columns)) if changed else relation


def _contains(kind: Any, ids: frozenset[str]) -> bool:
    if kind.id in ids:
        return True
    if kind.id not in ("list", "array", "struct", "map"):
        return False
    children = [child for _, child in kind.children if not isinstance(child, int)]
    return any(_contains(child, ids) for child in children)


def _slices(reader: pa.RecordBatchReader, most: int) -> Iterator[pa.RecordBatch]:
    """Batches of at most about `most` bytes, so that limits cut finely and encoding takes little memory at once."""
    for batch in reader:
        step = max(1, min(batch.num_rows, batch.num_rows * most // max(batch.nbytes, 1)))
        for start in range(0, batch.num_rows, step):
            yield batch.slice(start, step)


def _failure(error: Exception, sql: str) -> frames.Failure:
    """DuckDB's error in the terms of errors.py."""
    text = str(error)
    message, offset = text.split("\n")[0], -1
    hint = ""
    if found := re.search(r"\{.*\}", text, re.DOTALL):
        try:
            parts = msgspec.json.decode(found[0], type=dict[str, str])
            message, _, hint = parts.get("exception_message", text).partition("\n")
            place = int(parts.get("position", -1)) - (len(_EXPLAIN) if isinstance(error, _AT_BINDING) else 0)
            position = Position.at_byte(sql, place)
            offset = position.offset if position else -1
        except (msgspec.DecodeError, ValueError):
            pass
    kind = "query-invalid"
    if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory" in text or "out of memory" in text:
        kind = "query-memory"
    elif isinstance(error, duckdb.PermissionException):
        kind = "query-refused"
    elif isinstance(error, duckdb.InterruptException):
        kind = "query-timeout"
    elif isinstance(error, duckdb.IOException | duckdb.InternalException | duckdb.FatalException):
        kind = "query-failed"
    return frames.Failure(kind, message, hint, offset)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes under numbers of their own: whatever a library prints goes to /dev/null, not into a frame."""
    # Unbuffered, so that `select` sees what is not read yet.
    incoming, outgoing = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    with contextlib.suppress(OSError):  # only faster: the answer of a large question is not handed over in crumbs
        fcntl.fcntl(outgoing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return incoming, outgoing


def _receive(incoming: BinaryIO) -> frames.Request | None:
    """The next message; None when the server closed the pipe."""
    head = _read(incoming, frames.LENGTH_BYTES)
    return frames.decode_request(_read(incoming, int.from_bytes(head))) if head else None


def _read(incoming: BinaryIO, count: int) -> bytes:
    """Exactly `count` bytes; none when the pipe ends before."""
    content = bytearray()
    while len(content) < count:
        piece = incoming.read(min(count - len(content), 1 << 20))
        if not piece:
            return b""
        content += piece
    return bytes(content)


def _send(outgoing: BinaryIO, reply: frames.Reply) -> None:
    _write(outgoing, [frames.encode(reply)])


def _write(outgoing: BinaryIO, parts: Sequence[Any]) -> None:
    """All of these buffers, from where they lie."""
    views, place = [memoryview(part) for part in parts], 0
    while place < len(views):
        written = os.writev(outgoing.fileno(), views[place : place + _BUFFERS])
        while place < len(views) and written >= len(views[place]):
            written -= len(views[place])
            place += 1
        if written:
            views[place] = views[place][written:]


if __name__ == "__main__":
    main()
