"""Wrapping keys in AWS KMS: symmetric keys that never leave it, or that an external key store behind it holds (XKS).

Rules:

1. The key is named by the ARN of a key, never of an alias: an alias can be pointed at another key unnoticed.
2. Each call carries the context as `EncryptionContext`: KMS refuses to unwrap in another one, and CloudTrail in
   the key's account shows for which archive and object each data key was made or unwrapped.
3. Answers must come from the key that was asked; data keys are 32 bytes.
4. Disabled, pending deletion, gone, denied, or its external key store disconnected: `KeyWithheld`. Throttling,
   timeouts, an unreachable endpoint: `KeyUnavailable` after a few tries.

Needs `kms:GenerateDataKey` to seal, `kms:Decrypt` to read, `kms:DescribeKey` for `standing`. Endpoint, credentials,
FIPS endpoints and the rest come from where AWS tools take them (archive/kms.py). Source: AWS KMS API reference.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from strongroom.archive import kms
from strongroom.archive.encryption.wrapping import KEY_BYTES, Context
from strongroom.archive.errors import FormatError, KeyUnavailable, KeyUnusable, KeyWithheld

_ARN = re.compile(r"arn:[a-z0-9-]+:kms:(?P<region>[a-z0-9-]+):\d+:key/(?P<id>[A-Za-z0-9-]+)")
_HINTS = {
    "AccessDeniedException": "this role needs kms:GenerateDataKey, kms:Decrypt and kms:DescribeKey for the key",
    "DisabledException": "enable it in KMS: nothing sealed with it can be read until then",
    "KMSInvalidStateException": "if it is pending deletion, cancel that in KMS now; reconnect an external key store",
    "NotFoundException": "check the ARN; if the key was deleted, what it sealed is lost unless a copy has another key",
    "InvalidKeyUsageException": "the key must be symmetric, made with KeyUsage ENCRYPT_DECRYPT",
}


class KmsClient(Protocol):
    """The calls of boto3's KMS client that are used here."""

    def generate_data_key(self, *, KeyId: str, KeySpec: str, EncryptionContext: Context) -> Mapping[str, Any]: ...

    def decrypt(self, *, KeyId: str, CiphertextBlob: bytes, EncryptionContext: Context) -> Mapping[str, Any]: ...

    def describe_key(self, *, KeyId: str) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class KmsWrapper:
    """The KMS key of that ARN. Asks nobody before it is used; can be sent to another process."""

    arn: str
    _clients: _Clients = field(default_factory=lambda: _Clients(), repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _ARN.fullmatch(self.arn):
            raise KeyUnusable(
                f"{self.arn!r} is not the ARN of a KMS key",
                hint="arn:<partition>:kms:<region>:<account>:key/<id>; an alias won't do, it can change its key",
            )

    @property
    def key_id(self) -> str:
        return f"kms:{self._part('id')}"

    def generate(self, context: Context) -> tuple[bytes, bytes]:
        answer = self._call(
            lambda client: client.generate_data_key(KeyId=self.arn, KeySpec="AES_256", EncryptionContext=context)
        )
        return self._plain(answer), bytes(answer["CiphertextBlob"])

    def unwrap(self, wrapped: bytes, context: Context) -> bytes:
        return self._plain(
            self._call(lambda client: client.decrypt(KeyId=self.arn, CiphertextBlob=wrapped, EncryptionContext=context))
        )

    def standing(self) -> str:
        found = self._call(lambda client: client.describe_key(KeyId=self.arn))["KeyMetadata"]
        state, deletion = str(found.get("KeyState", "")), found.get("DeletionDate")
        said = f"{state}{f', to be deleted {deletion:%Y-%m-%d}' if deletion else ''}"
        if state != "Enabled":
            raise KeyWithheld(f"wrapping key {self.key_id} is {said}", hint=_HINTS["KMSInvalidStateException"])
        return said

    def _plain(self, answer: Mapping[str, Any]) -> bytes:
        key, by = bytes(answer["Plaintext"]), str(answer["KeyId"])
        if by != self.arn or len(key) != KEY_BYTES:
            raise KeyUnusable(f"wrapping key {self.key_id}: KMS answered for {by} with {len(key)} bytes")
        return key

    def _part(self, name: str) -> str:
        match = _ARN.fullmatch(self.arn)
        assert match is not None
        return match[name]

    def _call(self, call: Callable[[KmsClient], Mapping[str, Any]]) -> Mapping[str, Any]:
        import botocore.exceptions as failures

        try:
            return call(self._clients.of(self._part("region")))
        except failures.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            said = f"wrapping key {self.key_id}: {error.response.get('Error', {}).get('Message') or code}"
            if code in ("InvalidCiphertextException", "IncorrectKeyException"):
                raise FormatError(
                    f"wrapped data key: not one that {self.key_id} wrapped in this context ({code})"
                ) from None
            if code in kms.PASSING or status >= 500:
                raise KeyUnavailable(said, hint="it is tried again") from error
            raise KeyWithheld(said, hint=_HINTS.get(code, "")) from error
        except (failures.NoCredentialsError, failures.PartialCredentialsError) as error:
            raise KeyWithheld(
                f"wrapping key {self.key_id}: {error}", hint="give this process AWS credentials"
            ) from error
        except failures.BotoCoreError as error:
            hint = "check the network and AWS_ENDPOINT_URL_KMS"
            raise KeyUnavailable(f"wrapping key {self.key_id}: {error}", hint=hint) from error


class _Clients:
    """The process's client for a Region, made when it is first needed; another process makes its own."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self._lock = threading.Lock()

    def of(self, region: str) -> KmsClient:
        with self._lock:
            if region not in self._made:
                self._made[region] = kms.connect(region)
            client: KmsClient = self._made[region]
            return client

    def __reduce__(self) -> tuple[type[_Clients], tuple[()]]:
        return _Clients, ()
