"""Cases that hold, promises that are extended, and what was pruned: orders given and carried out.

An order is about segments, chosen by a question: a condition on the view `segments` (source, date, times, counts), or
on the records of any other view, asked in the query sandbox like every question. What is done, in this order:

    hold, cover    legal holds set on the objects, then the order committed. A crash between the two leaves holds
                   that no order explains: nothing is freed that should be held; asking again goes on
    release        the order committed, then the holds lifted that no other open case needs; asking again goes on
    extend         locks lengthened, then the order committed
    prune          only committed: the store's own rules have removed what the order names

With each held segment its entry and details are held, which prove its records. Cases are open until they are released:
what is sealed later is held against their questions within moments (`run`). On a store that locks nothing all of it is
recorded, and verified, but not enforced; `enforced` says so.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import structlog

from strongroom.archive import layout
from strongroom.archive.entry import Draft, Entry, ObjectRef, timestamp
from strongroom.archive.errors import StrongroomError
from strongroom.archive.log import Log
from strongroom.archive.retention import orders
from strongroom.archive.retention.order_book import OrderBook
from strongroom.archive.retention.orders import Action, Case, Obligations, Order
from strongroom.archive.stores.store import LockingStore, ObjectStore
from strongroom.archive.verification import safeguards
from strongroom.query.engine import QueryEngine
from strongroom.service.errors import NoSuchCase, OrderRefused

log = structlog.get_logger(__name__)

SEGMENTS = "segments"
_CASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/:#-]{0,99}")
_VIEW = re.compile(r"[a-z][a-z0-9_]{0,62}")
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Given:
    """An order that was given. `objects`: how many the store was asked to protect, or to free."""

    action: Action
    case: str
    entries: tuple[int, ...]
    segments: int
    objects: int
    enforced: bool

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        facts = {"action": self.action, "case": self.case, "entries": list(self.entries), "segments": self.segments}
        return facts | {"objects": self.objects, "enforced": self.enforced}


class Holding:
    """Gives and carries out the orders of one archive. For one event loop."""

    def __init__(self, store: ObjectStore, log: Log, sign: Callable[[], object], engine: QueryEngine) -> None:
        """`sign` publishes a checkpoint over what the log has."""
        self._store, self._log, self._sign, self._engine = store, log, sign, engine
        self._locking = store if isinstance(store, LockingStore) else None
        self._book = OrderBook(store, log.contents.unseal)
        self._followed = 0
        self._asked: dict[str, int] = {}  # case -> tree size its questions were asked of, without anything found
        self._lock = asyncio.Lock()

    @property
    def enforced(self) -> bool:
        """Whether the store itself keeps what is held, or it is only recorded."""
        return self._locking is not None

    async def cases(self) -> list[Case]:
        """Every case, by name; those with `released` are over."""
        async with self._lock:
            known = await self._follow()
        return [known.cases[name] for name in sorted(known.cases)]

    async def place(self, case: str, where: str, by: str, view: str = SEGMENTS) -> Given:
        """Open `case`, or widen it, and hold every segment the question matches; later ones follow by themselves.

        Raises OrderRefused, the query's errors, StoreUnavailable.
        """
        if not _CASE.fullmatch(case):
            raise OrderRefused(f"{case!r} is no name of a case", hint="1-100 letters, digits and . _ / : # - or spaces")
        async with self._lock:
            await self._follow()
            size = await self._engine.refresh()
            found = await self._matching(view, where, 0)
            return await self._hold("hold", found, by, case=case, view=view, where=where, size=size)

    async def release(self, case: str, by: str) -> Given:
        """Close `case` and free what no other open case holds. Releasing again frees what a crash left held.

        Raises NoSuchCase, StoreUnavailable.
        """
        async with self._lock:
            known = await self._follow()
            if case not in known.cases:
                raise NoSuchCase(f"there is no case {case!r}", hint="strongroom hold list")
            indices: tuple[int, ...] = ()
            if not known.cases[case].released:
                indices = (await asyncio.to_thread(self._commit, Order(_salt(), "release", by, case=case)),)
                known = await self._follow()
            freed = known.freed_by(case)
            objects = await asyncio.to_thread(self._protect, self._named(freed), known, False)
            await asyncio.to_thread(self._sign)
        return Given("release", case, indices, len(freed), objects, self.enforced)

    async def cover(self) -> list[Given]:
        """Hold what was sealed since against the questions of open cases. Raises what `place` raises."""
        given = []
        async with self._lock:
            known = await self._follow()
            size = self._log.size
            for case in known.open_cases:
                since = max(case.size, self._asked.get(case.name, 0))
                if since >= size:
                    continue
                size = await self._engine.refresh()
                found = {key for view, where in case.questions for key in await self._matching(view, where, since)}
                if new := found - case.segments:
                    given.append(await self._hold("cover", sorted(new), case.by, case=case.name, size=size))
                self._asked[case.name] = size
        return given

    async def extend(
        self, until: datetime, by: str, *, where: str = "", view: str = SEGMENTS, whole_log: bool = False
    ) -> Given:
        """Lengthen the retention of what the question matches, of its entries and details; or of the whole log.

        Raises OrderRefused when anything would be kept for less time than promised.
        """
        until = until.astimezone(UTC).replace(microsecond=0)
        if until <= datetime.now(UTC):
            raise OrderRefused(f"{until:%Y-%m-%d} is not in the future", hint="retention is only ever extended")
        async with self._lock:
            known = await self._follow()
            size = await self._engine.refresh()
            found = await self._matching(view, where, 0) if where else []
            named = self._named(found)
            await asyncio.to_thread(_must_not_shorten, named, set(found), known, until)
            keys = await asyncio.to_thread(self._log_objects) if whole_log else []
            objects = await asyncio.to_thread(self._lengthen, [*_objects(named, set(found)), *keys], until)
            facts: dict[str, Any] = {
                "view": view,
                "where": where,
                "size": size,
                "until": timestamp(until),
                "log": whole_log,
            }
            indices = [
                await asyncio.to_thread(self._commit, Order(_salt(), "extend", by, segments=part, **facts))
                for part in orders.split(found)
            ]
            if whole_log:  # the order binds what others appended before it, too
                later = set(await asyncio.to_thread(self._log_objects)).difference(keys)
                objects += await asyncio.to_thread(self._lengthen, sorted(later), until)
            await asyncio.to_thread(self._sign)
        return Given("extend", "", tuple(indices), len(found), objects, self.enforced)

    async def expired(self) -> tuple[list[str], list[str]]:
        """Segments that nothing keeps any more: those that are there, and those that are gone and in no prune yet."""
        async with self._lock:
            known = await self._follow()
            return await asyncio.to_thread(self._expired, known)

    async def prune(self, by: str) -> Given:
        """Record which segments, whose retention has ended, are gone. Removes nothing."""
        async with self._lock:
            known = await self._follow()
            _, gone = await asyncio.to_thread(self._expired, known)
            parts = orders.split(gone) if gone else ()
            made = [await asyncio.to_thread(self._commit, Order(_salt(), "prune", by, segments=p)) for p in parts]
            await asyncio.to_thread(self._sign)
        return Given("prune", "", tuple(made), len(gone), 0, self.enforced)

    async def run(self, seconds: float) -> None:
        """Cover what is sealed, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                for given in await self.cover():
                    log.info("later segments are held", case=given.case, segments=given.segments)
            except StrongroomError as error:
                log.error("open cases can't be covered", code=error.code, detail=error.message)

    async def _hold(self, action: Action, found: Sequence[str], by: str, **facts: Any) -> Given:
        known = self._book.obligations
        objects = await asyncio.to_thread(self._protect, self._named(found), known, True, frozenset(found))
        indices = [
            await asyncio.to_thread(self._commit, Order(_salt(), action, by, segments=part, **facts))
            for part in orders.split(found)
        ]
        await asyncio.to_thread(self._sign)
        return Given(action, facts["case"], tuple(indices), len(found), objects, self.enforced)

    async def _matching(self, view: str, where: str, since: int) -> list[str]:
        """The segments a question matches, of entries from `since` on, ascending."""
        if not _VIEW.fullmatch(view):
            raise OrderRefused(f"there is no view {view!r}", hint="GET /v1/catalog lists them")
        name, more = ("segment", f" AND entry >= {since}") if view == SEGMENTS else ("_segment", "")
        # The guard lets nothing through but a question, whatever the condition holds (query/process/guard.py).
        sql = f"SELECT DISTINCT {name} FROM {view} WHERE ({where}\n){more}"  # noqa: S608
        answer = await self._engine.run(sql, format="ndjson", user="holds", limit=self._engine.limits.rows)
        body = b"".join([chunk async for chunk in answer.body])
        if (await answer.finished).truncated:
            raise OrderRefused("the question matches more segments than one answer holds", hint="narrow it, by date")
        found = {str(next(iter(json.loads(line).values()))) for line in body.splitlines() if line}
        places = {key: self._engine.place(key) for key in found}
        return sorted(key for key, place in places.items() if place is not None and place[0] >= since)

    async def _follow(self) -> Obligations:
        def follow() -> None:
            self._log.refresh()
            known = self._log.orders
            for entry in known[self._followed :]:
                self._book.follow(entry)
                self._followed += 1

        await asyncio.to_thread(follow)
        for problem in self._book.problems:
            log.error("an order can't be read", detail=problem)
        self._book.problems.clear()
        return self._book.obligations

    def _commit(self, order: Order) -> int:
        """Put the order, and the entry that names it; its index."""
        now = datetime.now(UTC)
        self._log.declare_encryption(now)
        contents = self._log.contents
        key = contents.encryption.name(layout.order_key(now.date(), secrets.token_hex(16)))
        stored = contents.seal(key, orders.encode(order))
        info = self._store.create(key, stored)
        reference = ObjectRef(key, info.version, len(stored), sha256(stored).hexdigest())
        data = {"order": key.split("/")[-1].split(".")[0]}
        return self._log.append(Draft(orders.KIND[order.action], now, details=reference, data=data)).index

    def _named(self, segments: Iterable[str]) -> list[Entry]:
        """The entries that name these segments, each once."""
        places = (self._engine.place(segment) for segment in segments)
        return [self._log.entry(index) for index in sorted({place[0] for place in places if place is not None})]

    def _protect(
        self, entries: Sequence[Entry], known: Obligations, on: bool, found: frozenset[str] = frozenset()
    ) -> int:
        """Set holds on what `found` needs, or lift those that no open case needs; how many objects were asked for."""
        if self._locking is None:
            return 0
        held = known.held | found
        wanted: list[tuple[str, str]] = []
        for entry in entries:
            segments = [(ref.key, ref.version) for ref in entry.segments if (ref.key in held) == on]
            needed = any(ref.key in held for ref in entry.segments)
            around = [(layout.entry_key(entry.index), "")]
            around += [(entry.details.key, entry.details.version)] if entry.details else []
            wanted += segments + (around if needed == on else [])
        store = self._locking

        def set_one(item: tuple[str, str]) -> None:
            key, version = item
            store.hold(key, version or store.head(key).version, on)

        _each(set_one, wanted)
        return len(wanted)

    def _lengthen(self, objects: Sequence[tuple[str, str]], until: datetime) -> int:
        if self._locking is not None:
            store = self._locking
            _each(
                lambda item: safeguards.keep_until(store, item[0], item[1] or store.head(item[0]).version, until),
                objects,
            )
        return len(objects) if self._locking is not None else 0

    def _log_objects(self) -> list[tuple[str, str]]:
        """Everything in the archive that is not a segment."""
        passed = (layout.SEGMENTS, layout.CANARIES, "spool/")
        return [(info.key, info.version) for info in self._store.list("") if not info.key.startswith(passed)]

    def _expired(self, known: Obligations) -> tuple[list[str], list[str]]:
        now, there = datetime.now(UTC), {info.key for info in self._store.list(layout.SEGMENTS)}
        over = [
            reference.key
            for entry in self._log.entries()
            for reference in entry.segments
            if safeguards.of_object(entry, reference.key, known).over(now)
        ]
        gone = [key for key in over if key not in there and key not in known.pruned]
        return [key for key in over if key in there], gone


def _objects(entries: Sequence[Entry], segments: set[str]) -> list[tuple[str, str]]:
    """Name and version of these segments, and of the entries and details that prove their records."""
    found = [(ref.key, ref.version) for entry in entries for ref in entry.segments if ref.key in segments]
    found += [(layout.entry_key(entry.index), "") for entry in entries]
    return found + [(entry.details.key, entry.details.version) for entry in entries if entry.details]


def _must_not_shorten(entries: Sequence[Entry], segments: set[str], known: Obligations, until: datetime) -> None:
    for entry in entries:
        for reference in entry.segments:
            promise = safeguards.of_object(entry, reference.key, known).promise
            if reference.key in segments and promise is not None and promise.until > until:
                raise OrderRefused(
                    f"{reference.key} is kept until {promise.until:%Y-%m-%d}, which is later than {until:%Y-%m-%d}",
                    hint="retention is never shortened: name a later date, or fewer segments",
                )


def _each(work: Callable[[tuple[str, str]], None], objects: Sequence[tuple[str, str]]) -> None:
    with ThreadPoolExecutor(_AT_ONCE, "holds") as pool:
        for _ in pool.map(work, objects):
            pass


def _salt() -> str:
    return secrets.token_hex(32)
