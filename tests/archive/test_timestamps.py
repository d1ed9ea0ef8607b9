"""RFC 3161 timestamps, by an authority of the tests' own: the openssl command."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from strongroom.archive import layout, timestamps
from strongroom.archive.errors import FormatError
from strongroom.archive.trust import Trust
from strongroom.archive.verification.verify import verify
from tests.archive.conftest import Archive

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")

CONFIG = """
[ req ]
distinguished_name = dn
[ dn ]
[ ca ]
basicConstraints = critical,CA:TRUE
[ tsa ]
extendedKeyUsage = critical,timeStamping
[ config ]
serial = serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_alg = sha256
"""


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa"))


class Authority:
    """A certification authority and a time-stamping certificate under it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tsa.cnf").write_text(CONFIG)
        (folder / "serial").write_text("01\n")
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", "tsa.cnf")
        self._run("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-extensions", "ca")
        self._run("req", *curve, "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=tsa")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "tsa.cnf", "-extensions", "tsa")
        self._run("x509", "-req", "-in", "tsa.csr", *signing, "-out", "tsa.pem")
        self.roots = timestamps.roots_of((folder / "ca.pem").read_bytes())

    def stamp(self, request: bytes) -> bytes:
        (self.folder / "request.tsq").write_bytes(request)
        keys = ("-signer", "tsa.pem", "-inkey", "tsa.key")
        self._run(
            "ts",
            "-reply",
            "-config",
            "tsa.cnf",
            "-section",
            "config",
            "-queryfile",
            "request.tsq",
            *keys,
            "-out",
            "reply.tsr",
        )
        return (self.folder / "reply.tsr").read_bytes()

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


def test_a_timestamp_holds_for_its_checkpoint_alone(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> None:
    asked = timestamps.request(b"checkpoint")
    reply = authority.stamp(asked.data)
    stated = timestamps.verify(reply, b"checkpoint", authority.roots, asked.nonce)
    assert abs((datetime.now(UTC) - stated).total_seconds()) < 60
    with pytest.raises(FormatError, match="other bytes"):
        timestamps.verify(reply, b"other", authority.roots)
    with pytest.raises(FormatError):
        timestamps.verify(reply, b"checkpoint", authority.roots, asked.nonce + 1)
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    with pytest.raises(FormatError):
        timestamps.verify(reply, b"checkpoint", stranger.roots)
    for place in range(0, len(reply), 29):
        changed = reply[:place] + bytes([reply[place] ^ 1]) + reply[place + 1 :]
        try:
            assert timestamps.verify(changed, b"checkpoint", authority.roots) == stated
        except FormatError:
            continue
    for cut in (0, 10, len(reply) // 2):
        with pytest.raises(FormatError):
            timestamps.verify(reply[:cut], b"checkpoint", authority.roots)


@pytest.mark.adversarial
def test_an_insider_who_rewrites_history_is_caught_by_a_kept_timestamp(
    archive: Archive, new_archive: Callable[[], Archive], authority: Authority
) -> None:
    checkpoint = archive.store.get(layout.checkpoint_key(6))
    kept = authority.stamp(timestamps.request(checkpoint).data)
    archive.store.create(layout.timestamp_key(6), kept)
    trust = Trust(archive.trust.policy, tsa_roots=authority.roots)
    report = verify(archive.store, trust, "complete")
    assert report.sound, report.findings
    assert "timestamp" in report.notes[0]
    forged = Archive(archive.root.parent / "forged", archive.root.parent / "forged.json", archive.signers)
    for _ in range(6):
        forged.commit(count=2)
    forged.store.create(layout.timestamp_key(6), kept)
    [finding] = verify(forged.store, trust, "complete").findings
    assert (finding.code, finding.object) == ("TIMESTAMP_INVALID", layout.timestamp_key(6))
