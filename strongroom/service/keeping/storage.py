"""The archive's store, as the settings describe it: the one place where the service opens it."""

from __future__ import annotations

from pathlib import Path

from strongroom.archive.encryption.wrapping import KeyWrapper, LocalWrapper, WrappingKeys
from strongroom.archive.log import Log
from strongroom.archive.retention.rules import Retention, Rule, parse
from strongroom.archive.stores.location import open_store
from strongroom.archive.stores.s3 import S3Store
from strongroom.archive.stores.store import ObjectStore
from strongroom.service.settings import Settings


def open_archive(settings: Settings, *, create: bool = False) -> ObjectStore:
    """The store that `settings.archive` names; `create` makes a missing folder, never a bucket.

    Raises StoreUnavailable, StoreRefused.
    """
    return open_store(settings.archive, settings.s3_options, create=create)


def open_log(settings: Settings, store: ObjectStore | None = None) -> Log:
    """The archive's log, in `store` or the store the settings name, with the keys its contents need.

    Raises what `open_archive` and `wrapping_keys` raise, ObjectMissing, FormatError.
    """
    return Log.open(open_archive(settings) if store is None else store, wrapping_keys(settings))


def wrapping_keys(settings: Settings) -> WrappingKeys:
    """The keys that encrypt and decrypt. Asks no key service. Raises KeyUnusable."""
    current = [_wrapper(name) for name in _names(settings.encryption_key)]
    return WrappingKeys(
        current[0] if current else None, [_wrapper(name) for name in _names(settings.encryption_keys_old)]
    )


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _wrapper(name: str) -> KeyWrapper:
    kind, _, where = name.partition(":")
    if kind == "kms":
        from strongroom.archive.encryption.kms_wrapping import KmsWrapper

        return KmsWrapper(where)
    return LocalWrapper.load(Path(where))


def promises(settings: Settings, store: ObjectStore) -> Retention:
    """What entries may promise: the settings' rules, none of them below what the store gives every object anyway."""
    rules = parse(settings.retention)
    if not isinstance(store, S3Store):
        return rules
    mode, days = store.least
    return rules.raised_to(Rule(mode, days) if mode and days else None)
