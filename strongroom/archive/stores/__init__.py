"""Where archive objects live: one small protocol, one module a backend.

The contract every store keeps, and the conformance tests check:

* **Create-only.** `create` either makes the whole object durable under a name that was free, or raises
  `ObjectExists` and changes nothing. Of any number of concurrent creators of one name exactly one succeeds. This is
  the archive's only coordination.
* **Atomic.** No reader ever sees part of an object.
* **Durable.** When `create` returns, the object survives a crash of the process and of the machine.
* **Read-your-writes.** After `create` returned, `get`, `head` and `list` in any process see the object.
* **Unknown outcomes are said.** `StoreUnavailable` from `create` means "may or may not have happened": read back.

Nothing in the protocol changes or removes an object: the archive never needs to. Stores that also keep versions and
lock them implement `LockingStore`.
"""

from strongroom.archive.stores.directory import DirectoryStore
from strongroom.archive.stores.s3 import S3Store
from strongroom.archive.stores.s3client import S3Options
from strongroom.archive.stores.store import LockingStore, ObjectInfo, ObjectStore, ObjectVersion, Protection

__all__ = [
    "DirectoryStore",
    "LockingStore",
    "ObjectInfo",
    "ObjectStore",
    "ObjectVersion",
    "Protection",
    "S3Options",
    "S3Store",
]
