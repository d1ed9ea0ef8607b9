"""docs/findings.md says what the code says."""

from pathlib import Path

from strongroom.archive.verification.findings import CATALOGUE

PAGE = Path(__file__).parents[2] / "docs" / "findings.md"


def test_every_finding_has_its_line() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    expected = [
        f"| `{code}` | {kind.severity} | {kind.meaning} | {kind.next_step} |" for code, kind in CATALOGUE.items()
    ]
    assert rows == expected, "regenerate the table from strongroom/archive/verification/findings.py"
