"""The queue that announces objects: Amazon SQS, as far as a puller needs it. Methods block.

A message stays invisible to others for VISIBILITY_SECONDS after it was received and after each `extend`; when this
process dies it comes back. `tries` is how often a message may be received before it counts as one that can't be taken:
the queue's own redrive policy, if it has one that gives up sooner, moves a message away at its next receive, and then
nobody would hear why.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from strongroom.ingest.errors import BucketRefused
from strongroom.ingest.fetch import aws
from strongroom.ingest.fetch.aws import Access

VISIBILITY_SECONDS = 120
_AT_ONCE = 10  # of SQS's batch calls


@dataclass(frozen=True, slots=True)
class Message:
    """A received message. `received`: how often so far, this time included."""

    id: str
    handle: str
    body: str
    received: int


class Queue(Protocol):
    """What a puller needs of a queue. All methods raise BucketUnavailable, BucketRefused."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def tries(self) -> int:
        """Receives after which a message that can't be taken is given up."""
        ...

    def receive(self, most: int, wait: int) -> list[Message]:
        """Up to `most` messages (at most 10), waiting up to `wait` seconds for the first."""
        ...

    def delete(self, messages: Sequence[Message]) -> int:
        """Delete messages; how many could not be (they come again)."""
        ...

    def extend(self, messages: Sequence[Message], seconds: int) -> None:
        """Keep messages invisible for `seconds` from now; 0 gives them back. A message that can't be is left alone."""
        ...

    @property
    def buries(self) -> bool:
        """Whether there is a dead-letter queue."""
        ...

    def bury(self, message: Message, reason: str) -> None:
        """Copy a message to the dead-letter queue, then delete it."""
        ...


class SqsQueue:
    """An SQS queue by its URL, name or ARN."""

    def __init__(self, access: Access, queue: str, *, dead_letter: str = "", tries: int = 5) -> None:
        """`dead_letter`: instead of the one in the queue's redrive policy. Raises BucketRefused, BucketUnavailable."""
        region = queue.split(":")[3] if queue.startswith("arn:") and queue.count(":") == 5 else ""
        self._client = aws.client("sqs", access, region)
        self._url = self._url_of(queue)
        with aws.translated(queue):
            found = self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=["RedrivePolicy"])
        redrive = json.loads(found.get("Attributes", {}).get("RedrivePolicy", "{}"))
        self._tries = min(tries, int(redrive.get("maxReceiveCount", tries)))
        target = dead_letter or redrive.get("deadLetterTargetArn", "")
        self._dead_letter = self._url_of(target) if target else ""

    @property
    def name(self) -> str:
        """The queue's URL."""
        return self._url

    @property
    def tries(self) -> int:
        """See Queue.tries."""
        return self._tries

    def receive(self, most: int, wait: int) -> list[Message]:
        """See Queue.receive."""
        with aws.translated(self._url):
            answer = self._client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=min(most, _AT_ONCE),
                WaitTimeSeconds=wait,
                VisibilityTimeout=VISIBILITY_SECONDS,
                AttributeNames=["ApproximateReceiveCount"],
            )
        return [
            Message(
                item["MessageId"],
                item["ReceiptHandle"],
                item.get("Body", ""),
                int(item.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
            )
            for item in answer.get("Messages", ())
        ]

    def delete(self, messages: Sequence[Message]) -> int:
        """See Queue.delete."""
        failed = 0
        for entries in _batches(messages):
            with aws.translated(self._url):
                answer = self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)
            failed += len(answer.get("Failed", ()))
        return failed

    def extend(self, messages: Sequence[Message], seconds: int) -> None:
        """See Queue.extend."""
        for entries in _batches(messages, VisibilityTimeout=seconds):
            with aws.translated(self._url):
                self._client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)

    @property
    def buries(self) -> bool:
        """See Queue.buries."""
        return bool(self._dead_letter)

    def bury(self, message: Message, reason: str) -> None:
        """See Queue.bury."""
        why = {"StringValue": reason[:1000] or "unknown", "DataType": "String"}
        with aws.translated(self._dead_letter):
            attributes = {"strongroom.reason": why}
            self._client.send_message(
                QueueUrl=self._dead_letter, MessageBody=message.body or " ", MessageAttributes=attributes
            )
        self.delete([message])

    def _url_of(self, queue: str) -> str:
        if queue.startswith(("https://", "http://")):
            return queue
        arguments: dict[str, Any] = {"QueueName": queue}
        if queue.startswith("arn:"):
            try:
                *_, account, name = queue.split(":")
            except ValueError:
                raise BucketRefused(f"{queue} is no queue's ARN") from None
            arguments = {"QueueName": name, "QueueOwnerAWSAccountId": account}
        with aws.translated(queue):
            return str(self._client.get_queue_url(**arguments)["QueueUrl"])


def _batches(messages: Sequence[Message], **members: int) -> list[list[dict[str, Any]]]:
    entries = [
        {"Id": str(number), "ReceiptHandle": message.handle, **members} for number, message in enumerate(messages)
    ]
    return [entries[start : start + _AT_ONCE] for start in range(0, len(entries), _AT_ONCE)]
