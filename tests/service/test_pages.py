"""The reference pages say what the code does: nothing missing, nothing stale."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer.main
from pydantic_core import PydanticUndefined

from strongroom.archive.errors import StrongroomError
from strongroom.service import problems
from strongroom.service.app import PUBLIC
from strongroom.service.cli import app as command_line
from strongroom.service.settings import Settings
from tests.service.conftest import REPOSITORY, Service
from tests.service.test_access import RULES
from tests.service.test_problems import every


def page(name: str) -> str:
    return (REPOSITORY / "docs" / name).read_text("utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of every table row of a page."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")
    ]


def test_every_setting_with_its_default_and_words() -> None:
    written = {cells[0].strip("`"): cells[1:] for cells in rows(page("settings.md")) if cells[0].startswith("`")}
    assert set(written) == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        assert field.default is not PydanticUndefined
        default = "–" if field.default in (None, "") else str(field.default)
        default = default.lower() if isinstance(field.default, bool) else default
        assert written[name] == [f"`{default}`", field.description], name


def test_every_route_with_its_roles() -> None:
    order = ("forwarder", "investigator", "auditor", "admin")
    written: dict[tuple[str, str], str] = {}
    for cells in rows(page("http.md")):
        if len(cells) == 4 and cells[1].startswith("`/"):
            for method in cells[0].split(", "):
                written[method, cells[1].strip("`")] = cells[2]
    expected = {key: ", ".join(role for role in order if role in roles) for key, roles in RULES.items()}
    assert written == expected | {("POST" if path == "/tlog/cosignatures" else "GET", path): "–" for path in PUBLIC}


def test_every_code_with_its_status() -> None:
    written = {
        code: int(cells[0])
        for cells in rows(page("http.md"))
        if len(cells) == 3 and cells[0].isdigit()
        for code in re.findall(r"`([a-z-]+)`", cells[1])
    }
    for kind in every(StrongroomError):
        status, _ = problems.status_of(kind.__new__(kind))
        if status != 503:
            assert written.pop(kind.code, None) == status, kind.code
    outside = {"bad-request": 400, "no-such-path": 404, "method-not-allowed": 405}
    assert {code: status for code, status in written.items() if status != 503} == outside


def commands() -> dict[str, set[str]]:
    """Command -> its long options."""
    found: dict[str, set[str]] = {}

    def walk(command: object, name: str) -> None:
        for sub, below in getattr(command, "commands", {}).items():
            walk(below, f"{name} {sub}")
        if not hasattr(command, "commands"):
            options = [option for parameter in command.params for option in parameter.opts]  # type: ignore[attr-defined]
            found[name] = {option for option in options if option.startswith("--")} - {"--help"}

    walk(typer.main.get_command(command_line), "strongroom")
    return found


def test_every_command_with_its_options() -> None:
    text = page("cli.md")
    shared = {cells[0].strip("`") for cells in rows(text.split("## `strongroom")[0]) if cells[0].startswith("`--")}
    written = {}
    for section in text.split("\n## `")[1:]:
        options = {option for cells in rows(section) for option in re.findall(r"`(--[a-z-]+)`", cells[0])}
        written[section.split("`")[0]] = options
    assert written == {name: options - shared for name, options in commands().items()}
    assert shared <= set().union(*commands().values())


def test_every_dependency_is_justified() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[<>=\[ ]", item)[0] for item in wanted}
    written = {cells[0].strip("`") for cells in rows(page("dependencies.md")) if cells[0].startswith("`")}
    assert written == names
    pinned = {line.split("==")[0].replace("_", "-").lower() for line in constraints()}
    assert names <= pinned


def constraints() -> list[str]:
    return [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if not line.startswith("#")]


def test_the_api_page_needs_no_internet(service: Service) -> None:
    html = service.call("GET", "/docs", role=None).text
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', html)
    for asset in re.findall(r'(?:src|href)="(/[^"]+)"', html):
        assert service.call("GET", asset, role=None).status_code == 200, asset
    described = service.call("GET", "/openapi.json", role=None).json()
    assert described["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert "422" not in str(described["paths"].values())


@pytest.mark.parametrize("path", sorted((REPOSITORY / "docs").glob("*.md")), ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target
