"""A real strongroom service as a child process, on a free port of the loopback interface."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 60.0
SERVE = (sys.executable, "-m", "strongroom.service.cli")


class Service:
    """Folders of one node, and its process while it runs."""

    def __init__(self, folder: Path, **settings: object) -> None:
        folder.mkdir(exist_ok=True)
        self.archive, self.state = folder / "archive", folder / "state"
        self._log = folder / "serve.log"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("STRONGROOM_")},
            "STRONGROOM_ARCHIVE": str(self.archive),
            "STRONGROOM_STATE": str(self.state),
            "STRONGROOM_LISTEN": "127.0.0.1:0",
            **{f"STRONGROOM_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self, command: tuple[str, ...] = SERVE) -> Service:
        """Start and wait until it serves; returns at once with `url` empty when it died before that."""
        self.url = ""
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([*command, "serve"], env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            found = re.search(r"url=(http://\S+)", self._log.read_text(errors="replace"))
            if found:
                self.url = re.sub(r"\x1b\[[0-9;]*m", "", found[1])
                return self
            if self.process.poll() is not None:
                return self
            time.sleep(0.02)
        raise TimeoutError(self.log)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def wait(self, seconds: float = 30.0) -> int:
        """Wait until it ended by itself; the exit code (negative: the signal)."""
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self) -> None:
        """SIGTERM, and wait until it has sealed and ended."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        # uvicorn raises the signal again once it has shut down in order.
        assert self.process.wait(60) in (0, -signal.SIGTERM), self.log
        assert "stopped" in self.log, self.log

    @property
    def log(self) -> str:
        """What it wrote on stdout and stderr since it was last started."""
        return self._log.read_text(errors="replace")

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line on the same folders."""
        return subprocess.run([*SERVE, *arguments], env=self._environment, capture_output=True, text=True, timeout=300)

    def token(self, role: str, *arguments: str) -> str:
        """A new token."""
        made = self.cli("token", "create", "--role", role, "--name", role, "--json", *arguments)
        assert made.returncode == 0, made.stderr
        return str(json.loads(made.stdout)["token"])

    def verify(self, level: str = "deep", *arguments: str) -> dict[str, Any]:
        """The report of the command line's verification."""
        done = self.cli("verify", "--level", level, "--json", *arguments)
        assert done.returncode in (0, 1), done.stderr + self.log
        report: dict[str, Any] = json.loads(done.stdout)
        assert report["sound"] == (done.returncode == 0)
        return report

    def client(self, token: str) -> httpx.Client:
        """An HTTP client with this bearer token."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
