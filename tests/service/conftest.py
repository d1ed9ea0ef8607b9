"""One real service for all tests here: a process of its own, a free port, a token a role."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest

from strongroom.service import cli
from strongroom.service.state import StateFolder
from strongroom.service.tokens import TokenStore

REPOSITORY = Path(__file__).parents[2]
# Settings of a service that seals when a test asks and not for each audit record, and keeps few processes.
QUIET = {
    "STRONGROOM_SEAL_AGE_SECONDS": "600",
    "STRONGROOM_HEAD_SECONDS": "600",
    "STRONGROOM_QUERY_CONCURRENCY": "1",
    "STRONGROOM_VERIFY_WORKERS": "1",
}
SAMPLES = REPOSITORY / "demo" / "samples"
PUSHED = ("bulk", "hec", "journal", "loki", "otlp", "sns")
STRONGROOM = [sys.executable, "-m", "strongroom.service.cli"]


@dataclass
class Service:
    """A running `strongroom serve`."""

    folder: Path
    process: subprocess.Popen[str]
    url: str
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def places(self) -> list[str]:
        return ["--archive", str(self.folder / "archive"), "--state", str(self.folder / "state")]

    @property
    def log(self) -> str:
        return (self.folder / "service.log").read_text()

    def call(self, method: str, path: str, *, role: str | None = "admin", **options: Any) -> httpx.Response:
        """One request with the token of `role` (None: without)."""
        headers = dict(options.pop("headers", {}))
        if role is not None:
            headers["Authorization"] = f"Bearer {self.tokens[role]}"
        return httpx.request(method, self.url + path, headers=headers, timeout=60, **options)

    def query(self, sql: str, parameters: Any = None, *, role: str = "investigator", **params: str) -> dict[str, Any]:
        body = {"sql": sql, "parameters": parameters}
        answer = self.call("POST", "/v1/query", role=role, json=body, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def rows(self, sql: str, parameters: Any = None, **params: str) -> list[list[Any]]:
        return self.query(sql, parameters, **params)["rows"]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)


def start_service(folder: Path, **settings: str) -> Service:
    """Start a service in `folder` and wait until it is ready."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STRONGROOM_")}
    environment |= {"STRONGROOM_LOG_FORMAT": "json", "STRONGROOM_SEAL_AGE_SECONDS": "0.3"}
    environment |= {"STRONGROOM_VERIFY_SCHEDULE": "outside", "STRONGROOM_HEAD_SECONDS": "2"} | settings
    environment["PYTHONPATH"] = str(REPOSITORY)
    places = ["--state", str(folder / "state"), "--listen", "127.0.0.1:0"]
    environment.setdefault("STRONGROOM_ARCHIVE", str(folder / "archive"))
    with (folder / "service.log").open("w") as log:
        process = subprocess.Popen([*STRONGROOM, "serve", *places], stderr=log, env=environment, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r'"url": ?"(http[^"]+)"', (folder / "service.log").read_text()):
            return Service(folder, process, found[1])
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"the service did not start:\n{(folder / 'service.log').read_text()}")


def make_tokens(folder: Path) -> dict[str, str]:
    """A token for each role; `forwarder` may push cloudtrail, vpcflow, json and PUSHED, `quarantiner` anything."""
    store = TokenStore(StateFolder(folder / "state").tokens)
    now = datetime.now(UTC)
    makers: dict[str, dict[str, Any]] = {
        "forwarder": {"sources": ["cloudtrail", "vpcflow", "json", *PUSHED]},
        "quarantiner": {"sources": ["*"], "quarantine_undecodable": True},
        "investigator": {},
        "auditor": {},
        "admin": {},
    }
    made = {}
    for name, options in makers.items():
        role = "forwarder" if name == "quarantiner" else name
        made[name] = store.create(role, name=f"test-{name}", now=now, **options)[1]  # type: ignore[arg-type]
    return made


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    tokens = make_tokens(folder)
    running = start_service(folder)
    running.tokens = tokens
    yield running
    running.stop()


@dataclass(frozen=True)
class Done:
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


def strongroom(*arguments: str | Path, **environment: str) -> Done:
    """Run the command line as its console script does, but in this process: starting Python takes longer than most."""
    output, errors = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    given = ["strongroom", *(str(argument) for argument in arguments)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STRONGROOM_")}
    with (
        patch.object(sys, "argv", given),
        patch.dict(os.environ, kept | {"COLUMNS": "200", "PYTHONPATH": str(REPOSITORY)} | environment, clear=True),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    output.flush()
    return Done(code, output.buffer.getvalue().decode(), errors.getvalue())
