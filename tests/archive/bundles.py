"""Evidence bundles made, taken apart and put together again; and the one question both verifiers must answer alike."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from strongroom.archive import evidence, layout
from strongroom.archive.evidence.writing import STANDALONE
from strongroom.archive.policy import Policy
from tests.archive.conftest import NOW, Archive

PROVEN, FAILED, NO_IDENTITY = 0, 1, 3


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("standalone_verify", STANDALONE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


standalone: Any = _load()


def verdict(path: Path, policy: Policy | None) -> int:
    """The exit code that both verifiers give; they must agree, and give a problem exactly when they fail."""
    ours = evidence.check(path, policy)
    code, _, problems = standalone.verify(str(path), None if policy is None else policy.text())
    assert code == ours.exit_code, f"stand-alone: {problems}; archive: {ours.problems}"
    assert bool(problems) == bool(ours.problems) == (code == FAILED)
    return int(code)


def proof_verdict(path: Path, policy: Policy | None) -> int:
    """The same for the proof of one record."""
    ours = evidence.check_proof(path.read_bytes(), policy)
    code, _, problems = standalone.verify(str(path), None if policy is None else policy.text())
    assert code == ours.exit_code, f"stand-alone: {problems}; archive: {ours.problems}"
    return int(code)


def checkpoint(archive: Archive, size: int | None = None) -> bytes:
    """The stored checkpoint at a size, by default the newest."""
    return archive.store.get(layout.checkpoint_key(archive.log.size if size is None else size))


def export(archive: Archive, path: Path, picks: Iterable[evidence.Pick], **changes: Any) -> evidence.Summary:
    """A bundle of the archive at its newest checkpoint."""
    arguments: dict[str, Any] = {
        "store": archive.store,
        "log": archive.log,
        "checkpoint": checkpoint(archive) if "checkpoint" not in changes else b"",
        "policy": archive.trust.policy,
        "custody": {"exported_by": "an investigator", "question": "SELECT 1"},
        "now": NOW,
    }
    path.unlink(missing_ok=True)
    return evidence.write(path, picks=picks, **(arguments | changes))


def members(path: Path) -> dict[str, bytes]:
    """Name and content of every member, in order."""
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def rebuild(path: Path, contents: Mapping[str, bytes], *, sums: bool = True) -> Path:
    """A bundle of these members at `path`; with `sums`, its SHA256SUMS is what a forger would make it."""
    contents = dict(contents)
    if sums and "SHA256SUMS" in contents:
        lines = [f"{sha256(c).hexdigest()}  {name}\n" for name, c in contents.items() if name != "SHA256SUMS"]
        contents["SHA256SUMS"] = "".join(lines).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path
