"""Changed evidence: every byte that a proof rests on counts, hostile ZIP files do no harm, and both verifiers agree."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from strongroom.archive import evidence, keys
from strongroom.archive.evidence.writing import STANDALONE
from strongroom.archive.note import KeyType
from tests.archive.bundles import FAILED, NO_IDENTITY, PROVEN, export, members, rebuild, verdict
from tests.archive.conftest import ORIGIN, Archive

pytestmark = pytest.mark.adversarial

# What no proof rests on: a forger who adjusts SHA256SUMS may change these, and nothing in the bundle tells.
INFORMATIVE = {"README.txt", "cover.html", "custody.json", "verify.py", "keys/policy.txt"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Four commits, signed with Ed25519 alone, which is checked fastest."""
    folder = tmp_path_factory.mktemp("archive")
    made = Archive(folder / "archive", folder / "signer.json", keys.generate(ORIGIN, [KeyType.ED25519]))
    for count in (5, 9, 3, 1):
        made.commit(count, sign=False)
    made.signer.sign()
    return made


@pytest.fixture(scope="module")
def bundle(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of three segments: some of them, with nodes on both sides, and all of one."""
    path = tmp_path_factory.mktemp("bundle") / "b.zip"
    export(archive, path, [((1, 0), [2]), ((2, 0), [0, 3, 4]), ((4, 0), [0])])
    return path


def flipped(content: bytes, place: int, mask: int = 1) -> bytes:
    return content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]


def test_any_change_of_any_member_is_noticed(archive: Archive, bundle: Path, tmp_path: Path) -> None:
    contents = members(bundle)
    dice = random.Random(5)
    for name, content in contents.items():
        for place in {0, len(content) - 1, dice.randrange(len(content) or 1)} if content else ():
            changed = {**contents, name: flipped(content, place, 1 << dice.randrange(8))}
            assert verdict(rebuild(tmp_path / "c.zip", changed, sums=False), archive.trust.policy) == FAILED, name


def test_a_forger_who_adjusts_the_sums_fails_too(archive: Archive, bundle: Path, tmp_path: Path) -> None:
    contents = members(bundle)
    dice = random.Random(6)
    for name, content in contents.items():
        if name == "SHA256SUMS" or name.startswith("keys/"):
            continue
        count = 1 if name in INFORMATIVE else 12 if name.startswith(("records/", "nodes/")) else 4
        for place in dice.sample(range(len(content)), min(count, len(content))):
            changed = rebuild(tmp_path / "c.zip", {**contents, name: flipped(content, place)})
            expected = PROVEN if name in INFORMATIVE else FAILED
            if name == "bundle.json" and changes_only_the_date(content, place):
                expected = PROVEN
            assert verdict(changed, archive.trust.policy) == expected, (name, place)


def changes_only_the_date(contents: bytes, place: int) -> bool:
    """`created` is the exporter's claim, like the custody statement."""
    try:
        changed, honest = json.loads(flipped(contents, place)), json.loads(contents)
    except ValueError:
        return False
    return {**changed, "created": ""} == {**honest, "created": ""} and flipped(contents, place)[-1:] == b"}"


def test_random_bytes_of_the_file(archive: Archive, bundle: Path, tmp_path: Path) -> None:
    """What ZIP keeps beside the members (dates, attributes) may change; a member may not."""
    honest, contents = bundle.read_bytes(), members(bundle)
    dice = random.Random(7)
    passed = 0
    for _ in range(120):
        (tmp_path / "c.zip").write_bytes(flipped(honest, dice.randrange(len(honest)), 1 << dice.randrange(8)))
        if verdict(tmp_path / "c.zip", archive.trust.policy) == PROVEN:
            passed += 1
            assert members(tmp_path / "c.zip") == contents
    assert passed < 20


def test_cut_off(archive: Archive, bundle: Path, tmp_path: Path) -> None:
    honest = bundle.read_bytes()
    for length in [0, 1, 4, 22, 1000, *range(len(honest) - 40, len(honest)), len(honest) // 2]:
        (tmp_path / "c.zip").write_bytes(honest[:length])
        assert verdict(tmp_path / "c.zip", archive.trust.policy) == FAILED
        assert verdict(tmp_path / "c.zip", None) == FAILED


def test_members_left_out(archive: Archive, bundle: Path, tmp_path: Path) -> None:
    contents = members(bundle)
    for name in contents:
        fewer = {other: content for other, content in contents.items() if other != name}
        expected = PROVEN if name in INFORMATIVE or name.startswith("keys/") else FAILED
        assert verdict(rebuild(tmp_path / "c.zip", fewer), archive.trust.policy) == expected, name
        assert verdict(rebuild(tmp_path / "c.zip", fewer, sums=False), archive.trust.policy) == FAILED, name


def test_the_order_of_members_means_nothing(archive: Archive, bundle: Path, tmp_path: Path) -> None:
    reordered = dict(reversed(members(bundle).items()))
    assert verdict(rebuild(tmp_path / "c.zip", reordered), archive.trust.policy) == PROVEN


def frames(content: bytes) -> list[bytes]:
    found = []
    while content:
        length = 28 + int.from_bytes(content[24:28], "big")
        found.append(content[:length])
        content = content[length:]
    return found


def in_contents(contents: dict[str, bytes], change: Callable[[dict[str, Any]], object]) -> dict[str, bytes]:
    table = json.loads(contents["bundle.json"])
    change(table)
    return {**contents, "bundle.json": json.dumps(table, sort_keys=True, separators=(",", ":")).encode()}


def one_fewer(table: dict[str, Any]) -> None:
    table["segments"][1]["records"] -= 1
    table["records"] -= 1


def cases(contents: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    """Forgeries that a verifier could overlook."""
    first, second, third = frames(contents["records/000002"])
    nodes = contents["nodes/000002"]
    swap = {"records/000001": contents["records/000002"], "records/000002": contents["records/000001"]}
    entry, proof = "entries/" + "1".zfill(20), "proofs/" + "1".zfill(20)
    other, other_proof = "entries/" + "2".zfill(20), "proofs/" + "2".zfill(20)
    longer = first[:24] + (int.from_bytes(first[24:28], "big") + 1).to_bytes(4, "big") + first[28:] + b" "
    return {
        "records reordered": {"records/000002": second + first + third},
        "a record twice": {"records/000002": first + first + second + third},
        "a record left out": {"records/000002": first + second},
        "a record left out, as the table says": in_contents(contents, one_fewer) | {"records/000002": first + second},
        "a record beyond the tree": {"records/000002": first + second + third + (9).to_bytes(8, "big") + first[8:]},
        "a huge row": {"records/000002": first + second + third + b"\xff" * 8 + first[8:]},
        "a record longer than stated": {"records/000002": longer + second + third},
        "a length that goes on for ever": {"records/000002": first + second + third[:24] + b"\xff" * 4 + third[28:]},
        "half a frame": {"records/000002": first + second + third + first[:20]},
        "no record": {"records/000002": b""},
        "a node left out": {"nodes/000002": nodes[:-32]},
        "a node too many": {"nodes/000002": nodes + bytes(32)},
        "half a node": {"nodes/000002": nodes[:-16]},
        "nodes reordered": {"nodes/000002": nodes[32:] + nodes[:32]},
        "records of segments swapped": swap,
        "segments wholly swapped": swap
        | {"nodes/000001": contents["nodes/000002"], "nodes/000002": contents["nodes/000001"]},
        "entries swapped": {entry: contents[other], other: contents[entry]},
        "entries and proofs swapped": {
            entry: contents[other], other: contents[entry], proof: contents[other_proof], other_proof: contents[proof]
        },
        "an entry with white space": {entry: contents[entry] + b"\n"},
        "a proof with extra data": {proof: contents[proof].replace(b"\nindex", b"\nextra AAAA\nindex")},
        "a proof without its path": {proof: contents[proof][:31] + b"\n" + contents["checkpoint"]},
        "another origin": in_contents(contents, lambda table: table.update(origin="logs.example.org/other")),
        "another size": in_contents(contents, lambda table: table["checkpoint"].update(size=4)),
        "another total": in_contents(contents, lambda table: table.update(records=6)),
        "another segment": in_contents(contents, lambda table: table["segments"][1].update(segment=1)),
        "another entry": in_contents(contents, lambda table: table["segments"][1].update(entry=3)),
        "a segment twice": in_contents(contents, lambda table: table["segments"].insert(0, table["segments"][0])),
        "segments reordered": in_contents(contents, lambda table: table["segments"].reverse()),
        "no segment": in_contents(contents, lambda table: table.update(segments=[], records=0)),
        "another format": in_contents(contents, lambda table: table.update(format="strongroom/evidence/2")),
        "an unknown member in the table": in_contents(contents, lambda table: table.update(note="")),
        "a float": in_contents(contents, lambda table: table.update(records=5.0)),
        "a table twice as long": {"bundle.json": contents["bundle.json"] * 2},
        "no table": {"bundle.json": b""},
        "deep JSON": {"bundle.json": b"[" * 100_000},
        "a checkpoint with an extension line": {
            "checkpoint": contents["checkpoint"].replace(b"\n\n", b"\nextension\n\n", 1)
        },
        "an unsigned checkpoint": {"checkpoint": contents["checkpoint"].split(b"\n\n")[0] + b"\n"},
        "a stranger": {"notes.txt": b"read me"},
        "a path upwards": {"../../etc/cron.d/x": b"* * * * * root true"},
        "an absolute path": {"/etc/passwd": b"x"},
        "a folder": {"records/": b""},
        "an entry nobody asked for": {"entries/" + "3".zfill(20): b"{}"},
        "a timestamp that is none": {"timestamps/000001.tsr": b"0\x030\x01"},
    }  # fmt: skip


def test_forgeries(archive: Archive, bundle: Path, tmp_path: Path) -> None:
    contents = members(bundle)
    for name, change in cases(contents).items():
        changed = rebuild(tmp_path / "c.zip", {**contents, **change})
        assert verdict(changed, archive.trust.policy) == FAILED, name
        assert verdict(changed, None) == FAILED, name


def test_a_table_that_leaves_a_segment_out_is_still_true(archive: Archive, bundle: Path, tmp_path: Path) -> None:
    """A smaller bundle made of a larger one is a bundle."""
    contents = members(bundle)
    smaller = in_contents(contents, lambda table: table["segments"].pop() and table.update(records=4))
    for name in ("records/000003", "nodes/000003", "entries/" + "4".zfill(20), "proofs/" + "4".zfill(20)):
        del smaller[name]
    assert verdict(rebuild(tmp_path / "c.zip", smaller), archive.trust.policy) == PROVEN


# ---------------------------------------------------------------------------------------------------------- ZIP itself


def zipped(contents: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", compression) as archive:
        for name, content in contents:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return output.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_tricks(archive: Archive, bundle: Path, tmp_path: Path) -> None:
    contents = list(members(bundle).items())
    honest = zipped(contents)
    directory = honest.rindex(b"PK\x05\x06")
    record = next(content for name, content in contents if name == "records/000001")
    tricks = {
        "a name twice, both alike": zipped([*contents, contents[1]]),
        "a name twice, the second false": zipped([*contents, ("records/000001", flipped(record, 30))]),
        "a name twice, the first false": zipped([("records/000001", flipped(record, 30)), *contents]),
        "a byte changed under its CRC": honest.replace(record, flipped(record, 30)),
        "a byte changed and its CRC too": honest.replace(record, flipped(record, 30)).replace(
            struct.pack("<L", zlib.crc32(record)), struct.pack("<L", zlib.crc32(flipped(record, 30)))
        ),
        "data before the members": b"#!/bin/sh\nexit\n" + honest,
        "a comment": honest[: directory + 20] + b"\x05\x00hello",
        "something after the end": honest + b"\0",
        "another coding": zipped(contents, zipfile.ZIP_BZIP2),
        "yet another coding": zipped(contents, zipfile.ZIP_LZMA),
        "another name in front of the member": honest.replace(b"records/000001", b"records/000009", 1),
        "two archives in one": honest + honest,
        "no members": zipped([]),
        "no ZIP file": b"PK\x03\x04 nearly",
    }
    for name, data in tricks.items():
        (tmp_path / "c.zip").write_bytes(data)
        assert verdict(tmp_path / "c.zip", archive.trust.policy) == FAILED, name
    encrypted = bytearray(honest)
    for place in range(len(encrypted) - 4):
        if encrypted[place : place + 4] == b"PK\x01\x02":
            encrypted[place + 8] |= 1
    (tmp_path / "c.zip").write_bytes(encrypted)
    assert verdict(tmp_path / "c.zip", archive.trust.policy) == FAILED


BOMBS = ["bundle.json", "checkpoint", "custody.json", "records/000002", "SHA256SUMS"]


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_do_not_fill_the_memory(archive: Archive, bundle: Path, tmp_path: Path, name: str) -> None:
    """A member that grows to 300 MB is read by a process that may have 280 MB, its interpreter included."""
    contents = members(bundle)
    with zipfile.ZipFile(tmp_path / "c.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        for other, content in contents.items():
            if other != name:
                made.writestr(other, content)
        with made.open(name, "w", force_zip64=True) as file:
            file.write(contents[name])
            for _ in range(300):
                file.write(bytes(1_000_000))
    (tmp_path / "policy").write_text(archive.trust.policy.text())
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_AS, (280 << 20, 280 << 20)); "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", limited, STANDALONE, tmp_path / "c.zip", "--policy", tmp_path / "policy"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == FAILED, ran.stderr
    assert "Traceback" not in ran.stderr


def test_without_a_policy_a_broken_seal_is_still_seen(archive: Archive, bundle: Path, tmp_path: Path) -> None:
    """Keys in the bundle establish nothing, but a bundle that contradicts them is no evidence of anything."""
    contents = members(bundle)
    lines = contents["checkpoint"].partition(b"\n\n")[2]
    stranger = keys.generate(ORIGIN, [KeyType.ED25519])
    forged = contents["checkpoint"].replace(lines, lines[:60] + b"AAAA" + lines[64:])
    changed = {name: content.replace(contents["checkpoint"], forged) for name, content in contents.items()}
    assert verdict(rebuild(tmp_path / "c.zip", changed), None) == FAILED
    changed["keys/policy.txt"] = f"log {stranger[0].key.vkey()}\nquorum none\n".encode()
    assert verdict(rebuild(tmp_path / "c.zip", changed), None) == FAILED
    del changed["keys/policy.txt"]
    assert verdict(rebuild(tmp_path / "c.zip", changed), None) == NO_IDENTITY
    assert evidence.check(bundle, None).status == "identity not established"
