"""The archive's store, as the settings describe it: the one place where the service opens it."""

from __future__ import annotations

from strongroom.archive.stores.location import open_store
from strongroom.archive.stores.store import ObjectStore
from strongroom.service.settings import Settings


def open_archive(settings: Settings, *, create: bool = False) -> ObjectStore:
    """The store that `settings.archive` names; `create` makes a missing folder, never a bucket.

    Raises StoreUnavailable, StoreRefused.
    """
    return open_store(settings.archive, settings.s3_options, create=create)
