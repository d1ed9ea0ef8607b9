"""What can go wrong between a delivery and its seal. Each class knows whether sending again later can help.

IngestError
├── DeliveryRefused         this delivery, as it is, will never be accepted
│   ├── UnsupportedCoding       a Content-Encoding nobody here decodes
│   ├── UndecodableBody         the coding is known, the bytes are not in it
│   ├── ExpandsTooFar           decoded content over the bound (a decompression bomb, or a limit set too low)
│   ├── BodyTooLarge            more bytes sent than the bound
│   ├── NotTheProtocol          not what its URL's protocol sends
│   ├── SignatureRefused        not signed by who is to sign it, or not meant for us
│   └── UnknownSource           no such kind of log
├── IntakeUnavailable       transient: nothing was accepted, send again (HTTP: 503 with Retry-After)
│   ├── IntakeBusy              uploads in flight hold all the memory they may
│   ├── IntakeStopped           not started, or stopping
│   ├── SpoolFull               the spool holds all the bytes it may until the sealer catches up
│   └── SpoolUnavailable        the spool's disk refused a write or an fsync
├── SpoolError              the state directory itself; an operator has to look
│   ├── SpoolLocked             another process holds it
│   ├── SpoolDamaged            acknowledged bytes are no longer what was written
│   └── WriterFenced            the log knows a newer epoch of this writer: a second instance runs
├── SealFailed              a cut could not be sealed
│   ├── CutTooLarge             a cut's records don't fit the format's bounds; it is cut smaller
│   ├── SealedElsewhere         batches of a cut are in the log already: another writer had them too
│   └── SealConflict            the log holds something else than what this spool says was sealed
├── UnsealedUnreadable      transient: what is not sealed yet could not be read for a question
├── PullError               an object that was to be fetched from a bucket
│   ├── BucketUnavailable       transient: bucket or queue did not answer, or throttle
│   ├── BucketRefused           bucket or queue said no, and will until somebody changes permissions or settings
│   ├── OutsidePerimeter        a bucket nobody allowed to be read
│   ├── ObjectGone              deleted or replaced before it could be fetched
│   ├── ObjectMismatch          the object is not the one that was announced
│   └── NotificationInvalid     a queue message that is no S3 notification
├── ReceiptInvalid          a receipt that does not parse or does not verify
└── UnknownBatch            no batch of that id
"""

from __future__ import annotations

from collections.abc import Set
from typing import ClassVar

from strongroom.archive.errors import StrongroomError


class IngestError(StrongroomError):
    """Base of all errors of `ingest`. `transient`: the same call may succeed later, unchanged."""

    code = "ingest"
    transient: ClassVar[bool] = False


class DeliveryRefused(IngestError):
    """The delivery as sent can't be accepted, now or later."""

    code = "delivery-refused"


class UnsupportedCoding(DeliveryRefused):
    """A content coding that is not decoded here."""

    code = "unsupported-coding"


class UndecodableBody(DeliveryRefused):
    """The body is not what its content coding says."""

    code = "undecodable-body"


class ExpandsTooFar(DeliveryRefused):
    """The decoded content passes the bound."""

    code = "expands-too-far"


class BodyTooLarge(DeliveryRefused):
    """The body as sent passes the bound."""

    code = "body-too-large"


class NotTheProtocol(DeliveryRefused):
    """The request is not of the protocol that its URL is for."""

    code = "not-the-protocol"


class SignatureRefused(DeliveryRefused):
    """A message is not signed by who is to sign it, or was never meant for this archive."""

    code = "signature-refused"


class UnknownSource(DeliveryRefused):
    """No source of that name."""

    code = "unknown-source"


class IntakeUnavailable(IngestError):
    """Nothing was accepted; the same delivery may be accepted later."""

    code = "intake-unavailable"
    transient = True


class IntakeBusy(IntakeUnavailable):
    """The memory set aside for uploads in flight is used up."""

    code = "intake-busy"


class IntakeStopped(IntakeUnavailable):
    """The intake is not running."""

    code = "intake-stopped"


class SpoolFull(IntakeUnavailable):
    """The spool reached its bound; it drains as the sealer works."""

    code = "spool-full"


class SpoolUnavailable(IntakeUnavailable):
    """The spool's disk refused a write or an fsync; nothing of this delivery counts as stored."""

    code = "spool-unavailable"


class SpoolError(IngestError):
    """Something about the state directory that a person has to look at."""

    code = "spool"


class SpoolLocked(SpoolError):
    """Another process uses this state directory."""

    code = "spool-locked"


class SpoolDamaged(SpoolError):
    """A frame that was durable once is no longer readable."""

    code = "spool-damaged"


class WriterFenced(SpoolError):
    """The log holds a newer epoch of this writer than this process writes."""

    code = "writer-fenced"


class SealFailed(IngestError):
    """A cut could not be sealed."""

    code = "seal-failed"


class CutTooLarge(SealFailed):
    """A cut needs more memory or more row groups than the bounds allow."""

    code = "cut-too-large"


class SealedElsewhere(SealFailed):
    """Another writer sealed `batches` (ids) of a cut first; the cut is built again without their records."""

    code = "sealed-elsewhere"

    def __init__(self, batches: Set[str]) -> None:
        super().__init__(f"{len(batches)} batches were sealed by another writer first")
        self.batches = frozenset(batches)


class SealConflict(SealFailed):
    """The log names other segments for a range than this spool rebuilds; going on could seal records twice."""

    code = "seal-conflict"


class UnsealedUnreadable(IngestError):
    """What is not sealed yet could not be read for a question; a question to what is sealed is answered."""

    code = "unsealed-unreadable"
    transient = True


class PullError(IngestError):
    """An object could not be fetched from its bucket."""

    code = "pull"


class BucketUnavailable(PullError):
    """The bucket or the queue failed in a way that may pass."""

    code = "bucket-unavailable"
    transient = True


class BucketRefused(PullError):
    """The bucket or the queue refused, and will again until somebody changes permissions or settings."""

    code = "bucket-refused"


class OutsidePerimeter(PullError):
    """A bucket that nobody allowed to be read."""

    code = "outside-perimeter"


class ObjectGone(PullError):
    """The object was deleted, or replaced, before it could be fetched."""

    code = "object-gone"


class ObjectMismatch(PullError):
    """The object is not the one that was announced."""

    code = "object-mismatch"


class NotificationInvalid(PullError):
    """A queue message that is no S3 notification."""

    code = "notification-invalid"


class ReceiptInvalid(IngestError):
    """A receipt that does not parse or whose signature does not verify."""

    code = "receipt-invalid"


class UnknownBatch(IngestError):
    """No batch of that id was ever accepted here."""

    code = "unknown-batch"
