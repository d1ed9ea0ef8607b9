"""The log and the signer: one winner a place, nothing twice after a lost answer, never a shorter or other history."""

import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from strongroom.archive import layout, note
from strongroom.archive.entry import Draft, WriterRange
from strongroom.archive.errors import FormatError, ObjectMissing, SignerRefused, StoreUnavailable
from strongroom.archive.log import Log
from strongroom.archive.merkle import leaf_hash, verify_consistency, verify_inclusion
from strongroom.archive.signer import Signer
from strongroom.archive.stores import DirectoryStore, ObjectInfo
from strongroom.archive.trust import recall
from tests.archive.conftest import NOW, ORIGIN, Archive


def test_racing_writers_append_every_entry_once(archive: Archive) -> None:
    def append(writer: str) -> None:
        log = Log.open(archive.store)
        for number in range(10):
            log.append(Draft("heartbeat", NOW, writer=WriterRange(writer, 1, number, number)))

    threads = [threading.Thread(target=append, args=(f"w{number}0",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert archive.log.refresh() == 6 + 40
    ranges = [entry.writer for entry in archive.log.entries(6)]
    assert len(set(ranges)) == 40
    assert archive.log.next_of("w10") == (1, 10)
    assert Log.open(archive.store).root() == archive.log.root()


class Stuttering(DirectoryStore):
    """A store whose answers get lost: before the write, or after it."""

    fail: Callable[[str], str] = staticmethod(lambda key: "")

    def create(self, key: str, content: bytes | Path, *, retain_until: datetime | None = None) -> ObjectInfo:
        what = self.fail(key)
        if what == "before":
            raise StoreUnavailable("lost before")
        info = super().create(key, content, retain_until=retain_until)
        if what == "after":
            raise StoreUnavailable("lost after")
        return info


def test_a_lost_answer_neither_loses_nor_doubles(archive: Archive) -> None:
    store = Stuttering(archive.root)
    log = Log.open(store)
    draft = Draft("heartbeat", NOW, writer=WriterRange("w1", 1, 5, 5))
    store.fail = lambda key: "before"  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        log.append(draft)
    assert log.refresh() == 6
    store.fail = lambda key: "after"  # type: ignore[method-assign]
    assert log.append(draft).index == 6
    store.fail = lambda key: ""  # type: ignore[method-assign]
    with pytest.raises(FormatError, match="WRITER_OVERLAP"):
        log.append(draft)
    assert log.refresh() == Log.open(archive.store).size == 7


def test_proofs_from_the_log(archive: Archive) -> None:
    log = archive.log
    for index in range(log.size):
        leaf = leaf_hash(log.entry_bytes(index))
        verify_inclusion(index, log.size, leaf, log.inclusion_proof(index, log.size), log.root())
    verify_consistency(2, log.size, log.consistency_proof(2, log.size), log.root(2), log.root())


def test_create_is_repeatable_and_names_are_checked(tmp_path: Path, archive: Archive) -> None:
    keys = [signer.key.vkey() for signer in archive.signers]
    assert Log.create(archive.store, ORIGIN, keys, NOW).size == archive.log.size
    with pytest.raises(FormatError, match="holds the archive"):
        Log.create(archive.store, "other", [], NOW)
    with pytest.raises(FormatError, match="names must be equal"):
        Log.create(DirectoryStore(tmp_path / "new", create=True), "other", keys, NOW)
    with pytest.raises(ObjectMissing, match="no archive"):
        Log.open(DirectoryStore(tmp_path / "empty", create=True))


def test_the_log_stops_at_a_changed_entry(archive: Archive) -> None:
    path = archive.path(layout.entry_key(2))
    path.write_bytes(path.read_bytes().replace(b'"segment"', b'"policy"', 1))
    with pytest.raises(FormatError, match="ENTRY_CHAIN"):
        Log.open(archive.store)


def test_checkpoints_are_signed_by_every_key(archive: Archive) -> None:
    stored = note.parse(archive.store.get(layout.checkpoint_key(6)))
    assert note.verify(stored, archive.trust.keys) == list(archive.trust.keys)
    checkpoint = note.parse_checkpoint(stored.text)
    assert (checkpoint.size, checkpoint.root) == (6, archive.log.root())
    assert recall(archive.memory) == checkpoint


def test_signing_again_and_after_a_crash_is_harmless(archive: Archive) -> None:
    before = archive.signer.sign()
    archive.commit(sign=False)
    archive.signer.sign()
    # The crash between publishing and remembering: memory is one checkpoint behind.
    archive.memory.write_text(f'{{"origin": "{ORIGIN}", "size": 6, "root": "{before.root.hex()}"}}')
    again = Signer(archive.store, archive.signers, archive.memory)
    assert again.sign().size == 7
    # The crash between signing and publishing: the checkpoint is missing.
    (archive.root / layout.checkpoint_key(7)).unlink()
    assert again.sign().size == 7
    assert (archive.root / layout.checkpoint_key(7)).exists()


def test_the_signer_refuses_a_rolled_back_store(archive: Archive) -> None:
    for key in (layout.entry_key(5), layout.checkpoint_key(6)):
        (archive.root / key).unlink()
    with pytest.raises(SignerRefused, match="rollback"):
        Signer(archive.store, archive.signers, archive.memory)


def test_the_signer_refuses_another_history(new_archive: Callable[[], Archive]) -> None:
    one = new_archive()
    for _ in range(3):
        one.commit()
    other = new_archive()
    for _ in range(3):
        other.commit(count=9)
    with pytest.raises(SignerRefused, match="fork"):
        Signer(other.store, other.signers, one.memory)


def test_the_signer_refuses_entries_whose_objects_are_not_there(archive: Archive) -> None:
    entry = archive.commit(sign=False)
    path = archive.path(entry.segments[0].key)
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    with pytest.raises(SignerRefused, match="SHA-256"):
        archive.signer.sign()
    path.unlink()
    with pytest.raises(SignerRefused, match="no such object"):
        Signer(archive.store, archive.signers, archive.memory).sign()


def test_the_signer_refuses_a_writer_that_jumps(archive: Archive) -> None:
    archive.log._chain._writers.clear()  # a forger's log would not check its own ranges
    archive.log._chain._damaged = True
    archive.log.append(Draft("segment", NOW, writer=WriterRange("w1", 1, 7, 8)))
    with pytest.raises(SignerRefused, match="WRITER_GAP"):
        archive.signer.sign()


class Distant(DirectoryStore):
    """A store across a network: nothing to open in place, and an answer takes a while."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.at_once = self.most = 0
        self.counting = threading.Lock()

    def local_path(self, key: str) -> Path | None:
        return None

    def get(self, key: str, version: str = "") -> bytes:
        with self.counting:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(0.005)
        try:
            return super().get(key, version)
        finally:
            with self.counting:
                self.at_once -= 1


def test_a_distant_log_is_read_several_entries_at_once_and_followed_in_order(archive: Archive) -> None:
    for number in range(60):
        archive.log.append(Draft("heartbeat", NOW, writer=WriterRange("far", 1, number, number)))
    store = Distant(archive.root)
    log = Log.open(store)
    assert (log.size, log.root()) == (archive.log.size, archive.log.root())
    assert log.standing("far", 1).sealed == 59
    assert 4 < store.most <= 16
    assert [entry.index for entry in log.entries()] == list(range(log.size))
    # What lies beyond a gap is not the log.
    (archive.root / layout.entry_key(30)).unlink()
    assert Log.open(store).size == 30


def test_nothing_is_written_when_something_that_came_before_it_forbids_it(archive: Archive) -> None:
    class Forbidden(Exception):
        pass

    other = Log.open(archive.store)
    seen: list[int] = []

    def unless() -> None:
        seen.append(archive.log.size)
        if len(seen) == 1:  # somebody else comes between the look and the append
            other.append(Draft("heartbeat", NOW, writer=WriterRange("other", 1, 0, 0)))
        elif archive.log.next_of("other") == (1, 1):
            raise Forbidden

    with pytest.raises(Forbidden):
        archive.log.append(Draft("heartbeat", NOW, writer=WriterRange("mine", 1, 0, 0)), unless=unless)
    assert seen == [6, 7]
    assert archive.log.refresh() == 7
