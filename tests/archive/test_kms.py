"""Keys in AWS KMS, against a KMS API of its own process on loopback (moto). It has P-256 and P-384 keys.

Ed25519 and ML-DSA-44 keys, which moto lacks, are held against a client that answers as the API reference says.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.archive import keys, kms, note
from strongroom.archive.errors import KeyUnavailable, KeyUnusable
from strongroom.archive.kms import KmsSigner
from strongroom.archive.log import Log
from strongroom.archive.merkle import leaf_hash
from strongroom.archive.note import Checkpoint, KeyType
from strongroom.archive.policy import Policy
from strongroom.archive.signer import Signer
from strongroom.archive.stores import DirectoryStore
from strongroom.archive.trust import Trust
from strongroom.archive.verification.verify import verify
from tests import kms_api
from tests.archive.conftest import NOW, ORIGIN

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto")

HEAD = Checkpoint(ORIGIN, 7, leaf_hash(b"seven")).text()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with kms_api.running() as url:
        yield url


@pytest.fixture(autouse=True)
def aws(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**kms_api.ENVIRONMENT, "AWS_ENDPOINT_URL_KMS": endpoint}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def api(aws: None) -> Any:
    """The administrator's view of KMS."""
    return boto3.client("kms")


def make(api: Any, spec: str, usage: str = "SIGN_VERIFY") -> str:
    return str(api.create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]["Arn"])


@pytest.mark.parametrize("spec", ["ECC_NIST_P256", "ECC_NIST_P384"])
def test_a_signature_made_in_kms_verifies_here_and_with_openssl(api: Any, spec: str, tmp_path: Path) -> None:
    signer = kms.adopt(make(api, spec), ORIGIN)
    signed = note.sign(HEAD, [signer])
    assert note.verify(note.parse(signed.encode().encode()), [note.parse_vkey(signer.key.vkey())]) == [signer.key]
    (tmp_path / "text").write_text(HEAD)
    (tmp_path / "signature").write_bytes(signed.signatures[0].value)
    (tmp_path / "public.der").write_bytes(signer.key.public)
    command = ["openssl", "dgst", "-sha384" if spec.endswith("384") else "-sha256", "-keyform", "DER"]
    command += ["-verify", "public.der", "-signature", "signature", "text"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Verified OK", done.stderr


def test_a_key_file_names_the_key_and_pins_its_public_half(api: Any, tmp_path: Path) -> None:
    arn = make(api, "ECC_NIST_P256")
    api.create_alias(AliasName="alias/log", TargetKeyId=arn)
    local = keys.generate(ORIGIN, [KeyType.ML_DSA_44])
    signer = kms.adopt("alias/log", ORIGIN)
    assert arn.endswith(signer.arn)  # an alias can be moved, an ARN can't
    keys.save(tmp_path / "log.pem", [signer, *local], b"open sesame")
    api.update_alias(AliasName="alias/log", TargetKeyId=make(api, "ECC_NIST_P384"))
    reopened = keys.load(tmp_path / "log.pem", ORIGIN, b"open sesame")
    assert [one.key for one in reopened] == [signer.key, local[0].key]
    assert len(note.verify(note.sign(HEAD, reopened), [one.key for one in reopened])) == 2
    assert api.get_public_key(KeyId=arn)["PublicKey"] == reopened[0].key.public
    with pytest.raises(KeyUnusable, match="of another log"):
        keys.load(tmp_path / "log.pem", "logs.example.org/other", b"open sesame")


def test_another_key_behind_the_name_is_never_believed(api: Any) -> None:
    first, second = (kms.adopt(make(api, "ECC_NIST_P256"), ORIGIN) for _ in range(2))
    swapped = kms.reopen(f"aws-kms {second.arn} {first.key.vkey()}")
    with pytest.raises(KeyUnusable, match="not by the public key pinned"):
        swapped.sign(HEAD.encode())


def test_a_missing_key(api: Any) -> None:
    arn = make(api, "ECC_NIST_P256")
    missing = arn[:-12] + "000000000000"
    with pytest.raises(KeyUnusable, match=missing) as caught:
        kms.adopt(missing, ORIGIN)
    assert "check the ARN" in caught.value.hint


@pytest.mark.parametrize(
    ("spec", "usage"),
    [("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"), ("RSA_3072", "SIGN_VERIFY"), ("ECC_SECG_P256K1", "SIGN_VERIFY")],
)
def test_keys_that_sign_no_notes(api: Any, spec: str, usage: str) -> None:
    with pytest.raises(KeyUnusable):
        kms.adopt(make(api, spec, usage), ORIGIN)


def test_what_may_pass_is_told_from_what_will_not(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = make(api, "ECC_NIST_P256")
    good = kms.adopt(arn, ORIGIN)
    monkeypatch.setattr(kms, "_TRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:1")
    with pytest.raises(KeyUnavailable, match="Could not connect"):
        kms.reopen(good.stored(None).decode()).sign(HEAD.encode())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(kms, "_READ_SECONDS", 0.2)
        with pytest.raises(KeyUnavailable, match=r"[Tt]ime"):
            kms.reopen(good.stored(None).decode()).sign(HEAD.encode())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(KeyUnusable, match=r"[Cc]redentials"):
        kms.reopen(good.stored(None).decode()).sign(HEAD.encode())
    with pytest.raises(KeyUnusable, match="at most 4096"):
        good.sign(bytes(4097))
    for line in ("aws-kms", f"aws-kms alias/log {good.key.vkey()}", f"aws-kms {arn} rubbish"):
        with pytest.raises((KeyUnusable, note.FormatError)):
            kms.reopen(line)


@pytest.mark.parametrize(
    ("status", "code", "kind", "hint"),
    [
        (400, "DisabledException", KeyUnusable, "strongroom keys revoke"),
        (400, "KMSInvalidStateException", KeyUnusable, "pending deletion"),
        (400, "AccessDeniedException", KeyUnusable, "kms:Sign"),
        (400, "InvalidKeyUsageException", KeyUnusable, "SIGN_VERIFY"),
        (400, "ThrottlingException", KeyUnavailable, ""),
        (400, "LimitExceededException", KeyUnavailable, ""),
        (500, "KMSInternalException", KeyUnavailable, ""),
        (500, "KeyUnavailableException", KeyUnavailable, ""),
        (503, "DependencyTimeoutException", KeyUnavailable, ""),
        (502, "Bad gateway in between", KeyUnavailable, ""),
    ],
)
def test_answers_of_the_service_that_the_emulation_never_gives(
    status: int, code: str, kind: type[Exception], hint: str, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """boto3 over HTTP against answers in the form that the API reference shows."""
    good = kms.adopt(make(api, "ECC_NIST_P256"), ORIGIN)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.dumps({"__type": code, "message": f"said {code}"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    monkeypatch.setattr(kms, "_TRIES", 1)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(kind, match=f"said {code}") as caught:
            kms.reopen(good.stored(None).decode()).sign(HEAD.encode())
        server.shutdown()
    assert type(caught.value) is kind and hint in str(caught.value)


class Reference:
    """Answers as the KMS API reference describes Ed25519 and ML-DSA-44 keys."""

    def __init__(self, spec: str, private: ed25519.Ed25519PrivateKey | mldsa.MLDSA44PrivateKey, algorithm: str) -> None:
        self.spec, self.private, self.algorithm = spec, private, algorithm

    def get_public_key(self, *, KeyId: str) -> Mapping[str, Any]:
        public = self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        arn = f"arn:aws:kms:eu-central-1:123456789012:key/{KeyId}"
        return {"KeyId": arn, "KeySpec": self.spec, "KeyUsage": "SIGN_VERIFY", "PublicKey": public}

    def sign(self, *, KeyId: str, Message: bytes, MessageType: str, SigningAlgorithm: str) -> Mapping[str, Any]:
        assert (MessageType, SigningAlgorithm) == ("RAW", self.algorithm) and len(Message) <= 4096
        return {"Signature": self.private.sign(Message)}


@pytest.mark.parametrize(
    ("type_", "service"),
    [
        (
            KeyType.ED25519,
            Reference("ECC_NIST_EDWARDS25519", ed25519.Ed25519PrivateKey.generate(), "ED25519_SHA_512"),
        ),
        (KeyType.ML_DSA_44, Reference("ML_DSA_44", mldsa.MLDSA44PrivateKey.generate(), "ML_DSA_SHAKE_256")),
    ],
)
def test_kinds_the_emulation_lacks(type_: KeyType, service: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kms, "connect", lambda region: service)
    signer = kms.adopt("0" * 36, ORIGIN)
    assert signer.key.type is type_
    assert note.verify(note.sign(HEAD, [signer]), [signer.key]) == [signer.key]


def test_a_log_signed_in_kms_alone_is_sound(api: Any, tmp_path: Path) -> None:
    """The strict profile: every signature ECDSA, every private key in KMS."""
    signers: list[KmsSigner] = [kms.adopt(make(api, spec), ORIGIN) for spec in ("ECC_NIST_P256", "ECC_NIST_P384")]
    store = DirectoryStore(tmp_path / "archive", create=True)
    Log.create(store, ORIGIN, [signer.key.vkey() for signer in signers], NOW)
    signed = Signer(store, signers, tmp_path / "memory.json").sign()
    assert signed.size == 1
    assert verify(store, Trust(Policy(tuple(signer.key for signer in signers))), "complete").sound
