"""What a bundle shows to people: pages that can't be abused, and commands that do what they say, with real tools."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.archive import evidence, keys, note, policy, timestamps
from strongroom.archive.errors import FormatError
from strongroom.archive.evidence import cover
from strongroom.archive.note import KeyType, VerifierKey
from tests.archive.bundles import FAILED, PROVEN, checkpoint, export, members, rebuild, verdict
from tests.archive.conftest import ORIGIN, Archive
from tests.archive.test_timestamps import Authority

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


class EcdsaSigner:
    """A log key of the FIPS profile."""

    def __init__(self, curve: ec.EllipticCurve, digest: hashes.HashAlgorithm) -> None:
        self._private, self._digest = ec.generate_private_key(curve), digest
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        public = self._private.public_key().public_bytes(serialization.Encoding.DER, spki)
        self.key: VerifierKey = note.verifier_key(ORIGIN, KeyType.ECDSA, public)

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message, ec.ECDSA(self._digest))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa"))


@pytest.fixture
def rich(archive: Archive, authority: Authority, tmp_path: Path) -> tuple[Path, policy.Policy]:
    """A bundle with every kind of signature, and a timestamp from before the cosignature was added."""
    text = note.parse(checkpoint(archive)).text
    signers = [
        *archive.signers,
        EcdsaSigner(ec.SECP256R1(), hashes.SHA256()),
        EcdsaSigner(ec.SECP384R1(), hashes.SHA384()),
    ]
    witness = keys.generate("witness.example/w", [KeyType.ED25519_COSIGNATURE])[0]
    stamped = note.sign(text, signers).encode().encode()
    line = note.sign(text, [witness], 1_764_000_000).signatures[0].line()
    rules = policy.parse(
        "".join(f"log {signer.key.vkey()}\n" for signer in signers) + f"witness w {witness.key.vkey()}\nquorum w\n"
    )
    stamp = authority.stamp(timestamps.request(stamped).data)
    arguments = {"checkpoint": stamped + f"{line}\n".encode(), "policy": rules, "timestamps": [stamp]}
    export(archive, tmp_path / "b.zip", [((2, 0), [1]), ((3, 0), [0])], **arguments)
    return tmp_path / "b.zip", rules


def shell_commands(page: str) -> list[tuple[str, str]]:
    """(command, what it prints) as the page shows them."""
    found = re.findall(r"<dd><pre>(.*?)</pre>\s*<p>prints <code>(.*?)</code>", page, re.DOTALL)
    return [(html.unescape(command), html.unescape(prints)) for command, prints in found]


@needs_openssl
def test_the_commands_on_the_cover_page_work(
    rich: tuple[Path, policy.Policy], authority: Authority, tmp_path: Path
) -> None:
    path, rules = rich
    assert verdict(path, rules) == PROVEN
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    (folder / "AUTHORITY.pem").write_bytes((authority.folder / "ca.pem").read_bytes())
    commands = shell_commands((folder / "cover.html").read_text())
    assert len(commands) == 8  # sums, four signatures, a record and its leaf, a timestamp

    def outcome(command: str) -> tuple[int, str]:
        ran = subprocess.run(["sh", "-ec", command], cwd=folder, capture_output=True, text=True, timeout=30)
        return ran.returncode, ran.stdout + ran.stderr

    for command, prints in commands:
        code, said = outcome(command)
        assert code == 0, (command, said)
        assert (prints in said) or (prints == "OK for each file" and said.count(": OK") == len(members(path)) - 1)
    # The same commands notice a change.
    stored = (folder / "checkpoint").read_bytes()
    (folder / "checkpoint").write_bytes(stored.replace(b"\n6\n", b"\n7\n"))
    for command, _ in commands:
        if "checkpoint" in command or "SHA256SUMS" in command:
            assert outcome(command)[0] != 0, command


@needs_openssl
def test_fingerprints_are_what_the_page_says_they_are(rich: tuple[Path, policy.Policy], tmp_path: Path) -> None:
    contents = members(rich[0])
    page = contents["cover.html"].decode()
    for name in (name for name in contents if name.endswith(".pem")):
        (tmp_path / "key.pem").write_bytes(contents[name])
        command = "grep -v -- ----- key.pem | base64 -d | sha256sum"
        ran = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert ran.stdout.split()[0] in page and name in page


@needs_openssl
def test_a_timestamp_is_held_against_the_authority_when_it_is_known(
    rich: tuple[Path, policy.Policy], authority: Authority, archive: Archive, tmp_path: Path
) -> None:
    path, rules = rich
    lines = {line.subject: line for line in evidence.check(path, rules, tsa_roots=authority.roots).lines}
    assert lines["timestamp"].held is True
    assert {line.subject: line for line in evidence.check(path, rules).lines}["timestamp"].held is None
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    assert evidence.check(path, rules, tsa_roots=other.roots).status == "failed"
    foreign = other.stamp(timestamps.request(b"something else").data)
    contents = members(path) | {"timestamps/000001.tsr": foreign}
    assert verdict(rebuild(tmp_path / "c.zip", contents), rules) == FAILED
    with pytest.raises(FormatError, match="something else"):
        export(archive, tmp_path / "d.zip", [((1, 0), [0])], timestamps=[foreign])


class Reader(HTMLParser):
    """Which elements and attributes a page has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.adversarial
def test_nothing_that_was_recorded_or_said_becomes_markup(archive: Archive, tmp_path: Path) -> None:
    hostile = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\u202etxt.exe\x00\x1b[31m${size}"
    custody = {"<script>": hostile, "nested": {"list": [hostile, {"deeper": hostile}]}, "count": 3, "sure": True}
    export(archive, tmp_path / "b.zip", [((1, 0), [0])], custody=custody)
    assert verdict(tmp_path / "b.zip", archive.trust.policy) == PROVEN
    pages = members(tmp_path / "b.zip")
    page = pages["cover.html"].decode()
    shown = cover.Shown(1, 1, 0, 0, len(hostile), "00" * 32, "00" * 32, cover.readable(hostile))
    table = evidence.writing.layout.decode_contents(pages["bundle.json"])
    page += cover.html(table, archive.trust.policy, {}, [], [shown])
    seen = Reader(page)
    assert not seen.tags & {"script", "img", "link", "iframe", "object", "form", "a"}
    assert not seen.attributes & {"src", "href", "onerror", "onclick", "style"}
    assert not set("\u202e\x00\x1b") & set(page)
    assert "<script>alert(1)</script>" in seen.text and "\\u202etxt.exe\\u0000" in seen.text and "${size}" in seen.text
    assert "http://" not in page and "https://" not in page and "url(" not in page


def test_the_page_shows_the_first_records_and_says_so(archive: Archive, tmp_path: Path) -> None:
    archive.commit(60)
    summary = export(archive, tmp_path / "b.zip", [((6, 0), range(60))])
    page = members(tmp_path / "b.zip")["cover.html"].decode()
    assert page.count("<article>") == 50 and "The first 50 of 60 records" in page
    assert "batch 5 record 49" in page and "batch 5 record 50" not in page
    readme = members(tmp_path / "b.zip")["README.txt"].decode()
    assert f"{summary.records} records of 1 segment" in readme and "$" not in readme
    assert all(len(line) <= 120 for line in readme.splitlines())
