"""Evidence: what is exported is proven, discloses nothing else, and damage is refused, not exported."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256, shake_256
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom.archive import evidence, keys, note, policy
from strongroom.archive.errors import FormatError, ObjectExists, ObjectMissing
from strongroom.archive.evidence import tree
from strongroom.archive.merkle import leaf_hash, root_of
from strongroom.archive.note import KeyType
from strongroom.archive.segment import ROW_GROUP
from tests.archive.bundles import (
    FAILED,
    NO_IDENTITY,
    PROVEN,
    checkpoint,
    export,
    members,
    proof_verdict,
    rebuild,
    standalone,
    verdict,
)
from tests.archive.conftest import NOW, Archive

LARGE = ROW_GROUP + 300


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Three segments: of 7 records, of two row groups, and of 1 record."""
    folder = tmp_path_factory.mktemp("large")
    made = Archive(folder / "archive", folder / "signer.json")
    for count in (7, LARGE, 1):
        made.commit(count, sign=False)
    made.signer.sign()
    return made


def record(batch: int, row: int) -> bytes:
    return json.dumps({"name": f"batch {batch} record {row}"}).encode()


def disclosed(path: Path) -> list[bytes]:
    """The records in a bundle, read by a third reader: this one."""
    found = []
    for name, content in members(path).items():
        place = 0
        while name.startswith("records/") and place < len(content):
            length = int.from_bytes(content[place + 24 : place + 28], "big")
            found.append(content[place + 28 : place + 28 + length])
            place += 28 + length
    return found


def test_one_record(archive: Archive, tmp_path: Path) -> None:
    summary = export(archive, tmp_path / "b.zip", [((3, 0), [1])])
    assert (summary.records, summary.segments, summary.entries, summary.size) == (1, 1, 1, 6)
    assert summary.sha256 == sha256((tmp_path / "b.zip").read_bytes()).hexdigest()
    assert summary.bytes == (tmp_path / "b.zip").stat().st_size
    assert disclosed(tmp_path / "b.zip") == [record(2, 1)]
    assert verdict(tmp_path / "b.zip", archive.trust.policy) == PROVEN
    assert verdict(tmp_path / "b.zip", None) == NO_IDENTITY


@pytest.mark.parametrize(
    "rows",
    [
        [0],
        [ROW_GROUP - 1, ROW_GROUP],
        [LARGE - 1],
        range(ROW_GROUP - 5, ROW_GROUP + 5),
        range(ROW_GROUP - 3, LARGE),
        range(0, LARGE, 97),
        [5, 3, 5, 65_800, 3],
    ],
    ids=str,
)
def test_rows_over_several_row_groups_and_segments(large: Archive, tmp_path: Path, rows: range | list[int]) -> None:
    key = large.log.entry(2).segments[0].key
    summary = export(large, tmp_path / "b.zip", [((3, 0), [0]), (key, rows), ((1, 0), range(7))])
    expected = [record(0, row) for row in range(7)] + [record(1, row) for row in sorted(set(rows))] + [record(2, 0)]
    assert disclosed(tmp_path / "b.zip") == expected
    assert summary.records == len(expected)
    assert verdict(tmp_path / "b.zip", large.trust.policy) == PROVEN
    assert members(tmp_path / "b.zip")["nodes/000001"] == b""  # everything is disclosed: nothing completes it


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=4, deadline=None)
@given(rows=st.sets(st.integers(0, LARGE - 1), min_size=1, max_size=40))
def test_any_rows(large: Archive, tmp_path: Path, rows: set[int]) -> None:
    export(large, tmp_path / "b.zip", [((2, 0), rows)])
    assert disclosed(tmp_path / "b.zip") == [record(1, row) for row in sorted(rows)]
    assert verdict(tmp_path / "b.zip", large.trust.policy) == PROVEN


class Given:
    """Disclosed leaves at hand, for both folding functions."""

    def __init__(self, leaves: list[bytes], rows: list[int]) -> None:
        self._left = [(row, leaves[row]) for row in rows]

    def next_row(self) -> int | None:
        return self._left[0][0] if self._left else None

    def take(self) -> bytes:
        return self._left.pop(0)[1]

    row, leaf = property(next_row), take


class Nodes:
    def __init__(self, nodes: list[bytes]) -> None:
        self.left = list(nodes)

    def take(self, _: int = 32) -> bytes:
        if not self.left:
            raise FormatError("no more")
        return self.left.pop(0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(data=st.data())
def test_completing_and_folding_any_tree(data: st.DataObject, monkeypatch: pytest.MonkeyPatch) -> None:
    count = data.draw(st.integers(1, 70))
    rows = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))
    leaves = [leaf_hash(bytes([row])) for row in range(count)]
    nodes = list(tree.complete(leaves, rows))
    for fold in (
        lambda given, left: tree.fold(count, given, left.take),
        lambda given, left: standalone.root_from(given, left, count),
    ):
        left = Nodes(nodes)
        assert fold(Given(leaves, rows), left) == root_of(leaves)
        assert not left.left
    # In two storeys, with row groups of four, the same hashes come in the same order.
    monkeypatch.setattr(tree, "ROW_GROUP", 4)
    storeys: list[bytes] = []
    for span in tree.spans(rows, count):
        part = leaves[span.start : span.end]
        inside = [row - span.start for row in rows if span.start <= row < span.end]
        storeys += tree.complete(part, inside) if span.disclosed else [root_of(part)]
    assert storeys == nodes


def test_discloses_nothing_of_other_records(archive: Archive, tmp_path: Path) -> None:
    export(archive, tmp_path / "b.zip", [((3, 0), [1])])
    everything = b"\n".join(members(tmp_path / "b.zip").values())
    reference = archive.log.entry(3).segments[0]
    footer = pq.read_metadata(io.BytesIO(archive.store.get(reference.key))).metadata
    secret = bytes.fromhex(footer[b"strongroom.secret"].decode())
    nonces = shake_256(secret + bytes(8)).digest(48)
    assert record(2, 1) in everything and nonces[16:32] in everything
    hidden = [record(batch, row) for batch in range(5) for row in range(3) if (batch, row) != (2, 1)]
    for fact in [*hidden, b"batch 1", secret, secret.hex().encode(), nonces[:16], nonces[32:]]:
        assert fact not in everything
    for raw, nonce in ((record(2, 0), nonces[:16]), (record(2, 2), nonces[32:])):
        assert leaf_hash(raw) not in everything and sha256(raw).digest() not in everything
        assert leaf_hash(nonce + raw) in everything  # as a sibling, which tells nothing without the nonce


def test_writes_to_an_output_that_can_not_seek(archive: Archive, tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.got = bytearray()

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.got += data
            return len(data)

    pipe = Pipe()
    arguments = {"store": archive.store, "log": archive.log, "policy": archive.trust.policy, "now": NOW}
    evidence.write(pipe, checkpoint=checkpoint(archive), picks=[((1, 0), [0])], custody={}, **arguments)
    (tmp_path / "b.zip").write_bytes(pipe.got)
    assert verdict(tmp_path / "b.zip", archive.trust.policy) == PROVEN


def test_an_older_checkpoint_and_what_it_does_not_cover(archive: Archive, tmp_path: Path) -> None:
    older = checkpoint(archive, 3)
    assert export(archive, tmp_path / "b.zip", [((2, 0), [0])], checkpoint=older).size == 3
    assert verdict(tmp_path / "b.zip", archive.trust.policy) == PROVEN
    key = archive.log.entry(3).segments[0].key
    for pick in (((3, 0), [0]), (key, [0])):
        with pytest.raises(ObjectMissing):
            export(archive, tmp_path / "b.zip", [pick], checkpoint=older)


@pytest.mark.parametrize(
    "picks",
    [
        [],
        [((1, 0), [])],
        [((1, 0), [3])],
        [((1, 0), [-1])],
        [((1, 0), [2**70])],
        [((1, 1), [0])],
        [((0, 0), [0])],
        [((99, 0), [0])],
        [("segments/no-such", [0])],
    ],
    ids=str,
)
def test_what_is_not_there_is_not_exported(archive: Archive, tmp_path: Path, picks: list[evidence.Pick]) -> None:
    with pytest.raises(ObjectMissing):
        export(archive, tmp_path / "b.zip", picks)
    assert not (tmp_path / "b.zip").exists()


def test_a_bundle_is_never_overwritten(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    arguments = {"store": archive.store, "log": archive.log, "policy": archive.trust.policy, "now": NOW}
    with pytest.raises(ObjectExists):
        evidence.write(
            tmp_path / "kept", checkpoint=checkpoint(archive), picks=[((1, 0), [0])], custody={}, **arguments
        )
    assert (tmp_path / "kept").read_text() == "kept"


def test_checkpoints_that_do_not_stand(new_archive: Callable[[], Archive], archive: Archive, tmp_path: Path) -> None:
    stranger = new_archive()
    for _ in range(5):
        stranger.commit()
    signed = note.parse(checkpoint(archive))
    half = note.Note(signed.text, signed.signatures[:1]).encode().encode()
    forged = note.Note(signed.text, (signed.signatures[0], stranger_line(archive, signed))).encode().encode()
    for stored in (checkpoint(stranger), half, forged, b"nonsense"):
        with pytest.raises(FormatError):
            export(archive, tmp_path / "b.zip", [((1, 0), [0])], checkpoint=stored)
        assert not (tmp_path / "b.zip").exists()


def stranger_line(archive: Archive, signed: note.Note) -> note.Signature:
    """The log's second signature line with one bit changed."""
    line = signed.signatures[1]
    return note.Signature(line.name, line.key_id, line.value[:-1] + bytes([line.value[-1] ^ 1]))


@pytest.mark.adversarial
def test_a_damaged_segment_is_named_and_not_exported(large: Archive, tmp_path: Path) -> None:
    key = large.log.entry(2).segments[0].key
    path = large.path(key)
    intact = path.read_bytes()
    chunk = pq.read_metadata(path).row_group(1).column(5)
    changed = bytearray(intact)
    changed[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 4
    try:
        path.write_bytes(changed)
        with pytest.raises(FormatError, match=key):
            export(large, tmp_path / "b.zip", [((2, 0), [ROW_GROUP + 1])])
        assert not (tmp_path / "b.zip").exists()
        cut_off = io.BytesIO()
        arguments = {"store": large.store, "log": large.log, "policy": large.trust.policy, "now": NOW}
        with pytest.raises(FormatError, match=key):
            evidence.write(
                cut_off, checkpoint=checkpoint(large), picks=[((2, 0), range(LARGE))], custody={}, **arguments
            )
        assert not zipfile.is_zipfile(cut_off)
        with pytest.raises(FormatError, match=key):
            evidence.prove_record(large.store, large.log, large.log.size, 2, 0, ROW_GROUP + 1)
        # Other row groups are as they were: what can still be proven is.
        export(large, tmp_path / "b.zip", [((2, 0), [0, ROW_GROUP - 1])])
        assert verdict(tmp_path / "b.zip", large.trust.policy) == PROVEN
    finally:
        path.write_bytes(intact)


@pytest.mark.adversarial
def test_a_changed_entry_is_not_exported(archive: Archive, tmp_path: Path) -> None:
    path = archive.path("log/entry/" + "2".zfill(20))
    path.write_bytes(path.read_bytes().replace(b'"records":3', b'"records":4'))
    with pytest.raises(FormatError, match="entry 2"):
        export(archive, tmp_path / "b.zip", [((2, 0), [0])])
    export(archive, tmp_path / "b.zip", [((3, 0), [0])])


# ----------------------------------------------------------------------------------------------- whose signatures count


@pytest.fixture
def witnesses() -> dict[str, keys.LocalSigner]:
    """Three cosigners: two Ed25519, one ML-DSA-44."""
    types = {"w1": KeyType.ED25519_COSIGNATURE, "w2": KeyType.ED25519_COSIGNATURE, "w3": KeyType.ML_DSA_44}
    return {name: next(iter(keys.generate(f"witness.example/{name}", [type_]))) for name, type_ in types.items()}


@pytest.fixture
def cosigned(archive: Archive, witnesses: dict[str, keys.LocalSigner], tmp_path: Path) -> Path:
    """A bundle whose checkpoint w1 and w3 cosigned at different times."""
    text = note.parse(checkpoint(archive)).text
    lines = [
        note.sign(text, [witnesses[name]], time).signatures[0] for name, time in (("w1", 1_800_000_000), ("w3", 9))
    ]
    stored = checkpoint(archive) + "".join(line.line() + "\n" for line in lines).encode()
    rules = policy.parse(rules_of(archive, witnesses, "quorum any"))
    export(archive, tmp_path / "b.zip", [((1, 0), [0])], checkpoint=stored, policy=rules)
    return tmp_path / "b.zip"


def rules_of(archive: Archive, witnesses: dict[str, keys.LocalSigner], *statements: str) -> str:
    lines = [f"log {signer.key.vkey()}" for signer in archive.signers]
    lines += [f"witness {name} {signer.key.vkey()}" for name, signer in witnesses.items()]
    return "\n".join([*lines, "group any any w1 w2 w3", *statements]) + "\n"


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["quorum none"], PROVEN),
        (["quorum w1"], PROVEN),
        (["quorum w3"], PROVEN),
        (["quorum w2"], FAILED),
        (["group g 2 w1 w2 w3", "quorum g"], PROVEN),
        (["group g all w1 w3", "quorum g"], PROVEN),
        (["group g all w1 w2 w3", "quorum g"], FAILED),
        (["group g any w2", "group h all any g", "quorum h"], FAILED),
        (["group g any w2", "group h any any g", "quorum h"], PROVEN),
    ],
    ids=str,
)
def test_quorums(
    archive: Archive, witnesses: dict[str, keys.LocalSigner], cosigned: Path, statements: list[str], expected: int
) -> None:
    assert verdict(cosigned, policy.parse(rules_of(archive, witnesses, *statements))) == expected


def test_the_earliest_cosignature_is_told(
    archive: Archive, witnesses: dict[str, keys.LocalSigner], cosigned: Path
) -> None:
    rules = policy.parse(rules_of(archive, witnesses, "quorum any"))
    ours = {line.subject: line.text for line in evidence.check(cosigned, rules).lines}
    _, lines, _ = standalone.verify(str(cosigned), rules.text())
    theirs = {subject: text for subject, _, text in lines}
    assert ours["witnesses"] == theirs["witnesses"]
    assert "2 of 3 cosigned, earliest at 1970-01-01T00:00:09Z" in ours["witnesses"]


@pytest.mark.adversarial
def test_a_forged_cosignature_is_worse_than_none(
    archive: Archive, witnesses: dict[str, keys.LocalSigner], cosigned: Path, tmp_path: Path
) -> None:
    contents = members(cosigned)
    honest = contents["checkpoint"]
    text = note.parse(honest).text
    forged = note.sign(text.replace("\n6\n", "\n7\n"), [witnesses["w2"]], 5).signatures[0].line()
    for name, content in contents.items():
        contents[name] = content.replace(honest, honest + f"{forged}\n".encode())
    changed = rebuild(tmp_path / "changed.zip", contents)
    assert verdict(changed, policy.parse(rules_of(archive, witnesses, "quorum w1"))) == FAILED
    assert verdict(changed, archive.trust.policy) == PROVEN  # who does not know w2 can't be misled by it


@pytest.mark.adversarial
def test_bundles_of_others(new_archive: Callable[[], Archive], archive: Archive, tmp_path: Path) -> None:
    stranger = new_archive()  # same origin, other keys: as an impostor would do it
    stranger.commit()
    export(stranger, tmp_path / "b.zip", [((1, 0), [0])])
    assert verdict(tmp_path / "b.zip", stranger.trust.policy) == PROVEN
    assert verdict(tmp_path / "b.zip", archive.trust.policy) == FAILED
    assert verdict(tmp_path / "b.zip", None) == NO_IDENTITY
    other = tuple(signer.key for signer in keys.generate("logs.example.org/other"))
    assert verdict(tmp_path / "b.zip", policy.Policy(other)) == FAILED
    one_more = policy.Policy((*stranger.trust.policy.logs, archive.signers[0].key))
    assert verdict(tmp_path / "b.zip", one_more) == FAILED


# --------------------------------------------------------------------------------------------------- one record's proof


def places(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Where in a JSON document its strings and numbers are."""
    if isinstance(value, dict):
        for name, content in value.items():
            yield from places(content, (*path, name))
    elif isinstance(value, list):
        for number, content in enumerate(value):
            yield from places(content, (*path, number))
    else:
        yield path


def test_the_proof_of_one_record(large: Archive, tmp_path: Path) -> None:
    for entry, row in ((2, ROW_GROUP + 7), (2, LARGE - 1), (1, 3), (3, 0)):
        proof = evidence.prove_record(large.store, large.log, large.log.size, entry, 0, row)
        path = tmp_path / f"{entry}-{row}.json"
        path.write_bytes(json.dumps(proof, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
        assert proof_verdict(path, large.trust.policy) == PROVEN
        assert proof_verdict(path, None) == NO_IDENTITY
    for size, entry, position, row in ((4, 2, 0, LARGE), (4, 2, 1, 0), (4, 9, 0, 0), (4, 2, 0, -1), (3, 2, 0, 0)):
        with pytest.raises(ObjectMissing):
            evidence.prove_record(large.store, large.log, size, entry, position, row)


@pytest.mark.adversarial
def test_every_value_of_a_proof_counts(archive: Archive, tmp_path: Path) -> None:
    proof = json.loads(json.dumps(evidence.prove_record(archive.store, archive.log, archive.log.size, 2, 0, 1)))
    path = tmp_path / "p.json"
    for place in places(proof):
        changed = json.loads(json.dumps(proof))
        holder = changed
        for step in place[:-1]:
            holder = holder[step]
        value = holder[place[-1]]
        if isinstance(value, int):
            candidates: list[object] = [value + 1, value - 1, str(value), 2**53]
        else:
            middle = len(value) // 2
            swapped = "1" if value[middle] != "1" else "2"
            candidates = [value[:middle] + swapped + value[middle + 1 :], value[:-1], value + "\n", "", 7]
        for candidate in candidates:
            holder[place[-1]] = candidate
            path.write_bytes(json.dumps(changed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
            assert proof_verdict(path, archive.trust.policy) == FAILED, (place, candidate)
    path.write_bytes(json.dumps(proof).encode())  # the same values in another encoding
    assert proof_verdict(path, archive.trust.policy) == FAILED
