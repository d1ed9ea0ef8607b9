"""An archive's bucket: what must be right about it, looked at piece by piece, each with the command that mends it.

Looking changes nothing. `create` makes a bucket that is right from the beginning: Object Lock can't be had later
without the provider's help, so a bucket that exists is checked, never converted.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from strongroom.archive import layout
from strongroom.archive.errors import ObjectMissing, StoreRefused, StoreUnavailable
from strongroom.archive.retention.rules import MODES, Rule
from strongroom.archive.stores.s3 import S3Store
from strongroom.archive.stores.s3client import code_of, translated
from strongroom.service.doctor import Result, Verdict
from strongroom.service.keeping import bucket_policy
from strongroom.service.keeping.bucket_policy import Perimeter

_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_ABSENT = frozenset(
    {
        "NoSuchBucketPolicy", "NoSuchLifecycleConfiguration", "NoSuchPublicAccessBlockConfiguration",
        "ObjectLockConfigurationNotFoundError", "OwnershipControlsNotFoundError",
        "ServerSideEncryptionConfigurationNotFoundError",
    }
)  # fmt: skip
# What a store that is not AWS may not know of at all.
_UNKNOWN = frozenset({"NotImplemented", "MethodNotAllowed", "XNotImplemented", "InvalidRequest"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the bucket should be.

    `rule`: its default retention, at least. `kms_key` "": any encryption at rest. `spool_days`: how long objects under
    `spool/` are locked; 0 where batches are spooled on disk.
    """

    rule: Rule = Rule("COMPLIANCE", 365)  # noqa: RUF009 (frozen)
    kms_key: str = ""
    perimeter: Perimeter = field(default_factory=Perimeter)
    spool_days: float = 0


def create(store: S3Store, wanted: Wanted) -> None:
    """Make the bucket, with everything that `examine` looks at. Raises StoreRefused (also when it exists)."""
    client, bucket = store.client, store.bucket
    region = store.options.region or client.meta.region_name
    place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    with translated(f"bucket {bucket}"):
        client.create_bucket(
            Bucket=bucket, ObjectLockEnabledForBucket=True, ObjectOwnership="BucketOwnerEnforced", **place
        )
        # Before anything can be put: access first, then what every object gets.
        client.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(_BLOCKS, True))
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        client.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=_lock(wanted.rule))
        client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=_encryption(wanted.kms_key))
        client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=_lifecycle(store, wanted))
        client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy(store, wanted)))


def policy(store: S3Store, wanted: Wanted) -> dict[str, Any]:
    """The bucket policy that belongs to these wishes, in the partition the client is in."""
    return bucket_policy.document(
        store.bucket,
        store.client.meta.partition,
        prefix=store.prefix.rstrip("/"),
        perimeter=wanted.perimeter,
        mode=wanted.rule.mode,
        days=wanted.rule.days,
        kms_key=wanted.kms_key,
    )


def examine(store: S3Store, wanted: Wanted) -> list[Result]:
    """Every check, or one failure when the bucket can't be reached."""
    try:
        region = store.region()
    except StoreUnavailable as error:
        return [Result("failure", "bucket", error.message, error.hint or "strongroom init --create makes it")]
    found = [Result("ok", "bucket", f"{store.bucket}, Region {region or 'not told'}")]
    checks: list[tuple[str, Callable[[S3Store, Wanted], Iterator[Result]]]] = [
        ("versioning", _check_versioning),
        ("object lock", _check_lock),
        ("public access", _check_public_access),
        ("ownership", _check_ownership),
        ("encryption", _check_encryption),
        ("policy", _check_policy),
        ("lifecycle", _check_lifecycle),
    ]
    for name, check in checks:
        try:
            found += check(store, wanted)
        except (StoreUnavailable, ObjectMissing) as error:
            found.append(Result("warning", name, f"can't be looked at: {error.message}", "give the right to read it"))
    return found


def _check_versioning(store: S3Store, _: Wanted) -> Iterator[Result]:
    status = _asked(store, "get_bucket_versioning").get("Status") or "off"
    fix = _command(store, "put-bucket-versioning", "--versioning-configuration", "Status=Enabled")
    yield _result(status == "Enabled", "versioning", status.lower(), fix)


def _check_lock(store: S3Store, wanted: Wanted) -> Iterator[Result]:
    told = _asked(store, "get_object_lock_configuration").get("ObjectLockConfiguration", {})
    on = told.get("ObjectLockEnabled") == "Enabled"
    yield _result(
        on, "object lock", "enabled" if on else "not enabled", "make another bucket: strongroom init --create"
    )
    if not on:
        return
    default = told.get("Rule", {}).get("DefaultRetention", {})
    days = int(default.get("Days", 0)) + 365 * int(default.get("Years", 0))
    mode = default.get("Mode", "")
    fix = _command(store, "put-object-lock-configuration", "--object-lock-configuration", _json(_lock(wanted.rule)))
    shown = f"{mode} {days} days" if mode else "none: what is put without a lock of its own has none"
    fits = bool(mode) and MODES.index(mode) >= MODES.index(wanted.rule.mode) and days >= wanted.rule.days
    yield _result(
        fits,
        "default retention",
        shown,
        f"at least {wanted.rule}: {fix}",
        otherwise="failure" if not mode else "warning",
    )


def _check_public_access(store: S3Store, _: Wanted) -> Iterator[Result]:
    blocks = _asked(store, "get_public_access_block").get("PublicAccessBlockConfiguration", {})
    off = [name for name in _BLOCKS if not blocks.get(name)]
    setting = ",".join(f"{name}=true" for name in _BLOCKS)
    fix = _command(store, "put-public-access-block", "--public-access-block-configuration", setting)
    yield _result(not off, "public access", f"not blocked: {', '.join(off)}" if off else "blocked", fix)


def _check_ownership(store: S3Store, _: Wanted) -> Iterator[Result]:
    rules = _asked(store, "get_bucket_ownership_controls").get("OwnershipControls", {}).get("Rules", [])
    found = rules[0].get("ObjectOwnership", "") if rules else "not set"
    controls = _json({"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]})
    fix = _command(store, "put-bucket-ownership-controls", "--ownership-controls", controls)
    yield _result(found == "BucketOwnerEnforced", "ownership", found, fix, otherwise="warning")


def _check_encryption(store: S3Store, wanted: Wanted) -> Iterator[Result]:
    told = _asked(store, "get_bucket_encryption").get("ServerSideEncryptionConfiguration", {})
    rules = [rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in told.get("Rules", [])]
    algorithm = rules[0].get("SSEAlgorithm", "") if rules else ""
    key = rules[0].get("KMSMasterKeyID", "") if rules else ""
    fits = bool(algorithm) and (not wanted.kms_key or key == wanted.kms_key)
    setting = _json(_encryption(wanted.kms_key))
    fix = _command(store, "put-bucket-encryption", "--server-side-encryption-configuration", setting)
    yield _result(fits, "encryption", f"{algorithm} {key}".strip() or "none", fix)


def _check_policy(store: S3Store, wanted: Wanted) -> Iterator[Result]:
    text = _asked(store, "get_bucket_policy").get("Policy", "")
    try:
        present = json.loads(text) if text else {}
    except ValueError:
        present = {}
    ours = policy(store, wanted)
    lacking = bucket_policy.missing(present, ours)
    fix = _command(store, "put-bucket-policy", "--policy", _json(ours))
    tls = bucket_policy.denies(present, "aws:SecureTransport")
    shown = "plain HTTP is denied" if tls else "plain HTTP is not denied"
    yield _result(tls, "TLS only", shown, "DenyPlainHttp of the policy below")
    keys = ("aws:PrincipalOrgID", "aws:PrincipalOrgPaths", "aws:SourceVpce", "aws:SourceVpc", "aws:PrincipalArn")
    fence = [key for key in keys if bucket_policy.denies(present, key)]
    shown = f"denied outside {', '.join(fence)}" if fence else "no condition on organisation, network or principal"
    advice = "strongroom init with --org-id, --vpc-endpoint, --principal prints a policy"
    yield _result(bool(fence), "perimeter", shown, advice, otherwise="warning")
    if lacking:
        yield Result("warning", "policy", f"without, or otherwise than here: {', '.join(lacking)}", fix)
    else:
        yield Result("ok", "policy", f"all {len(ours['Statement'])} statements")


def _check_lifecycle(store: S3Store, wanted: Wanted) -> Iterator[Result]:
    present = _asked(store, "get_bucket_lifecycle_configuration").get("Rules", [])
    rules = [rule for rule in present if rule["Status"] == "Enabled"]
    setting = _json(_lifecycle(store, wanted, present))
    fix = _command(store, "put-bucket-lifecycle-configuration", "--lifecycle-configuration", setting)
    sweeps = any("AbortIncompleteMultipartUpload" in rule for rule in rules)
    shown = "unfinished uploads are swept up" if sweeps else "unfinished uploads stay, and cost, for ever"
    yield _result(sweeps, "lifecycle", shown, fix, otherwise="warning")
    if wanted.spool_days:
        emptied, shown = _empties_spool(rules, f"{store.prefix}{layout.SPOOL}", wanted.spool_days)
        yield _result(emptied, "lifecycle: spool", shown, fix, otherwise="warning")
    for rule in rules:
        prefix = _prefix_of(rule)
        if "Expiration" in rule and not prefix.removeprefix(store.prefix).startswith(
            ("canary/", "spool/", "segments/")
        ):
            found = f"rule {rule.get('ID', '')!r} expires names under {prefix or 'the whole bucket'!r}"
            advice = "limit it to segments/, spool/ and canary/: the log must stay as long as anything it proves"
            yield Result("warning", "lifecycle", found, advice)


def _empties_spool(rules: list[dict[str, Any]], spool: str, locked: float) -> tuple[bool, str]:
    """Whether rules remove every version under `spool`, after its lock of so many days; and that in words."""
    over = [rule for rule in rules if spool.startswith(_prefix_of(rule))]
    days = [rule["Expiration"]["Days"] for rule in over if "Days" in rule.get("Expiration", {})]
    if not days or not any("NoncurrentVersionExpiration" in rule for rule in over):
        return False, f"what is sealed stays under {spool}, and costs, for ever"
    shown = f"{spool} expires after {min(days)} days, its locks end after {locked:g}"
    return min(days) > locked, shown


def _prefix_of(rule: dict[str, Any]) -> str:
    """Where a lifecycle rule applies; "" is everywhere."""
    where = rule.get("Filter", {})
    return str(rule.get("Prefix") or where.get("Prefix") or where.get("And", {}).get("Prefix", ""))


def _asked(store: S3Store, operation: str) -> dict[str, Any]:
    """The answer to a question about the bucket; {} when it has no such configuration."""
    try:
        with translated(f"bucket {store.bucket}"):
            answer: dict[str, Any] = getattr(store.client, operation)(Bucket=store.bucket)
            return answer
    except (StoreUnavailable, ObjectMissing) as error:
        code = code_of(error.__cause__ or error.__context__)[0] if (error.__cause__ or error.__context__) else ""
        if code in _ABSENT:
            return {}
        if code in _UNKNOWN:
            raise StoreRefused(f"this store does not know {operation}") from None
        raise


def _result(fits: bool, check: str, found: str, fix: str, *, otherwise: Verdict = "failure") -> Result:
    return Result("ok", check, found) if fits else Result(otherwise, check, found, fix)


def _lock(rule: Rule) -> dict[str, Any]:
    retention = {"Mode": rule.mode, "Days": rule.days}
    return {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}}


def _encryption(kms_key: str) -> dict[str, Any]:
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": kms_key} if kms_key else {"SSEAlgorithm": "AES256"}
    return {"Rules": [{"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": bool(kms_key)}]}


def _lifecycle(store: S3Store, wanted: Wanted, present: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The rules a bucket needs, beside those of others that it has (a configuration is only ever put as a whole).

    Unfinished uploads go after a week, canaries when their lock is over, and the spool's objects, which are sealed by
    then, two days after theirs. Nothing else is ever expired from here.
    """
    sweep = {"ID": "unfinished-uploads", "Status": "Enabled", "Filter": {"Prefix": ""}}
    ours = [
        {**sweep, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}},
        _expiry("canaries", f"{store.prefix}{layout.CANARIES}", 7),
    ]
    if wanted.spool_days:
        ours.append(_expiry("spool", f"{store.prefix}{layout.SPOOL}", ceil(wanted.spool_days) + 2))
    named = {rule["ID"] for rule in ours}
    return {"Rules": [*(rule for rule in present if rule.get("ID") not in named), *ours]}


def _expiry(name: str, prefix: str, days: int) -> dict[str, Any]:
    """A rule that removes every version under `prefix`: by age the newest, which leaves a marker, then the rest."""
    gone = {"Expiration": {"Days": days}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}
    return {"ID": name, "Status": "Enabled", "Filter": {"Prefix": prefix}, **gone}


def _command(store: S3Store, action: str, option: str, value: str) -> str:
    """The AWS CLI command that sets one thing."""
    words = ["aws", "s3api", action, "--bucket", store.bucket]
    words += ["--region", store.options.region] if store.options.region else []
    words += ["--endpoint-url", store.options.endpoint_url] if store.options.endpoint_url else []
    return shlex.join([*words, option, value])


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), default=str)  # dates of lifecycle rules
