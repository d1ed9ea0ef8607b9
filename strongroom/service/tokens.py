"""Bearer tokens: what they are, and the file that keeps them.

Rules:

1. A token is `sr_<id>_<secret>`: 32 random bytes of secret, of which only the SHA-256 is stored. (A slow password hash
   would protect guessable secrets; these are not, and every request would pay for it.)
2. The store is one file, mode 0600, replaced atomically under a lock and read again when it changed, so a token
   revoked on the command line is dead at the running service's next request.
3. A store that can't be read is trouble of ours, not of the bearer (TokensUnavailable), and never an empty store.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from strongroom.archive import durable
from strongroom.archive.layout import SOURCE_NAME
from strongroom.archive.locks import exclusive
from strongroom.service.errors import BadToken, TokensUnavailable, Unauthenticated, UnknownToken

Role = Literal["forwarder", "investigator", "auditor", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

ANY_SOURCE = "*"
# What the service itself writes. Nobody may forge it, whatever his token says.
INTERNAL_SOURCES = frozenset({"audit", "quarantine"})


@dataclass(frozen=True, slots=True)
class Token:
    """One token as stored. Times are ISO 8601 in UTC; `sources` matters to forwarders only."""

    id: str
    sha256: str
    role: Role
    name: str
    created: str
    expires: str | None = None
    sources: tuple[str, ...] = ()
    quarantine_undecodable: bool = False

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and datetime.fromisoformat(self.expires) <= now

    def public(self) -> dict[str, Any]:
        """Everything but the hash, for people and for the audit."""
        shown = asdict(self)
        del shown["sha256"]
        return shown


@dataclass(frozen=True, slots=True)
class Principal:
    """The bearer of a token, for the length of one request."""

    token: str
    name: str
    role: Role
    sources: frozenset[str] = field(default_factory=frozenset)
    quarantine_undecodable: bool = False

    @property
    def label(self) -> str:
        """How archive and audit name him: the token's id cannot be forged by choosing a name."""
        return f"{self.name}#{self.token}"

    def may_ingest(self, source: str) -> bool:
        if source in INTERNAL_SOURCES:
            return False
        return self.role == "admin" or ANY_SOURCE in self.sources or source in self.sources


class TokenStore:
    """The tokens of one node, in one file. Safe to use from threads and from several processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}

    def initialise(self) -> None:
        """Create the empty store when there is none: from then on a missing file is trouble, not an empty store."""
        with self._exclusive():
            if not self._path.exists():
                self._write({})

    def tokens(self) -> list[Token]:
        """All tokens, oldest first. Raises TokensUnavailable."""
        return list(self._current().values())

    def create(
        self,
        role: Role,
        *,
        name: str,
        now: datetime,
        expires: datetime | None = None,
        sources: Collection[str] = (),
        quarantine_undecodable: bool = False,
    ) -> tuple[Token, str]:
        """A new token and its text, which exists nowhere else afterwards. Raises BadToken, TokensUnavailable."""
        _check(role, name, sources, quarantine_undecodable)
        if expires is not None and expires <= now:
            raise BadToken("expiry lies in the past", hint="give a later time")
        secret = secrets.token_urlsafe(32)
        token = Token(
            id=secrets.token_hex(4),
            sha256=_digest(secret),
            role=role,
            name=name,
            created=_iso(now),
            expires=_iso(expires) if expires else None,
            sources=tuple(sorted(set(sources))),
            quarantine_undecodable=quarantine_undecodable,
        )
        with self._exclusive():
            known = self._read() if self._path.exists() else {}
            self._write(known | {token.id: token})
        return token, f"sr_{token.id}_{secret}"

    def revoke(self, token_id: str) -> Token:
        """Forget a token. Raises UnknownToken, TokensUnavailable."""
        with self._exclusive():
            known = self._read()
            token = known.pop(token_id, None)
            if token is None:
                raise UnknownToken(f"no token {token_id!r}", hint="`strongroom token list` shows the ids")
            self._write(known)
        return token

    def authenticate(self, text: str, now: datetime) -> Principal:
        """The bearer of `text`. Raises Unauthenticated (never saying which part was wrong), TokensUnavailable."""
        prefix, _, rest = text.partition("_")
        token_id, _, secret = rest.partition("_")
        token = self._current().get(token_id)
        # An unknown id costs the same hash and comparison as a known one.
        matches = hmac.compare_digest(_digest(secret), token.sha256 if token else "0" * 64)
        if token is None or not matches or prefix != "sr" or token.expired(now):
            raise Unauthenticated("the token is not known or no longer valid", hint="`strongroom token create`")
        return Principal(token.id, token.name, token.role, frozenset(token.sources), token.quarantine_undecodable)

    def _current(self) -> dict[str, Token]:
        with self._lock:
            try:
                stat = self._path.stat()
                # The inode changes with every atomic replacement, also within the clock's resolution.
                seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
                if seen != self._seen:
                    self._tokens, self._seen = self._read(), seen
            except OSError as error:
                raise _unavailable(self._path, error) from error
            return self._tokens

    def _read(self) -> dict[str, Token]:
        try:
            stored = json.loads(self._path.read_bytes())
            tokens = [Token(**{**item, "sources": tuple(item["sources"])}) for item in stored["tokens"]]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _unavailable(self._path, error) from error
        return {token.id: token for token in tokens}

    def _write(self, tokens: dict[str, Token]) -> None:
        body = json.dumps({"tokens": [asdict(token) for token in tokens.values()]}, indent=1).encode()
        try:
            # Durable before it counts: a crash must not bring a revoked token back.
            durable.replace(self._path, body)
        except OSError as error:
            raise _unavailable(self._path, error) from error

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        try:
            with exclusive(self._path.with_suffix(".lock")):
                yield
        except OSError as error:
            raise _unavailable(self._path, error) from error


def _check(role: str, name: str, sources: Collection[str], quarantine_undecodable: bool) -> None:
    if role not in ROLES:
        raise BadToken(f"no role {role!r}", hint=f"roles: {', '.join(ROLES)}")
    if not name or len(name) > 100 or not name.isprintable():
        raise BadToken("a token needs a printable name of 1-100 characters", hint="say who or what will hold it")
    if role == "forwarder" and not sources:
        raise BadToken("a forwarder's token needs its sources", hint="--source cloudtrail, or --source '*' for any")
    if role != "forwarder" and (sources or quarantine_undecodable):
        raise BadToken(f"sources and quarantine belong to forwarders, not to role {role}", hint="leave them out")
    for source in sources:
        if source != ANY_SOURCE and not SOURCE_NAME.fullmatch(source):
            raise BadToken(f"{source!r} is no source name", hint=f"it must match {SOURCE_NAME.pattern}")
        if source in INTERNAL_SOURCES:
            raise BadToken(f"source {source} is written by the service alone", hint="name another source")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _unavailable(path: Path, error: Exception) -> TokensUnavailable:
    return TokensUnavailable(f"token store {path}: {error}", hint="`strongroom doctor` checks it")
