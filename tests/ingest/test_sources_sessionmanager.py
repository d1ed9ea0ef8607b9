"""Session Manager: streamed objects and transcripts."""

from __future__ import annotations

from datetime import UTC, datetime

from strongroom.ingest.sources import SOURCES
from tests.ingest.rows import derived, events, some

STREAMED = (
    b'{"eventVersion":"1.0","eventTime":"2024-04-05T06:07:08Z","awsRegion":"eu-central-1","target":{"id":"i-0123"},'
    b'"userIdentity":{"arn":"arn:aws:sts::111122223333:assumed-role/Ops/alice"},"runAsUser":"ssm-user",'
    b'"sessionId":"alice-0a1b","sessionData":["sh-4.2$ id","uid=1001(ssm-user)"]}'
)
TRANSCRIPT = (
    b"Script started on 2024-04-05 06:07:08+0000 [<not executed on terminal>]\r\n"
    b"\x1b[?1034hsh-4.2$ id\r\nuid=1001(ssm-user)\r\n\r\nScript done on 2024-04-05 06:09:00+0000\n"
)


def test_streamed() -> None:
    (row,) = derived("sessionmanager", STREAMED)
    some(
        row,
        account="111122223333",
        region="eu-central-1",
        instance_id="i-0123",
        session_id="alice-0a1b",
        run_as_user="ssm-user",
        session_data=["sh-4.2$ id", "uid=1001(ssm-user)"],
        event_time=datetime(2024, 4, 5, 6, 7, 8, tzinfo=UTC),
        started_at=None,
    )
    (event,) = events("sessionmanager", STREAMED)
    some(event, actor="arn:aws:sts::111122223333:assumed-role/Ops/alice", message="sh-4.2$ id\nuid=1001(ssm-user)")


def test_a_transcript_is_its_lines_control_sequences_and_all() -> None:
    found = SOURCES["sessionmanager"].split(TRANSCRIPT)
    assert found.raw == [line.rstrip(b"\r") for line in TRANSCRIPT.split(b"\n") if line.strip()]
    rows = derived("sessionmanager", TRANSCRIPT)
    started, done = (datetime(2024, 4, 5, 6, *at, tzinfo=UTC) for at in ((7, 8), (9, 0)))
    assert [r["event_time"] for r in rows] == [started, None, None, done]
    assert {r["started_at"] for r in rows} == {started}
    some(rows[1], session_data=["\x1b[?1034hsh-4.2$ id"], session_id=None)
