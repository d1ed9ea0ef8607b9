"""The operating system's walls, tried from inside, as if the guard and DuckDB's settings had not been there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from strongroom.query.process import sandbox
from strongroom.query.process.pool import library_folders, worker_environment

from .conftest import Bench

pytestmark = [
    pytest.mark.adversarial,
    pytest.mark.skipif(sandbox.landlock_abi() < 1, reason="this kernel has no landlock"),
]

PROBE = """
import json, os, signal, socket, subprocess, sys, threading
from pathlib import Path
import duckdb, pyarrow, pyarrow.parquet
from strongroom.query.process import sandbox

readable, parent = [Path(path) for path in json.loads(sys.argv[1])], int(sys.argv[2])
status = sandbox.enter(readable=readable, memory_bytes=1 << 30, parent=parent)
inside, outside = sys.argv[3], sys.argv[4]

def tried(action):
    try:
        return repr(action())
    except BaseException as error:
        return type(error).__name__

def sql(statement):
    with duckdb.connect(":memory:") as database:   # nothing locked, nothing switched off
        return database.execute(statement).fetchall()

def thread():
    done = []
    worker = threading.Thread(target=lambda: done.append(1))
    worker.start(); worker.join()
    return done

results = {
    "read inside": tried(lambda: Path(inside, "ok.txt").read_text()),
    "thread": tried(thread),
    "sql inside": tried(lambda: sql(f"SELECT * FROM read_csv('{inside}/ok.txt', header=false)")),
    "read outside": tried(lambda: Path(outside).read_text()),
    "read link": tried(lambda: Path(inside, "link").read_text()),
    "list root": tried(lambda: os.listdir("/")),
    "passwd": tried(lambda: Path("/etc/passwd").read_text()),
    "environment of the parent": tried(lambda: Path(f"/proc/{parent}/environ").read_text()),
    "write inside": tried(lambda: Path(inside, "new").write_text("x")),
    "append inside": tried(lambda: open(Path(inside, "ok.txt"), "a")),
    "write tmp": tried(lambda: Path("/tmp/strongroom-escape").write_text("x")),
    "remove inside": tried(lambda: Path(inside, "ok.txt").unlink()),
    "mkdir": tried(lambda: Path(inside, "folder").mkdir()),
    "socket": tried(socket.socket),
    "socketpair": tried(socket.socketpair),
    "fork": tried(os.fork),
    "program": tried(lambda: subprocess.run(["/bin/true"])),
    "exec": tried(lambda: os.execv("/bin/true", ["true"])),
    "signal the parent": tried(lambda: os.kill(parent, signal.SIGTERM)),
    "grow a memory file": tried(lambda: os.memfd_create("x")),
    "raise a limit": tried(lambda: __import__("resource").setrlimit(1, (9, 9))),
    "sql passwd": tried(lambda: sql("SELECT * FROM read_csv('/etc/passwd')")),
    "sql file name": tried(lambda: sql("SELECT * FROM '/etc/passwd'")),
    "sql glob": tried(lambda: sql("SELECT count(*) FROM glob('/etc/*')")),
    "sql copy": tried(lambda: sql(f"COPY (SELECT 1) TO '{inside}/f.csv'")),
    "sql with copy": tried(lambda: sql(f"WITH x AS (COPY (SELECT 1) TO '{inside}/f.csv') SELECT * FROM x")),
    "sql explain copy": tried(lambda: sql(f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{inside}/f.csv'")),
    "sql attach": tried(lambda: sql(f"ATTACH '{inside}/f.db'")),
    "sql install": tried(lambda: sql("INSTALL httpfs")),
    "sql http": tried(lambda: sql("SELECT * FROM 'http://127.0.0.1:1/x.csv'")),
    "sql load": tried(lambda: sql(f"LOAD '{inside}/ok.txt'")),
}
print(json.dumps([status, results]))
"""


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("sandbox")
    inside, outside = folder / "inside", folder / "outside.txt"
    inside.mkdir()
    (inside / "ok.txt").write_text("fine")
    outside.write_text("secret")
    (inside / "link").symlink_to(outside)
    readable = json.dumps([str(path) for path in [inside, *library_folders()]])
    launcher = (  # the process between is who the sandbox may not signal
        "import os, subprocess, sys; sys.exit(subprocess.run([sys.executable, '-P', '-c', sys.argv[1], sys.argv[2],"
        " str(os.getpid()), *sys.argv[3:]]).returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", launcher, PROBE, readable, str(inside), str(outside)],
        capture_output=True,
        text=True,
        env=worker_environment(),
    )
    assert done.returncode == 0, done.stderr
    status, results = json.loads(done.stdout)
    return status, results, inside


def test_what_a_query_needs_works(tried: tuple[dict[str, str], dict[str, Any], Path]) -> None:
    status, results, _ = tried
    assert all(wall.startswith("on") for wall in status.values()), status
    assert results.pop("read inside") == "'fine'"
    assert results.pop("sql inside") == "[('fine',)]"
    assert results.pop("thread") == "[1]"


def test_nothing_else_does(tried: tuple[dict[str, str], dict[str, Any], Path]) -> None:
    _, results, inside = tried
    allowed = {"read inside", "sql inside", "thread"}
    errors = {"PermissionError", "IOException", "HTTPException", "CatalogException", "BinderException", "OSError"}
    errors |= {"InvalidInputException", "ValueError", "PermissionException", "Error"}
    escaped = {what: how for what, how in results.items() if what not in allowed and how not in errors}
    assert escaped in ({}, {"sql glob": "[(0,)]"})  # a folder that can't be listed looks empty
    assert sorted(path.name for path in inside.iterdir()) == ["link", "ok.txt"]


def test_the_engine_runs_its_queries_behind_these_walls(bench: Bench) -> None:
    assert {"limits", "landlock", "seccomp"} == set(bench.engine.sandbox)
    assert bench.engine.sandbox["landlock"].startswith("on")
    (worker, *_) = bench.engine._pool._spares
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    opened = [path.readlink() for path in Path(f"/proc/{worker.process.pid}/fd").iterdir()]
    assert all(str(target).startswith(("pipe:", "socket:", "/dev/null", "anon_inode")) for target in opened), opened
    environment = Path(f"/proc/{worker.process.pid}/environ").read_bytes().split(b"\0")
    assert {entry.split(b"=")[0] for entry in environment} <= {
        b"", b"PYTHONPATH", b"LANG", b"TZ", b"MALLOC_ARENA_MAX", b"ARROW_DEFAULT_MEMORY_POOL", b"JE_ARROW_MALLOC_CONF",
        b"OPENBLAS_NUM_THREADS", b"OMP_NUM_THREADS", b"MKL_NUM_THREADS",
    }  # fmt: skip
