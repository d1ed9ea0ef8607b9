"""The log's key files in the state folder: which keys sign now, and which are to come.

    keys/log.pem     the keys in force: private halves, or where in AWS KMS they are (archive/keys.py)
    keys/next.pem    the keys to come, while a change is under way (service/key_change.py)

`next.pem` takes over when the log says so, and not before: the log's key entry is the commit of a change, all files
follow it. Its keys are never thrown away for others, because a commit whose answer was lost may still come true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from strongroom.archive import durable, keys, kms, policy
from strongroom.archive.errors import KeyUnusable
from strongroom.archive.keyring import Keyring
from strongroom.archive.keys import HeldSigner
from strongroom.archive.log import Log
from strongroom.archive.note import KeyType, VerifierKey
from strongroom.service.settings import Settings

LOCAL_KINDS = ("ed25519", "ml-dsa-44", "ecdsa-p256", "ecdsa-p384")
KMS_PREFIX = "kms:"


@dataclass(frozen=True, slots=True)
class KeyRules:
    """What the settings say about keys: which kinds to make, how files are encrypted, and the strict profile."""

    kinds: tuple[str, ...] = ("ed25519", "ml-dsa-44")
    passphrase: bytes | None = field(default=None, repr=False)
    fips: bool = False

    @property
    def receipt_types(self) -> tuple[KeyType, ...]:
        """The type of the key that signs receipts."""
        return (KeyType.ECDSA,) if self.fips else (KeyType.ED25519,)

    def admit(self, signers: Sequence[HeldSigner]) -> None:
        """Raises KeyUnusable when the strict profile is on and one of these is not ECDSA."""
        strangers = [one.key.type.name for one in signers if self.fips and one.key.type is not KeyType.ECDSA]
        if strangers:
            raise KeyUnusable(
                f"setting fips allows ECDSA keys only, not {', '.join(strangers)}",
                hint="turn it off, run `strongroom keys rotate --keys ecdsa-p384`, and turn it on again",
            )


def rules_of(settings: Settings) -> KeyRules:
    """The rules the settings give. Raises KeyUnusable when the passphrase file can't be used."""
    standard = ("ecdsa-p384",) if settings.fips else KeyRules().kinds
    kinds = tuple(kind.strip() for kind in settings.signing_keys.split(",") if kind.strip()) or standard
    return KeyRules(kinds, _passphrase(settings), settings.fips)


def make(kind: str, name: str) -> HeldSigner:
    """A fresh local key of this kind, or the KMS key it names, to sign under `name`. Raises KeyUnusable."""
    match kind:
        case "ed25519":
            return keys.generate(name, [KeyType.ED25519])[0]
        case "ml-dsa-44":
            return keys.generate(name, [KeyType.ML_DSA_44])[0]
        case "ecdsa-p256":
            return keys.generate_p256(name)
        case "ecdsa-p384":
            return keys.generate(name, [KeyType.ECDSA])[0]
        case _ if kind.startswith(KMS_PREFIX):
            return kms.adopt(kind.removeprefix(KMS_PREFIX), name)
        case _:
            raise KeyUnusable(f"no key is of kind {kind!r}", hint=f"one of {', '.join(LOCAL_KINDS)}, kms:<id or ARN>")


def kind_of(key: VerifierKey) -> str:
    """The kind of local key that makes keys like this one."""
    if key.type is not KeyType.ECDSA:
        return "ml-dsa-44" if key.type is KeyType.ML_DSA_44 else "ed25519"
    public = load_der_public_key(key.public)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    return "ecdsa-p256" if isinstance(public.curve, ec.SECP256R1) else "ecdsa-p384"


class LogKeys:
    """The key files of one log. Whoever calls what writes holds the signer's lock."""

    def __init__(self, log_key: Path, next_log_key: Path, policy_file: Path, origin: str, rules: KeyRules) -> None:
        self._path = log_key
        self._next = next_log_key
        self._policy = policy_file
        self._origin = origin
        self._rules = rules
        self._read: tuple[tuple[int, int], tuple[HeldSigner, ...]] | None = None

    def open_or_create(self) -> tuple[HeldSigner, ...]:
        """The keys in `log.pem`; made as the rules say when there is no such file."""
        if not self._path.exists() and not self._next.exists():
            made = [make(kind, self._origin) for kind in self._rules.kinds]
            self._rules.admit(made)
            keys.save(self._path, made, self._rules.passphrase)
        return self.held()

    @property
    def exists(self) -> bool:
        """Whether there is a `log.pem`, readable or not."""
        return self._path.exists()

    def held(self) -> tuple[HeldSigner, ...]:
        """The keys in `log.pem`, read again when the file is another. Raises KeyUnusable."""
        try:
            status = self._path.stat()
        except OSError as error:
            raise KeyUnusable(f"key file {self._path}: {error.strerror}") from None
        identity = (status.st_ino, status.st_mtime_ns)
        if self._read is None or self._read[0] != identity:
            signers = tuple(keys.load(self._path, self._origin, self._rules.passphrase))
            self._rules.admit(signers)
            self._read = (identity, signers)
        return self._read[1]

    def waiting(self) -> tuple[HeldSigner, ...] | None:
        """The keys of a change under way, None when there is none."""
        if not self._next.exists():
            return None
        return tuple(keys.load(self._next, self._origin, self._rules.passphrase))

    def settled(self, log: Log) -> tuple[HeldSigner, ...]:
        """The keys in force, after finishing a change that is committed but not carried out here."""
        self.finish(log)
        return self.held()

    def finish(self, log: Log) -> bool:
        """Carry out a change that the log has; False when there is none waiting, or it is not committed."""
        coming = self.waiting()
        if coming is None:
            return False
        log.refresh()
        after = frozenset(signer.key for signer in coming)
        changes = Keyring.follow(self._origin, after, log.key_changes).changes
        if not changes or changes[-1].after != after:
            return False
        self._pin_anew(log, coming)
        self._next.replace(self._path)
        durable.sync_folder(self._path.parent)
        return True

    def prepare(self, signers: Sequence[HeldSigner]) -> None:
        """Make the keys to come durable. Raises KeyUnusable when there are such already."""
        self._rules.admit(signers)
        keys.save(self._next, signers, self._rules.passphrase)

    def _pin_anew(self, log: Log, coming: Sequence[HeldSigner]) -> None:
        """The node's own verifier learns from its owner, here, what the log alone can't prove to it: a lost key."""
        if not self._policy.exists():
            return
        pinned = policy.parse(self._policy.read_text("utf-8"))
        remarks = Keyring.follow(self._origin, pinned.logs, log.key_changes).remarks
        if any(remark.index == log.key_changes[-1][0] for remark in remarks):
            anew = replace(pinned, logs=tuple(signer.key for signer in coming))
            durable.replace(self._policy, anew.text().encode())


def _passphrase(settings: Settings) -> bytes | None:
    if settings.key_passphrase is not None:
        return settings.key_passphrase.get_secret_value().encode() or None
    if settings.key_passphrase_file is None:
        return None
    path = settings.key_passphrase_file
    try:
        if path.stat().st_mode & 0o077:
            raise KeyUnusable(f"passphrase file {path}: others can read it", hint=f"chmod 600 {path}")
        secret = path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise KeyUnusable(f"passphrase file {path}: {error.strerror}", hint="see key_passphrase_file") from None
    if not secret:
        raise KeyUnusable(f"passphrase file {path} is empty")
    return secret
