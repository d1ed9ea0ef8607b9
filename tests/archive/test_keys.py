"""Key files: what they hold, who may read them, and what a passphrase does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from strongroom.archive import keys, note
from strongroom.archive.errors import KeyUnusable
from strongroom.archive.merkle import EMPTY_ROOT
from strongroom.archive.note import Checkpoint, KeyType
from tests.archive.conftest import ORIGIN

HEAD = Checkpoint(ORIGIN, 0, EMPTY_ROOT).text()
EVERY = [*keys.generate(ORIGIN, [KeyType.ED25519, KeyType.ML_DSA_44, KeyType.ECDSA]), keys.generate_p256(ORIGIN)]


@pytest.mark.parametrize("passphrase", [None, b"correct horse battery staple"])
def test_every_kind_of_key_comes_back(tmp_path: Path, passphrase: bytes | None) -> None:
    path = tmp_path / "keys" / "log.pem"
    keys.save(path, EVERY, passphrase)
    assert path.stat().st_mode & 0o777 == 0o600 and [item.name for item in path.parent.iterdir()] == ["log.pem"]
    assert keys.is_encrypted(path) == (passphrase is not None)
    loaded = keys.load(path, ORIGIN, passphrase)
    assert [one.key for one in loaded] == [one.key for one in EVERY]
    assert note.verify(note.sign(HEAD, loaded), [one.key for one in EVERY]) == [one.key for one in EVERY]
    with pytest.raises(KeyUnusable, match="exists"):
        keys.save(path, EVERY)


def test_a_passphrase_is_needed_and_never_said(tmp_path: Path) -> None:
    path = tmp_path / "log.pem"
    keys.save(path, EVERY, b"tell nobody")
    for given in (None, b"", b"tell somebody"):
        with pytest.raises(KeyUnusable, match="passphrase") as caught:
            keys.load(path, ORIGIN, given)
        assert "tell" not in str(caught.value)
    assert all(word not in repr(EVERY).lower() for word in ("private", "pem"))
    keys.save(tmp_path / "open.pem", EVERY)
    assert keys.load(tmp_path / "open.pem", ORIGIN, b"not needed")


@pytest.mark.parametrize(("number", "digest"), [(2, "-sha384"), (3, "-sha256")])
def test_openssl_agrees_about_ecdsa(tmp_path: Path, number: int, digest: str) -> None:
    signer = EVERY[number]
    (tmp_path / "text").write_text(HEAD)
    (tmp_path / "public.der").write_bytes(signer.key.public)
    (tmp_path / "signature").write_bytes(note.sign(HEAD, [signer]).signatures[0].value)
    command = ["openssl", "dgst", digest, "-keyform", "DER", "-verify", "public.der", "-signature", "signature", "text"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Verified OK", done.stderr


def test_keys_that_openssl_made_are_usable(tmp_path: Path) -> None:
    path = tmp_path / "log.pem"
    for options in (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], ["-algorithm", "ED25519"]):
        made = subprocess.run(["openssl", "genpkey", *options], capture_output=True, check=True).stdout
        path.write_bytes((path.read_bytes() if path.exists() else b"") + made)
    path.chmod(0o600)
    assert [one.key.type for one in keys.load(path, ORIGIN)] == [KeyType.ECDSA, KeyType.ED25519]


@pytest.mark.parametrize("options", [["RSA", "rsa_keygen_bits:2048"], ["EC", "ec_paramgen_curve:secp521r1"]])
def test_keys_of_other_kinds_are_refused(tmp_path: Path, options: list[str]) -> None:
    path = tmp_path / "log.pem"
    command = ["openssl", "genpkey", "-algorithm", options[0], "-pkeyopt", options[1], "-out", str(path)]
    subprocess.run(command, capture_output=True, check=True)
    path.chmod(0o600)
    with pytest.raises(KeyUnusable, match="sign here"):
        keys.load(path, ORIGIN)


def test_files_that_are_no_key_files(tmp_path: Path) -> None:
    path = tmp_path / "log.pem"
    with pytest.raises(KeyUnusable, match="No such file"):
        keys.load(path, ORIGIN)
    path.write_bytes(b"nothing here\n")
    path.chmod(0o644)
    with pytest.raises(KeyUnusable, match="others can read it"):
        keys.load(path, ORIGIN)
    path.chmod(0o600)
    with pytest.raises(KeyUnusable, match="holds no private key"):
        keys.load(path, ORIGIN)
