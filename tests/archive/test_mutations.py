"""Random single-byte mutations over every class of object of a populated archive: none missed, each at its object.

`STRONGROOM_TEST_MUTATIONS=10000` runs as many; the default is a sample. A tile needs 256 entries, which take a while to
verify: most mutations of other classes are of a short log.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from strongroom.archive import keys, layout, note, timestamps
from strongroom.archive.entry import Draft, WriterRange
from strongroom.archive.note import KeyType
from strongroom.archive.policy import Policy, Witness
from strongroom.archive.trust import Trust
from strongroom.archive.verification.findings import Finding
from strongroom.archive.verification.verify import verify
from tests.archive.conftest import NOW, Archive, rederive
from tests.archive.test_timestamps import Authority

pytestmark = pytest.mark.adversarial

TILED, SHORT = 251, 3  # heartbeats beside five commits and the genesis
MUTATIONS = int(os.environ.get("STRONGROOM_TEST_MUTATIONS", "120"))

# What a changed byte of an object of each class may be called. Beside it nothing but what names the same object.
EXPECTED = {
    "segments/": {"SEGMENT_CHANGED"},
    "details/": {"DETAILS_CHANGED"},
    "log/entry/": {
        *("ENTRY_CHANGED", "ENTRY_NOT_CANONICAL", "ENTRY_OUT_OF_PLACE", "WRITER_GAP", "WRITER_OVERLAP"),
    },
    "log/checkpoint/": {"CHECKPOINT_SIGNATURE", "CHECKPOINT_MALFORMED"},
    "log/tile/": {"TILE_CHANGED"},
    "log/cosigned/": {"COSIGNATURE_INVALID"},
    "log/timestamp/": {"TIMESTAMP_INVALID"},
    "archive.json": {"IDENTITY_CHANGED"},
}
# A statement over a checkpoint falls with it: these may be named beside the changed checkpoint, and nothing else.
FOLLOWS = {"COSIGNATURE_INVALID", "TIMESTAMP_INVALID", "WITNESS_MISSING", "CHECKPOINT_MISSING", "ENTRY_UNSIGNED"}


@pytest.fixture(scope="module")
def witness() -> keys.LocalSigner:
    return keys.generate("w.example", [KeyType.ED25519_COSIGNATURE])[0]


def populate(archive: Archive, witness: keys.LocalSigner, folder: Path, heartbeats: int) -> Trust:
    """Every class of object, where there are entries enough for a tile; the newest checkpoint has all statements."""
    for _ in range(heartbeats):
        archive.log.append(Draft("heartbeat", NOW, writer=WriterRange("w2", 1, 0, -1)))
        if heartbeats == SHORT:  # without tile or checkpoint between two entries, either could be the changed one
            archive.signer.sign()
    archive.signer.sign()
    size = archive.log.size
    stored = archive.store.get(layout.checkpoint_key(size))
    [line] = note.sign(note.parse(stored).text, [witness], int(NOW.timestamp())).signatures
    archive.store.create(layout.cosignature_key(size, witness.key.key_id), f"{line.line()}\n".encode())
    folder.mkdir()
    authority = Authority(folder)
    archive.store.create(layout.timestamp_key(size), authority.stamp(timestamps.request(stored).data))
    asked = Policy(archive.trust.keys, {"w": Witness("w", witness.key)}, quorum="w")
    return Trust(asked, archive.signer.last, authority.roots)


def class_of(key: str) -> str:
    return next(prefix for prefix in EXPECTED if key.startswith(prefix))


def test_no_mutation_is_missed_and_each_is_named(
    archive: Archive, witness: keys.LocalSigner, tmp_path: Path, new_archive: Callable[[], Archive]
) -> None:
    short = new_archive()
    for _ in range(2):
        short.commit()
    archives = {True: archive, False: short}
    trusts = {True: populate(archive, witness, tmp_path / "tsa", TILED)}
    trusts[False] = populate(short, witness, tmp_path / "tsa-short", SHORT)
    for tiled, one in archives.items():
        assert verify(one.store, trusts[tiled], "deep", rederive=rederive).sound
    seed = int(os.environ.get("STRONGROOM_TEST_SEED", random.randrange(10**6)))
    print(f"STRONGROOM_TEST_SEED={seed}")
    chance = random.Random(seed)
    objects = {tiled: by_class(one) for tiled, one in archives.items()}
    assert set(objects[True]) == set(EXPECTED)
    assert set(objects[False]) == set(EXPECTED) - {"log/tile/"}
    called: Counter[tuple[str, str]] = Counter()
    harmless = 0
    for number in range(MUTATIONS):
        kind = sorted(EXPECTED)[number % len(EXPECTED)]
        tiled = kind == "log/tile/" or chance.random() < 0.1
        key = chance.choice(objects[tiled][kind])
        path = archives[tiled].path(key)
        content = path.read_bytes()
        place, flip = chance.randrange(len(content)), chance.randrange(1, 256)
        path.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
        try:
            findings = verify(archives[tiled].store, trusts[tiled], "complete").findings
        finally:
            path.write_bytes(content)
        where = f"{key} byte {place} xor {flip}, seed {seed}"
        if kind == "log/timestamp/" and not findings:
            # An RFC 3161 response has bytes outside what its authority signed (its status text, say).
            harmless += 1
            continue
        judge(kind, key, findings, where)
        called.update((kind, finding.code) for finding in findings)
    assert harmless < MUTATIONS / len(EXPECTED) / 2
    for tiled, one in archives.items():
        assert verify(one.store, trusts[tiled], "deep", rederive=rederive).sound
    print(called)


def by_class(archive: Archive) -> dict[str, list[str]]:
    """The names of each class of object."""
    found: dict[str, list[str]] = {}
    for info in archive.store.list(""):
        found.setdefault(class_of(info.key), []).append(info.key)
    return found


def judge(kind: str, key: str, findings: list[Finding], where: str) -> None:
    assert findings, f"missed: {where}"
    here = {finding.code for finding in findings if finding.object == key}
    assert here, f"not located: {where}: {[str(finding) for finding in findings]}"
    assert here <= EXPECTED[kind], f"misnamed: {where}: {here}"
    beside = {finding.code for finding in findings if finding.object != key}
    allowed = FOLLOWS if kind in ("log/checkpoint/", "log/cosigned/", "archive.json") else set()
    assert beside <= allowed, f"false alarms beside {where}: {beside}"
