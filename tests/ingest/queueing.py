"""A bucket whose objects are announced by a queue, on a real S3, SQS and SNS API."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import boto3

from strongroom.ingest.fetch.aws import Access
from strongroom.ingest.fetch.buckets import Buckets
from strongroom.ingest.fetch.objects import Perimeter
from strongroom.ingest.fetch.queues import SqsQueue
from tests.buckets import REGION, S3


@dataclass
class Announced:
    """A bucket and its queue; `tries` is the redrive policy's maxReceiveCount."""

    s3: S3
    tries: int = 3
    bucket: str = field(init=False)
    url: str = field(init=False)
    dead_url: str = field(init=False)

    def __post_init__(self) -> None:
        self.bucket = self.s3.new_bucket()
        self.dead_url, dead_arn = self._queue({})
        redrive = {"deadLetterTargetArn": dead_arn, "maxReceiveCount": self.tries}
        self.url, self.arn = self._queue({"RedrivePolicy": json.dumps(redrive)})

    @property
    def access(self) -> Access:
        return Access(REGION, self.s3.url)

    def client(self, service: str) -> Any:
        return boto3.client(service, region_name=REGION, endpoint_url=self.s3.url)

    def buckets(self) -> Buckets:
        return Buckets(self.access, Perimeter.parse(f"{self.bucket}=123456789012"))

    def queue(self) -> SqsQueue:
        return SqsQueue(self.access, self.url)

    def announce(self) -> None:
        """S3 → SQS, as a bucket is configured."""
        self._configure(QueueConfigurations=[{"QueueArn": self.arn, "Events": ["s3:ObjectCreated:*"]}])

    def announce_through_sns(self, *, raw: bool) -> None:
        """S3 → SNS → SQS."""
        sns = self.client("sns")
        topic = sns.create_topic(Name=f"t-{secrets.token_hex(4)}")["TopicArn"]
        attributes = {"RawMessageDelivery": "true"} if raw else {}
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=self.arn, Attributes=attributes)
        self._configure(TopicConfigurations=[{"TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}])

    def put(self, key: str, content: bytes) -> str:
        """Put an object; its version."""
        return self.s3.client.put_object(Bucket=self.bucket, Key=key, Body=content).get("VersionId", "")

    def send(self, message: Any) -> None:
        """Send a message by hand; the bucket it calls `central-logs` is this one."""
        body = json.dumps(message).replace("central-logs", self.bucket)
        self.client("sqs").send_message(QueueUrl=self.url, MessageBody=body)

    def waiting(self, url: str = "") -> int:
        """Messages in the queue, in flight included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client("sqs").get_queue_attributes(QueueUrl=url or self.url, AttributeNames=names)
        return sum(int(found["Attributes"][name]) for name in names)

    def dead(self) -> list[dict[str, Any]]:
        found = self.client("sqs").receive_message(
            QueueUrl=self.dead_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        return found.get("Messages", [])

    def _configure(self, **configuration: Any) -> None:
        self.s3.client.put_bucket_notification_configuration(
            Bucket=self.bucket, NotificationConfiguration=configuration
        )

    def _queue(self, attributes: dict[str, str]) -> tuple[str, str]:
        sqs = self.client("sqs")
        url = sqs.create_queue(QueueName=f"q-{secrets.token_hex(4)}", Attributes=attributes)["QueueUrl"]
        return url, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
