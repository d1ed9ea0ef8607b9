"""Tokens and the file that keeps them."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from strongroom.service.errors import BadToken, TokensUnavailable, Unauthenticated, UnknownToken
from strongroom.service.tokens import TokenStore

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    store = TokenStore(tmp_path / "tokens.json")
    store.initialise()
    return store


def test_the_secret_is_stored_nowhere(store: TokenStore, tmp_path: Path) -> None:
    _, text = store.create("admin", name="me", now=NOW)
    secret = text.split("_", 2)[2]
    stored = (tmp_path / "tokens.json").read_text()
    assert secret not in stored
    assert stat.S_IMODE((tmp_path / "tokens.json").stat().st_mode) == 0o600
    assert store.authenticate(text, NOW).role == "admin"


def test_another_process_sees_what_changed(store: TokenStore, tmp_path: Path) -> None:
    other = TokenStore(tmp_path / "tokens.json")
    token, text = store.create("investigator", name="alice", now=NOW)
    assert other.authenticate(text, NOW).name == "alice"
    store.revoke(token.id)
    with pytest.raises(Unauthenticated):
        other.authenticate(text, NOW)


@pytest.mark.parametrize(
    "change", [lambda t: t + "x", lambda t: t[:-1], lambda t: "xx" + t[2:], lambda t: "", str.upper]
)
def test_a_changed_token_is_refused(store: TokenStore, change: Any) -> None:
    _, text = store.create("admin", name="me", now=NOW)
    with pytest.raises(Unauthenticated):
        store.authenticate(change(text), NOW)


def test_a_token_ends_when_it_says(store: TokenStore) -> None:
    _, text = store.create("admin", name="me", now=NOW, expires=NOW + timedelta(days=1))
    assert store.authenticate(text, NOW + timedelta(hours=23))
    with pytest.raises(Unauthenticated):
        store.authenticate(text, NOW + timedelta(days=1))


def test_a_lost_store_is_trouble_not_emptiness(store: TokenStore, tmp_path: Path) -> None:
    _, text = store.create("admin", name="me", now=NOW)
    (tmp_path / "tokens.json").unlink()
    with pytest.raises(TokensUnavailable):
        store.authenticate(text, NOW)


@pytest.mark.parametrize(
    "wanted",
    [
        {"role": "forwarder", "name": "f"},
        {"role": "forwarder", "name": "f", "sources": ["audit"]},
        {"role": "forwarder", "name": "f", "sources": ["No Such Name"]},
        {"role": "investigator", "name": "i", "sources": ["json"]},
        {"role": "auditor", "name": "a", "quarantine_undecodable": True},
        {"role": "admin", "name": ""},
        {"role": "admin", "name": "line\nbreak"},
        {"role": "emperor", "name": "e"},
        {"role": "admin", "name": "late", "expires": NOW},
    ],
)
def test_what_makes_no_sense_is_not_made(store: TokenStore, wanted: dict[str, Any]) -> None:
    with pytest.raises(BadToken):
        store.create(wanted.pop("role"), now=NOW, **wanted)
    assert store.tokens() == []


def test_revoking_an_unknown_token_says_so(store: TokenStore) -> None:
    with pytest.raises(UnknownToken):
        store.revoke("ffffffff")
