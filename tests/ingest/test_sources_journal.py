"""What the journal's messages say of logins, and of whom they are believed."""

from __future__ import annotations

from tests.ingest.rows import events, sample, some
from tests.ingest.samples import SAMPLES, body

NAME = "written-logins.export"


def test_logins_are_read_of_the_program_that_the_journal_saw() -> None:
    accepted, opened, failed, gone, claimed, other = sample("journal", NAME)
    some(accepted, user_name="alice", source_address="198.51.100.24", source_port=50122, result="success")
    some(opened, user_name="alice", source_address=None, result="success", severity="informational")
    some(failed, user_name="admin", source_address="203.0.113.77", result="denied", severity="notice")
    some(gone, user_name="alice", result=None)
    some(claimed, program="sshd", user_name=None, source_address=None, result=None)
    some(other, user_name=None)
    shown = events("journal", body(SAMPLES / "journal" / NAME))
    assert [row["actor"] for row in shown] == ["alice", "alice", "admin", "alice", "uid 0", "uid 0"]
    assert [row["outcome"] for row in shown] == ["success", "success", "denied", None, None, None]


def test_no_field_can_pass_for_what_is_read_out_of_others() -> None:
    (row,) = events("journal", b"__CURSOR=s=1\n^user_name=root\n^result=success\n^severity=debug\nMESSAGE=x\n\n")
    some(row, actor=None, outcome=None, severity=None)
