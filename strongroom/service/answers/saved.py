"""Saved questions: SQL with parameters that somebody found worth keeping, under a name, in versions.

    <folder>/<name>/<version>.json

Rules: a version never changes; changing a question adds the next version, and who asked with an older one can still
see what it was. The first version's author owns the name (by his token's name); he and administrators may add versions
and delete it. Everybody who may ask, may ask it: questions are what a team shares, answers are not kept here.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from strongroom.archive import durable
from strongroom.archive.locks import exclusive
from strongroom.query.questions.prepared import SINCE, UNTIL, Parameter, Prepared, has_window, prepare
from strongroom.service.errors import SavedForbidden, SavedInvalid, UnknownSaved

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
MOST_NAMES, MOST_VERSIONS, MOST_PARAMETERS = 1000, 1000, 50
_PARAMETER = re.compile(r"[a-z_][a-z0-9_]{0,63}")


class Saved(msgspec.Struct, frozen=True):
    """One version of a saved question. `owner`: of the name; `author`: of this version."""

    name: str
    version: int
    owner: str
    author: str
    saved_at: datetime
    description: str
    sql: str
    parameters: tuple[Parameter, ...] = ()

    def prepare(self, given: Mapping[str, Any]) -> Prepared:
        """The question with its blanks filled. Raises ParameterInvalid."""
        return prepare(self.sql, self.parameters, given)


_decoder = msgspec.json.Decoder(Saved)  # made here: see archive/details.py


class SavedQuestions:
    """The saved questions of one node. Safe to use from threads and from several processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[Saved]:
        """The newest version of each, by name."""
        folders = sorted(path for path in self._folder.glob("*") if path.is_dir())
        return [self._read(versions[-1]) for path in folders if (versions := _versions(path))]

    def versions(self, name: str) -> list[Saved]:
        """Every version of one, the oldest first. Raises UnknownSaved."""
        found = _versions(self._at(name))
        if not found:
            raise UnknownSaved(f"there is no saved question {name!r}", hint="GET /v1/saved lists them")
        return [self._read(path) for path in found]

    def get(self, name: str, version: int | None = None) -> Saved:
        """One version, the newest by default. Raises UnknownSaved."""
        for saved in reversed(self.versions(name)):
            if version is None or saved.version == version:
                return saved
        raise UnknownSaved(f"{name!r} has no version {version}", hint="GET /v1/saved/{name} lists its versions")

    def may_change(self, name: str, author: str, *, admin: bool) -> None:
        """Raises SavedForbidden when the name is somebody else's, SavedInvalid when it can't be one."""
        if not NAME.fullmatch(name):
            raise SavedInvalid(f"{name[:80]!r} is no name", hint=f"it must match {NAME.pattern}")
        found = _versions(self._at(name))
        if found and not admin and self._read(found[-1]).owner != author:
            raise SavedForbidden(f"{name!r} belongs to somebody else", hint="save it under another name")

    def add(
        self,
        name: str,
        *,
        author: str,
        admin: bool,
        now: datetime,
        description: str,
        sql: str,
        parameters: Sequence[Parameter],
    ) -> Saved:
        """Keep the next version. Raises SavedInvalid, SavedForbidden, OSError."""
        _check(sql, parameters)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with exclusive(self._folder / ".lock"):
            self.may_change(name, author, admin=admin)
            folder = self._at(name)
            known = _versions(folder)
            if (not known and len(self.names()) >= MOST_NAMES) or len(known) >= MOST_VERSIONS:
                raise SavedInvalid("too many saved questions, or versions of this one", hint="delete what is not used")
            last = self._read(known[-1]) if known else None
            saved = Saved(
                name=name,
                version=last.version + 1 if last else 1,
                owner=last.owner if last else author,
                author=author,
                saved_at=now,
                description=description,
                sql=sql,
                parameters=tuple(parameters),
            )
            folder.mkdir(mode=0o700, exist_ok=True)
            durable.sync_folder(self._folder)
            durable.replace(folder / f"{saved.version:06}.json", msgspec.json.encode(saved))
            return saved

    def delete(self, name: str, author: str, *, admin: bool) -> Saved:
        """Remove all versions; the newest, for the audit. Raises UnknownSaved, SavedForbidden, OSError."""
        with exclusive(self._folder / ".lock"):
            newest = self.get(name)
            self.may_change(name, author, admin=admin)
            shutil.rmtree(self._at(name))
            durable.sync_folder(self._folder)
            return newest

    def _at(self, name: str) -> Path:
        """The folder of a name, one that can't exist for what is no name."""
        return self._folder / (name if NAME.fullmatch(name) else ".none")

    def _read(self, path: Path) -> Saved:
        try:
            return _decoder.decode(path.read_bytes())
        except FileNotFoundError:
            raise UnknownSaved(f"{path.parent.name!r} was deleted", hint="GET /v1/saved lists what there is") from None
        except msgspec.DecodeError as error:
            raise SavedInvalid(f"{path}: {error}", hint="restore the file, or delete it") from None


def _versions(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.json"))


def _check(sql: str, parameters: Sequence[Parameter]) -> None:
    names = [parameter.name for parameter in parameters]
    if len(names) > MOST_PARAMETERS or len(set(names)) != len(names):
        raise SavedInvalid("parameters must be few, and have different names")
    for name in names:
        if not _PARAMETER.fullmatch(name) or (has_window(sql) and name in (SINCE, UNTIL)):
            raise SavedInvalid(f"{name[:80]!r} can't be a parameter's name", hint=f"it must match {_PARAMETER.pattern}")
        if f"${name}" not in sql:
            raise SavedInvalid(
                f"the parameter {name!r} is not in the statement", hint=f"write ${name} where it belongs"
            )
    for parameter in parameters:
        if parameter.default is not None:
            prepare("$x", (msgspec.structs.replace(parameter, name="x", default=None),), {"x": parameter.default})
        if parameter.entity:
            raise SavedInvalid(
                "`entity` is for ready investigations", hint="leave it out: the statement says it itself"
            )
