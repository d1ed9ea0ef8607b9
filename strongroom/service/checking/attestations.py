"""What a source's own evidence says, attested in the archive: entries of kind `source-digest` (docs/format.md §4.8).

An attestation keeps, for every digest that was judged, what is needed to judge it again without AWS: bucket, key, end,
hash, signature, the signature before, and the public keys; and what became of the log files it names. It is announced,
stored, and named by an entry, as reports are (service/checking/reports.py), so that a crash leaves nothing unexplained.
The next checkpoint over its entry is its signature.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from strongroom.archive import canonical, layout
from strongroom.archive.entry import Draft, ObjectRef, timestamp
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.log import Log
from strongroom.ingest.trails.completeness import Checked, Outcome
from strongroom.ingest.trails.digests import Judged
from strongroom.service.checking.reports import plain

FORMAT = "strongroom/attestation/1"
DIGESTS_AT_ONCE = 2000
"""Digests in one object, so that none grows beyond a few MB."""


def documents(outcome: Outcome, run: str, facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An outcome as attestations, in parts; `facts` are what every part states."""
    checked = {id(item.judged): item for item in outcome.checked}
    told = [_digest(judged, checked.get(id(judged))) for judged in outcome.verdict.digests]
    used = {judged.key for judged in outcome.verdict.digests if judged.key is not None}
    pieces = [told[start : start + DIGESTS_AT_ONCE] for start in range(0, len(told), DIGESTS_AT_ONCE)] or [[]]
    common = {
        "format": FORMAT,
        "source": "cloudtrail",
        "run": run,
        "since": timestamp(outcome.since),
        "until": timestamp(outcome.until),
        "keys": [key.to_json() for key in sorted(used, key=lambda key: (key.fingerprint, key.der))],
        "parts": len(pieces),
        **facts,
    }
    documents = [{**common, "part": number, "digests": piece} for number, piece in enumerate(pieces, 1)]
    # What is not one digest's is said once.
    documents[0] |= {
        "findings": [finding.to_json() for finding in outcome.findings],
        "notes": outcome.verdict.notes,
        "incomplete": outcome.verdict.incomplete,
    }
    return documents


def file(
    log: Log, sign: Callable[[], object], by: str, parts: Sequence[Mapping[str, Any]], verdict: str
) -> list[tuple[int, str]]:
    """Put attestations into the archive; index of the entry and id of each. Raises what log and store raise."""
    filed = []
    log.declare_encryption(datetime.now(UTC))
    for part in parts:
        now = datetime.now(UTC)
        name = f"{part['run']}-{part['part']}"
        data = {"report": name, "source": str(part["source"]), "by": by}
        log.append(Draft("source-digest", now, data=data | {"state": "started"}))
        key = log.contents.encryption.name(layout.report_key(now.date(), name))
        document = canonical.encode(plain({**part, "by": by, "made": timestamp(now), "salt": secrets.token_hex(32)}))
        stored = log.contents.seal(key, document)
        log.store.create(key, stored)
        reference = ObjectRef(key, "", len(stored), sha256(stored).hexdigest())
        finished = data | {"state": "finished", "verdict": verdict}
        filed.append((log.append(Draft("source-digest", now, details=reference, data=finished)).index, name))
    sign()
    return filed


def read(log: Log) -> Iterator[dict[str, Any]]:
    """The attestations in the archive, oldest first; those that are not what their entry states are left out."""
    for entry in log.entries():
        if entry.kind != "source-digest" or entry.details is None:
            continue
        try:
            document = canonical.decode(log.contents.read(entry.details))
        except (ObjectMissing, FormatError):
            continue
        if isinstance(document, dict) and document.get("format") == FORMAT:
            yield document


def signatures(log: Log) -> dict[str, str]:
    """The signatures of digests that attestations keep: key of the digest -> hex."""
    return {
        digest["key"]: digest["signature"]
        for document in read(log)
        for digest in document["digests"]
        if digest.get("signature")
    }


def _digest(judged: Judged, checked: Checked | None) -> dict[str, Any]:
    digest, chain = judged.digest, judged.digest.chain
    told: dict[str, Any] = {
        "account": chain.account,
        "region": chain.region,
        "trail": chain.trail,
        "home": chain.home,
        "bucket": digest.bucket,
        "key": digest.key,
        "end": digest.stated_end,
        "sha256": digest.sha256,
        "signature": judged.signature,
        "fingerprint": digest.fingerprint,
        "before": digest.before.signature if digest.before else "null",
        "state": judged.state,
        "files": len(digest.files),
    }
    if judged.reason:
        told["reason"] = judged.reason
    if checked is not None:
        told["there"] = checked.sealed
        if checked.missing:
            told["missing"] = [{"key": file.key, "sha256": file.sha256} for file in checked.missing]
        if checked.altered:
            told["altered"] = [
                {"key": file.key, "sha256": file.sha256, "found": found} for file, found in checked.altered
            ]
    return told
