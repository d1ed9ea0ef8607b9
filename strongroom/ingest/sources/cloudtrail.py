"""AWS CloudTrail: who called which API, from where, with what result.

Delivered as `{"Records": […]}` files in S3, inside EventBridge envelopes (`detail`), or one event a line from a
subscription. Field reference: AWS CloudTrail user guide, "CloudTrail record contents" (versions 1.00 to 1.11).

This is the source with the most records, so it has the fast way: msgspec decodes just the fields that become columns
into Structs, and columns are built one at a time. Everything else stays in `raw`, one `->>` away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from strongroom.ingest.sources import jsonsplit, lenient, outline, times
from strongroom.ingest.sources.documents import container
from strongroom.ingest.sources.fields import text, truth
from strongroom.ingest.sources.source import TEXT, TEXTS, Contexts, Split

# gc=False: millions of small objects without cycles; the collector would only visit them in vain.


class Issuer(msgspec.Struct, gc=False):
    arn: str | None = None
    userName: str | None = None


class Attributes(msgspec.Struct, gc=False):
    mfaAuthenticated: str | bool | None = None


class Session(msgspec.Struct, gc=False):
    sessionIssuer: Issuer | None = None
    attributes: Attributes | None = None
    sourceIdentity: str | None = None


class Identity(msgspec.Struct, gc=False):
    type: str | None = None
    principalId: str | None = None
    arn: str | None = None
    accountId: str | None = None
    accessKeyId: str | None = None
    userName: str | None = None
    invokedBy: str | None = None
    sessionContext: Session | None = None


class Request(msgspec.Struct, gc=False):
    bucketName: str | None = None


class Additional(msgspec.Struct, gc=False):
    MFAUsed: str | None = None


class Tls(msgspec.Struct, gc=False):
    tlsVersion: str | None = None


class Insight(msgspec.Struct, gc=False):
    eventName: str | None = None
    eventSource: str | None = None
    insightType: str | None = None
    state: str | None = None


class Resource(msgspec.Struct, gc=False):
    ARN: str | None = None
    arn: str | None = None


class Event(msgspec.Struct, gc=False):
    """The fields of a CloudTrail record that become columns, under AWS's names."""

    eventTime: str | None = None
    eventVersion: str | None = None
    eventID: str | None = None
    eventName: str | None = None
    eventSource: str | None = None
    eventType: str | None = None
    eventCategory: str | None = None
    awsRegion: str | None = None
    recipientAccountId: str | None = None
    sourceIPAddress: str | None = None
    userAgent: str | None = None
    errorCode: str | None = None
    errorMessage: str | None = None
    readOnly: bool | str | None = None
    managementEvent: bool | str | None = None
    requestID: str | None = None
    sharedEventID: str | None = None
    vpcEndpointId: str | None = None
    sessionCredentialFromConsole: bool | str | None = None
    userIdentity: Identity | None = None
    requestParameters: Request | None = None
    additionalEventData: Additional | None = None
    tlsDetails: Tls | None = None
    insightDetails: Insight | None = None
    resources: list[Resource] | None = None


_DECODER = msgspec.json.Decoder(Event)
_NOBODY, _NO_SESSION, _NO_ISSUER = Identity(), Session(), Issuer()
_NO_ATTRIBUTES, _NO_REQUEST, _NO_ADDITIONAL, _NO_TLS = Attributes(), Request(), Additional(), Tls()
_NO_INSIGHT = Insight()
_AT_ONCE = 512  # events that are decoded before their columns are made: they stay in the processor's cache


class CloudTrail:
    """See the module."""

    name = "cloudtrail"
    description = "AWS API calls, sign-ins and service events recorded by CloudTrail"
    natural_id: str | None = "event_id"
    sort: tuple[str, ...] = ("account", "event_name", "event_time")
    summary_columns: tuple[str, ...] = (
        "account",
        "region",
        "event_name",
        "event_source",
        "source_address",
        "access_key_id",
        "arn",
    )
    containers = (container("Records"), container("detail", many=False))

    schema = pa.schema(
        {
            "event_id": TEXT,
            "event_name": TEXT,
            "event_source": TEXT,
            "event_type": TEXT,
            "event_category": TEXT,
            "event_version": TEXT,
            "account": TEXT,
            "region": TEXT,
            "identity_type": TEXT,
            "principal_id": TEXT,
            "arn": TEXT,
            "identity_account": TEXT,
            "user_name": TEXT,
            "access_key_id": TEXT,
            "session_issuer_arn": TEXT,
            "session_issuer_name": TEXT,
            "source_identity": TEXT,
            "mfa": pa.bool_(),
            "console_session": pa.bool_(),
            "invoked_by": TEXT,
            "source_address": TEXT,
            "user_agent": TEXT,
            "error_code": TEXT,
            "error_message": TEXT,
            "read_only": pa.bool_(),
            "management_event": pa.bool_(),
            "request_id": TEXT,
            "shared_event_id": TEXT,
            "vpc_endpoint_id": TEXT,
            "tls_version": TEXT,
            "resource_arns": TEXTS,
            "bucket_name": TEXT,
            "insight_type": TEXT,
            "insight_state": TEXT,
        }
    )

    events: Mapping[str, str] = {
        "source": "'cloudtrail'",
        "event_time": "event_time",
        "account": "account",
        "region": "region",
        "actor": "coalesce(user_name, session_issuer_name, arn, invoked_by, principal_id)",
        "action": "nullif(concat_ws(':', replace(event_source, '.amazonaws.com', ''), event_name), '')",
        "target": "coalesce(resource_arns[1], bucket_name)",
        "source_address": "source_address",
        # A failed console sign-in has a message and no code.
        "outcome": """CASE WHEN error_code IS NULL AND error_message IS NULL THEN 'success'
            WHEN error_code ILIKE '%denied%' OR error_code ILIKE '%unauthorized%' OR error_code ILIKE '%forbidden%'
              OR error_message ILIKE '%failed authentication%' THEN 'denied'
            ELSE 'failure' END""",
        "severity": "NULL::VARCHAR",
        "event_id": "event_id",
        "message": "coalesce(error_message, error_code)",
    }

    def recognise(self, head: bytes) -> bool:
        """An event name and its source; or an Insights event, which has neither at the top."""
        # Notifications of S3, Kinesis and SQS to a function borrow the names, but not these.
        foreign = ("s3", "kinesis", "dynamodb", "Sns", "messageId", "eventSourceARN")
        return (
            outline.has(head, ("eventName", "eventSource"), foreign)
            or outline.has(head, ("eventVersion", "eventType", "eventTime"), foreign)
            or outline.has(head, ("insightDetails",), foreign)
        )

    def split(self, body: bytes) -> Split:
        """Elements of `Records`, `detail` of envelopes, or bare events."""
        return jsonsplit.split(body, self.containers)

    def derive(self, raw: Sequence[bytes], context: Contexts) -> pa.Table:
        """Columns from the fields above; account, region and time from the envelope where the event has none."""
        starts = range(0, max(1, len(raw)), _AT_ONCE)
        parts = [_columns(raw[at : at + _AT_ONCE], context and context[at : at + _AT_ONCE]) for at in starts]
        return pa.concat_tables(parts)


def _columns(raw: Sequence[bytes], context: Contexts) -> pa.Table:
    events = lenient.structs(_DECODER, Event, raw)
    who = [e.userIdentity or _NOBODY for e in events]
    sessions = [w.sessionContext or _NO_SESSION for w in who]
    issuers = [s.sessionIssuer or _NO_ISSUER for s in sessions]
    occurred = [e.eventTime for e in events]
    accounts = [e.recipientAccountId or w.accountId for e, w in zip(events, who, strict=True)]
    regions = [e.awsRegion for e in events]
    if context is not None:
        occurred = [t if times.microseconds(t) is not None else None for t in occurred]
        for values, key in ((occurred, "time"), (accounts, "account"), (regions, "region")):
            _fill(values, context, key)
    columns: dict[str, pa.Array] = {
        "event_time": times.array(occurred),
        "event_id": _texts([e.eventID for e in events]),
        "event_name": _texts([e.eventName or (e.insightDetails or _NO_INSIGHT).eventName for e in events]),
        "event_source": _texts([e.eventSource or (e.insightDetails or _NO_INSIGHT).eventSource for e in events]),
        "event_type": _texts([e.eventType for e in events]),
        "event_category": _texts([e.eventCategory for e in events]),
        "event_version": _texts([e.eventVersion for e in events]),
        "account": _texts(accounts),
        "region": _texts(regions),
        "identity_type": _texts([w.type for w in who]),
        "principal_id": _texts([w.principalId for w in who]),
        "arn": _texts([w.arn for w in who]),
        "identity_account": _texts([w.accountId for w in who]),
        "user_name": _texts([w.userName for w in who]),
        "access_key_id": _texts([w.accessKeyId or None for w in who]),
        "session_issuer_arn": _texts([i.arn for i in issuers]),
        "session_issuer_name": _texts([i.userName for i in issuers]),
        "source_identity": _texts([s.sourceIdentity for s in sessions]),
        "mfa": _truths([_mfa(e, s) for e, s in zip(events, sessions, strict=True)]),
        "console_session": _truths([e.sessionCredentialFromConsole for e in events]),
        "invoked_by": _texts([w.invokedBy for w in who]),
        "source_address": _texts([e.sourceIPAddress for e in events]),
        "user_agent": _texts([e.userAgent for e in events]),
        "error_code": _texts([e.errorCode or None for e in events]),
        "error_message": _texts([e.errorMessage or None for e in events]),
        "read_only": _truths([e.readOnly for e in events]),
        "management_event": _truths([e.managementEvent for e in events]),
        "request_id": _texts([e.requestID for e in events]),
        "shared_event_id": _texts([e.sharedEventID for e in events]),
        "vpc_endpoint_id": _texts([e.vpcEndpointId for e in events]),
        "tls_version": _texts([(e.tlsDetails or _NO_TLS).tlsVersion for e in events]),
        "resource_arns": pa.array([_arns(e.resources) if e.resources else None for e in events], TEXTS),
        "bucket_name": _texts([(e.requestParameters or _NO_REQUEST).bucketName for e in events]),
        "insight_type": _texts([(e.insightDetails or _NO_INSIGHT).insightType for e in events]),
        "insight_state": _texts([(e.insightDetails or _NO_INSIGHT).state for e in events]),
    }
    return pa.table(columns)


def _texts(values: list[str | None]) -> pa.Array:
    return pa.array(values, TEXT)


def _truths(values: list[bool | str | None]) -> pa.Array:
    return pa.array([_PLAIN[v] if v in _PLAIN else truth(v) for v in values], pa.bool_())


_PLAIN = {None: None, True: True, False: False, "true": True, "false": False}


def _mfa(event: Event, session: Session) -> bool | str | None:
    """Of the session; a console sign-in has none yet and says it beside."""
    of_session = (session.attributes or _NO_ATTRIBUTES).mfaAuthenticated
    return of_session if of_session is not None else (event.additionalEventData or _NO_ADDITIONAL).MFAUsed


def _arns(resources: list[Resource]) -> list[str] | None:
    return [arn for r in resources if (arn := r.ARN or r.arn)] or None


def _fill(values: list[str | None], context: Sequence[bytes | None], key: str) -> None:
    """Put what the envelope says where the record says nothing."""
    envelopes: dict[bytes, Mapping[str, Any]] = {}
    for row, envelope in enumerate(context):
        if values[row] is None and envelope is not None:
            if envelope not in envelopes:
                envelopes[envelope] = lenient.record(envelope)
            value = envelopes[envelope].get(key)
            values[row] = text(value) if value is not None else None


SOURCE = CloudTrail()
