"""`strongroom doctor fips`: which cryptography runs in a validated module on this machine, and which does not.

*Approved* is an algorithm (FIPS 180-4, 186-5, 204, 202); *validated* is a module: software or hardware with a FIPS
140-3 certificate, in its approved mode. An approved algorithm in another build of the same library is not validated.
What can be seen from here is whether a FIPS provider is at work; its certificate is for the operator to look up.
docs/fips.md has the facts and what to do.
"""

from __future__ import annotations

import _hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.backends.openssl.backend import backend

from strongroom.archive.errors import StrongroomError
from strongroom.archive.keys import HeldSigner, LocalSigner
from strongroom.archive.log import read_identity
from strongroom.archive.note import KeyType
from strongroom.service import log_keys
from strongroom.service.doctor import Result
from strongroom.service.keeping.storage import open_archive
from strongroom.service.log_keys import LogKeys
from strongroom.service.settings import Settings
from strongroom.service.state import StateFolder

_KERNEL = Path("/proc/sys/crypto/fips_enabled")


def examine(settings: Settings) -> list[Result]:
    """One line for each operation: *ok* when a module in FIPS mode does it, else a warning that says what would."""
    return [
        *_system(),
        *_hashing(),
        *_signing(settings),
        *_encrypting(settings),
        *_elsewhere(settings),
    ]


def python_openssl_is_fips() -> bool:
    """Whether the OpenSSL behind `hashlib` and `ssl` uses its FIPS provider unless told otherwise."""
    return bool(_hashlib.get_fips_mode())


def cryptography_is_fips() -> bool:
    """Whether the OpenSSL inside `cryptography` (its own in the PyPI wheel) runs its FIPS provider."""
    return bool(backend._fips_enabled)


def _system() -> Iterator[Result]:
    try:
        on = _KERNEL.read_text().strip() == "1"
    except OSError:
        on = False
    fix = "" if on else "boot the system in FIPS mode (fips=1), with its validated OpenSSL"
    yield Result("ok" if on else "warning", "system", f"kernel FIPS mode {'on' if on else 'off'}", fix)


def _hashing() -> Iterator[Result]:
    on = python_openssl_is_fips()
    fix = "" if on else "use a Python linked to the system's OpenSSL, on a system in FIPS mode"
    found = f"{ssl.OPENSSL_VERSION}: {'FIPS provider' if on else 'no FIPS provider'}"
    for what in (
        "SHA-256: records, entries, trees, objects",
        "SHAKE-256: nonces of records",
        "TLS of the service",
    ):
        yield Result("ok" if on else "warning", what, found, fix)


def _signing(settings: Settings) -> Iterator[Result]:
    inside = cryptography_is_fips()
    library = f"cryptography with {backend.openssl_version_text()}: {'FIPS' if inside else 'no FIPS'} provider"
    rebuild = "build cryptography against the system's OpenSSL (docs/fips.md)"
    for signer in _signers(settings):
        name = f"{_ALGORITHMS[signer.key.type]}: signing the log ({signer.key.key_id.hex()})"
        if not isinstance(signer, LocalSigner):
            yield Result("ok", name, f"AWS KMS {signer.arn}: its HSMs have a FIPS 140-3 level 3 certificate")
        elif signer.key.type is KeyType.ECDSA:
            yield Result(
                "ok" if inside else "warning", name, library, "" if inside else f"sign in AWS KMS, or {rebuild}"
            )
        else:
            fix = "strongroom keys rotate --keys kms:<ARN>, or ecdsa-p384 (setting fips)"
            yield Result("warning", name, f"{library}; not in every validated module", fix)
    for what in ("checking signatures, receipts, key files", "RFC 3161 timestamps"):
        yield Result("ok" if inside else "warning", what, library, "" if inside else rebuild)


def _encrypting(settings: Settings) -> Iterator[Result]:
    if not settings.encryption_key:
        return
    inside = cryptography_is_fips()
    library = f"cryptography with {backend.openssl_version_text()}: {'FIPS' if inside else 'no FIPS'} provider"
    fix = "" if inside else "build cryptography against the system's OpenSSL (docs/fips.md)"
    yield Result("ok" if inside else "warning", "AES-256-GCM, HKDF: envelopes of objects", library, fix)
    if settings.encryption_key.startswith("kms:"):
        found = "AWS KMS: its HSMs have a FIPS 140-3 level 3 certificate (an external key store: ask its maker)"
        yield Result("ok", "wrapping data keys", found)
    else:
        yield Result("ok" if inside else "warning", "wrapping data keys", library, "" if inside else "wrap in AWS KMS")


def _elsewhere(settings: Settings) -> Iterator[Result]:
    yield Result(
        "ok" if settings.fips else "warning",
        "strict profile",
        f"setting fips is {'on' if settings.fips else 'off'}",
        "" if settings.fips else "turn it on: then only ECDSA keys sign",
    )
    yield Result(
        "warning",
        "verify.py in evidence bundles",
        "signatures in plain Python",
        "it is for who trusts no library; `strongroom evidence verify` does the same with cryptography",
    )
    yield Result("ok", "SQL functions such as sha256()", "DuckDB's mbedTLS, not validated: no proof rests on them")


def _signers(settings: Settings) -> tuple[HeldSigner, ...]:
    """The log's keys where there are any; unreadable ones are `strongroom doctor`'s to report."""
    state = StateFolder(settings.state.absolute())
    try:
        origin = read_identity(open_archive(settings)).origin
        return LogKeys(state.log_key, state.next_log_key, state.policy, origin, log_keys.rules_of(settings)).held()
    except StrongroomError:
        return ()


_ALGORITHMS = {
    KeyType.ED25519: "Ed25519",
    KeyType.ECDSA: "ECDSA",
    KeyType.ED25519_COSIGNATURE: "Ed25519",
    KeyType.ML_DSA_44: "ML-DSA-44",
}
