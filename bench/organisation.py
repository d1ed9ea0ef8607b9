"""The imaginary organisation whose logs are generated: its accounts, people, programs, networks and addresses.

It exists so that values repeat the way they do in real logs. A few roles, interfaces and peers make most of the
traffic and many make a little (`pick`), while ids of single events never repeat; how well logs compress and how
selective a question is depend on exactly that. Everything is a function of the seed.

Addresses outside are from the ranges reserved for benchmarking and documentation; access key ids have AWS's shape but
no owner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import TypeVar

T = TypeVar("T")

_HEX = "0123456789abcdef"
_KEY = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

REGIONS = ("us-east-1", "eu-west-1", "eu-central-1", "us-west-2", "ap-southeast-2")
_TEAMS = ("billing", "checkout", "identity", "search", "catalog", "ledger", "media", "risk", "mobile", "data")
_KINDS = ("api", "worker", "deploy", "etl", "readonly", "cron")
_STAGES = ("prod", "staging", "dev")
_PEOPLE = ("amal", "bruno", "chen", "dara", "emeka", "freya", "goran", "hana", "ivo", "jun", "kavya", "lena", "mbali")
_AGENTS = (
    "aws-sdk-go-v2/1.30.3 os/linux lang/go#1.22.5 md/GOOS#linux md/GOARCH#amd64 api/{s}#1.58.2",
    "Boto3/1.34.140 md/Botocore#1.34.140 ua/2.0 os/linux#5.10.220-209.869.amzn2.x86_64 md/arch#x86_64 "
    "lang/python#3.11.9 md/pyimpl#CPython cfg/retry-mode#standard Botocore/1.34.140",
    "aws-cli/2.17.10 md/awscrt#0.20.11 ua/2.0 os/macos#23.5.0 md/arch#arm64 lang/python#3.11.8 md/pyimpl#CPython "
    "cfg/retry-mode#standard md/installer#exe md/prompt#off md/command#{s}.call",
    "aws-sdk-java/2.26.20 Linux/5.10.219-208.866.amzn2.x86_64 OpenJDK_64-Bit_Server_VM/17.0.11+9-LTS Java/17.0.11 "
    "vendor/Amazon.com_Inc. io/async http/NettyNio cfg/retry-mode/standard",
    "APN/1.0 HashiCorp/1.0 Terraform/1.8.5 (+https://www.terraform.io) terraform-provider-aws/5.58.0 "
    "aws-sdk-go-v2/1.30.1",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 "
    "Safari/537.36",
)


def hexadecimal(random: Random, digits: int) -> str:
    """That many random hexadecimal digits."""
    return f"{random.getrandbits(4 * digits):0{digits}x}"


def key_id(random: Random, prefix: str) -> str:
    """An identifier in IAM's alphabet: `prefix` and up to 20 characters in all (21 for principals)."""
    length = 16 if prefix in ("AKIA", "ASIA") else 17
    return prefix + "".join(random.choices(_KEY, k=length))


def opaque(random: Random, characters: int) -> str:
    """Base64 text that does not compress, such as a session token."""
    return "".join(random.choices(_BASE64, k=characters))


def uuid(random: Random) -> str:
    """A version 4 UUID."""
    h = f"{random.getrandbits(128):032x}"
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{'89ab'[random.getrandbits(2)]}{h[17:20]}-{h[20:]}"


def pick(random: Random, items: Sequence[T], steepness: float = 2.0) -> T:
    """One of `items`, the first ones far more often; `steepness` 1 would be even."""
    return items[int(len(items) * random.random() ** steepness)]


@dataclass(frozen=True, slots=True)
class Principal:
    """A role or a user: its name and its stable id. `key`: a user's long-lived access key id, "" for roles."""

    name: str
    id: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface and what it is attached to."""

    id: str
    address: str
    instance: str
    subnet: str


@dataclass(frozen=True, slots=True)
class Account:
    """One AWS account."""

    id: str
    region: str
    roles: tuple[Principal, ...]
    users: tuple[Principal, ...]
    buckets: tuple[str, ...]
    keys: tuple[str, ...]
    vpc: str
    interfaces: tuple[Interface, ...]


@dataclass(frozen=True, slots=True)
class Organisation:
    """All of it, and the two intruders whose traces the questions look for."""

    accounts: tuple[Account, ...]
    outside: tuple[str, ...]
    inside: tuple[str, ...]
    agents: tuple[str, ...]
    stolen_user: Principal
    thief_address: str
    scanner_address: str


@lru_cache(maxsize=2)
def organisation(seed: int) -> Organisation:
    """The organisation of that seed."""
    random = Random(f"organisation/{seed}")
    return Organisation(
        accounts=tuple(_account(random) for _ in range(14)),
        outside=tuple(
            f"198.{random.choice((18, 19))}.{random.randrange(256)}.{random.randrange(1, 255)}" for _ in range(6000)
        ),
        inside=tuple(
            f"10.{random.randrange(32)}.{random.randrange(256)}.{random.randrange(1, 255)}" for _ in range(4000)
        ),
        agents=_AGENTS,
        stolen_user=Principal("ci-legacy", key_id(random, "AIDA"), key_id(random, "AKIA")),
        thief_address="203.0.113.66",
        scanner_address="192.0.2.99",
    )


def _account(random: Random) -> Account:
    def ident(prefix: str) -> str:
        return f"{prefix}-0{hexadecimal(random, 16)}"

    account = f"{random.randrange(10**11, 10**12)}"
    roles = [f"{t}-{k}-{s}" for t in _TEAMS for k in _KINDS for s in _STAGES if random.random() < 0.3]
    random.shuffle(roles)
    subnets = [ident("subnet") for _ in range(6)]
    return Account(
        id=account,
        region=pick(random, REGIONS),
        roles=tuple(Principal(name, key_id(random, "AROA")) for name in roles),
        users=tuple(
            Principal(name, key_id(random, "AIDA"), key_id(random, "AKIA")) for name in random.sample(_PEOPLE, 7)
        ),
        buckets=tuple(
            f"{random.choice(_TEAMS)}-{random.choice(_STAGES)}-{w}-{account}" for w in ("logs", "data", "assets", "tmp")
        ),
        keys=tuple(uuid(random) for _ in range(8)),
        vpc=ident("vpc"),
        interfaces=tuple(
            Interface(
                ident("eni"),
                f"10.{random.randrange(32)}.{random.randrange(256)}.{random.randrange(1, 255)}",
                ident("i"),
                random.choice(subnets),
            )
            for _ in range(400)
        ),
    )
