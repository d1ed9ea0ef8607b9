"""Settings: precedence, and errors that name the setting and where its value came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from strongroom.service.errors import SettingsInvalid
from strongroom.service.settings import load, unknown_variables


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "strongroom.toml"
    path.write_text('listen = "127.0.0.1:1"\nseal_age_seconds = 7\nspool_bytes = 9\n')
    return path


def test_options_beat_the_environment_beats_the_file_beats_defaults(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRONGROOM_LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("STRONGROOM_SEAL_AGE_SECONDS", "8")
    chosen = load(file, {"listen": "127.0.0.1:3", "archive": None})
    assert (chosen.port, chosen.seal_age_seconds, chosen.spool_bytes) == (3, 8, 9)
    assert chosen.archive == "var/archive"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LISTEN", "nowhere"),
        ("LISTEN", "127.0.0.1:70000"),
        ("SEAL_BYTES", "0"),
        ("ORIGIN", "two words"),
        ("WRITER", "Capital"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_bad_variable_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"STRONGROOM_{name}", value)
    with pytest.raises(SettingsInvalid, match=rf"setting {name.lower()} \(STRONGROOM_{name}\): "):
        load()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seal_bytes = 'many'", "setting seal_bytes"),
        ("no_such = 1", "setting no_such"),
        ("seal_bytes =", "settings file"),
        ("tls_key = 'pyproject.toml'", "tls_certificate and tls_key"),
        ("tls_key = '/no/such/file'", "setting tls_key"),
        ("archive = 'a'\nstate = 'a/state'", "state must not lie inside archive"),
    ],
)
def test_a_bad_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "strongroom.toml"
    path.write_text(text)
    with pytest.raises(SettingsInvalid, match=said) as caught:
        load(path)
    assert "strongroom.toml" in str(caught.value) or "must" in str(caught.value)


def test_a_misspelt_variable_is_noticed() -> None:
    environment = {"STRONGROOM_SEAL_BITES": "1", "STRONGROOM_CONFIG": "x", "STRONGROOM_LISTEN": "y", "PATH": "z"}
    assert unknown_variables(environment) == ["STRONGROOM_SEAL_BITES"]
