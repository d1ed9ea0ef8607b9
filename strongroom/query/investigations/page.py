"""docs/investigations.md, made from the library: `python -m strongroom.query.investigations.page > that file`."""

from __future__ import annotations

from strongroom.query.investigations import ADDRESS_COLUMNS, Investigation, library
from strongroom.query.questions.prepared import parameters_of

_HEAD = """# Ready investigations

Questions that need no SQL: `strongroom investigate NAME`, `POST /v1/investigations/NAME`, or
`client.investigate("NAME", …)`. Each is one TOML file in `strongroom/query/investigations/`, and this page is made from
these files. A test holds every one against a computation of its own over the raw records of real logs, a whole attack
among them.

Most take a window: `since` and `until` (ISO 8601; UTC unless they say). Without one, records that claim no time are
looked at too. Every row has `_segment` and `_row`: the address of the record itself or, where a row sums up many, of
the first of them (the largest, for sums). A proof and an evidence bundle start from there. Counts are of records: what
a service delivered twice counts twice. Techniques are those of MITRE ATT&CK.

| name | question |
|---|---|
"""


def rendered() -> str:
    """The whole page."""
    rows = "".join(f"| [`{item.name}`](#{item.name}) | {item.question} |\n" for item in library().values())
    return _HEAD + rows + "".join(_section(item) for item in library().values())


def _section(item: Investigation) -> str:
    lines = [f"\n## {item.name}\n", f"**{item.title}.** {item.question} {' '.join(item.shows.split())}\n"]
    facts = f"Reads {', '.join(f'`{source}`' for source in item.sources)}."
    if item.attack:
        facts += f" ATT&CK: {', '.join(item.attack)}."
    lines += [facts, ""]
    if parameters := parameters_of(item.sql, item.parameters):
        lines += ["| parameter | type | default | |", "|---|---|---|---|"]
        for parameter in parameters:
            default = "–" if parameter.default is None else f"`{parameter.default}`"
            lines.append(f"| `{parameter.name}` | {parameter.type} | {default} | {parameter.description} |")
        lines.append("")
    lines += ["| column | |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in (item.columns | ADDRESS_COLUMNS).items()]
    lines += ["", "Next:", "", *(f"* {text}" for text in item.follow_ups), ""]
    lines += ["<details><summary>SQL</summary>", "", "```sql", item.sql.strip(), "```", "", "</details>", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(rendered(), end="")
