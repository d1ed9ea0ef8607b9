"""Old evidence against an insider who holds the log's keys and rewrites the archive: nothing else may notice him."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from strongroom.archive import canonical, evidence, layout
from strongroom.archive.errors import FormatError, ObjectMissing
from strongroom.archive.evidence import comparing
from strongroom.archive.stores import DirectoryStore
from strongroom.archive.verification.verify import verify
from tests.archive.bundles import export
from tests.archive.conftest import Archive, rederive

pytestmark = pytest.mark.adversarial


@pytest.fixture(params=["bundle", "proof"])
def remembered(archive: Archive, tmp_path: Path, request: pytest.FixtureRequest) -> comparing.Memory:
    """Evidence over entry 3, handed out at the size the log had then."""
    path = tmp_path / "evidence"
    if request.param == "bundle":
        export(archive, path, [((3, 0), [1])])
    else:
        path.write_bytes(canonical.encode(evidence.prove_record(archive.store, archive.log, archive.log.size, 3, 0, 1)))
    return comparing.remembered(path)


def test_a_log_that_only_grew_agrees(archive: Archive, remembered: comparing.Memory) -> None:
    assert evidence.compare(remembered, archive.store) == []
    archive.commit()
    assert evidence.compare(remembered, archive.store) == []


def test_an_insider_who_rewrites_history_is_contradicted(
    archive: Archive, remembered: comparing.Memory, tmp_path: Path
) -> None:
    """He makes the log anew with the true keys, other records in entry 3, and signs it: verification finds it sound."""
    folder = tmp_path / "forged"
    folder.mkdir()
    forged = Archive(folder / "archive", folder / "signer.json", archive.signers)
    forged.signer.sign()
    for number in range(6):
        forged.commit(count=2 if number == 2 else 3)
    assert verify(forged.store, archive.trust, "deep", rederive=rederive).sound
    (finding,) = evidence.compare(remembered, forged.store)
    assert (finding.code, finding.object) == ("HISTORY_REWRITTEN", layout.checkpoint_key(remembered.head.size))
    assert 3 in finding.where["entries"]
    assert remembered.head.root.hex() in finding.expected


def test_an_insider_who_cuts_the_end_off_is_contradicted(
    archive: Archive, remembered: comparing.Memory, tmp_path: Path
) -> None:
    shutil.copytree(archive.root, tmp_path / "cut")
    last = archive.log.size - 1
    for key in (layout.entry_key(last), layout.checkpoint_key(last + 1)):
        (tmp_path / "cut" / key).unlink()
    (finding,) = evidence.compare(remembered, DirectoryStore(tmp_path / "cut"))
    assert (finding.code, finding.object) == ("CHECKPOINT_ROLLBACK", layout.entry_key(last))


def test_a_torn_out_entry_and_another_archive(archive: Archive, remembered: comparing.Memory, tmp_path: Path) -> None:
    shutil.copytree(archive.root, tmp_path / "torn")
    (tmp_path / "torn" / layout.entry_key(2)).unlink()
    (finding,) = evidence.compare(remembered, DirectoryStore(tmp_path / "torn"))
    assert (finding.code, finding.object) == ("ENTRY_MISSING", layout.entry_key(2))
    identity = tmp_path / "torn" / layout.IDENTITY
    identity.chmod(0o600)
    identity.write_bytes(identity.read_bytes().replace(b"logs.example.org", b"logs.example.com"))
    (finding,) = evidence.compare(remembered, DirectoryStore(tmp_path / "torn"))
    assert finding.code == "IDENTITY_CHANGED"


def test_what_is_no_evidence_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"{}", b"PK\x03\x04", b"nonsense"):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(FormatError):
            comparing.remembered(tmp_path / "file")
    with pytest.raises(ObjectMissing):
        comparing.remembered(tmp_path / "nothing")
