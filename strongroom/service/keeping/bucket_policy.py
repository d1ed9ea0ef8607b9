"""The policy an archive's bucket should have, as a document. Pure.

Only denials: rights are given by the policies of roles, and no right given there or later reaches past these. What is
denied, to everybody or to all but those named:

    DenyPlainHttp          requests without TLS, or with TLS older than 1.2
    DenyOutsideOrg         principals of other organisations
    DenyOutsideNetwork     requests that did not come through the named VPC endpoints
    DenyOtherWriters       putting, extending and holding by anybody but the named principals
    DenyOverwriting        putting on a name that is taken (S3 would make it a newer version)
    DenyWeakLock           putting with a lock weaker or shorter than the archive's rule
    DenyOtherKeys          putting under another KMS key
    DenyDeleting           deleting objects or versions, and bypassing governance mode
    DenyUndoing            changing the bucket's own safeguards, by all but the break-glass principals

Services of AWS acting for the organisation (replication, log delivery) are let through the perimeter, not through the
rest. Source: IAM user guide, "Data perimeters"; Amazon S3 user guide, "Object Lock considerations", "Enforce
conditional writes".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Statement = dict[str, Any]

# Their objects are small, made to be short-lived, and locked as their makers say.
SHORT_LIVED = ("canary/*", "spool/*")


@dataclass(frozen=True, slots=True)
class Perimeter:
    """Who may reach the bucket, and from where; what is empty is not restricted.

    `principals`: ARNs (with * and ?) that may write. `break_glass`: ARNs that may change the bucket's safeguards.
    """

    org_id: str = ""
    vpc_endpoints: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()
    break_glass: tuple[str, ...] = ()


def document(
    bucket: str,
    partition: str,
    *,
    prefix: str = "",
    perimeter: Perimeter = Perimeter(),
    mode: str = "",
    days: int = 0,
    kms_key: str = "",
) -> dict[str, Any]:
    """The policy. `partition`: aws, aws-us-gov, aws-cn. `mode`, `days`: the least lock of every object, if any."""
    arn = f"arn:{partition}:s3:::{bucket}"
    everything = [arn, f"{arn}/*"]
    objects = f"{arn}/{prefix}/*" if prefix else f"{arn}/*"
    short_lived = [f"{arn}/{prefix + '/' if prefix else ''}{name}" for name in SHORT_LIVED]
    not_a_service = {"BoolIfExists": {"aws:PrincipalIsAWSService": "false"}}
    statements: list[Statement] = [
        _deny("DenyPlainHttp", "s3:*", everything, {"Bool": {"aws:SecureTransport": "false"}}),
        _deny("DenyOldTls", "s3:*", everything, {"NumericLessThan": {"s3:TlsVersion": "1.2"}}),
    ]
    if perimeter.org_id:
        outside = {"StringNotEqualsIfExists": {"aws:PrincipalOrgID": perimeter.org_id}, **not_a_service}
        statements.append(_deny("DenyOutsideOrg", "s3:*", everything, outside))
    if perimeter.vpc_endpoints:
        elsewhere = {"StringNotEqualsIfExists": {"aws:SourceVpce": list(perimeter.vpc_endpoints)}}
        by_hand = {"BoolIfExists": {"aws:PrincipalIsAWSService": "false", "aws:ViaAWSService": "false"}}
        statements.append(_deny("DenyOutsideNetwork", "s3:*", everything, {**elsewhere, **by_hand}))
    if perimeter.principals:
        writing = ["s3:PutObject", "s3:PutObjectRetention", "s3:PutObjectLegalHold"]
        statements.append(_deny("DenyOtherWriters", writing, objects, _but(perimeter.principals)))
    # A multipart upload puts its parts without the condition and is completed with it.
    creating = {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}
    statements.append(_deny("DenyOverwriting", "s3:PutObject", objects, creating))
    if mode:
        weaker = {"StringNotEqualsIfExists": {"s3:object-lock-mode": mode}} if mode == "COMPLIANCE" else {}
        if weaker:
            statements.append(_deny("DenyWeakLock", ["s3:PutObject", "s3:PutObjectRetention"], objects, weaker))
    if days > 1:
        shorter = {"NumericLessThan": {"s3:object-lock-remaining-retention-days": str(days - 1)}}
        statement = _deny("DenyShortLock", "s3:PutObject", [], shorter)
        del statement["Resource"]
        statements.append({**statement, "NotResource": [arn, *short_lived]})
    if kms_key:
        other = {"StringNotEqualsIfExists": {"s3:x-amz-server-side-encryption-aws-kms-key-id": kms_key}}
        statements.append(_deny("DenyOtherKeys", "s3:PutObject", objects, other))
    deleting = ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"]
    statements.append(_deny("DenyDeleting", deleting, objects))
    if perimeter.break_glass:
        undoing = [
            *("s3:PutBucketVersioning", "s3:PutBucketObjectLockConfiguration", "s3:PutBucketPublicAccessBlock"),
            *("s3:PutLifecycleConfiguration", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy", "s3:PutBucketAcl"),
            *("s3:PutEncryptionConfiguration", "s3:PutReplicationConfiguration", "s3:PutBucketOwnershipControls"),
        ]
        statements.append(_deny("DenyUndoing", undoing, arn, _but(perimeter.break_glass)))
    return {"Version": "2012-10-17", "Statement": statements}


def denies(policy: dict[str, Any], key: str) -> bool:
    """Whether some statement for everybody denies by the condition key `key`."""
    for statement in _statements(policy):
        conditions = statement.get("Condition", {})
        named = {name.lower() for operator in conditions.values() for name in operator}
        if statement.get("Effect") == "Deny" and _everybody(statement) and key.lower() in named:
            return True
    return False


def missing(policy: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Names of the statements of `wanted` that `policy` does not have, to the letter."""
    present = {str(statement.get("Sid")): statement for statement in _statements(policy)}
    return [name["Sid"] for name in wanted["Statement"] if _plain(present.get(name["Sid"], {})) != _plain(name)]


def _statements(policy: dict[str, Any]) -> Sequence[Statement]:
    found = policy.get("Statement", [])
    return [found] if isinstance(found, dict) else found


def _everybody(statement: Statement) -> bool:
    principal = statement.get("Principal")
    return principal == "*" or (isinstance(principal, dict) and principal.get("AWS") in ("*", ["*"]))


def _plain(value: Any) -> Any:
    """S3 gives single values back with or without their list, and lists in any order."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return sorted(map(str, value)) if len(value) > 1 else _plain(value[0]) if value else []
    return str(value)


def _deny(name: str, action: Any, resource: Any, condition: dict[str, Any] | None = None) -> Statement:
    statement = {"Sid": name, "Effect": "Deny", "Principal": "*", "Action": action, "Resource": resource}
    return statement | ({"Condition": condition} if condition else {})


def _but(principals: Sequence[str]) -> dict[str, Any]:
    return {"ArnNotLike": {"aws:PrincipalArn": list(principals)}}
