"""A question that needs more memory than it may have goes by way of the disk, within bounds, and leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.query.errors import QueryOutOfMemory
from strongroom.query.process import sandbox, spill
from strongroom.query.process.pool import library_folders, worker_environment
from strongroom.query.process.spill import SpillFolder

from .conftest import LIMITS, Archive, Bench

LARGE = "SELECT count(*), sum(n) FROM (SELECT md5(range::VARCHAR), count(*) AS n FROM range(5000000) GROUP BY 1)"
ANSWER = [[5_000_000, 5_000_000]]
ROOMY = replace(LIMITS, memory_bytes=400 << 20, seconds=60.0, spare_workers=0, spill_bytes=1 << 30)


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("duckdb_temp*") if path.suffix == ".tmp"]


def test_what_does_not_fit_into_memory_goes_to_the_disk(
    own_bench: Callable[..., Bench], archive: Archive, tmp_path: Path
) -> None:
    cramped = own_bench(archive, replace(ROOMY, spill_bytes=0))
    with pytest.raises(QueryOutOfMemory, match="400 MiB of memory and was ended"):
        cramped.rows(LARGE)
    roomy = own_bench(archive, ROOMY)
    assert roomy.rows(LARGE, user="ada") == ANSWER
    assert left(tmp_path / "cache-1" / "spill") == []
    assert roomy.rows(LARGE, user="ada") == ANSWER  # the same database once more


@pytest.mark.parametrize("kept_to", [True, False], ids=["by DuckDB", "by the server's watch"])
def test_the_disk_is_bounded_too(
    kept_to: bool, own_bench: Callable[..., Bench], archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB keeps to its bound; were it made not to, the server would see."""
    bench = own_bench(archive, replace(ROOMY, spill_bytes=8 << 20 if kept_to else 1 << 30))
    if not kept_to:
        monkeypatch.setattr(spill, "size", lambda folder: 2 << 30)
    with pytest.raises(QueryOutOfMemory, match="MiB of temporary files and was ended"):
        bench.rows(LARGE)
    monkeypatch.undo()
    assert bench.rows("SELECT 1") == [[1]]
    assert left(tmp_path / "cache-0" / "spill") == []


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("[!.]*") if path.is_file())


def test_what_a_dead_server_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    living = SpillFolder(tmp_path / "spill")
    living.open()
    (living.new() / "file").write_bytes(b"x" * 5000)
    dying = (
        "import os, sys; from pathlib import Path; from strongroom.query.process.spill import SpillFolder\n"
        "folder = SpillFolder(Path(sys.argv[1])); folder.open(); (folder.new() / 'left').write_text('x'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", dying, str(tmp_path / "spill")], check=False)
    assert files(tmp_path) == ["file", "left"]
    other = SpillFolder(tmp_path / "spill")
    other.open()
    assert files(tmp_path) == ["file"]
    for folder in (living, other):
        folder.close()
        folder.close()
    assert [path for path in (tmp_path / "spill").iterdir() if path.is_dir()] == []


def test_a_folder_is_as_large_as_its_files(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(os.urandom(100_000))
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 30)
    assert 100_000 <= spill.size(tmp_path) < 200_000
    assert spill.size(tmp_path / "gone") == 0


def test_a_folder_that_cannot_be_made_is_done_without(
    own_bench: Callable[..., Bench], archive: Archive, tmp_path: Path
) -> None:
    (tmp_path / "cache-0").mkdir()
    (tmp_path / "cache-0" / "spill").write_text("in the way")
    assert own_bench(archive, ROOMY).rows("SELECT 1") == [[1]]


PROBE = """
import json, os, sys
from pathlib import Path
from strongroom.query.process import sandbox

own, other, parent = Path(sys.argv[2]), Path(sys.argv[3]), os.getppid()
sandbox.enter(
    readable=[Path(path) for path in json.loads(sys.argv[1])] + [other],
    memory_bytes=1 << 30, parent=parent, writable=own, file_bytes=10_000,
)

def tried(action):
    try:
        return repr(action())
    except OSError as error:
        return type(error).__name__

print(json.dumps({
    "write": tried(lambda: (own / "a").write_bytes(b"x" * 10_000)),
    "read": tried(lambda: (own / "a").read_bytes()[:1]),
    "shorten": tried(lambda: os.truncate(own / "a", 10)),
    "remove": tried(lambda: (own / "a").unlink()),
    "list": tried(lambda: os.listdir(own)),
    "too long": tried(lambda: (own / "b").write_bytes(b"x" * 10_001)),
    "folder": tried(lambda: (own / "folder").mkdir()),
    "link": tried(lambda: (own / "link").symlink_to(other)),
    "pipe": tried(lambda: os.mkfifo(own / "pipe")),
    "move out": tried(lambda: os.rename(own / "b", other / "b")),
    "above": tried(lambda: (own.parent / "c").write_text("x")),
    "beside": tried(lambda: (other / "d").write_text("x")),
    "run": tried(lambda: os.execv(own / "b", ["b"])),
}))
"""


@pytest.mark.adversarial
@pytest.mark.skipif(sandbox.landlock_abi() < 1, reason="this kernel has no landlock")
def test_a_process_writes_plain_files_there_and_nothing_elsewhere(tmp_path: Path) -> None:
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
    readable = json.dumps([str(path) for path in library_folders()])
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROBE, readable, str(tmp_path / "own"), str(tmp_path / "other")],
        capture_output=True,
        text=True,
        env=worker_environment(),
    )
    assert done.returncode == 0, done.stderr
    tried = json.loads(done.stdout)
    allowed = {"write": "10000", "read": "b'x'", "shorten": "None", "remove": "None", "list": "[]"}
    assert {what: how for what, how in tried.items() if what in allowed} == allowed
    refused = {how for what, how in tried.items() if what not in allowed}
    assert refused <= {"OSError", "PermissionError"}, tried
    assert list((tmp_path / "other").iterdir()) == []
