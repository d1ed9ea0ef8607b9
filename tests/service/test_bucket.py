"""Making buckets ready and trying their locks, on moto (which does not enforce all of them) and on one that does."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from strongroom.archive.retention.rules import Rule
from strongroom.archive.stores.s3 import S3Store
from strongroom.service.checking import canary
from strongroom.service.checking.canary import Trial
from strongroom.service.keeping import bucket, bucket_policy
from strongroom.service.keeping.bucket import Wanted
from strongroom.service.keeping.bucket_policy import Perimeter
from tests.buckets import S3
from tests.service.conftest import strongroom

FENCE = Perimeter(
    "o-abcdef", ("vpce-1", "vpce-2"), ("arn:aws:iam::111122223333:role/writer",), ("arn:aws:iam::*:role/x",)
)


class Enforcing:
    """A client of a store that refuses to shorten or weaken a lock, as S3 does and moto doesn't."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_object_retention(self, *, Retention: dict[str, Any], VersionId: str, **where: str) -> Any:
        now = self._client.head_object(**where, VersionId=VersionId)
        shorter = Retention["RetainUntilDate"] < now["ObjectLockRetainUntilDate"]
        if now["ObjectLockMode"] == "COMPLIANCE" and (shorter or Retention["Mode"] != "COMPLIANCE"):
            error = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
            raise ClientError(error, "PutObjectRetention")
        return self._client.put_object_retention(**where, VersionId=VersionId, Retention=Retention)


@pytest.fixture
def enforcing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made = S3Store.client.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(S3Store, "client", property(lambda store: Enforcing(made(store))))
    yield


def failed(trials: list[Trial]) -> set[str]:
    return {trial.what for trial in trials if not trial.held}


def test_a_store_that_does_not_enforce_is_found_out(s3: S3) -> None:
    trials = canary.try_locks(s3.new_store())
    assert failed(trials) == {"shorten the lock", "weaken the lock", "find it as it was"}
    assert not canary.holds(trials)
    told = canary.alert("logs.example.org/a", trials, datetime.now(UTC))
    assert (told.kind, told.severity) == ("failed", "critical") and "shorten the lock: allowed" in told.text


def test_a_store_that_enforces_passes_every_trial(s3: S3, enforcing: None) -> None:
    trials = canary.try_locks(s3.new_store())
    assert canary.holds(trials), trials
    assert canary.alert("logs.example.org/a", trials, datetime.now(UTC)).kind == "recovered"


def test_a_bucket_without_lock_takes_no_canary(s3: S3) -> None:
    trials = canary.try_locks(s3.new_store(lock=False))
    assert [trial.held for trial in trials] == [False] and not canary.holds(trials)


def test_what_can_not_be_tried_proves_nothing(s3: S3) -> None:
    store = S3Store(s3.new_bucket(), options=s3.options)
    bucket_name = store.bucket
    everything = {"Version": "2012-10-17", "Statement": [bucket_policy.document(bucket_name, "aws")["Statement"][0]]}
    store.client.put_bucket_policy(Bucket=bucket_name, Policy=json.dumps(everything))  # moto reads no conditions
    trials = canary.try_locks(store)
    assert [trial.held for trial in trials] == [None] and not canary.holds(trials)


@pytest.mark.parametrize("partition", ["aws", "aws-us-gov", "aws-cn"])
def test_the_policy_is_of_the_partition_and_denies_only(partition: str) -> None:
    policy = bucket_policy.document(
        "b", partition, prefix="p", perimeter=FENCE, mode="COMPLIANCE", days=30, kms_key="arn:key"
    )
    assert {statement["Effect"] for statement in policy["Statement"]} == {"Deny"}
    assert len({statement["Sid"] for statement in policy["Statement"]}) == len(policy["Statement"]) == 11
    for statement in policy["Statement"]:
        named = statement.get("Resource", statement.get("NotResource"))
        for resource in [named] if isinstance(named, str) else named:
            assert resource.startswith(f"arn:{partition}:s3:::b")
    for key in ("aws:SecureTransport", "aws:PrincipalOrgID", "aws:SourceVpce", "aws:PrincipalArn"):
        assert bucket_policy.denies(policy, key)
    assert not bucket_policy.missing(policy, policy)
    without = {"Statement": policy["Statement"][1:]}
    assert bucket_policy.missing(without, policy) == ["DenyPlainHttp"]
    assert len(json.dumps(policy, separators=(",", ":"))) < 20_000  # what S3 takes


def test_init_makes_a_bucket_that_it_finds_right(s3: S3) -> None:
    store = S3Store("made-here", "logs", options=s3.options)
    wanted = Wanted(Rule("COMPLIANCE", 30), perimeter=FENCE)
    assert [result.verdict for result in bucket.examine(store, wanted)] == ["failure"]
    bucket.create(store, wanted)
    assert {result.verdict for result in bucket.examine(store, wanted)} == {"ok"}
    stricter = bucket.examine(store, Wanted(Rule("COMPLIANCE", 31), perimeter=FENCE))
    assert {result.check: result.verdict for result in stricter if result.verdict != "ok"} == {
        "default retention": "warning",
        "policy": "warning",
    }


def test_a_spool_in_the_bucket_is_emptied_when_its_locks_are_over(s3: S3) -> None:
    store = S3Store("with-spool", "logs", options=s3.options)
    on_disk, wanted = Wanted(Rule("COMPLIANCE", 30)), Wanted(Rule("COMPLIANCE", 30), spool_days=14.5)
    bucket.create(store, on_disk)
    theirs = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "other/"}, "Expiration": {"Days": 3}}
    rules = store.client.get_bucket_lifecycle_configuration(Bucket=store.bucket)["Rules"]

    def found(*more: dict[str, Any], wanted: Wanted = wanted) -> list[Any]:
        store.client.put_bucket_lifecycle_configuration(
            Bucket=store.bucket, LifecycleConfiguration={"Rules": [*rules, *more]}
        )
        return [result for result in bucket.examine(store, wanted) if result.check == "lifecycle: spool"]

    assert not found(theirs, wanted=on_disk)
    (lacking,) = found(theirs)
    assert lacking.verdict == "warning" and "for ever" in lacking.found
    # The command, done as it says: the bucket is right then, and the rules of others are still there.
    command = shlex.split(lacking.fix)
    assert command[:3] == ["aws", "s3api", "put-bucket-lifecycle-configuration"]
    mended = json.loads(command[command.index("--lifecycle-configuration") + 1])
    store.client.put_bucket_lifecycle_configuration(Bucket=store.bucket, LifecycleConfiguration=mended)
    told = {result.check: result for result in bucket.examine(store, wanted)}["lifecycle: spool"]
    assert told.verdict == "ok" and told.found == "logs/spool/ expires after 17 days, its locks end after 14.5"
    assert {rule["ID"] for rule in mended["Rules"]} == {"unfinished-uploads", "canaries", "spool", "theirs"}
    # Too soon, or one version only: not right.
    (spool,) = (rule for rule in mended["Rules"] if rule["ID"] == "spool")
    for wrong in ({**spool, "Expiration": {"Days": 14}}, {**spool, "Filter": {"Prefix": "logs/spool/one-writer/"}}):
        assert found(wrong)[0].verdict == "warning"


SPOIL: dict[str, Callable[[Any, str], object]] = {
    "versioning": lambda client, name: client.put_bucket_versioning(
        Bucket=name, VersioningConfiguration={"Status": "Suspended"}
    ),
    "public access": lambda client, name: client.delete_public_access_block(Bucket=name),
    "encryption": lambda client, name: client.delete_bucket_encryption(Bucket=name),
    "TLS only": lambda client, name: client.delete_bucket_policy(Bucket=name),
    "lifecycle": lambda client, name: client.put_bucket_lifecycle_configuration(
        Bucket=name,
        LifecycleConfiguration={
            "Rules": [{"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]
        },
    ),
    "default retention": lambda client, name: client.put_object_lock_configuration(
        Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}
    ),
}


def test_each_thing_that_is_wrong_is_named_with_its_command(s3: S3) -> None:
    for number, (check, spoil) in enumerate(SPOIL.items()):
        store = S3Store(f"spoilt-{number}", options=s3.options)
        wanted = Wanted(Rule("COMPLIANCE", 30))
        bucket.create(store, wanted)
        spoil(store.client, store.bucket)
        wrong = {result.check: result for result in bucket.examine(store, wanted) if result.verdict != "ok"}
        assert check in wrong, (check, wrong)
        assert wrong[check].fix
        assert wrong.keys() - {check} <= {"perimeter", "policy"}


def test_on_the_command_line(s3: S3) -> None:
    environment = s3.environment
    missing = strongroom("init", "s3://not-there", "--json", **environment)
    assert missing.returncode == 1 and json.loads(missing.stdout)[0]["verdict"] == "failure"
    made = strongroom("init", "s3://made-by-command/a", "--create", "--days", "2", "--json", **environment)
    assert {line["check"] for line in json.loads(made.stdout)} >= {"object lock", "policy", "lock: put a locked object"}
    policy = strongroom("init", "s3://x-y-z", "--policy", "--org-id", "o-1", **environment)
    assert policy.returncode == 0 and "DenyOutsideOrg" in policy.stdout
    s3.client.delete_bucket_policy(Bucket="made-by-command")  # moto reads no conditions: it would deny everything
    place = environment | {"STRONGROOM_ARCHIVE": "s3://made-by-command/a"}
    told = {line["check"]: line for line in json.loads(strongroom("doctor", "bucket", "--json", **place).stdout)}
    assert told["lock: delete the version"]["verdict"] == "ok"
    assert told["lock: shorten the lock"]["verdict"] == "failure"
    assert strongroom("doctor", "bucket", STRONGROOM_ARCHIVE="/tmp/folder").returncode == 2
