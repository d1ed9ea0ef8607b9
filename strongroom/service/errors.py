"""What can go wrong between a person or a forwarder and the parts behind.

    StrongroomError
    └── ServiceError
        ├── SettingsInvalid         a setting with a value or a name that can't be used
        ├── NotForProduction        the setting `production` asks for what is not there
        ├── StateUnusable           the state folder is damaged, or belongs to another archive
        ├── AccessError
        │   ├── Unauthenticated         no token, or none that is known and alive
        │   │   └── TokenMissing            no token at all
        │   ├── Forbidden               a good token, but not for this
        │   ├── TokensUnavailable       the token store can't be read or written now
        │   ├── LimitReached            transient: this token takes all it may; when to try again
        │   ├── UnknownToken            no token of that id
        │   └── BadToken                a token can't be made as asked
        ├── RequestError
        │   ├── TooSlow                 transient: a delivery did not come, or was not durable, in time
        │   ├── NotAcceptable           no format among those the client accepts
        │   ├── NoSuchProof             a proof was asked for positions that don't fit the log
        │   ├── CosignatureRefused      no valid cosignature by a witness of the log's policy
        │   ├── NotSealedYet            transient: the batch a question waits for is durable but not sealed
        │   ├── NotSignedYet            transient: no checkpoint covers what a proof was asked for
        │   ├── NoAddresses             a question for evidence does not answer with records' addresses
        │   ├── EvidenceCut             a limit that nobody asked for cut the records to be exported
        │   ├── EvidenceTooLarge        the bundle would be larger than the settings allow
        │   ├── EvidenceBusy            transient: as many bundles as may be are being made or fetched
        │   ├── EvidenceFailed          transient: the process that makes a bundle ended
        │   ├── OrderRefused            a hold or an extension that can't be given as asked
        │   └── NoSuchCase              no case of that name
        │   ├── UnknownJob              no job of that id for this user
        │   ├── JobNotDone              a result was asked for that is not there, or not yet
        │   ├── JobsFull                transient: as many jobs of this user as may be wait or run
        │   ├── UnknownSaved            no saved question, or version, of that name
        │   ├── SavedForbidden          a saved question that belongs to somebody else
        │   └── SavedInvalid            a question can't be saved as it is
        ├── OutsideError
        │   ├── OutsideUnavailable      transient: what a message points to could not be fetched
        │   ├── AlertNotSent            a sink did not take an alert
        │   └── TimestampRefused        the time-stamping authority gave no timestamp that holds
        └── VerificationError
            ├── TrustMissing            there is no policy to verify against
            ├── VerificationBusy        transient: one of that level is running
            │   └── StoodDown               another node does this run
            └── VerificationFailed      it could not run to its end; nothing is known about the archive

service/problems.py maps every class to a status, service/cli.py all of them to exit code 2.
"""

from __future__ import annotations

from strongroom.archive.errors import StrongroomError


class ServiceError(StrongroomError):
    """Base of all errors of `service`."""

    code = "service"


class SettingsInvalid(ServiceError):
    """A setting has a value that can't be used, or a name that does not exist."""

    code = "settings"


class StateUnusable(ServiceError):
    """The state folder is damaged, or belongs to another archive."""

    code = "state"


class AccessError(ServiceError):
    """Who asks, and what he may."""

    code = "access"


class Unauthenticated(AccessError):
    """No token, or none that is known and alive."""

    code = "unauthenticated"


class Forbidden(AccessError):
    """A good token, but not for this."""

    code = "forbidden"


class TokenMissing(Unauthenticated):
    """No token at all."""

    code = "token-missing"


class LimitReached(AccessError):
    """One token takes all it may. `retry_after`: seconds until it may go on."""

    code = "limit-reached"

    def __init__(self, message: str, *, hint: str = "", retry_after: float = 5.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class TokensUnavailable(AccessError):
    """The token store can't be read or written now."""

    code = "tokens-unavailable"


class UnknownToken(AccessError):
    """No token of that id."""

    code = "unknown-token"


class BadToken(AccessError):
    """A token can't be made as asked."""

    code = "bad-token"


class RequestError(ServiceError):
    """A request that can't be answered as it is."""

    code = "request"


class TooSlow(RequestError):
    """A delivery did not come, or could not be made durable, in the time it has."""

    code = "too-slow"


class NotAcceptable(RequestError):
    """No format among those the client accepts."""

    code = "not-acceptable"


class NoSuchProof(RequestError):
    """A proof was asked for positions that don't fit the log."""

    code = "no-such-proof"


class CosignatureRefused(RequestError):
    """What was left, or what a witness answered, is no valid cosignature by a witness of the log's policy."""

    code = "cosignature-refused"


class NotSealedYet(RequestError):
    """The batch a question waits for is durable but not sealed yet."""

    code = "not-sealed-yet"


class NotSignedYet(RequestError):
    """No checkpoint covers yet what a proof was asked for."""

    code = "not-signed-yet"


class NoAddresses(RequestError):
    """A question for evidence does not answer with `_segment` and `_row`."""

    code = "no-addresses"


class EvidenceCut(RequestError):
    """A limit that nobody asked for cut the records to be exported."""

    code = "evidence-cut"


class EvidenceTooLarge(RequestError):
    """The bundle would be larger than the settings allow."""

    code = "evidence-too-large"


class EvidenceBusy(RequestError):
    """As many bundles as may be are being made or fetched."""

    code = "evidence-busy"


class EvidenceFailed(RequestError):
    """The process that makes a bundle ended before it was done."""

    code = "evidence-failed"


class OrderRefused(RequestError):
    """A hold, an extension or a prune that can't be given as asked."""

    code = "order-refused"


class NoSuchCase(RequestError):
    """No case of that name."""

    code = "no-such-case"


class NotForProduction(ServiceError):
    """The setting `production` is on, and something it asks for is not there."""

    code = "not-for-production"


class UnknownJob(RequestError):
    """No such job, or none that the asker may see."""

    code = "unknown-job"


class JobNotDone(RequestError):
    """The job has no result, or not yet."""

    code = "job-not-done"


class JobsFull(RequestError):
    """As many jobs of one user as may be wait or run."""

    code = "jobs-full"


class UnknownSaved(RequestError):
    """No saved question of that name, or no such version."""

    code = "unknown-saved"


class SavedForbidden(RequestError):
    """A saved question that belongs to somebody else."""

    code = "saved-forbidden"


class SavedInvalid(RequestError):
    """A question that can't be saved as it is."""

    code = "saved-invalid"


class OutsideError(ServiceError):
    """Somebody outside did not do what was asked."""

    code = "outside"


class OutsideUnavailable(OutsideError):
    """What a message points to could not be fetched."""

    code = "outside-unavailable"


class AlertNotSent(OutsideError):
    """A sink did not take an alert."""

    code = "alert-not-sent"


class TimestampRefused(OutsideError):
    """The time-stamping authority gave no timestamp that holds."""

    code = "timestamp-refused"


class VerificationError(ServiceError):
    """A verification that says nothing about the archive."""

    code = "verification"


class TrustMissing(VerificationError):
    """There is no policy to verify against."""

    code = "trust-missing"


class VerificationBusy(VerificationError):
    """A verification of that level is running already."""

    code = "verification-busy"


class StoodDown(VerificationBusy):
    """Another node does this run, or has done it."""

    code = "verification-stood-down"


class VerificationFailed(VerificationError):
    """The verification could not run to its end."""

    code = "verification-failed"
