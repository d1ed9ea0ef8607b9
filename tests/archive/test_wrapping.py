"""Wrapping keys: in files, in a KMS API on loopback (moto); and an archive's encryption over them."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.archive import kms
from strongroom.archive.encryption import encryption as encrypting
from strongroom.archive.encryption import envelope
from strongroom.archive.encryption.encryption import Encryption
from strongroom.archive.encryption.kms_wrapping import KmsWrapper
from strongroom.archive.encryption.wrapping import LocalWrapper, WrappingKeys
from strongroom.archive.errors import FormatError, KeyUnavailable, KeyUnusable, KeyWithheld
from tests import kms_api

CONTEXT = {"strongroom:archive": "00" * 16, "strongroom:scope": "details/w1/1/"}
NAME = "details/w1/1/00000000000000000000-00000000000000000000.json.enc"


class Counting(LocalWrapper):
    """A local key that counts what it is asked."""

    asked: Counter[str]

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        object.__setattr__(self, "asked", Counter())

    def generate(self, context: Mapping[str, str]) -> tuple[bytes, bytes]:
        self.asked["generate"] += 1
        return super().generate(context)

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        self.asked["unwrap"] += 1
        return super().unwrap(wrapped, context)


@given(key=st.binary(min_size=32, max_size=32), other=st.binary(min_size=32, max_size=32), at=st.integers(0, 79))
def test_a_local_key_unwraps_what_it_wrapped_in_that_context_only(key: bytes, other: bytes, at: int) -> None:
    wrapper = LocalWrapper(key)
    plain, wrapped = wrapper.generate(CONTEXT)
    assert wrapper.unwrap(wrapped, dict(reversed(CONTEXT.items()))) == plain
    assert len(wrapped) == 80 and plain not in wrapped
    changed = bytearray(wrapped)
    changed[at] ^= 1
    wrong = [(wrapper, bytes(changed), CONTEXT), (wrapper, wrapped[:at], CONTEXT)]
    wrong += [(wrapper, wrapped, {**CONTEXT, "strongroom:scope": "details/w1/2/"})]
    wrong += [(LocalWrapper(other), wrapped, CONTEXT)] if other != key else []
    for holder, stored, context in wrong:
        with pytest.raises(FormatError):
            holder.unwrap(stored, context)


def test_a_key_file_is_one_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "wrap.key"
    with pytest.raises(KeyUnusable, match="urandom"):
        LocalWrapper.load(path)
    path.write_bytes(bytes(32))
    path.chmod(0o644)
    with pytest.raises(KeyUnusable, match="others can read"):
        LocalWrapper.load(path)
    path.chmod(0o600)
    assert LocalWrapper.load(path).key_id == "local:9fb6d0941237a40b"
    assert "\\x00" not in repr(LocalWrapper.load(path))
    path.write_bytes(bytes(33))
    with pytest.raises(KeyUnusable, match="33 bytes"):
        LocalWrapper.load(path)


def test_an_envelope_opens_under_its_own_name_and_archive_only(tmp_path: Path) -> None:
    key = LocalWrapper(bytes(32))
    sealing, reading = (Encryption("a1", WrappingKeys(key)) for _ in range(2))
    stored = sealing.seal_bytes(NAME, b"content")
    assert reading.open_bytes(NAME, stored) == b"content"
    with pytest.raises(FormatError, match="holds the envelope of"):
        reading.open_bytes(NAME.replace("w1", "w2"), stored)
    with pytest.raises(FormatError, match="in archive a1"):
        Encryption("a2", WrappingKeys(key)).open_bytes(NAME, stored)
    with pytest.raises(FormatError, match="does not begin"):
        reading.open_bytes(NAME, b"content")
    with pytest.raises(KeyWithheld, match=f"{NAME}: wrapping key {key.key_id} is not known"):
        Encryption("a1", WrappingKeys(LocalWrapper(b"1" * 32))).open_bytes(NAME, stored)
    (tmp_path / "plain").write_bytes(b"content")
    facts = sealing.seal_file(NAME, tmp_path / "plain", tmp_path / "sealed")
    assert facts.bytes == (tmp_path / "sealed").stat().st_size
    assert reading.open_file(NAME, tmp_path / "sealed", tmp_path / "back").bytes == 7
    assert (tmp_path / "back").read_bytes() == b"content"


def test_small_objects_of_a_folder_share_a_data_key_and_files_have_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Counting(bytes(32))
    sealing, reading = Encryption("a1", WrappingKeys(key)), Encryption("a1", WrappingKeys(key))
    monkeypatch.setattr(encrypting, "SHARED_OBJECTS", 3)
    stored = [(f"details/w1/1/{n}.enc", sealing.seal_bytes(f"details/w1/1/{n}.enc", b"x")) for n in range(7)]
    stored.append(("details/w1/2/0.enc", sealing.seal_bytes("details/w1/2/0.enc", b"x")))
    assert key.asked["generate"] == 3 + 1
    assert [reading.open_bytes(*one) for one in stored] == [b"x"] * 8
    assert key.asked["unwrap"] == 4
    headers = [envelope.read_header(BytesIO(content)) for _, content in stored]
    assert len({header.salt for header in headers}) == 8
    assert {header.scope for header in headers} == {"details/w1/1/", "details/w1/2/"}
    (tmp_path / "plain").write_bytes(b"content")
    for number in range(2):
        sealing.seal_file(f"segments/{number}.enc", tmp_path / "plain", tmp_path / str(number))
    assert key.asked["generate"] == 6
    monkeypatch.setattr(encrypting, "SHARED_SECONDS", 0.0)
    for _ in range(2):
        reading.open_bytes("q/0.enc", sealing.seal_bytes("q/0.enc", b"x"))
    assert key.asked == {"generate": 8, "unwrap": 6}


def test_after_a_rotation_old_objects_open_while_the_old_key_is_known() -> None:
    old, new = LocalWrapper(b"1" * 32), LocalWrapper(b"2" * 32)
    stored = Encryption("a1", WrappingKeys(old)).seal_bytes(NAME, b"old")
    both = Encryption("a1", WrappingKeys(new, [old]))
    assert both.open_bytes(NAME, stored) == b"old"
    fresh = both.seal_bytes(NAME, b"new")
    assert Encryption("a1", WrappingKeys(new)).open_bytes(NAME, fresh) == b"new"
    with pytest.raises(KeyWithheld):
        Encryption("a1", WrappingKeys(new)).open_bytes(NAME, stored)
    with pytest.raises(KeyUnusable, match="no wrapping key to seal with"):
        Encryption("a1", WrappingKeys(None, [old])).seal_bytes(NAME, b"")


def test_the_canary_tells_whether_a_key_is_at_hand() -> None:
    one = Encryption("a1", WrappingKeys(LocalWrapper(b"1" * 32)))
    key_id, wrapped = one.canary()
    pickle.loads(pickle.dumps(one)).unwrap_canary(key_id, wrapped)
    with pytest.raises(FormatError):
        one.unwrap_canary(key_id, bytes(80))
    with pytest.raises(KeyWithheld):
        Encryption("a1", WrappingKeys(LocalWrapper(b"2" * 32))).unwrap_canary(key_id, wrapped)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    pytest.importorskip("moto")
    with kms_api.running() as url:
        yield url


class TestKms:
    @pytest.fixture
    def api(self, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
        """The administrator's view of KMS."""
        boto3 = pytest.importorskip("boto3")
        for name, value in {**kms_api.ENVIRONMENT, "AWS_ENDPOINT_URL_KMS": endpoint}.items():
            monkeypatch.setenv(name, value)
        return boto3.client("kms")

    @pytest.fixture
    def arn(self, api: Any) -> str:
        return str(api.create_key()["KeyMetadata"]["Arn"])

    def test_it_wraps_in_a_context_and_says_nothing_of_the_account(self, arn: str) -> None:
        wrapper = pickle.loads(pickle.dumps(KmsWrapper(arn)))
        plain, wrapped = wrapper.generate(CONTEXT)
        assert len(plain) == 32
        assert wrapper.unwrap(wrapped, CONTEXT) == plain
        assert wrapper.key_id == "kms:" + arn.rpartition("/")[2]
        assert wrapper.standing() == "Enabled"
        for other in ({**CONTEXT, "strongroom:scope": "x"}, {}):
            with pytest.raises(FormatError, match="InvalidCiphertext"):
                wrapper.unwrap(wrapped, other)
        with pytest.raises(FormatError):
            wrapper.unwrap(b"no ciphertext of KMS", CONTEXT)

    def test_an_envelope_goes_through_it(self, arn: str) -> None:
        stored = Encryption("a1", WrappingKeys(KmsWrapper(arn))).seal_bytes(NAME, b"content")
        assert Encryption("a1", WrappingKeys(None, [KmsWrapper(arn)])).open_bytes(NAME, stored) == b"content"
        assert b"123456789012" not in envelope.read_header(BytesIO(stored)).stored.split(b'"wrapped"')[0]

    def test_what_is_planned_for_a_key_is_told(self, api: Any, arn: str) -> None:
        """(A disabled key of moto's goes on making and unwrapping data keys; one of the service's does not.)"""
        name = arn.rpartition("/")[2]
        api.disable_key(KeyId=name)
        with pytest.raises(KeyWithheld, match="Disabled"):
            KmsWrapper(arn).standing()
        api.schedule_key_deletion(KeyId=name, PendingWindowInDays=7)
        with pytest.raises(KeyWithheld, match=r"PendingDeletion, to be deleted \d{4}-"):
            KmsWrapper(arn).standing()

    def test_a_key_that_never_was_and_one_that_can_not_be_asked(
        self, arn: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone = arn.rpartition("/")[0] + "/00000000-0000-0000-0000-000000000000"
        with pytest.raises(KeyWithheld):
            KmsWrapper(gone).generate(CONTEXT)
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9")
        monkeypatch.setattr(kms, "_TRIES", 1)
        with pytest.raises(KeyUnavailable) as waiting:
            KmsWrapper(arn).generate(CONTEXT)
        assert not isinstance(waiting.value, KeyWithheld)


@pytest.mark.parametrize(
    "code", ["AccessDeniedException", "DisabledException", "KMSInvalidStateException", "NotFoundException"]
)
def test_a_refusal_by_kms_names_key_and_object_and_ends_when_the_key_is_back(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refusals moto never gives, answered as the API reference says."""
    failures = pytest.importorskip("botocore.exceptions")
    arn = "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-1"
    refusing = False

    class Service:
        def generate_data_key(self, **asked: Any) -> Mapping[str, Any]:
            assert asked == {"KeyId": arn, "KeySpec": "AES_256", "EncryptionContext": CONTEXT}
            return self._answer("GenerateDataKey")

        def decrypt(self, **asked: Any) -> Mapping[str, Any]:
            assert asked == {"KeyId": arn, "CiphertextBlob": b"blob", "EncryptionContext": CONTEXT}
            return self._answer("Decrypt")

        def _answer(self, operation: str) -> Mapping[str, Any]:
            if refusing:
                raise failures.ClientError({"Error": {"Code": code, "Message": "no"}}, operation)
            return {"Plaintext": bytes(32), "CiphertextBlob": b"blob", "KeyId": arn}

    monkeypatch.setattr(kms, "connect", lambda region: Service())
    archive = CONTEXT["strongroom:archive"]
    stored = Encryption(archive, WrappingKeys(KmsWrapper(arn))).seal_bytes(NAME, b"content")
    refusing = True
    for ask, content in ((Encryption.open_bytes, stored), (Encryption.seal_bytes, b"content")):
        with pytest.raises(KeyWithheld, match=f"{NAME}: wrapping key kms:mrk-1") as refused:
            ask(Encryption(archive, WrappingKeys(KmsWrapper(arn))), NAME, content)
        assert refused.value.code == "key-unavailable" and refused.value.hint
    refusing = False
    assert Encryption(archive, WrappingKeys(KmsWrapper(arn))).open_bytes(NAME, stored) == b"content"


def test_an_answer_by_another_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def decrypt(self, **asked: Any) -> Mapping[str, Any]:
            return {"Plaintext": bytes(32), "KeyId": "arn:aws:kms:eu-central-1:111122223333:key/other"}

    monkeypatch.setattr(kms, "connect", lambda region: Other())
    with pytest.raises(KeyUnusable, match="answered for"):
        KmsWrapper("arn:aws:kms:eu-central-1:111122223333:key/mine").unwrap(b"", CONTEXT)


def test_an_alias_is_no_key() -> None:
    with pytest.raises(KeyUnusable, match="alias"):
        KmsWrapper("arn:aws:kms:eu-central-1:111122223333:alias/mine")
