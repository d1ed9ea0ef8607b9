"""A client of the service for Python: questions in, Arrow tables out, with what each answer rests on.

    from strongroom.client import Client

    with Client("http://127.0.0.1:8420", token) as archive:
        answer = archive.query("SELECT * FROM cloudtrail WHERE access_key_id = $key", {"key": "AKIA…"})
        answer.table, answer.snapshot, answer.segments, answer.to_pandas()

It speaks HTTP and imports nothing of the server, so it can be used, vendored or rewritten on its own. docs/notebook.md
is a walk through it.
"""

from strongroom.client.answers import Answer, Basis, Entity, Estimate, Hit, Snapshot, Timeline
from strongroom.client.connection import Client
from strongroom.client.errors import (
    AnswerBroken,
    ArchiveDamaged,
    ClientError,
    Forbidden,
    NotFound,
    Problem,
    Refused,
    Unavailable,
    Unreachable,
)
from strongroom.client.jobs import Job, JobFailed

__all__ = [
    "Answer",
    "AnswerBroken",
    "ArchiveDamaged",
    "Basis",
    "Client",
    "ClientError",
    "Entity",
    "Estimate",
    "Forbidden",
    "Hit",
    "Job",
    "JobFailed",
    "NotFound",
    "Problem",
    "Refused",
    "Snapshot",
    "Timeline",
    "Unavailable",
    "Unreachable",
]
