"""What encryption costs: an envelope of 64 MiB against bare AES-256-GCM and against SHA-256, which is paid anyway.

One core, CPU time. *Encrypt* reads a file and writes to nowhere, as the bare ones do; *seal* and *open* are what the
archive does: from file to file, with the hash of what is written. Where `aws-encryption-sdk` is installed, it encrypts
the same file to nowhere, in frames of 1 MiB under a committing suite without signature, which is the fastest it does
(docs/decisions/0007-own-envelope.md).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.measure import Contestant, Runs, Spread, contest, cores
from bench.report import Ratio, Row, Section
from strongroom.archive.encryption import envelope
from strongroom.archive.encryption.encryption import Encryption
from strongroom.archive.encryption.envelope import DataKey
from strongroom.archive.encryption.wrapping import LocalWrapper, WrappingKeys

_BYTES = 64 << 20
_CHUNK = 1 << 20
_NAME = "segments/source=test/segment.parquet.enc"


def sealing(folder: Path) -> Runs:
    """Seals the file; gives the envelope's length."""
    plain, target = _plain(folder, "sealing"), folder / "sealed"
    encryption = _encryption()

    def run() -> int:
        target.unlink(missing_ok=True)
        return encryption.seal_file(_NAME, plain, target).bytes

    while True:
        yield run


class Nowhere:
    """A file that takes everything and keeps nothing."""

    def write(self, data: bytes | memoryview, /) -> None:
        return


def encrypting(folder: Path) -> Runs:
    """Encrypts the file and throws the envelope away; gives the content's length."""
    plain = _plain(folder, "encrypting")
    wrapper = LocalWrapper(bytes(32))
    key = DataKey(bytes(32), wrapper.key_id, b"", _NAME)

    def run() -> int:
        with plain.open("rb") as source:
            envelope.seal_stream(source, Nowhere(), key, "00" * 16, _NAME)
        return _BYTES

    while True:
        yield run


def opening(folder: Path) -> Runs:
    """Opens an envelope; gives the content's length."""
    plain, stored, target = _plain(folder, "opening"), folder / "to-open", folder / "opened"
    encryption = _encryption()
    encryption.seal_file(_NAME, plain, stored)

    def run() -> int:
        target.unlink(missing_ok=True)
        return encryption.open_file(_NAME, stored, target).bytes

    while True:
        yield run


def bare_gcm() -> Runs:
    """AES-256-GCM over memory, in the envelope's chunks."""
    content, cipher = memoryview(secrets.token_bytes(_BYTES)), AESGCM(bytes(32))

    def run() -> int:
        for number in range(_BYTES // _CHUNK):
            cipher.encrypt(number.to_bytes(12, "big"), content[number * _CHUNK : (number + 1) * _CHUNK], None)
        return _BYTES

    while True:
        yield run


def bare_hash() -> Runs:
    """SHA-256 over memory: what every object costs anyway, encrypted or not."""
    content = secrets.token_bytes(_BYTES)

    def run() -> int:
        hashlib.sha256(content).digest()
        return _BYTES

    while True:
        yield run


def sdk(folder: Path) -> Runs:
    """The AWS Encryption SDK over the same file, to nowhere."""
    import aws_encryption_sdk as toolkit  # type: ignore[import-not-found]
    from aws_encryption_sdk.identifiers import (  # type: ignore[import-not-found]
        Algorithm,
        EncryptionKeyType,
        WrappingAlgorithm,
    )
    from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey  # type: ignore[import-not-found]
    from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider  # type: ignore[import-not-found]

    class Provider(RawMasterKeyProvider):  # type: ignore[misc]
        provider_id = "bench"

        def _get_raw_key(self, key_id: str) -> Any:
            algorithm = WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING
            return WrappingKey(algorithm, bytes(32), EncryptionKeyType.SYMMETRIC)

    plain, provider = _plain(folder, "sdk"), Provider()
    provider.add_master_key("one")
    client = toolkit.EncryptionSDKClient()

    def run() -> int:
        count = 0
        with plain.open("rb") as source:
            suite = Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
            options = {"algorithm": suite, "frame_length": _CHUNK, "encryption_context": {"object": _NAME}}
            with client.stream(mode="e", source=source, key_provider=provider, **options) as stream:
                while part := stream.read(_CHUNK):
                    count += len(part)
        return count

    while True:
        yield run


def measure(folder: Path, rounds: int, progress: Callable[[str], None]) -> Section:
    """MB/s of each, and the envelope's ratios."""
    folder.mkdir(parents=True, exist_ok=True)
    core, _ = cores()
    entered = [
        Contestant("encrypt", encrypting, (folder,), core),
        Contestant("seal", sealing, (folder,), core),
        Contestant("open", opening, (folder,), core),
        Contestant("aes-gcm", bare_gcm, (), core),
        Contestant("sha-256", bare_hash, (), core),
    ]
    if find_spec("aws_encryption_sdk") is not None:
        entered.append(Contestant("sdk", sdk, (folder,), core))
    samples = contest(entered, rounds=rounds, progress=progress)
    rates = {name: Spread.rate(_BYTES / 1e6, sample.cpu) for name, sample in samples.items()}
    rivals = {"aes-gcm": "bare AES-256-GCM", "sha-256": "bare SHA-256", "sdk": "AWS Encryption SDK"}
    wanted = {
        "encrypt": "encrypt 64 MiB",
        "seal": "seal: encrypt, hash, write",
        "open": "open: decrypt, hash, write",
    }
    rows = [Row(said, rates[name], "MB/s", _against(name, rivals, rates)) for name, said in wanted.items()]
    rows += [Row(said, rates[rival], "MB/s") for rival, said in rivals.items() if rival in rates]
    return Section("what encryption costs, in one core", tuple(rows), {n: s.facts() for n, s in samples.items()})


def _against(name: str, rivals: dict[str, str], rates: dict[str, Spread]) -> tuple[Ratio, ...]:
    known = {rival: said for rival, said in rivals.items() if rival in rates}
    return tuple(Ratio(said, rates[name].median / rates[rival].median) for rival, said in known.items())


def _encryption() -> Encryption:
    return Encryption("00" * 16, WrappingKeys(LocalWrapper(bytes(32))))


def _plain(folder: Path, name: str) -> Path:
    path = folder / f"plain-{name}"
    path.write_bytes(secrets.token_bytes(_BYTES))
    return path
