"""The archive's store, as the settings describe it: the one place where the service opens it."""

from __future__ import annotations

from strongroom.archive.retention import Retention, Rule, parse
from strongroom.archive.stores.location import open_store
from strongroom.archive.stores.s3 import S3Store
from strongroom.archive.stores.store import ObjectStore
from strongroom.service.settings import Settings


def open_archive(settings: Settings, *, create: bool = False) -> ObjectStore:
    """The store that `settings.archive` names; `create` makes a missing folder, never a bucket.

    Raises StoreUnavailable, StoreRefused.
    """
    return open_store(settings.archive, settings.s3_options, create=create)


def promises(settings: Settings, store: ObjectStore) -> Retention:
    """What entries may promise: the settings' rules, none of them below what the store gives every object anyway."""
    rules = parse(settings.retention)
    if not isinstance(store, S3Store):
        return rules
    mode, days = store.least
    return rules.raised_to(Rule(mode, days) if mode and days else None)
