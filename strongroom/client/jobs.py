"""Jobs: questions asked now and fetched later."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from strongroom.client.answers import Answer
from strongroom.client.errors import ClientError

if TYPE_CHECKING:
    from strongroom.client.connection import Client

_ENDED = ("done", "failed", "cancelled", "lost")


class JobFailed(ClientError):
    """A job that ended without a result. `state` is failed, cancelled or lost; `problem` is the service's reason."""

    def __init__(self, state: str, problem: dict[str, Any]) -> None:
        super().__init__(f"the job {state}: {problem.get('detail') or 'no reason given'}")
        self.state, self.problem = state, problem


class Job:
    """One job. `facts` are as the service told them last; `refresh` asks again."""

    def __init__(self, client: Client, facts: dict[str, Any]) -> None:
        self._client, self.facts = client, facts
        self.id = str(facts["id"])

    @property
    def state(self) -> str:
        """queued, running, done, failed, cancelled or lost, as far as we were told."""
        return str(self.facts["state"])

    def refresh(self) -> Job:
        """Ask where it stands."""
        self.facts = self._client.json("GET", f"/v1/queries/{self.id}")
        return self

    def wait(self, seconds: float | None = None) -> Job:
        """Until it has ended. Raises TimeoutError, and JobFailed when there is no result."""
        started, pause = time.monotonic(), 0.1
        while self.refresh().state not in _ENDED:
            if seconds is not None and time.monotonic() - started >= seconds:
                raise TimeoutError(f"job {self.id} is {self.state} after {seconds:g} seconds")
            time.sleep(pause)
            pause = min(2.0, pause * 1.5)
        if self.state != "done":
            raise JobFailed(self.state, self.facts.get("problem", {}))
        return self

    def answer(self) -> Answer:
        """The result, as often as you like until it expires. Raises Refused while there is none."""
        return self._client.read("GET", f"/v1/queries/{self.id}/result")

    def segments(self) -> list[str]:
        """The segments it was read from."""
        names: list[str] = self._client.json("GET", f"/v1/queries/{self.id}/segments")["segments"]["names"]
        return names

    def cancel(self) -> Job:
        """End it, when it has not ended by itself; a job that has is removed."""
        told = self._client.json("DELETE", f"/v1/queries/{self.id}")
        self.facts = told if "id" in told else {**self.facts, "state": "removed"}
        return self
