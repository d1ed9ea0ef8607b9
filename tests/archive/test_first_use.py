"""Types that threads decode are known before threads begin (archive/details.py says why)."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, threading
sys.setswitchinterval(1e-6)
from strongroom.archive import details
from strongroom.archive.details import BatchFacts, Details, SegmentSummary
from strongroom.archive.entry import WriterRange

batch = BatchFacts(0, "a", "s", "b", 1, 1, 1, 0, "t", "f", "p", "a", "", "")
stated = Details("00", WriterRange("w1", 1, 0, 0), (batch,), (SegmentSummary("k", "s", "d", 1),))
data, barrier = details.encode(stated), threading.Barrier(6)

def first():
    barrier.wait()
    assert details.decode(data) == stated

threads = [threading.Thread(target=first) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_six_threads_that_are_first_at_once() -> None:
    """Without the care that is taken, about every second of these processes dies."""
    for _ in range(4):
        ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
        assert (ran.returncode, ran.stderr) == (0, "")
