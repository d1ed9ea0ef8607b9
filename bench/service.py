"""A real `strongroom serve` on loopback, pinned to a core, and a client that costs as little as it can."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

_STRONGROOM = [sys.executable, "-m", "strongroom.service.cli"]
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Service:
    """Where it listens, an admin's token, its process."""

    host: str
    port: int
    token: str
    process: int

    def connect(self) -> HTTPConnection:
        """A connection to keep alive; http.client costs a tenth of what comfortable clients cost."""
        return HTTPConnection(self.host, self.port, timeout=120)

    def send(
        self, connection: HTTPConnection, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> bytes:
        """The answer's body. Raises RuntimeError unless it is 200."""
        connection.request(method, path, body, {"Authorization": f"Bearer {self.token}", **headers})
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RuntimeError(f"{method} {path}: {response.status} {content[:500]!r}")
        return content

    def peak_bytes(self) -> int:
        """Most memory the serving process had (its workers are processes of their own)."""
        return _peak_bytes(self.process)

    def tree_peak_bytes(self) -> int:
        """The sum of the most that it and each process it started had."""
        children = Path(f"/proc/{self.process}/task").glob("*/children")
        started = [int(process) for file in children for process in file.read_text().split()]
        return sum(map(_peak_bytes, [self.process, *started]))


def _peak_bytes(process: int) -> int:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except FileNotFoundError:  # it has ended
        return 0
    return int(found[1]) * 1024 if found else 0


def ingest(files: Sequence[Path], folder: Path, **settings: object) -> dict[str, Any]:
    """`strongroom ingest` of folders into the archive in `folder`; its summary. `settings` go by its environment."""
    done = subprocess.run(
        [*_STRONGROOM, "ingest", *map(str, files), *_places(folder), "--json"],
        stdout=subprocess.PIPE,
        env=os.environ | _environment(settings),
        check=True,
    )
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


@contextmanager
def serving(folder: Path, core: int | None = None, **settings: object) -> Iterator[Service]:
    """The service over archive and state in `folder`; `settings` are passed as its environment. Killed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    token = subprocess.run(
        [*_STRONGROOM, "token", "create", "--role", "admin", "--name", "bench", "--state", str(folder / "state")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.strip()
    environment = _environment(settings)
    log = folder / "service.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*_STRONGROOM, "serve", *_places(folder), "--listen", "127.0.0.1:0"],
            stderr=output,
            env=os.environ | {"STRONGROOM_LOG_FORMAT": "json"} | environment,
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
        )
    try:
        service = _await(process, log, token)
        yield service
    finally:
        # Not SIGTERM: that would seal gigabytes that nobody will look at.
        process.kill()
        process.wait()


def _await(process: subprocess.Popen[bytes], log: Path, token: str) -> Service:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r'"url": ?"http://([^":]+):(\d+)"', log.read_text()):
            service = Service(found[1], int(found[2]), token, process.pid)
            try:
                service.send(service.connect(), "GET", "/readyz", None, {})
                return service
            except (OSError, RuntimeError):
                pass
        time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"the service did not start:\n{log.read_text()}")


def _environment(settings: Mapping[str, object]) -> dict[str, str]:
    return {f"STRONGROOM_{name.upper()}": str(value) for name, value in settings.items()}


def _places(folder: Path) -> list[str]:
    return ["--archive", str(folder / "archive"), "--state", str(folder / "state")]
