"""Processes of queries stand back for the service, within its session, and have no terminal."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

from strongroom.query.process import sandbox

from .conftest import Bench

# In a terminal's session, as a child of its leader: the number of its terminal, before and after the sandbox.
AT_A_TERMINAL = """
import os, sys
from pathlib import Path
from strongroom.query.process import sandbox
def terminal():
    return int(Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[4])
leader = os.getpid()
if os.fork() == 0:
    before = terminal()
    sandbox.enter(readable=[Path("/proc")], memory_bytes=1 << 30, parent=leader)
    print("told", before > 0, terminal(), os.getpgid(0) == os.getpid(), os.getsid(0) == leader, flush=True)
    os._exit(0)
os.wait()
"""


def test_query_workers_stand_back_within_the_session(bench: Bench) -> None:
    assert bench.rows("SELECT 1") == [[1]]
    workers = [worker.process.pid for worker in bench.engine._pool._spares]
    assert workers
    for process in workers:
        assert os.getpriority(os.PRIO_PROCESS, process) == min(os.getpriority(os.PRIO_PROCESS, 0) + sandbox.NICE, 19)
        assert os.getsid(process) == os.getsid(0), "one of its own would weigh as much as all of the service"
        assert os.getpgid(process) == process, "Ctrl-C is for the service"


def test_the_sandbox_has_no_terminal() -> None:
    child, terminal = pty.fork()
    if child == 0:  # nothing but exec: threads of ours are not here
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        os.execv(sys.executable, [sys.executable, "-c", AT_A_TERMINAL])
    said = b""
    try:
        while piece := os.read(terminal, 4096):
            said += piece
    except OSError:  # the way a terminal says that nobody writes any more
        pass
    finally:
        os.close(terminal)
        os.waitpid(child, 0)
    assert said.decode().split() == ["told", "True", "0", "True", "True"]
