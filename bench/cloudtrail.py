"""CloudTrail records of the imaginary organisation, as text.

A file holds what AWS puts in one: five minutes of one account and region, mostly sessions of a few roles that call the
same few APIs again and again. The mix of calls follows what large accounts show: role assumption, object access,
decryption and describing dominate; changes are rare; about one call in thirty fails. Records average 1.6 KB.

A caller's `userIdentity` is built once per session and reused, which is both how the real ones repeat and what makes
writing them fast.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from bench.organisation import Account, Organisation, Principal, hexadecimal, key_id, opaque, pick, uuid


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls during one session: the `userIdentity` text and what else belongs to it."""

    identity: str
    arn: str
    actor: str
    address: str
    agent: str


@dataclass(frozen=True, slots=True)
class Details:
    """What one call says: JSON texts, "" for a field that is absent."""

    request: str = "null"
    response: str = "null"
    additional: str = ""
    resources: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """One API: how often it is called and what its records say."""

    service: str
    name: str
    weight: int
    reads: bool
    data: bool
    details: Callable[[Random, Account, Caller, str], Details]


@dataclass(frozen=True, slots=True)
class Denied:
    """A refused call, in the words of the view `events`: the role's or user's name, and `service:Name`."""

    actor: str
    action: str


@dataclass(frozen=True, slots=True)
class CloudTrailFile:
    """A file's records and what was planted: the stolen key's (event time, event id), and every refused call."""

    records: list[str]
    stolen: list[tuple[str, str]]
    denied: list[Denied]


def file(organisation: Organisation, seed: int, index: int, count: int, start: float, seconds: float) -> CloudTrailFile:
    """The records of file `index`: `count` of them, spread over `seconds` from `start` (epoch)."""
    random = Random(f"cloudtrail/{seed}/{index}")
    account = pick(random, organisation.accounts)
    callers = [_caller(random, organisation, account, start) for _ in range(60)]
    # The key belongs to one account, wherever it is used.
    thief = _user(organisation, organisation.accounts[0], organisation.stolen_user, organisation.thief_address)
    planted = {count // 3, 2 * count // 3}
    calls = random.choices(_CALLS, cum_weights=_WEIGHTS, k=count)
    result = CloudTrailFile([], [], [])
    second, when = -1, ""
    for number, call in enumerate(calls):
        if (now := int(start + seconds * number / count)) != second:
            second, when = now, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        caller = thief if number in planted else pick(random, callers)
        event_id = uuid(random)
        text, refused = _record(random, account, caller, call, when, event_id)
        result.records.append(text)
        if caller is thief:
            result.stolen.append((when, event_id))
        if refused:
            result.denied.append(refused)
    return result


def _record(
    random: Random, account: Account, caller: Caller, call: Call, when: str, event_id: str
) -> tuple[str, Denied | None]:
    region, service = account.region, call.service
    details = call.details(random, account, caller, when)
    error, refused, response = "", None, details.response
    if caller.arn and random.random() < 0.035:
        code, message = _failure(random, account, caller, call)
        error, response = f'"errorCode":"{code}","errorMessage":"{message}",', "null"
        if code in _REFUSALS:
            refused = Denied(caller.actor, f"{service}:{call.name}")
    parts = [
        f'{{"eventVersion":"1.10","userIdentity":{caller.identity},"eventTime":"{when}",'
        f'"eventSource":"{service}.amazonaws.com","eventName":"{call.name}","awsRegion":"{region}",'
        f'"sourceIPAddress":"{caller.address}","userAgent":"{caller.agent}",{error}'
        f'"requestParameters":{details.request},"responseElements":{response}'
    ]
    if details.additional:
        parts.append(f',"additionalEventData":{details.additional}')
    parts.append(f',"requestID":"{uuid(random)}","eventID":"{event_id}","readOnly":{"true" if call.reads else "false"}')
    if details.resources:
        parts.append(f',"resources":{details.resources}')
    parts.append(
        f',"eventType":"AwsApiCall","managementEvent":{"false" if call.data else "true"},'
        f'"recipientAccountId":"{account.id}"'
    )
    if not caller.arn:
        parts.append(f',"sharedEventID":"{uuid(random)}","eventCategory":"Management"}}')
    else:
        parts.append(
            f',"eventCategory":"{"Data" if call.data else "Management"}","tlsDetails":{{"tlsVersion":"TLSv1.3",'
            f'"cipherSuite":"TLS_AES_128_GCM_SHA256","clientProvidedHostHeader":"{service}.{region}.amazonaws.com"}}}}'
        )
    return "".join(parts), refused


_REFUSALS = frozenset({"AccessDenied", "Client.UnauthorizedOperation"})


def _failure(random: Random, account: Account, caller: Caller, call: Call) -> tuple[str, str]:
    chance = random.random()
    if chance < 0.5:
        action = f"{call.service}:{call.name}"
        return "AccessDenied", (
            f"User: {caller.arn} is not authorized to perform: {action} on resource: "
            f"arn:aws:{call.service}:{account.region}:{account.id}:* because no identity-based policy allows the "
            f"{action} action"
        )
    if chance < 0.6:
        message = opaque(random, 420)
        return "Client.UnauthorizedOperation", (
            f"You are not authorized to perform this operation. Encoded authorization failure message: {message}"
        )
    if chance < 0.8:
        return "ThrottlingException", "Rate exceeded"
    return "ResourceNotFoundException", "The specified resource does not exist."


# -- callers


def _caller(random: Random, organisation: Organisation, account: Account, start: float) -> Caller:
    chance = random.random()
    address = pick(random, organisation.inside if random.random() < 0.3 else organisation.outside)
    agent = pick(random, organisation.agents).replace("{s}", "ec2")
    if chance < 0.12:
        service = random.choice(("lambda", "ecs-tasks", "ec2", "elasticloadbalancing", "config", "autoscaling"))
        host = f"{service}.amazonaws.com"
        return Caller(f'{{"type":"AWSService","invokedBy":"{host}"}}', "", "", host, host)
    if chance < 0.22:
        return _user(organisation, account, pick(random, account.users), address, agent)
    return _role(random, account, pick(random, account.roles), address, agent, start)


def _user(organisation: Organisation, account: Account, user: Principal, address: str, agent: str = "") -> Caller:
    arn = f"arn:aws:iam::{account.id}:user/{user.name}"
    identity = (
        f'{{"type":"IAMUser","principalId":"{user.id}","arn":"{arn}","accountId":"{account.id}",'
        f'"accessKeyId":"{user.key}","userName":"{user.name}"}}'
    )
    return Caller(identity, arn, user.name, address, agent or organisation.agents[2].replace("{s}", "iam"))


def _role(random: Random, account: Account, role: Principal, address: str, agent: str, start: float) -> Caller:
    session = f"i-0{hexadecimal(random, 16)}" if random.random() < 0.5 else f"aws-sdk-{random.getrandbits(53)}"
    arn = f"arn:aws:sts::{account.id}:assumed-role/{role.name}/{session}"
    key = key_id(random, "ASIA")
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start - random.randrange(3600)))
    identity = (
        f'{{"type":"AssumedRole","principalId":"{role.id}:{session}","arn":"{arn}","accountId":"{account.id}",'
        f'"accessKeyId":"{key}","sessionContext":{{"sessionIssuer":{{"type":"Role","principalId":"{role.id}",'
        f'"arn":"arn:aws:iam::{account.id}:role/{role.name}","accountId":"{account.id}","userName":"{role.name}"}},'
        f'"webIdFederationData":{{}},"attributes":{{"creationDate":"{created}","mfaAuthenticated":"false"}},'
        f'"ec2RoleDelivery":"2.0"}}}}'
    )
    return Caller(identity, arn, role.name, address, agent)


# -- what the calls say


def _nothing(random: Random, account: Account, caller: Caller, when: str) -> Details:
    return Details()


def _assume(random: Random, account: Account, caller: Caller, when: str) -> Details:
    role = pick(random, account.roles)
    arn, session = f"arn:aws:iam::{account.id}:role/{role.name}", f"{role.name[:20]}-{random.getrandbits(40)}"
    return Details(
        request=f'{{"roleArn":"{arn}","roleSessionName":"{session}","durationSeconds":3600}}',
        response=f'{{"credentials":{{"accessKeyId":"{key_id(random, "ASIA")}","sessionToken":"{opaque(random, 300)}",'
        f'"expiration":"{when}"}},"assumedRoleUser":{{"assumedRoleId":"{role.id}:{session}",'
        f'"arn":"arn:aws:sts::{account.id}:assumed-role/{role.name}/{session}"}}}}',
        resources=f'[{{"accountId":"{account.id}","type":"AWS::IAM::Role","ARN":"{arn}"}}]',
    )


def _object(random: Random, account: Account, caller: Caller, when: str) -> Details:
    bucket = pick(random, account.buckets)
    part = f"part-{random.randrange(400):05d}-{hexadecimal(random, 16)}.parquet"
    key = f"{random.choice(('raw', 'curated', 'exports'))}/{when[:10].replace('-', '/')}/{part}"
    return Details(
        request=f'{{"bucketName":"{bucket}","Host":"{bucket}.s3.{account.region}.amazonaws.com","key":"{key}"}}',
        additional=f'{{"SignatureVersion":"SigV4","CipherSuite":"TLS_AES_128_GCM_SHA256","bytesTransferredIn":0,'
        f'"AuthenticationMethod":"AuthHeader","x-amz-id-2":"{opaque(random, 76)}",'
        f'"bytesTransferredOut":{random.getrandbits(18)}}}',
        resources=f'[{{"type":"AWS::S3::Object","ARN":"arn:aws:s3:::{bucket}/{key}"}},{{"accountId":"{account.id}",'
        f'"type":"AWS::S3::Bucket","ARN":"arn:aws:s3:::{bucket}"}}]',
    )


def _decrypt(random: Random, account: Account, caller: Caller, when: str) -> Details:
    arn = f"arn:aws:kms:{account.region}:{account.id}:key/{pick(random, account.keys)}"
    return Details(
        request=f'{{"encryptionContext":{{"aws:s3:arn":"arn:aws:s3:::{pick(random, account.buckets)}"}},'
        f'"encryptionAlgorithm":"SYMMETRIC_DEFAULT","keyId":"{arn}"}}',
        additional=f'{{"keyMaterialId":"{hexadecimal(random, 64)}"}}',
        resources=f'[{{"accountId":"{account.id}","type":"AWS::KMS::Key","ARN":"{arn}"}}]',
    )


def _describe(random: Random, account: Account, caller: Caller, when: str) -> Details:
    items = ",".join(
        f'{{"instanceId":"{pick(random, account.interfaces).instance}"}}' for _ in range(1 + random.randrange(6))
    )
    return Details(
        request=f'{{"instancesSet":{{"items":[{items}]}},"filterSet":{{"items":[{{"name":"instance-state-name",'
        f'"valueSet":{{"items":[{{"value":"running"}},{{"value":"pending"}}]}}}}]}},"maxResults":1000}}'
    )


def _launch(random: Random, account: Account, caller: Caller, when: str) -> Details:
    interface, image = pick(random, account.interfaces), f"ami-0{hexadecimal(random, 16)}"
    return Details(
        request=f'{{"instancesSet":{{"items":[{{"imageId":"{image}","minCount":1,"maxCount":1}}]}},'
        f'"instanceType":"m6i.large",'
        f'"subnetId":"{interface.subnet}","disableApiTermination":false,"clientToken":"{uuid(random)}"}}',
        response=f'{{"requestId":"{uuid(random)}","reservationId":"r-0{hexadecimal(random, 16)}",'
        f'"ownerId":"{account.id}",'
        f'"instancesSet":{{"items":[{{"instanceId":"{interface.instance}","imageId":"{image}","instanceState":{{"code":0,'
        f'"name":"pending"}},"privateIpAddress":"{interface.address}",'
        f'"subnetId":"{interface.subnet}","vpcId":"{account.vpc}",'
        f'"placement":{{"availabilityZone":"{account.region}a","tenancy":"default"}},"networkInterfaceSet":{{"items":'
        f'[{{"networkInterfaceId":"{interface.id}","status":"in-use"}}]}}}}]}}}}',
    )


def _policy(random: Random, account: Account, caller: Caller, when: str) -> Details:
    role, bucket = pick(random, account.roles), pick(random, account.buckets)
    document = (
        f'{{\\n  \\"Version\\": \\"2012-10-17\\",\\n  \\"Statement\\": [{{\\n    \\"Effect\\": \\"Allow\\",\\n    '
        f'\\"Action\\": [\\"s3:GetObject\\", \\"s3:ListBucket\\"],\\n    '
        f'\\"Resource\\": \\"arn:aws:s3:::{bucket}/*\\"\\n  }}]\\n}}'
    )
    return Details(
        request=f'{{"roleName":"{role.name}","policyName":"inline-{random.randrange(50)}","policyDocument":"{document}"}}'
    )


def _stream(random: Random, account: Account, caller: Caller, when: str) -> Details:
    group = f"/aws/lambda/{pick(random, account.roles).name}"
    stream = f"{when[:10].replace('-', '/')}/[$LATEST]{hexadecimal(random, 32)}"
    return Details(
        request=f'{{"logGroupName":"{group}","logStreamName":"{stream}"}}',
        additional=f'{{"vpcEndpointId":"vpce-0{hexadecimal(random, 16)}"}}' if random.random() < 0.2 else "",
    )


def _invoke(random: Random, account: Account, caller: Caller, when: str) -> Details:
    arn = f"arn:aws:lambda:{account.region}:{account.id}:function:{pick(random, account.roles).name}"
    return Details(
        request=f'{{"functionName":"{arn}","invocationType":"Event","qualifier":"live"}}',
        additional=f'{{"functionVersion":"{arn}:{1 + random.randrange(90)}"}}',
        resources=f'[{{"accountId":"{account.id}","type":"AWS::Lambda::Function","ARN":"{arn}"}}]',
    )


def _secret(random: Random, account: Account, caller: Caller, when: str) -> Details:
    name = pick(random, account.roles).name
    return Details(
        request=f'{{"secretId":"arn:aws:secretsmanager:{account.region}:{account.id}:secret:{name}/database"}}'
    )


def _item(random: Random, account: Account, caller: Caller, when: str) -> Details:
    table = pick(random, account.roles).name
    return Details(
        request=f'{{"tableName":"{table}","key":{{"pk":"<sensitiveDataRemoved>","sk":"<sensitiveDataRemoved>"}},"consistentRead":false}}',
        resources=f'[{{"accountId":"{account.id}","type":"AWS::DynamoDB::Table","ARN":"arn:aws:dynamodb:{account.region}:{account.id}:table/{table}"}}]',
    )


_CALLS = [
    Call("sts", "AssumeRole", 220, True, False, _assume),
    Call("sts", "GetCallerIdentity", 25, True, False, _nothing),
    Call("s3", "GetObject", 150, True, True, _object),
    Call("s3", "PutObject", 70, False, True, _object),
    Call("s3", "DeleteObject", 6, False, True, _object),
    Call("kms", "Decrypt", 130, True, False, _decrypt),
    Call("kms", "GenerateDataKey", 60, True, False, _decrypt),
    Call("ec2", "DescribeInstances", 90, True, False, _describe),
    Call("ec2", "DescribeInstanceStatus", 40, True, False, _describe),
    Call("ec2", "RunInstances", 15, False, False, _launch),
    Call("ec2", "TerminateInstances", 8, False, False, _describe),
    Call("iam", "PutRolePolicy", 4, False, False, _policy),
    Call("iam", "GetRolePolicy", 14, True, False, _policy),
    Call("iam", "ListUsers", 6, True, False, _nothing),
    Call("iam", "CreateAccessKey", 1, False, False, _nothing),
    Call("logs", "CreateLogStream", 55, False, False, _stream),
    Call("lambda", "Invoke", 50, False, True, _invoke),
    Call("secretsmanager", "GetSecretValue", 25, True, False, _secret),
    Call("dynamodb", "GetItem", 40, True, True, _item),
    Call("dynamodb", "DescribeTable", 10, True, False, _item),
    Call("cloudtrail", "LookupEvents", 3, True, False, _nothing),
    Call("cloudtrail", "StopLogging", 1, False, False, _nothing),
]
_WEIGHTS = list(accumulate(call.weight for call in _CALLS))
