"""Services for system tests; whatever a test leaves running is killed after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.process import Service

NewService = Callable[..., Service]


@pytest.fixture
def new_service(tmp_path: Path) -> Iterator[NewService]:
    """Makes services in folders of their own: `new_service("name", setting=value)`."""
    made: list[Service] = []

    def make(name: str = "node", **settings: object) -> Service:
        made.append(Service(tmp_path / name, **settings))
        return made[-1]

    yield make
    for service in made:
        if service.process is not None and service.process.poll() is None:
            service.kill()
