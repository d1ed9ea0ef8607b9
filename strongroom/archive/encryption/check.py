"""Encryption in verification: are the keys at hand that the log says it needs, and is nothing in the clear?

Both follow from entries alone, at every level and without reading an object:

* Each wrapping key the log has taken into use must unwrap its canary. A key that was disabled, deleted or denied is a
  finding of its own the next time anybody looks, and not one for each object it sealed.
* Objects named after the first such entry must be envelopes.

A verifier that has no keys can't tell whether others have; it says so and goes on. What it can do without them is most
of its work: hashes cover the envelopes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from strongroom.archive import layout
from strongroom.archive.encryption.encryption import Encryption
from strongroom.archive.encryption.policy import Declared
from strongroom.archive.errors import FormatError, KeyUnavailable, KeyWithheld
from strongroom.archive.verification.findings import Finding, Report


def judge(
    declared: Sequence[Declared], plain: Mapping[int, Iterable[str]], encryption: Encryption, report: Report
) -> None:
    """Add what is wrong to the report. `plain`: by entry index, the objects named there that are no envelopes."""
    if not declared:
        return
    for index in sorted(index for index in plain if index > declared[0].index):
        for name in plain[index]:
            said = f"an envelope: entry {declared[0].index} says that this archive is encrypted"
            report.findings.append(Finding("PLAINTEXT_OBJECT", name, said, "a plain object", {"index": index}))
    keys = {one.key: one for one in declared}
    if not encryption.keys:
        report.notes.append(f"encrypted with {', '.join(keys)}: no key is at hand here, nothing was unwrapped")
        return
    for one in keys.values():
        try:
            encryption.unwrap_canary(one.key, one.canary)
        except (KeyWithheld, FormatError) as error:
            where = {"index": one.index, "key": one.key}
            said = "a key that unwraps data keys"
            finding = Finding("KEY_UNAVAILABLE", layout.entry_key(one.index), said, error.message, where)
            report.findings.append(finding)
        except KeyUnavailable as error:
            report.incomplete.append(f"not asked: {error.message}")
