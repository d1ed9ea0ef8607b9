"""Cuts: which spooled batches are sealed together, decided once.

A cut is written down, durably, before anything is built from it. Its range fixes the names of its segments, its random
seed fixes their secrets and the details' salts, and everything else is a function of the batches; so sealing it again
after a crash rebuilds the same objects byte for byte and finds them in the store. A cut whose building kills the worker
process is replaced by smaller ones, and in the end by one batch that is quarantined `whole`, undecoded.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from strongroom.archive import durable
from strongroom.ingest.errors import SpoolDamaged


class Cut(msgspec.Struct, frozen=True, omit_defaults=True):
    """The batches first … last of the writer's epoch; `seed` is 32 random bytes in hex."""

    first: int
    last: int
    seed: str
    whole: bool = False

    def secret(self, purpose: str) -> bytes:
        """32 bytes for one use, such as a segment's name: HMAC-SHA256(seed, purpose)."""
        return hmac.digest(bytes.fromhex(self.seed), purpose.encode(), "sha256")

    def smaller(self) -> list[Cut]:
        """What to seal instead when this cut can't be built: its halves, or its one batch as it is."""
        if self.first == self.last:
            return [new_cut(self.first, self.last, whole=True)]
        middle = (self.first + self.last) // 2
        return [new_cut(self.first, middle), new_cut(middle + 1, self.last)]


def new_cut(first: int, last: int, *, whole: bool = False) -> Cut:
    """A cut with a fresh seed."""
    return Cut(first, last, secrets.token_hex(32), whole)


class Cuts:
    """The cuts that are decided and not yet released, in order, kept in one file."""

    def __init__(self, path: Path, decide: Callable[[Cut], None] = lambda _: None) -> None:
        """`decide` hears of each cut before it counts. Raises SpoolDamaged when the file is there but not readable."""
        self._path = path
        self._decide = decide
        try:
            self.pending = msgspec.json.decode(path.read_bytes(), type=list[Cut])
        except FileNotFoundError:
            self.pending = []
        except msgspec.DecodeError as error:
            raise SpoolDamaged(
                f"{path}: {error}",
                hint="remove it: its batches are cut again, objects put before are reported as orphans",
            ) from None

    def add(self, cut: Cut) -> None:
        """Decide a cut. Raises OSError, and what `decide` raises."""
        self._decide(cut)
        self._keep([*self.pending, cut])

    def replace(self, cut: Cut, by: Sequence[Cut]) -> None:
        """Decide otherwise: nothing of `cut` is in the log. Raises OSError, and what `decide` raises."""
        for smaller in by:
            self._decide(smaller)
        place = self.pending.index(cut)
        self._keep([*self.pending[:place], *by, *self.pending[place + 1 :]])

    def done(self, cut: Cut) -> None:
        """The cut is sealed. Raises OSError."""
        self.replace(cut, [])

    def _keep(self, cuts: list[Cut]) -> None:
        durable.replace(self._path, msgspec.json.encode(cuts))
        self.pending = cuts
