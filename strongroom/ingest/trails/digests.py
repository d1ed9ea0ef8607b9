"""CloudTrail digests: what AWS signed about the log files it wrote. Pure.

Every hour, for each trail, account and region, CloudTrail writes a digest: the names and SHA-256 hashes (of the
uncompressed content) of the log files it delivered in that hour, and the name, hash and signature of the digest before.
Its own signature is metadata of its object: RSA PKCS#1 v1.5 with SHA-256 over four lines,

    <digestEndTime>
    <digestS3Bucket>/<digestS3Object>
    <SHA-256 of the uncompressed digest, hexadecimal>
    <previousDigestSignature, or "null">

Bucket and key stand inside what is signed. So a copy elsewhere is checked by the names the digest itself states; what
must hold is that these are of the trail, account, region and hour that the copy's own name says. A copy whose metadata
was lost has its signature in the digest after it.

Rules of a chain (`judge`), where AWS's own command prints a line and exits with 0:

1. A digest counts only when its signature holds under a known public key.
2. The digest a valid one names as the one before must be there and have that hash; it is missing or altered otherwise.
3. A digest that names none begins a chain. Where an earlier digest exists, the trail was stopped in between: a gap.
4. The newest digest must not be older than an hour and DELAY: one that AWS would have written by then is missing.
5. Backfill digests stand outside the hourly chain: their signatures and files count, their hours prove nothing.

Sources: AWS CloudTrail user guide, "CloudTrail digest file structure" and "Custom implementations of CloudTrail log
file integrity validation"; API reference, ListPublicKeys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from strongroom.archive.errors import FormatError
from strongroom.archive.verification.findings import Finding
from strongroom.ingest.fetch.awslogs import Chain, digest_name

HOUR = timedelta(hours=1)
DELAY = timedelta(hours=1)
"""How long after its hour a digest may be awaited."""
_TIME = "%Y-%m-%dT%H:%M:%SZ"

State = Literal["valid", "forged", "unproven"]


@dataclass(frozen=True, slots=True)
class LogFile:
    """A log file a digest names: where AWS wrote it, and the SHA-256 (hex) of its uncompressed content."""

    bucket: str
    key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Before:
    """The digest that another one names as the one before: its key, the hash of its content, its signature (hex)."""

    key: str
    sha256: str
    signature: str


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest as parsed. `sha256` is of its uncompressed bytes; `stated_end` is its end as written and as signed."""

    chain: Chain
    bucket: str
    key: str
    start: datetime
    end: datetime
    stated_end: str
    fingerprint: str
    sha256: str
    before: Before | None
    files: tuple[LogFile, ...]

    @property
    def name(self) -> str:
        """Where AWS wrote it."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def signed_text(self) -> str:
        """What its signature is over."""
        before = self.before.signature if self.before else "null"
        return f"{self.stated_end}\n{self.bucket}/{self.key}\n{self.sha256}\n{before}"


def parse(content: bytes) -> Digest:
    """A digest out of its uncompressed bytes. Raises FormatError for what is none."""
    try:
        value = json.loads(content)
        key = _text(value, "digestS3Object")
        named = digest_name(key)
        if named is None:
            raise FormatError(f"a digest states the key {key[:200]!r}, which is no digest's")
        end, start = _text(value, "digestEndTime"), _text(value, "digestStartTime")
        found = Digest(
            chain=named.chain,
            bucket=_text(value, "digestS3Bucket"),
            key=key,
            start=_moment(start),
            end=_moment(end),
            stated_end=end,
            fingerprint=_text(value, "digestPublicKeyFingerprint"),
            sha256=hashlib.sha256(content).hexdigest(),
            before=_before(value),
            files=tuple(_file(item) for item in value["logFiles"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"not a CloudTrail digest: {type(error).__name__}: {error}") from None
    if found.start > found.end or (found.end != named.end and not found.chain.backfill):
        raise FormatError("a digest's time is not the one its own key says")
    return found


# -- public keys


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key of CloudTrail's. `fingerprint` is "" when only the key itself is known; `der` is PKCS#1."""

    fingerprint: str
    der: bytes

    def to_json(self) -> dict[str, str]:
        """As ListPublicKeys gives it."""
        return {"Fingerprint": self.fingerprint, "Value": base64.b64encode(self.der).decode()}


class PublicKeys:
    """The public keys that count."""

    def __init__(self, keys: Iterable[PublicKey] = ()) -> None:
        self._keys: dict[PublicKey, rsa.RSAPublicKey] = {}
        for key in keys:
            self.add(key)

    def add(self, key: PublicKey) -> None:
        """Know one more. Raises FormatError when it is no RSA key."""
        self._keys[key] = _rsa(key.der)

    def all(self) -> list[PublicKey]:
        """Every key, in the order they came."""
        return list(self._keys)

    def knows(self, fingerprint: str) -> bool:
        """Whether a digest signed under `fingerprint` can be checked."""
        return bool(self._candidates(fingerprint))

    def signer(self, digest: Digest, signature: str) -> PublicKey | None:
        """The key under which `signature` (hex) holds for the digest, None when it holds under none."""
        try:
            raw = bytes.fromhex(signature)
        except ValueError:
            return None
        for key in self._candidates(digest.fingerprint):
            try:
                self._keys[key].verify(raw, digest.signed_text.encode(), padding.PKCS1v15(), hashes.SHA256())
            except InvalidSignature:
                continue
            return key
        return None

    def _candidates(self, fingerprint: str) -> list[PublicKey]:
        return [key for key in self._keys if key.fingerprint in (fingerprint, "")]


def parse_keys(content: bytes) -> list[PublicKey]:
    """Public keys out of a file: PEM, or JSON as `aws cloudtrail list-public-keys` prints. Raises FormatError."""
    if b"-----BEGIN" in content:
        blocks = [b"-----BEGIN" + part for part in content.split(b"-----BEGIN")[1:]]
        try:
            return [PublicKey("", _pkcs1(serialization.load_pem_public_key(block))) for block in blocks]
        except (ValueError, UnsupportedAlgorithm) as error:
            raise FormatError(f"public keys: {error}") from None
    try:
        found = json.loads(content)
        listed = found["PublicKeyList"] if isinstance(found, dict) else found
        return [PublicKey(str(item["Fingerprint"]), base64.b64decode(item["Value"], validate=True)) for item in listed]
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise FormatError(f"public keys: neither PEM nor the answer of ListPublicKeys: {error}") from None


# -- chains


@dataclass(slots=True)
class Judged:
    """A digest and what is known of it. `signature` is its own or, where that was lost, the one its successor names.

    `place` is what it is called where it was read, `found_at` its key there; `reason` says why it is not valid.
    """

    digest: Digest
    signature: str
    place: str
    found_at: str = ""
    state: State = "unproven"
    reason: str = ""
    key: PublicKey | None = None


@dataclass(slots=True)
class Verdict:
    """What the digests of some chains say. `incomplete`: why not everything could be judged."""

    digests: list[Judged] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)

    @property
    def valid(self) -> list[Judged]:
        """Those whose word counts."""
        return [judged for judged in self.digests if judged.state == "valid"]


def judge(found: Sequence[Judged], keys: PublicKeys, since: datetime, until: datetime) -> Verdict:
    """Judge the digests that end in since … until, chain by chain. Those outside help to judge those inside."""
    chains: dict[Chain, list[Judged]] = {}
    for item in found:
        chains.setdefault(item.digest.chain, []).append(item)
    verdict = Verdict()
    for chain in sorted(chains):
        members = sorted(chains[chain], key=lambda item: (item.digest.end, item.digest.key))
        _judge_signatures(members, keys)
        inside = [item for item in members if since < item.digest.end <= until]
        verdict.digests += inside
        for item in inside:
            _tell(item, verdict)
        if not chain.backfill:
            _judge_links(chain, members, since, until, verdict)
            _judge_end(chain, members, until, verdict)
    return verdict


def _judge_signatures(members: Sequence[Judged], keys: PublicKeys) -> None:
    """From the newest back: a digest names the signature of the one before, which proves itself, whoever names it. That
    the one before has another hash is believed from a valid digest only."""
    named: dict[str, Before] = {}
    vouched: dict[str, Before] = {}
    for item in reversed(members):
        digest = item.digest
        before, said = vouched.get(digest.key), named.get(digest.key)
        own = bool(item.signature)
        if not own and said is not None:
            item.signature = said.signature
        item.key = keys.signer(digest, item.signature) if item.signature else None
        if digest.before is not None:
            named.setdefault(digest.before.key, digest.before)
        if item.key is not None:
            item.state = "valid"
            if digest.before is not None:
                vouched[digest.before.key] = digest.before
        elif before is not None and before.sha256 != digest.sha256:
            item.state, item.reason = "forged", f"SHA-256 {digest.sha256}; the digest after it names {before.sha256}"
        elif not keys.knows(digest.fingerprint):
            item.reason = f"no public key with fingerprint {digest.fingerprint[:64]} is known"
        elif not own:
            item.reason = "its signature is not at hand: copy the object's metadata too, or wait for the next digest"
        else:
            item.state, item.reason = "forged", "the signature does not hold under CloudTrail's public key"


def _tell(item: Judged, verdict: Verdict) -> None:
    if item.state == "forged":
        expected = "a digest as CloudTrail signed it"
        verdict.findings.append(Finding("DIGEST_FORGED", item.place, expected, item.reason, _where(item.digest.chain)))
    elif item.state == "unproven":
        verdict.incomplete.append(f"{item.place}: {item.reason}")


def _judge_links(chain: Chain, members: Sequence[Judged], since: datetime, until: datetime, verdict: Verdict) -> None:
    """Does every valid digest follow the one it names, and is there one for every hour?"""
    there = {item.digest.key: item for item in members}
    previous: Judged | None = None
    for item in members:
        digest, earlier = item.digest, previous
        previous = item
        if item.state != "valid" or digest.start >= until or digest.end <= since:
            continue
        if digest.before is None:
            if earlier is None:
                if digest.start > since:
                    verdict.notes.append(f"{chain}: no digest before {digest.start:{_TIME}}, when the chain begins")
            else:
                stopped = f"stopped from {earlier.digest.end:{_TIME}} to {digest.start:{_TIME}}"
                verdict.findings.append(
                    Finding("DIGEST_GAP", item.place, "a digest that follows the one before", stopped, _where(chain))
                )
        elif digest.before.key not in there and digest.start > since:
            where = {**_where(chain), "named_by": item.place}
            if earlier is not None:
                where["not_covered"] = f"{earlier.digest.end:{_TIME}} to {digest.start:{_TIME}}"
            missing = f"s3://{digest.bucket}/{digest.before.key}"
            expected = f"the digest that ends at {digest.start:{_TIME}}, SHA-256 {digest.before.sha256}"
            verdict.findings.append(Finding("DIGEST_MISSING", missing, expected, "none of that name", where))


def _judge_end(chain: Chain, members: Sequence[Judged], until: datetime, verdict: Verdict) -> None:
    """Is the newest digest as new as it must be by `until`?"""
    last = max(item.digest.end for item in members)
    if last + HOUR + DELAY < until:
        where = {**_where(chain), "newest": members[-1].place}
        expected = f"a digest for each hour until {until:{_TIME}}"
        found = f"the newest ends at {last:{_TIME}}"
        verdict.findings.append(Finding("DIGEST_MISSING", str(chain), expected, found, where))


def _where(chain: Chain) -> dict[str, Any]:
    return {"account": chain.account, "region": chain.region, "trail": chain.trail}


# -- parsing


def _before(value: Mapping[str, Any]) -> Before | None:
    key = value["previousDigestS3Object"]
    if key is None:
        if value.get("previousDigestSignature") is not None:
            raise ValueError("it names a signature before, and no digest")
        return None
    return Before(
        _text(value, "previousDigestS3Object"),
        _sha256(value, "previousDigestHashValue", "previousDigestHashAlgorithm"),
        _text(value, "previousDigestSignature"),
    )


def _file(value: Any) -> LogFile:
    return LogFile(_text(value, "s3Bucket"), _text(value, "s3Object"), _sha256(value, "hashValue", "hashAlgorithm"))


def _sha256(value: Mapping[str, Any], name: str, algorithm: str) -> str:
    text = _text(value, name).lower()
    if value.get(algorithm, "SHA-256") != "SHA-256" or len(bytes.fromhex(text)) != 32:
        raise ValueError(f"{name} is no SHA-256")
    return text


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value[name]
    if not isinstance(found, str):
        raise TypeError(f"{name} is no text")
    return found


def _moment(text: str) -> datetime:
    return datetime.strptime(text, _TIME).replace(tzinfo=UTC)


def _rsa(der: bytes) -> rsa.RSAPublicKey:
    """Of PKCS#1, as ListPublicKeys gives it, or of SubjectPublicKeyInfo."""
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError(f"a public key of CloudTrail can't be read: {error}") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise FormatError("a public key of CloudTrail is no RSA key")
    return key


def _pkcs1(key: Any) -> bytes:
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError("not an RSA key")
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
