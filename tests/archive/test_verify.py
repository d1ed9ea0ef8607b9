"""The tamper suite: a sound archive yields nothing; each change yields its finding, at its place, and no other."""

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom.archive import details, keys, layout, note, segment
from strongroom.archive import entry as entries
from strongroom.archive.entry import Draft, Entry, WriterRange
from strongroom.archive.log import Log
from strongroom.archive.note import Checkpoint, KeyType
from strongroom.archive.policy import Group, Policy, Witness
from strongroom.archive.trust import Trust
from strongroom.archive.verification.findings import CATALOGUE, Finding, Level, Report
from strongroom.archive.verification.verify import verify
from tests.archive.conftest import NOW, ORIGIN, Archive, records_table, rederive
from tests.segments import write_segment

pytestmark = pytest.mark.adversarial
LEVELS: list[Level] = ["quick", "inventory", "complete", "deep"]


def check(archive: Archive, level: Level = "complete", trust: Trust | None = None) -> list[Finding]:
    return run(archive, level, trust).findings


def run(archive: Archive, level: Level = "complete", trust: Trust | None = None) -> Report:
    return verify(archive.store, trust or archive.trust, level, rederive=rederive)


def only(findings: list[Finding], code: str, key: str) -> Finding:
    assert [(finding.code, finding.object) for finding in findings] == [(code, key)], [str(f) for f in findings]
    return findings[0]


def remembering(archive: Archive) -> Trust:
    return Trust(archive.trust.policy, archive.signer.last)


def rewrite(archive: Archive, index: int, change: Callable[[Entry], Entry]) -> None:
    path = archive.path(layout.entry_key(index))
    path.write_bytes(entries.encode(change(entries.decode(path.read_bytes()))))


@pytest.mark.parametrize("level", LEVELS)
def test_a_sound_archive_yields_nothing(archive: Archive, level: Level) -> None:
    for trust in (archive.trust, remembering(archive)):
        report = run(archive, level, trust)
        assert report.sound, [str(finding) for finding in report.findings]
        assert (report.size, report.counts["segments"], report.counts["records"]) == (6, 5, 15)
        assert report.root == archive.log.root().hex()
        assert report.checkpoint == archive.signer.last


def test_a_growing_archive_yields_nothing(archive: Archive) -> None:
    """Objects put and not committed yet, then entries not signed yet by the time of listing."""
    archive.store.create(layout.segment_key("test", NOW.date(), "w1", 1, 5, 5), b"being written")
    archive.store.create(layout.details_key("w1", 1, 5, 5), b"being written")
    report = run(archive)
    assert report.sound
    assert sum("not committed yet" in note for note in report.notes) == 2


# Segments and details


@pytest.mark.parametrize("level", ["complete", "deep"])
def test_any_flipped_bit_of_a_segment(archive: Archive, level: Level) -> None:
    key = archive.log.entry(3).segments[0].key
    path = archive.path(key)
    content = path.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 40)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        finding = only(check(archive, level), "SEGMENT_CHANGED", key)
        assert finding.where["index"] == 3


def test_a_changed_record_is_located_to_its_row_group(archive: Archive) -> None:
    entry = archive.commit(count=2 * segment.ROW_GROUP + 5)
    path = archive.path(entry.segments[0].key)
    table = pa.concat_tables(segment.tables(path))
    raws = table.column("raw").to_pylist()
    raws[segment.ROW_GROUP + 7] = b'{"name":"forged"}'
    secret = bytes.fromhex(table.schema.metadata[b"strongroom.secret"].decode())
    path.unlink()
    write_segment(path, records_table(raws), secret=secret, metadata={})
    finding = only(check(archive), "SEGMENT_CHANGED", entry.segments[0].key)
    assert finding.where["row_groups"] == [1]
    assert finding.where["records"] == f"{segment.ROW_GROUP}..{2 * segment.ROW_GROUP - 1}"


def test_truncated_removed_and_swapped_segments(archive: Archive) -> None:
    keys_ = [archive.log.entry(index).segments[0].key for index in (2, 3)]
    path, other = (archive.path(key) for key in keys_)
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    for level in LEVELS:
        only(check(archive, level), "SEGMENT_CHANGED", keys_[0])
    path.write_bytes(other.read_bytes())
    finding = only(check(archive), "SEGMENT_CHANGED", keys_[0])
    if len(other.read_bytes()) == len(content):
        assert finding.where["holds"] == keys_[1]
    path.unlink()
    for level in LEVELS:
        only(check(archive, level), "SEGMENT_MISSING", keys_[0])


def test_two_segments_exchanged(archive: Archive) -> None:
    keys_ = [archive.log.entry(index).segments[0].key for index in (2, 3)]
    path, other = (archive.path(key) for key in keys_)
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)
    assert sorted((f.code, f.object) for f in check(archive)) == [("SEGMENT_CHANGED", key) for key in keys_]


def test_changed_and_removed_details(archive: Archive) -> None:
    key = archive.log.entry(4).details.key  # type: ignore[union-attr]
    path = archive.path(key)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"2026", b"2025"))
    only(check(archive), "DETAILS_CHANGED", key)
    path.unlink()
    only(check(archive), "DETAILS_MISSING", key)


def test_a_writer_that_lies_about_records_columns_or_counts(archive: Archive) -> None:
    """What only deep verification can see: consistent bytes, signed and chained, that say the wrong thing."""

    def lie(change_table: Callable[[pa.Table], pa.Table], change: Callable[[Draft], Draft]) -> str:
        number = archive.sequence
        raws = [b'{"name":"a"}', b'{"name":"b"}']
        key = layout.segment_key("test", NOW.date(), "w1", 1, number, number)
        built = archive.root.parent / "lie"
        facts = write_segment(built, change_table(records_table(raws)), secret=bytes(32), metadata={})
        archive.store.create(key, built)
        built.unlink()
        reference = entries.SegmentRef(key, "", facts.bytes, facts.sha256, facts.records, facts.root, facts.groups)
        writer = WriterRange("w1", 1, number, number)
        archive.log.append(change(Draft("segment", NOW, writer=writer, segments=(reference,))))
        archive.sequence += 1
        archive.signer.sign()
        return key

    def forge_name(table: pa.Table) -> pa.Table:
        return table.set_column(table.schema.names.index("name"), "name", pa.array(["a", "c"]))

    def other_root(draft: Draft) -> Draft:
        return replace(draft, segments=(replace(draft.segments[0], root="00" * 32),))

    column = lie(forge_name, lambda draft: draft)
    finding = only(check(archive, "deep"), "DERIVED_COLUMN_MISMATCH", column)
    assert (finding.where["column"], finding.where["row"], finding.expected, finding.actual) == (
        "name",
        1,
        "'b'",
        "'c'",
    )
    root = lie(lambda table: table, other_root)
    assert {(f.code, f.object) for f in check(archive, "deep")} == {
        ("DERIVED_COLUMN_MISMATCH", column),
        ("RECORD_ROOT_MISMATCH", root),
    }
    assert check(archive, "complete") == []


def test_details_that_misstate_what_a_segment_holds(archive: Archive) -> None:
    entry = archive.commit(sign=False)
    key = entry.details.key  # type: ignore[union-attr]
    stated = details.decode(archive.store.get(key))
    (archive.root / key).unlink()
    false = details.encode(
        details.Details(stated.salt, stated.writer, (), (details.SegmentSummary(**{**_fields(stated), "records": 2}),))
    )
    archive.store.create(key, false)
    reference = entries.ObjectRef(key, "", len(false), entries.digest(false))
    (archive.root / layout.entry_key(entry.index)).unlink()
    log = Log.open(archive.store)
    log.append(Draft("segment", NOW, entry.writer, None, entry.segments, reference))
    archive.signer.sign()
    only(check(archive, "deep"), "DETAILS_MISMATCH", key)


def _fields(stated: details.Details) -> dict:
    summary = stated.segments[0]
    return {name: getattr(summary, name) for name in summary.__struct_fields__}


# Entries


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("index", [1, 3, 5])
def test_an_edited_entry(archive: Archive, level: Level, index: int) -> None:
    rewrite(archive, index, lambda entry: replace(entry, written_at="2020-01-01T00:00:00.000000Z"))
    finding = only(check(archive, level), "ENTRY_CHANGED", layout.entry_key(index))
    assert finding.where["index"] == index
    assert (finding.last_good, finding.first_bad) == (index, index + 1)


def test_an_edited_link(archive: Archive) -> None:
    rewrite(archive, 3, lambda entry: replace(entry, prev="00" * 32))
    only(check(archive), "ENTRY_CHANGED", layout.entry_key(3))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.data())
def test_any_changed_byte_of_an_entry_is_blamed_on_that_entry(archive: Archive, data: st.DataObject) -> None:
    index = data.draw(st.integers(1, 5))
    path = archive.path(layout.entry_key(index))
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :])
    try:
        findings = check(archive, "quick")
    finally:
        path.write_bytes(content)
    assert findings
    assert {finding.object for finding in findings} == {layout.entry_key(index)}
    assert {f.code for f in findings} <= {
        "ENTRY_CHANGED",
        "ENTRY_NOT_CANONICAL",
        "ENTRY_OUT_OF_PLACE",
        "WRITER_GAP",
        "WRITER_OVERLAP",
    }


@pytest.mark.parametrize("index", [0, 2, 5])
def test_a_removed_entry(archive: Archive, index: int) -> None:
    (archive.root / layout.entry_key(index)).unlink()
    for trust in (archive.trust, remembering(archive)):
        only(check(archive, trust=trust), "ENTRY_MISSING", layout.entry_key(index))


def test_two_entries_exchanged(archive: Archive) -> None:
    one, two = archive.path(layout.entry_key(2)), archive.path(layout.entry_key(4))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    found = [(finding.code, finding.where["index"]) for finding in check(archive)]
    assert found == [("ENTRY_OUT_OF_PLACE", 2), ("ENTRY_OUT_OF_PLACE", 4)]


def test_an_entry_appended_by_hand(archive: Archive) -> None:
    archive.log.append(Draft("heartbeat", NOW, writer=WriterRange("w1", 1, 5, 4)))
    for trust in (archive.trust, remembering(archive)):
        finding = only(check(archive, trust=trust), "ENTRY_UNSIGNED", layout.entry_key(6))
        assert finding.last_good == 6


def test_an_entry_appended_by_hand_that_seals_a_batch_again(archive: Archive) -> None:
    forged = entries.place(
        Draft("segment", NOW, writer=WriterRange("w1", 1, 3, 5), segments=archive.log.entry(2).segments),
        origin=ORIGIN,
        index=6,
        prev=entries.digest(archive.log.entry_bytes(5)),
    )
    archive.store.create(layout.entry_key(6), entries.encode(forged))
    only(check(archive), "WRITER_OVERLAP", layout.entry_key(6))


# Checkpoints, keys and history


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_the_newest_entries_and_checkpoints_cut_off(archive: Archive, cut: int) -> None:
    trust = remembering(archive)
    for index in range(6 - cut, 6):
        entry = archive.log.entry(index)
        for reference in entry.objects:
            (archive.root / reference.key).unlink()
        (archive.root / layout.entry_key(index)).unlink()
        (archive.root / layout.checkpoint_key(index + 1)).unlink()
    assert check(archive) == [], "without memory the rest is consistent: that is why verifiers remember"
    for level in LEVELS:
        finding = only(check(archive, level, trust), "CHECKPOINT_ROLLBACK", layout.checkpoint_key(6))
        assert finding.actual == f"{6 - cut} entries"


def test_only_the_newest_checkpoint_removed(archive: Archive) -> None:
    trust = remembering(archive)
    (archive.root / layout.checkpoint_key(6)).unlink()
    only(check(archive, trust=trust), "CHECKPOINT_MISSING", layout.checkpoint_key(6))
    only(check(archive), "ENTRY_UNSIGNED", layout.entry_key(5))


def test_a_replaced_key(archive: Archive) -> None:
    for size in range(1, 7):
        path = archive.path(layout.checkpoint_key(size))
        checkpoint = Checkpoint(ORIGIN, size, archive.log.root(size))
        path.write_text(note.sign(checkpoint.text(), keys.generate(ORIGIN)).encode())
    assert {finding.code for finding in check(archive)} == {"CHECKPOINT_SIGNATURE"}
    assert len(check(archive)) == 6


def test_a_stripped_signature_and_a_malformed_checkpoint(archive: Archive) -> None:
    path = archive.path(layout.checkpoint_key(4))
    content = path.read_text()
    path.write_text("\n".join(line for line in content.split("\n")[:-2]) + "\n")
    only(check(archive), "CHECKPOINT_SIGNATURE", layout.checkpoint_key(4))
    path.write_text("nonsense")
    only(check(archive), "CHECKPOINT_MALFORMED", layout.checkpoint_key(4))
    path.write_bytes((archive.root / layout.checkpoint_key(3)).read_bytes())
    only(check(archive), "CHECKPOINT_MALFORMED", layout.checkpoint_key(4))


def test_a_rewritten_history_signed_with_the_real_key(archive: Archive, new_archive: Callable[[], Archive]) -> None:
    """An insider with the signing key rebuilds the whole archive; the verifier's memory still contradicts."""
    trust = remembering(archive)
    forged = Archive(archive.root.parent / "forged", archive.root.parent / "forged.json", archive.signers)
    for _ in range(6):
        forged.commit(count=2)
    assert check(forged) == []
    only(check(forged, trust=trust), "HISTORY_REWRITTEN", layout.checkpoint_key(6))


def test_a_signed_root_the_entries_do_not_have(archive: Archive) -> None:
    path = archive.path(layout.checkpoint_key(6))
    path.write_text(note.sign(Checkpoint(ORIGIN, 6, bytes(32)).text(), archive.signers).encode())
    (archive.root / layout.checkpoint_key(5)).unlink()
    finding = only(check(archive), "CHECKPOINT_INCONSISTENT", layout.checkpoint_key(6))
    assert (finding.last_good, finding.first_bad) == (4, 6)


def test_another_archive_in_its_place(archive: Archive, new_archive: Callable[[], Archive]) -> None:
    path = archive.path(layout.IDENTITY)
    path.write_bytes(path.read_bytes().replace(b'"sha256"', b'"sha257"'))
    assert {finding.code for finding in check(archive)} == {"IDENTITY_CHANGED"}
    other = new_archive()
    other.commit()
    assert "CHECKPOINT_SIGNATURE" in {finding.code for finding in check(other, trust=remembering(archive))}


def test_strangers_in_the_archive(archive: Archive) -> None:
    strangers = [
        "log/entry/nonsense",
        "notes.txt",
        layout.segment_key("test", NOW.date(), "w1", 1, 2, 2, retry=1),
        layout.segment_key("test", NOW.date(), "w1", 1, 0, 9),
    ]
    for key in strangers:
        archive.store.create(key, b"x")
    assert sorted((f.code, f.object) for f in check(archive)) == sorted(("ORPHAN", key) for key in strangers)


def test_tiles_are_compared_with_the_entries(archive: Archive) -> None:
    for _number in range(260):
        archive.log.append(Draft("heartbeat", NOW, writer=WriterRange("w2", 1, 0, -1)))
    archive.signer.sign()
    assert check(archive) == []
    path = archive.path("log/tile/0/000")
    path.write_bytes(path.read_bytes()[::-1])
    only(check(archive), "TILE_CHANGED", "log/tile/0/000")
    path.unlink()
    assert check(archive) == [], "tiles are derived: their absence changes nothing"
    archive.store.create("log/tile/0/007", b"x")
    only(check(archive), "ORPHAN", "log/tile/0/007")


def test_an_explained_orphan_is_no_finding(archive: Archive) -> None:
    key = layout.segment_key("test", NOW.date(), "w1", 1, 2, 2, retry=1)
    archive.store.create(key, b"torn by a crash")
    archive.log.append(Draft("incident", NOW, data={"what": "orphan", "key": key}))
    archive.signer.sign()
    assert check(archive) == []


def test_quick_with_memory_looks_at_new_objects_only(archive: Archive) -> None:
    trust = remembering(archive)
    entry = archive.commit()
    archive.path(archive.log.entry(2).segments[0].key).unlink()
    assert check(archive, "quick", trust) == []
    archive.path(entry.segments[0].key).unlink()
    only(check(archive, "quick", trust), "SEGMENT_MISSING", entry.segments[0].key)
    assert len(check(archive, "complete", trust)) == 2


# Witnesses, sampling and verdicts


def cosign(archive: Archive, signer: keys.LocalSigner, size: int) -> str:
    text = note.parse(archive.store.get(layout.checkpoint_key(size))).text
    [signature] = note.sign(text, [signer], int(NOW.timestamp())).signatures
    key = layout.cosignature_key(size, signer.key.key_id)
    archive.store.create(key, f"{signature.line()}\n".encode())
    return key


def test_a_quorum_of_witnesses(archive: Archive) -> None:
    signers = [keys.generate(f"w{n}", [KeyType.ED25519_COSIGNATURE])[0] for n in range(2)]
    witnesses = {signer.key.name: Witness(signer.key.name, signer.key) for signer in signers}
    asked = Policy(archive.trust.keys, witnesses, {"both": Group(2, ("w0", "w1"))}, "both")
    trust = Trust(asked, archive.signer.last)
    cosign(archive, signers[0], 6)
    cosign(archive, signers[1], 3)
    finding = only(check(archive, trust=trust), "WITNESS_MISSING", layout.checkpoint_key(6))
    assert finding.where["size"] == 0
    assert run(archive, trust=trust).verdict == "warning"
    cosign(archive, signers[0], 3)
    report = run(archive, trust=trust)
    assert report.witnessed == 3
    only(report.findings, "WITNESS_MISSING", layout.checkpoint_key(6))
    patient = verify(archive.store, trust, "quick", witness_seconds=1e9)
    assert patient.sound
    assert "not witnessed yet" in patient.notes[0]
    key = cosign(archive, signers[1], 6)
    report = run(archive, trust=trust)
    assert (report.sound, report.witnessed) == (True, 6)
    path = archive.path(key)
    path.write_bytes((archive.root / layout.cosignature_key(3, signers[1].key.key_id)).read_bytes())
    codes = {finding.code: finding.object for finding in check(archive, trust=trust)}
    assert codes == {"COSIGNATURE_INVALID": key, "WITNESS_MISSING": layout.checkpoint_key(6)}


def test_sampling_says_what_it_can_promise(archive: Archive) -> None:
    path = archive.path(archive.log.entry(2).segments[0].key)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    found = [verify(archive.store, archive.trust, "sampled", fraction=0.5) for _ in range(40)]
    hits = sum(not report.sound for report in found)
    assert 5 < hits < 35
    assert "1: 50.0%, 10: 99.9%" in found[0].notes[0]
    assert {f.code for report in found for f in report.findings} == {"SEGMENT_CHANGED"}


def test_verdicts(archive: Archive) -> None:
    assert run(archive).verdict == "sound"
    archive.log.append(Draft("heartbeat", NOW, writer=WriterRange("w1", 1, 5, 4)))
    assert run(archive).verdict == "sound so far, unsigned tail"
    archive.store.create("stranger", b"")
    assert run(archive).verdict == "warning"
    archive.path(archive.log.entry(2).segments[0].key).unlink()
    assert run(archive).verdict == "tampered"


def test_a_commit_that_is_being_signed_is_waited_for(archive: Archive) -> None:
    archive.log.append(Draft("heartbeat", datetime.now(UTC), writer=WriterRange("w1", 1, 5, 4)))
    signing = threading.Timer(0.3, archive.signer.sign)
    signing.start()
    try:
        assert check(archive) == []
    finally:
        signing.join()


def test_every_finding_reads_well(archive: Archive) -> None:
    shutil.copytree(archive.root, archive.root.parent / "copy")
    archive.path(archive.log.entry(2).segments[0].key).unlink()
    finding = check(archive)[0]
    assert str(finding).startswith("SEGMENT_MISSING: segments/source=test/")
    assert finding.to_json()["next_step"] == CATALOGUE["SEGMENT_MISSING"].next_step
    assert Path(archive.root.parent / "copy").exists()


def test_an_entry_that_claims_more_parts_is_blamed_itself(archive: Archive) -> None:
    """The entry after it seems to break its writer's numbering; the broken link says which of the two was changed."""
    for _ in range(3):
        archive.log.append(Draft("heartbeat", NOW, writer=WriterRange("w9", 1, 0, -1)))
    archive.signer.sign()
    index = archive.log.size - 2
    rewrite(archive, index, lambda entry: replace(entry, writer=WriterRange("w9", 1, 0, -1, 1, 5)))
    only(check(archive), "ENTRY_CHANGED", layout.entry_key(index))
