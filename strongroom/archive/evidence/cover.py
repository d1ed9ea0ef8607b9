"""The pages of a bundle that are for people: README.txt and cover.html, from the two templates beside this file. Pure.

They prove nothing and say so. Records, names and custody come from anywhere, so everything is escaped, and characters
that could make text look like something else (controls, bidirectional marks) are spelled out. The page is
self-contained: no script runs, nothing is fetched, and it prints.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from strongroom.archive.evidence import layout
from strongroom.archive.evidence.commands import Command, algorithm, fingerprint, keys_of
from strongroom.archive.evidence.layout import Contents
from strongroom.archive.evidence.selection import Chosen, Record
from strongroom.archive.merkle import leaf_hash
from strongroom.archive.policy import Policy

SHOWN_BYTES = 2_000  # of a record
SHOWN_SEGMENTS = 200

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # Unicode categories that are not plainly visible


@dataclass(frozen=True, slots=True)
class Shown:
    """A record as the page shows it. `text`: its first bytes, readable; `sha256` and `leaf` (hex) of all of it."""

    number: int
    entry: int
    position: int
    row: int
    bytes: int
    sha256: str
    leaf: str
    text: str


def show(number: int, chosen: Chosen, record: Record) -> Shown:
    """What the page needs of one record of `records/<number>`."""
    return Shown(
        number,
        chosen.entry,
        chosen.position,
        record.row,
        len(record.raw),
        sha256(record.raw).hexdigest(),
        leaf_hash(record.nonce + record.raw).hex(),
        readable(record.raw[:SHOWN_BYTES].decode("utf-8", "replace")),
    )


def readable(text: str) -> str:
    """The text with every character that can't be seen spelled out; newlines and tabs stay."""
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in _HIDDEN else f"\\u{ord(char):04x}" for char in text
    )


def readme(contents: Contents, verifier_sha256: str) -> str:
    """README.txt."""
    return _template("README.txt").substitute(
        origin=readable(contents.origin),
        created=contents.created,
        records=_count(contents.records, "record"),
        segments=_count(len(contents.segments), "segment"),
        size=contents.checkpoint.size,
        root=contents.checkpoint.root,
        verifier=verifier_sha256,
    )


def html(
    contents: Contents,
    policy: Policy,
    custody: Mapping[str, Any],
    commands: Sequence[Command],
    shown: Sequence[Shown],
) -> str:
    """cover.html."""
    head = contents.checkpoint
    facts = [
        ("Log", contents.origin),
        ("Written", contents.created),
        ("Records", f"{contents.records} from {_count(len(contents.segments), 'segment')}"),
        ("Snapshot", f"{head.size} log entries"),
        ("Root", head.root),
    ]
    return _template("cover.html").substitute(
        title=_text(contents.origin),
        count=_count(contents.records, "record"),
        size=head.size,
        facts=_pairs(facts),
        custody=_pairs(_flat(custody)) if custody else "<p>Nothing was stated.</p>",
        segments=_segments(contents),
        keys=_keys(policy),
        commands="\n".join(_command(command) for command in commands),
        shown="All" if len(shown) == contents.records else f"The first {len(shown)} of {contents.records}",
        records="\n".join(_record(record) for record in shown),
    )


def _segments(contents: Contents) -> str:
    listed = contents.segments[:SHOWN_SEGMENTS]
    rows = [(n, s.key, f"{s.records} of {s.of}", s.entry, s.segment) for n, s in enumerate(listed, 1)]
    table = _table(("no.", "segment", "records", "entry", "position"), rows)
    rest = len(contents.segments) - len(listed)
    return table + (f"<p>… and {rest} more, in <code>bundle.json</code>.</p>" if rest else "")


def _keys(policy: Policy) -> str:
    witnesses = {witness.key: name for name, witness in policy.witnesses.items()}
    rows = [
        (
            f"witness {witnesses[key]}" if key in witnesses else "log",
            key.name,
            algorithm(key),
            key.key_id.hex(),
            fingerprint(key),
            layout.key_name(key),
        )
        for key in keys_of(policy)
    ]
    return _table(("of", "name", "algorithm", "key id", "SHA-256 of the public key", "file"), rows)


def _record(record: Shown) -> str:
    cut = f" (the first {SHOWN_BYTES} shown)" if record.bytes > SHOWN_BYTES else ""
    where = f"entry {record.entry} · segment {record.position} · row {record.row} · {record.bytes} bytes{cut}"
    digest = f"<p class=hash>SHA-256 {record.sha256}</p>"
    return f"<article><h3>{where}</h3>{digest}<pre>{escape(record.text)}</pre></article>"


def _command(command: Command) -> str:
    prints = f"<p>prints <code>{_text(command.prints)}</code></p>"
    return f"<dt>{_text(command.shows)}</dt><dd><pre>{escape(command.shell)}</pre>{prints}</dd>"


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested statements as (name, text); lists keep their order."""
    found: list[tuple[str, str]] = []
    for name, content in value.items():
        label = f"{prefix}{name}"
        if isinstance(content, Mapping):
            found += _flat(content, f"{label} · ")
        elif isinstance(content, list | tuple):
            found += _flat({str(number): item for number, item in enumerate(content, 1)}, f"{label} · ")
        else:
            found.append((label, str(content)))
    return found


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return "<dl class=facts>" + "".join(f"<dt>{_text(a)}</dt><dd>{_text(b)}</dd>" for a, b in pairs) + "</dl>"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = "".join(f"<th>{_text(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _text(text: str) -> str:
    return escape(readable(text))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _template(name: str) -> Template:
    return Template((Path(__file__).parent / name).read_text(encoding="utf-8"))
