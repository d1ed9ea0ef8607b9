"""How each object should be protected, held against how the store says it is.

What should be follows from the log: the promise in the entry, moved on by orders, and the legal holds of open cases
(archive/retention/rules.py, archive/retention/orders.py). What is, the store says of every version (`Protection`,
`ObjectVersion`). A lock binds versions, not names: somebody may still put a second version or a delete marker on top of
a locked one. The first version is the archive's; what lies on top of it is found here, and nothing is reported for what
it hides.

Where the store keeps an object's SHA-256 itself, it is compared with the entry's without reading the object. That
rests on the store's word: `complete` reads the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from strongroom.archive import layout
from strongroom.archive.entry import Entry
from strongroom.archive.retention import rules as retention
from strongroom.archive.retention.orders import Obligations
from strongroom.archive.retention.rules import MODES, SPOOL, Promise
from strongroom.archive.stores.store import LockingStore, ObjectStore, ObjectVersion, Protection
from strongroom.archive.verification.findings import Finding

_SLACK = timedelta(minutes=5)
"""Lock and promise of one object come from clocks that may differ so much; a shortening worth its name is more."""


@dataclass(frozen=True, slots=True)
class Expected:
    """How an object should be protected: kept as promised, and held for these cases."""

    promise: Promise | None = None
    cases: tuple[str, ...] = ()

    def over(self, now: datetime) -> bool:
        """Whether nothing keeps the object any more: what was promised has ended, and no case holds it."""
        return self.promise is not None and self.promise.until <= now and not self.cases


def of_object(entry: Entry, key: str, obligations: Obligations) -> Expected:
    """What is expected of a segment that `entry` names, or of anything else that it names, or of itself."""
    if layout.segment_source(key) is not None:
        cases = obligations.holders(key)
        later = [obligations.extended[key]] if key in obligations.extended else []
    else:
        # A record is proven by its entry and details too: they are held and kept as long as any of its segments.
        segments = [reference.key for reference in entry.segments]
        cases = sorted({case for segment in segments for case in obligations.holders(segment)})
        later = [obligations.extended[segment] for segment in segments if segment in obligations.extended]
        whole_log = obligations.log_until(entry.index)
        later += [whole_log] if whole_log is not None else []
    promise = retention.promised(entry, key)
    if later:
        until = max(later if promise is None else [promise.until, *later])
        promise = Promise(promise.mode if promise is not None else MODES[0], until)
    return Expected(promise, tuple(cases))


def of_log(entry: Entry, obligations: Obligations) -> Expected:
    """What is expected of checkpoints and their like, whose newest entry is `entry`.

    They are about the whole log and not about one case: no hold is on them, and no extension of single segments.
    """
    promise = retention.promised(entry, layout.entry_key(entry.index))
    later = obligations.log_until(entry.index)
    if later is not None:
        promise = Promise(promise.mode if promise else MODES[0], max(later, promise.until if promise else later))
    return Expected(promise)


def judge(key: str, expected: Expected, found: Protection, now: datetime, **where: object) -> Iterator[Finding]:
    """What is wrong with the protection of one object."""
    promise = expected.promise
    if promise is not None and promise.until > now:
        said = f"{promise.mode} until {_text(promise.until)}"
        actual = f"{found.mode or 'no lock'}{f' until {_text(found.retain_until)}' if found.retain_until else ''}"
        if not found.mode or found.retain_until is None:
            yield Finding("LOCK_MISSING", key, said, actual, where)
        else:
            if MODES.index(found.mode) < MODES.index(promise.mode):
                yield Finding("LOCK_WEAK", key, said, actual, where)
            if found.retain_until < promise.until - _SLACK:
                yield Finding("LOCK_SHORT", key, said, actual, where)
    if expected.cases and not found.held:
        count = len(expected.cases)
        yield Finding("HOLD_MISSING", key, f"a legal hold, for {count} open case(s)", "no legal hold", where)


def keep_until(store: ObjectStore, key: str, version: str, until: datetime | None) -> None:
    """See to it that an object which is there already is locked at least until then, where the store locks at all."""
    if until is not None and isinstance(store, LockingStore):
        locked = store.protection(key, version).retain_until
        if locked is None or locked < until:
            store.extend(key, version, until)


def by_name(versions: Iterable[ObjectVersion]) -> Iterator[tuple[str, Sequence[ObjectVersion]]]:
    """Each name with its versions and markers, in the order in which they come: by name, newest first."""
    for key, group in groupby(versions, key=lambda version: version.key):
        yield key, list(group)


def judge_versions(
    key: str, versions: Sequence[ObjectVersion], over: Callable[[str], bool], where: Mapping[str, object]
) -> Iterator[Finding]:
    """What is wrong with the versions of one name, newest first. `over`: nothing keeps the object of this name."""
    if key.startswith(SPOOL) or layout.is_canary(key) or over(key):
        return  # removing these leaves markers and versions on their way out, and a canary is there to be overwritten
    kept = [version for version in versions if not version.marker]
    if len(kept) > 1:
        first, *later = reversed(kept)
        code = "ENTRY_FORK" if layout.index_of(key) is not None and key.startswith(layout.ENTRIES) else "VERSION_EXTRA"
        actual = f"{len(later)} more, the newest {later[-1].version} of {_text(later[-1].modified)}"
        named = {**where, "version": first.version, "extra": [version.version for version in later]}
        yield Finding(code, key, f"one version, {first.version}", actual, named)
    if markers := [version for version in versions if version.marker]:
        newest = markers[0]
        actual = f"a delete marker of {_text(newest.modified)}"
        actual += "" if kept else ", and no version below it"
        yield Finding("DELETE_MARKER", key, "no delete marker", actual, {**where, "marker": newest.version})


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"
