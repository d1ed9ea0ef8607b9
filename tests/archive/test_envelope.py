"""Envelopes: held against docs/format.md §11 in raw primitives, and against every way to change one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from io import BytesIO
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.archive.encryption import envelope
from strongroom.archive.encryption.envelope import CHUNK_BYTES, DataKey, FileFacts
from strongroom.archive.errors import FormatError

ARCHIVE, NAME = "00112233445566778899aabbccddeeff", "segments/source=test/x.parquet.enc"
KEY = DataKey(bytes(range(32)), "local:0011223344556677", b"wrapped", NAME)


def opened(stored: bytes, key: bytes = KEY.plain) -> bytes:
    return envelope.open_bytes(stored, envelope.read_header(BytesIO(stored)), key)


def by_hand(content: bytes, key: DataKey, salt: bytes) -> bytes:
    """The envelope by the format's text alone: HKDF from HMAC, GCM from the block-wise cipher."""
    header = {
        "archive": ARCHIVE, "format": "strongroom/envelope/1", "key": key.key, "object": NAME, "salt": salt.hex(),
        "scope": key.scope, "wrapped": base64.b64encode(key.wrapped).decode(),
    }  # fmt: skip
    encoded = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    stored = b"SRenv\r\n\x01" + len(encoded).to_bytes(4, "big") + encoded
    info = b"strongroom/envelope/1" + hashlib.sha256(stored).digest()
    extracted = hmac.digest(salt, key.plain, "sha512")
    output = hmac.digest(extracted, info + b"\x01", "sha512")
    content_key, commitment = output[:32], output[32:64]
    parts = [content[at : at + 1_048_576] for at in range(0, len(content), 1_048_576)] or [b""]
    sealed = b""
    for number, part in enumerate(parts):
        nonce = bytes(7) + number.to_bytes(4, "big") + bytes([number == len(parts) - 1])
        gcm = Cipher(algorithms.AES256(content_key), modes.GCM(nonce)).encryptor()
        sealed += gcm.update(part) + gcm.finalize() + gcm.tag
    return stored + commitment + sealed


@pytest.mark.parametrize("size", [0, 1, 16, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 7])
def test_an_envelope_is_what_the_format_says_byte_for_byte(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    content, salt = hashlib.shake_128(b"content").digest(size), hashlib.sha256(b"salt").digest()
    monkeypatch.setattr("secrets.token_bytes", lambda count: salt[:count])
    stored = envelope.seal(content, KEY, ARCHIVE, NAME)
    assert stored == by_hand(content, KEY, salt)
    assert opened(stored) == content


def test_the_format_does_not_drift() -> None:
    """A frozen envelope: what this software wrote on its first day must open for ever."""
    digest = hashlib.sha256(by_hand(b"a record", KEY, bytes(32))).hexdigest()
    assert digest == "d11f5b9c82a091393d163663dae7d5dbff2c69da4ee937c6940607253ad7941a"
    assert opened(by_hand(b"a record", KEY, bytes(32))) == b"a record"


@settings(deadline=None, max_examples=30)
@given(content=st.binary(max_size=2000), chunks=st.integers(0, 2), data_key=st.binary(min_size=32, max_size=32))
def test_what_is_sealed_opens_and_files_are_as_bytes(
    content: bytes, chunks: int, data_key: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = content + bytes(chunks * CHUNK_BYTES)
    folder = tmp_path_factory.mktemp("envelope")
    key = DataKey(data_key, KEY.key, b"w", "segments/")
    (folder / "plain").write_bytes(content)
    facts = envelope.seal_file(folder / "plain", folder / "sealed", key, ARCHIVE, NAME)
    stored = (folder / "sealed").read_bytes()
    assert facts == FileFacts(len(stored), hashlib.sha256(stored).hexdigest())
    assert opened(stored, data_key) == content
    header = envelope.read_header(BytesIO(stored))
    assert (header.archive, header.object, header.scope) == (ARCHIVE, NAME, "segments/")
    back = envelope.open_file(folder / "sealed", folder / "back", header, data_key)
    assert (folder / "back").read_bytes() == content
    assert back == FileFacts(len(content), hashlib.sha256(content).hexdigest())


def test_equal_contents_have_nothing_in_common() -> None:
    first, second = (envelope.seal(b"x" * 100, KEY, ARCHIVE, NAME) for _ in range(2))
    assert first[-116:] != second[-116:]
    assert b"x" * 8 not in first


def test_no_bit_can_change(tmp_path: Path) -> None:
    """Every byte of a short envelope, and so every class of them: magic, length, header, commitment, chunk, tag."""
    stored = envelope.seal(b"one record", KEY, ARCHIVE, NAME)
    for at in range(len(stored)):
        for bit in (0, 5, 7):
            changed = bytearray(stored)
            changed[at] ^= 1 << bit
            with pytest.raises(FormatError):
                opened(bytes(changed))


def test_chunks_stay_where_and_how_many_they_are(tmp_path: Path) -> None:
    content = bytes(range(256)) * (3 * CHUNK_BYTES // 256) + b"tail"
    stored = envelope.seal(content, KEY, ARCHIVE, NAME)
    start = len(stored) - len(content) - 4 * 16
    step = CHUNK_BYTES + 16
    chunk = [stored[start + number * step : start + (number + 1) * step] for number in range(4)]
    head = stored[:start]
    wrong = {
        "cut off after a chunk": head + chunk[0] + chunk[1],
        "cut off within one": stored[:-1],
        "cut off before the first": head,
        "exchanged": head + chunk[1] + chunk[0] + chunk[2] + chunk[3],
        "repeated": head + chunk[0] + chunk[0] + chunk[1] + chunk[2] + chunk[3],
        "left out": head + chunk[0] + chunk[2] + chunk[3],
        "last one not last": head + chunk[0] + chunk[1] + chunk[2] + chunk[3] + chunk[3],
        "appended to": stored + b"\x00",
    }
    for what, changed in wrong.items():
        with pytest.raises(FormatError):
            opened(changed)
            pytest.fail(what)
        (tmp_path / "wrong").write_bytes(changed)
        with pytest.raises(FormatError):
            header = envelope.read_header(BytesIO(changed))
            envelope.open_file(tmp_path / "wrong", tmp_path / "out", header, KEY.plain)
        assert not (tmp_path / "out").exists(), what


def test_an_exact_multiple_of_chunks_has_no_empty_one_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two spellings of one content would be two envelopes that both open."""
    monkeypatch.setattr("secrets.token_bytes", bytes)
    whole = envelope.seal(bytes(CHUNK_BYTES), KEY, ARCHIVE, NAME)
    start = len(whole) - CHUNK_BYTES - 16
    header = envelope.read_header(BytesIO(whole))
    cipher, _ = envelope._derive(KEY.plain, header.salt, header.stored)
    first = cipher.encrypt(bytes(12), bytes(CHUNK_BYTES), None)
    last = cipher.encrypt(bytes(7) + b"\x00\x00\x00\x01\x01", b"", None)
    with pytest.raises(FormatError, match="empty chunk"):
        opened(whole[:start] + first + last)


def test_two_envelopes_can_not_be_spliced() -> None:
    one, two = (envelope.seal(letter * (2 * CHUNK_BYTES), KEY, ARCHIVE, NAME) for letter in (b"1", b"2"))
    body = 2 * (CHUNK_BYTES + 16)
    for spliced in (one[:-body] + two[-body:], one[: -(CHUNK_BYTES + 16)] + two[-(CHUNK_BYTES + 16) :]):
        with pytest.raises(FormatError):
            opened(spliced)


def test_another_data_key_is_refused_before_anything_is_decrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = envelope.seal(b"one record", KEY, ARCHIVE, NAME)
    monkeypatch.setattr(envelope, "_nonce", lambda *_: pytest.fail("it began to decrypt"))
    with pytest.raises(FormatError, match="not the data key"):
        opened(stored, bytes(32))


@settings(deadline=None, max_examples=200)
@given(data=st.one_of(st.binary(max_size=300), st.binary(max_size=80).map(lambda tail: envelope.MAGIC + tail)))
def test_any_bytes_are_an_envelope_or_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        opened(data)


@pytest.mark.parametrize(
    "change",
    [
        {"scope": "details/"},
        {"scope": "segments/source=test"},
        {"salt": "00" * 31},
        {"salt": "zz"},
        {"salt": "AA" * 32},
        {"wrapped": "d3Jh*"},
        {"format": "strongroom/envelope/2"},
        {"archive": 7},
        {"more": ""},
        {"key": None},
    ],
)
def test_a_header_has_one_form(change: dict[str, object]) -> None:
    stored = by_hand(b"x", KEY, bytes(32))
    length = int.from_bytes(stored[8:12], "big")
    header = {**json.loads(stored[12 : 12 + length]), **change}
    header = {name: value for name, value in header.items() if value is not None}
    encoded = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(FormatError):
        envelope.read_header(BytesIO(stored[:8] + len(encoded).to_bytes(4, "big") + encoded))
