"""A report as a page for people: one file, no script, nothing fetched, fit for paper.

Everything that stands in it may come from whoever changed the archive, so every value is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from strongroom.service.checking.reports import Filed

_WORDS = {
    "sound": "Everything this level looks at is as it was sealed.",
    "sound so far, unsigned tail": "Everything signed is as it was sealed; the newest entries await their signature.",
    "warning": "Nothing was changed, but something needs attention.",
    "tampered": "Something is not as it was sealed. Act on the findings below.",
    "incomplete check": "Not everything could be looked at. What was looked at is as it was sealed.",
}
_COLOURS = {"sound": "#1a6b37", "tampered": "#a11212"}

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; white-space: nowrap; width: 12rem; }
th, td { padding: .25rem .5rem; border-bottom: 1px solid #8884; vertical-align: top; }
td, code { overflow-wrap: anywhere; } code { font-size: .9em; }
.verdict { font-size: 1.6rem; font-weight: 600; }
section { break-inside: avoid; }
@media print { body { margin: 0; max-width: none; font-size: 11pt; } }
"""


def render(report: Mapping[str, Any], filed: Filed, signed: int) -> str:
    """The page. `signed`: size of the newest checkpoint, 0 before the first."""
    verdict = str(report.get("verdict", ""))
    cost, findings = report.get("cost", {}), report.get("findings", [])
    facts = {
        "Log": report.get("origin"),
        "Level": report.get("level"),
        "Begun, ended": f"{report.get('started')} – {report.get('finished')}",
        "Tree": f"{report.get('size')} entries, root {report.get('root')}",
        "Newest checkpoint": report.get("checkpoint"),
        "Witnessed up to": report.get("witnessed"),
        **{str(name).replace("_", " ").capitalize(): count for name, count in report.get("counts", {}).items()},
        "Cost": f"{cost.get('milliseconds', 0) / 1000:g} s, {cost.get('bytes_read', 0):,} bytes read of "
        f"{cost.get('bytes_held', 0):,} held",
    }
    return "\n".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Verification {escape(filed.report)}: {escape(verdict)}</title><style>{_STYLE}</style>",
            f"<h1>Verification report</h1><p><code>{escape(filed.report)}</code></p>",
            f'<p class="verdict" style="color:{_COLOURS.get(verdict, "#8a5a00")}">{escape(verdict)}</p>',
            f"<p>{escape(_WORDS.get(verdict, ''))}</p>",
            _table(facts),
            f"<h2>Findings ({len(findings)})</h2>",
            *([_finding(finding) for finding in findings] or ["<p>None.</p>"]),
            *_list("Not looked at", report.get("incomplete", [])),
            *_list("Notes", report.get("notes", [])),
            "<h2>How to check this report</h2>",
            _table(
                {
                    "Object": filed.object.key,
                    "SHA-256": filed.object.sha256,
                    "Named by entry": filed.entry,
                    "Written by": f"{filed.by} at {filed.written_at}",
                    "Signed": f"yes, by checkpoint {signed} and later"
                    if signed > filed.entry
                    else "not yet: no checkpoint covers its entry",
                }
            ),
            "<p>The report has no signature of its own: its entry commits to its SHA-256, and the checkpoint's keys, "
            "witnesses and timestamps stand behind the entry. <code>GET /v1/proofs/inclusion?entry="
            f"{filed.entry}</code> gives the proof; <code>sha256sum</code> of the JSON form gives the hash.</p>",
            "</html>",
        ]
    )


def _finding(finding: Mapping[str, Any]) -> str:
    shown = {
        "Object": finding.get("object"),
        "Expected": finding.get("expected"),
        "Found": finding.get("actual"),
        "Where": json.dumps(finding.get("where", {}), ensure_ascii=False),
        "Last good, first bad": f"{finding.get('last_good', '–')}, {finding.get('first_bad', '–')}",
        "What to do": finding.get("next_step"),
    }
    title = f"{finding.get('code')} ({finding.get('severity')})"
    return f"<section><h3>{escape(title)}</h3><p>{escape(str(finding.get('meaning')))}</p>{_table(shown)}</section>"


def _table(facts: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in facts.items())
    return f"<table>{rows}</table>"


def _list(title: str, items: Iterable[Any]) -> list[str]:
    lines = "".join(f"<li>{escape(str(item))}</li>" for item in items)
    return [f"<h2>{title}</h2><ul>{lines}</ul>"] if lines else []
