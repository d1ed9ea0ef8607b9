"""Witnesses as people run them: processes of their own, pushed to, watching, and off the network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.system.conftest import NewService
from tests.system.process import SERVE, Service

pytestmark = pytest.mark.system


@contextmanager
def running(folder: Path, *arguments: str, ready: str) -> Iterator[str]:
    """A witness process; the address it says it serves on, "" when it serves none."""
    log = folder.with_suffix(".log")
    with log.open("wb") as out:
        process = subprocess.Popen([*SERVE, "witness", *arguments], stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 30
        while not re.search(ready, log.read_text()):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        found = re.search(r"http://[0-9.:]+", log.read_text())
        yield found[0] if found else ""
    finally:
        process.terminate()
        process.wait(20)


def witness_key(folder: Path, name: str) -> str:
    made = subprocess.run(
        [*SERVE, "witness", "key", "--name", name, "--folder", str(folder)], capture_output=True, text=True, check=True
    )
    return made.stdout.strip()


def until(condition: object, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_quorum_pushed_watching_and_offline(tmp_path: Path, new_service: NewService) -> None:
    service = new_service(seal_age_seconds=0.2, cosign_seconds=0.2)
    token = service.token("admin")
    service.start()
    names = {name: f"witness.example.org/{name}" for name in ("pushed", "watching", "offline")}
    folders = {name: tmp_path / name for name in names}
    policy = service.state / "verifier" / "policy"
    mine = tmp_path / "log.policy"
    shutil.copy(policy, mine)
    common = {name: ("--name", names[name], "--folder", str(folders[name])) for name in names}
    keys = {name: witness_key(folders[name], names[name]) for name in names}
    follows = ("--policy", str(mine))
    with running(
        folders["pushed"], "serve", *common["pushed"], *follows, "--listen", "127.0.0.1:0", ready="serving"
    ) as url:
        lines = [line for line in policy.read_text().splitlines() if line.startswith("log ")]
        lines += [f"witness pushed {keys['pushed']} {url}", f"witness watching {keys['watching']}"]
        lines += [f"witness offline {keys['offline']}", "group all 3 pushed watching offline", "quorum all"]
        policy.write_text("\n".join(lines) + "\n")
        with (
            service.client(token) as client,
            running(
                folders["watching"],
                *("watch", *common["watching"], *follows, "--url", service.url, "--seconds", "0.2"),
                ready="cosigned",
            ),
        ):
            assert client.post("/v1/ingest/json?wait=sealed", content=b'{"a": 1}\n').status_code == 200
            asked = tmp_path / "request"
            asked.write_bytes(client.get("/tlog/submission?old=0").content)
            arguments = ("witness", "once", *common["offline"], *follows, str(asked))
            cosigned = service.cli(*arguments)
            assert cosigned.returncode == 0, cosigned.stderr
            size = int(asked.read_text().partition("\n\n")[2].split("\n")[1])
            left = client.post(f"/tlog/cosignatures?size={size}", content=cosigned.stdout.encode())
            assert left.json() == {"size": size, "witnesses": ["offline"]}
            until(lambda: client.get("/v1/status").json()["witnesses"].get("pushed", {}).get("size", 0) >= size)
            until(lambda: client.get("/v1/status").json()["witnesses"].get("watching", {}).get("size", 0) >= size)
            again = service.cli(*arguments)
            assert again.returncode == 2
            assert f"seen size {size}" in again.stderr
        service.stop()
    report = service.verify("complete")
    assert report["sound"], report["findings"]
    assert report["witnessed"] <= report["checkpoint"]
    forged = new_service("forged", seal_age_seconds=0.1)
    must_refuse_a_rewritten_log(tmp_path, service, forged, common["watching"], follows)


def must_refuse_a_rewritten_log(
    folder: Path, genuine: Service, forged: Service, witness: tuple[str, ...], follows: tuple[str, ...]
) -> None:
    """The insider has keys, state and bucket, and rebuilds the archive without one batch, signed as ever."""
    shutil.copytree(
        genuine.state, forged.state, ignore=shutil.ignore_patterns("writers", "memory*", "policy.memory*", "acts")
    )
    identity = (genuine.archive / "archive.json").read_bytes()
    forged.archive.mkdir(parents=True)
    (forged.archive / "archive.json").write_bytes(identity)
    forged.start()
    assert forged.url, forged.log
    with forged.client(forged.token("admin")) as client:
        for number in range(12):
            assert client.post("/v1/ingest/json?wait=sealed", content=b'{"b": %d}\n' % number).status_code == 200
    log = folder / "refusing.log"
    with log.open("wb") as out:
        arguments = ["watch", *witness, *follows, "--url", forged.url, "--seconds", "0.2"]
        process = subprocess.Popen(
            [sys.executable, "-m", "strongroom.service.cli", "witness", *arguments], stdout=out, stderr=out
        )
        try:
            until(lambda: "REFUSED" in log.read_text())
        finally:
            process.terminate()
            process.wait(20)
            forged.stop()
    reports = list((folder / "watching" / "memory").glob("fork-*.json"))
    assert reports, "the witness keeps both checkpoints: together they prove the fork"


def test_a_stranger_leaves_nothing(new_service: NewService) -> None:
    service = new_service()
    service.token("admin")
    service.start()
    size = httpx.get(f"{service.url}/tlog/checkpoint").text.split("\n")[1]
    answer = httpx.post(f"{service.url}/tlog/cosignatures?size={size}", content="— stranger AAAAAAAA\n".encode())
    assert (answer.status_code, answer.json()["code"]) == (400, "cosignature-refused")
    service.stop()
    assert not list(service.archive.glob("log/cosigned/*/*"))
