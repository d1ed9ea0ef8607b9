"""`make fuzz TARGET=cloudtrail SECONDS=600`: one target under a coverage-guided fuzzer (atheris, libFuzzer).

`TARGET=all` takes all in turn, each in a process of its own. The corpus lies in var/fuzz/<target> and is used again;
what is found is written to tests/fuzz/findings/<target>, where test_findings.py tries it in every run of the tests from
then on. Exit code: 0 nothing found, 2 could not run, any other: something found.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE.parents[1] / "var" / "fuzz"
_MAX_BYTES = 24_000
_MEMORY_MB = 2048
_LONGEST_SECONDS = 20  # one input


def main() -> int:
    name, seconds = sys.argv[1], int(sys.argv[2])
    try:
        import atheris
    except ImportError:
        print("atheris is not installed: pip install -e '.[fuzz]'", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["strongroom.ingest"]):
        from tests.fuzz.targets import TARGETS
    if name == "all":
        return _each(list(TARGETS), seconds)
    if name not in TARGETS:
        print(f"no target {name!r}; there are: {', '.join(['all', *TARGETS])}", file=sys.stderr)
        return 2
    target, corpus, findings = TARGETS[name], CORPUS / name, HERE / "findings" / name
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        """libFuzzer's own mutation, and now and then a mark at some place."""
        data = atheris.Mutate(data, most)
        chance = random.Random(seed)
        if target.marked and chance.random() < 0.3:
            at, mark = chance.randint(0, len(data)), b"m%06dm" % chance.randrange(10**6)
            data = (data[:at] + mark + data[at:])[:most]
        return bytes(data)

    options = [f"-max_total_time={seconds}", f"-max_len={_MAX_BYTES}", f"-rss_limit_mb={_MEMORY_MB}"]
    options += [f"-timeout={_LONGEST_SECONDS}", f"-artifact_prefix={findings}/", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.check, custom_mutator=mutate)
    atheris.Fuzz()  # ends the process
    return 0


def _each(names: list[str], seconds: int) -> int:
    found = []
    for name in names:
        print(f"-- {name}", flush=True)
        if subprocess.run([sys.executable, "-m", "tests.fuzz", name, str(seconds)], check=False).returncode:
            found.append(name)
    print(f"found something in: {', '.join(found)}" if found else "nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
