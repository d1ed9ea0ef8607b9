"""CloudTrail's public keys, as the ListPublicKeys API gives them: per region, for a span of time, kept in a file.

AWS answers only while it knows a key; so every answer is added to the file `cache`, in the form the API has it, and an
attestation takes the keys it used into the archive. Whoever verifies later brings that file (`--keys`) or asks himself.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from strongroom.archive import durable
from strongroom.archive.errors import FormatError
from strongroom.ingest.errors import PullError
from strongroom.ingest.fetch import aws
from strongroom.ingest.fetch.aws import Access
from strongroom.ingest.trails.digests import Judged, PublicKey, PublicKeys, parse_keys

# Region, start, end -> the API's PublicKeyList, values as bytes. Raises PullError.
Ask = Callable[[str, datetime, datetime], list[dict[str, Any]]]


def asking(access: Access) -> Ask:
    """Ask CloudTrail itself."""

    def ask(region: str, start: datetime, end: datetime) -> list[dict[str, Any]]:
        client = aws.client("cloudtrail", access, region)
        found: list[dict[str, Any]] = []
        arguments: dict[str, Any] = {"StartTime": start, "EndTime": end}
        while True:
            with aws.translated(f"CloudTrail in {region}"):
                answer = client.list_public_keys(**arguments)
            found += answer["PublicKeyList"]
            if not answer.get("NextToken"):
                return found
            arguments["NextToken"] = answer["NextToken"]

    return ask


def read(path: Path) -> list[PublicKey]:
    """Public keys out of a file (digests.parse_keys); none when there is no file. Raises FormatError."""
    try:
        return parse_keys(path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FormatError(f"public keys {path}: {error.strerror}") from None


def complete(keys: PublicKeys, found: Iterable[Judged], ask: Ask, cache: Path | None) -> list[str]:
    """Ask for the keys that these digests were signed under and `keys` lacks; keep the answers.

    Returns what could not be asked, for people: digests under such keys stay unproven.
    """
    spans: dict[tuple[str, str], tuple[datetime, datetime]] = {}
    for judged in found:
        digest = judged.digest
        if not keys.knows(digest.fingerprint):
            place = (digest.chain.region, digest.fingerprint)
            first, last = spans.get(place, (digest.start, digest.end))
            spans[place] = (min(first, digest.start), max(last, digest.end))
    problems: list[str] = []
    for (region, fingerprint), (first, last) in sorted(spans.items()):
        if keys.knows(fingerprint):
            continue
        try:
            for item in ask(region, first, last):
                keys.add(PublicKey(str(item["Fingerprint"]), bytes(item["Value"])))
        except (PullError, FormatError, KeyError, TypeError) as error:
            problems.append(f"public keys of CloudTrail in {region}: {error}")
    if spans and cache is not None:
        known = {key.fingerprint: key for key in read(cache)} | {key.fingerprint: key for key in keys.all()}
        kept = [key.to_json() for name, key in sorted(known.items()) if name]
        cache.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(cache, json.dumps({"PublicKeyList": kept}, indent=1).encode() + b"\n")
    return problems


def pem(key: PublicKey) -> str:
    """For `openssl`."""
    body = base64.encodebytes(key.der).decode()
    return f"-----BEGIN RSA PUBLIC KEY-----\n{body}-----END RSA PUBLIC KEY-----\n"
