"""A witness: sees checkpoints of a log, checks that each extends the last one it saw, and cosigns (C2SP tlog-witness).

It knows no log content: only tree heads and consistency proofs. What it cosigned last is its memory, one file a log,
on a machine that the log's administrators do not run. The rules of `add-checkpoint`, in order:

1. the body parses                                                                        else 400
2. the origin is a log this witness knows                                                 else 404
3. every key of that log has signed                                                       else 403
4. `old` is the size in memory, and not above the checkpoint's size                       else 409 with that size, 400
5. same size: same root                                                                   else 409
6. the consistency proof from memory to checkpoint holds                                  else 422
7. the new checkpoint is made durable, under a lock, *before* the cosignature is given out

5 and 6 mean that the log's history was rewritten: no honest log does that. Both checkpoints are kept as a fork report:
each is signed by the log, together they prove it.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from strongroom.archive import durable, note
from strongroom.archive.errors import ArchiveError, FormatError
from strongroom.archive.merkle import EMPTY_ROOT, ProofError, verify_consistency
from strongroom.archive.note import Checkpoint, Note, NoteSigner, VerifierKey

MAX_PROOF_LINES = 63


class WitnessRefusal(ArchiveError):
    """The witness will not cosign. `status` is the HTTP status of C2SP tlog-witness; `size` accompanies 409."""

    code = "witness-refusal"

    def __init__(self, status: int, message: str, *, size: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.size = size


@dataclass(frozen=True, slots=True)
class Submission:
    """An `add-checkpoint` request: the size the witness should have seen, the proof from there, the checkpoint."""

    old: int
    proof: tuple[bytes, ...]
    note: Note

    def encode(self) -> bytes:
        """The request body."""
        lines = [f"old {self.old}", *(base64.b64encode(node).decode() for node in self.proof)]
        return ("\n".join(lines) + "\n\n" + self.note.encode()).encode()


def parse_submission(body: bytes) -> Submission:
    """The request a body states. Raises FormatError."""
    head, separator, tail = body.partition(b"\n\n")
    lines = head.decode("ascii", "replace").split("\n")
    size = lines[0].removeprefix("old ")
    if not separator or not lines[0].startswith("old ") or not size.isascii() or not size.isdigit() or len(size) > 19:
        raise FormatError("add-checkpoint: must begin with `old <size>`, hashes, and an empty line")
    if len(lines) - 1 > MAX_PROOF_LINES:
        raise FormatError("add-checkpoint: the proof is too long")
    try:
        proof = tuple(base64.b64decode(line, validate=True) for line in lines[1:])
    except (binascii.Error, ValueError):
        raise FormatError("add-checkpoint: the proof is not base64") from None
    return Submission(int(size), proof, note.parse(tail))


class WitnessServer:
    """Cosigns for any number of logs. Safe for several threads and processes over one state folder."""

    def __init__(self, signer: NoteSigner, logs: Sequence[Sequence[VerifierKey]], state: Path) -> None:
        """`logs`: for each log its keys, all of which must sign. `state`: the memory, one file a log."""
        self._signer = signer
        self._logs = {keys[0].name: tuple(keys) for keys in logs}
        self._state = state
        state.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def key(self) -> VerifierKey:
        """The witness's own public key."""
        return self._signer.key

    def last(self, origin: str) -> Checkpoint | None:
        """The checkpoint of `origin` this witness cosigned last."""
        stored = self._recall(origin)
        return None if stored is None else note.parse_checkpoint(stored.text)

    def add_checkpoint(self, body: bytes, now: datetime) -> str:
        """Check and cosign; returns the signature line(s), each with its newline. Raises WitnessRefusal."""
        try:
            submission = parse_submission(body)
            offered = note.parse_checkpoint(submission.note.text)
        except FormatError as error:
            raise WitnessRefusal(400, error.message) from None
        self._must_be_signed(submission.note, offered.origin)
        with self._locked(offered.origin):
            stored = self._recall(offered.origin)
            seen = note.parse_checkpoint(stored.text) if stored else Checkpoint(offered.origin, 0, EMPTY_ROOT)
            self._must_extend(seen, offered, submission, stored)
            durable.replace(self._path(offered.origin), submission.note.encode().encode())
        cosigned = note.sign(submission.note.text, [self._signer], int(now.timestamp()))
        return "".join(signature.line() + "\n" for signature in cosigned.signatures)

    def _must_be_signed(self, signed: Note, origin: str) -> None:
        keys = self._logs.get(origin)
        if keys is None:
            raise WitnessRefusal(404, f"this witness does not know the log {origin!r}")
        try:
            missing = set(keys) - set(note.verify(signed, keys))
        except FormatError as error:
            raise WitnessRefusal(403, error.message) from None
        if missing:
            raise WitnessRefusal(403, f"not signed by {', '.join(key.key_id.hex() for key in missing)} of {origin!r}")

    def _must_extend(self, seen: Checkpoint, offered: Checkpoint, submission: Submission, stored: Note | None) -> None:
        if submission.old > offered.size:
            raise WitnessRefusal(400, f"old size {submission.old} is above the checkpoint's {offered.size}")
        if submission.old != seen.size:
            raise WitnessRefusal(409, f"this witness has seen size {seen.size}", size=seen.size)
        if offered.size == seen.size:
            if offered.root != seen.root:
                self._report_fork(stored, submission)
                raise WitnessRefusal(409, f"another root was cosigned at size {seen.size}", size=seen.size)
            return
        try:
            if seen.size == 0:
                if submission.proof:
                    raise ProofError("nothing is to be proven from size 0")
            else:
                verify_consistency(seen.size, offered.size, submission.proof, seen.root, offered.root)
        except ProofError as error:
            self._report_fork(stored, submission)
            raise WitnessRefusal(422, f"no consistency from size {seen.size} to {offered.size}: {error}") from None

    def _report_fork(self, stored: Note | None, submission: Submission) -> None:
        """Keep what was seen and what was offered: two statements signed by the log that can't both be true."""
        if stored is None:
            return
        report = {
            "what": "two signed checkpoints of one log that no append-only history has",
            "cosigned": stored.encode(),
            "offered": submission.note.encode(),
            "proof_offered": [base64.b64encode(node).decode() for node in submission.proof],
        }
        text = json.dumps(report, indent=1).encode()
        name = f"fork-{sha256(text).hexdigest()[:16]}.json"
        if not (self._state / name).exists():
            durable.replace(self._state / name, text)

    def _path(self, origin: str) -> Path:
        return self._state / f"{sha256(origin.encode()).hexdigest()}.checkpoint"

    def _recall(self, origin: str) -> Note | None:
        try:
            return note.parse(self._path(origin).read_bytes())
        except FileNotFoundError:
            return None

    @contextmanager
    def _locked(self, origin: str) -> Iterator[None]:
        descriptor = os.open(self._path(origin).with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
