"""The log's side of witnessing: hand checkpoints to the policy's witnesses, and keep the cosignatures that come back.

Which witnesses there are, the policy file says (archive/policy.py). Those with a URL are sent every new checkpoint
(C2SP tlog-witness); those without come by themselves and leave their lines at `/tlog/cosignatures`. A cosignature is
kept as an object beside the log (`log/cosigned/<size>/<key id>`), only when it verifies under the policy.

A witness that refuses is never argued with: its answer is logged and shown, and verification finds the missing quorum.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import structlog

from strongroom.archive import layout, note, policy
from strongroom.archive.errors import FormatError, ObjectExists, ObjectMissing, StrongroomError
from strongroom.archive.log import Log
from strongroom.archive.note import Note
from strongroom.archive.policy import Policy, Witness, cosigners
from strongroom.archive.stores.store import ObjectStore
from strongroom.archive.witness import MAX_PROOF_LINES, Submission
from strongroom.service.errors import CosignatureRefused

log = structlog.get_logger(__name__)

MAX_COSIGNATURE_BYTES = 64 << 10
_TIMEOUT_SECONDS = 10.0


@dataclass(slots=True)
class Standing:
    """How far one witness has followed the log: the size it cosigned last, and what it said when it refused."""

    size: int = 0
    refusal: str = ""


@dataclass(slots=True)
class Cosigning:
    """Keeps the policy's witnesses up to date with one log. `policy_file` is read anew each round."""

    store: ObjectStore
    log: Log
    policy_file: Path
    seconds: float
    standings: dict[str, Standing] = field(default_factory=dict)

    async def run(self) -> None:
        """Submit whenever there is something new, until cancelled."""
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, follow_redirects=False) as client:
            while True:
                try:
                    await self.submit(client)
                except (StrongroomError, OSError) as error:
                    log.warning("cosigning failed", detail=str(error))
                await asyncio.sleep(self.seconds)

    async def submit(self, client: httpx.AsyncClient) -> None:
        """Hand the newest checkpoint to every witness with a URL that has not cosigned it."""
        asked = await asyncio.to_thread(self.policy)
        newest = await asyncio.to_thread(newest_checkpoint, self.store, self.log)
        if newest is None:
            return
        waiting = [w for w in asked.witnesses.values() if w.url and self._standing(w).size < newest[0]]
        await asyncio.gather(*(self._submit_to(client, witness, *newest) for witness in waiting))

    def accept(self, size: int, lines: bytes) -> list[str]:
        """Keep cosignature lines over the checkpoint of `size`; the policy names of the witnesses they are by.

        Raises ObjectMissing when there is no such checkpoint, CosignatureRefused when no line is by a witness of the
        policy, or one of theirs does not verify.
        """
        stored = self.store.get(layout.checkpoint_key(size))
        asked = self.policy()
        try:
            signed = note.parse(stored + lines)
            names = sorted(cosigners(signed, asked))
        except FormatError as error:
            raise CosignatureRefused(error.message) from None
        if not names:
            raise CosignatureRefused("no line is by a witness of this log's policy", hint="see the log's policy file")
        for name in names:
            key = asked.witnesses[name].key
            line = next(s.line() for s in signed.signatures if (s.name, s.key_id) == (key.name, key.key_id))
            with contextlib.suppress(ObjectExists):  # the same statement was made before, perhaps at another second
                self.store.create(layout.cosignature_key(size, key.key_id), f"{line}\n".encode())
            standing = self._standing(asked.witnesses[name])
            standing.size, standing.refusal = max(standing.size, size), ""
        return names

    def submission(self, old: int) -> Submission | None:
        """The request that takes a witness from size `old` to the newest checkpoint, None when there is none.

        Raises ValueError when `old` is beyond it.
        """
        newest = newest_checkpoint(self.store, self.log)
        if newest is None:
            return None
        size, signed = newest
        proof = self.log.consistency_proof(old, size) if old else []
        assert len(proof) <= MAX_PROOF_LINES
        return Submission(old, tuple(proof), signed)

    def policy(self) -> Policy:
        """The policy as it stands in its file. Raises FormatError, OSError."""
        return policy.parse(self.policy_file.read_text("utf-8"))

    def _standing(self, witness: Witness) -> Standing:
        if witness.name not in self.standings:
            self.standings[witness.name] = Standing(self._last_cosigned(witness))
        return self.standings[witness.name]

    def _last_cosigned(self, witness: Witness) -> int:
        suffix = f"/{witness.key.key_id.hex()}"
        found = (
            layout.size_of_statement(i.key) for i in self.store.list(layout.COSIGNATURES) if i.key.endswith(suffix)
        )
        return max((size for size in found if size is not None), default=0)

    async def _submit_to(self, client: httpx.AsyncClient, witness: Witness, size: int, signed: Note) -> None:
        standing = self._standing(witness)
        old = standing.size
        try:
            for _ in range(2):
                proof = self.log.consistency_proof(old, size) if old else []
                body = Submission(old, tuple(proof), signed).encode()
                answer = await client.post(f"{witness.url.rstrip('/')}/add-checkpoint", content=body)
                if answer.status_code != 409 or not answer.text.strip().isdigit() or int(answer.text) > size:
                    break
                old = int(answer.text)  # it remembers another size than we: prove from there
            if answer.status_code != 200:
                raise CosignatureRefused(f"{answer.status_code} {answer.text.strip()[:200]}")
            await asyncio.to_thread(self.accept, size, answer.content[:MAX_COSIGNATURE_BYTES])
        except (httpx.HTTPError, CosignatureRefused, ValueError) as error:
            standing.refusal = str(error) or type(error).__name__
            log.warning("a witness did not cosign", witness=witness.name, size=size, detail=standing.refusal)


def newest_checkpoint(store: ObjectStore, log: Log) -> tuple[int, Note] | None:
    """The newest checkpoint at or below the log's known size, None before the first."""
    for size in range(log.size, max(0, log.size - 64), -1):
        try:
            return size, note.parse(store.get(layout.checkpoint_key(size)))
        except ObjectMissing:
            continue
    return None
