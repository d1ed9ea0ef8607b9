"""Pulling from real S3, SQS and SNS APIs: what is announced is sealed once, and only then is its message deleted."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from strongroom.ingest.errors import BucketUnavailable
from strongroom.ingest.fetch.buckets import Buckets, S3Download
from strongroom.ingest.fetch.objects import S3Object
from strongroom.ingest.fetch.pull import Puller
from strongroom.ingest.fetch.queues import Message, SqsQueue
from strongroom.ingest.intake import Intake
from tests.buckets import S3
from tests.ingest.conftest import House, events, lines, records, run
from tests.ingest.queueing import Announced
from tests.ingest.test_notifications import created, from_eventbridge

Acts = list[tuple[str, str, dict[str, Any]]]


def puller(place: Announced, intake: Intake, acts: Acts, **parts: Any) -> Puller:
    async def report(what: str, target: str, facts: dict[str, Any]) -> None:
        acts.append((what, target, facts))

    given: dict[str, Any] = {"queue": place.queue(), "source": place.buckets()} | parts
    return Puller(intake=intake, report=report, concurrency=4, poll_seconds=1, **given)


async def drained(place: Announced, house: House, **parts: Any) -> tuple[Puller, Acts]:
    """Pull until the queue is empty, sealing soon."""
    intake, acts = await house.open(seal_age_seconds=0.1), Acts()
    made = puller(place, intake, acts, **parts)
    await made.run(until_empty=True)
    await intake.stop()
    return made, acts


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def test_whatever_announces_it_an_object_is_sealed_once(s3: S3, house: House) -> None:
    place = Announced(s3)

    async def test() -> None:
        place.announce()  # S3 sends a test event first
        first = place.put("AWSLogs/a b+ä.json", records(1, 2))
        place.announce_through_sns(raw=False)
        place.put("AWSLogs/2.json.gz", gzip.compress(records(3)))
        place.announce_through_sns(raw=True)
        place.put("AWSLogs/3.json.gz", gzip.compress(events(4, 5)))
        place.put("AWSLogs/", b"")
        again = {"version-id": first, "size": len(records(1, 2))}
        for _ in range(2):
            place.send(from_eventbridge("Object Created", "AWSLogs/a b+ä.json", **again))
        place.send({"Records": [created("AWSLogs/2.json.gz", name="ObjectRemoved:Delete")]})
        made, acts = await drained(place, house)
        counts = made.counts
        assert (counts.objects, counts.duplicates, counts.empty, counts.gone, acts) == (5, 2, 1, 0, [])
        assert counts.ignored >= 1
        assert place.waiting() == 0

    run(test)
    sealed = sorted(house.sealed(), key=lambda batch: batch.name)
    assert [(batch.source, batch.protocol) for batch in sealed] == [
        ("json", "sqs"),
        ("cloudtrail", "sqs"),
        ("json", "sqs"),
    ]
    assert all(batch.name.startswith(f"s3://{place.bucket}/AWSLogs/") for batch in sealed)
    assert all("?versionId=" in batch.name for batch in sealed)
    assert lines([records(1, 2), records(3)]) <= house.raws()
    assert sum(house.raws().values()) == 5
    house.must_be_sound()


def test_an_object_that_was_replaced_is_taken_in_the_version_announced(s3: S3, house: House) -> None:
    place = Announced(s3)

    async def test() -> None:
        old = place.put("k.json", records(1))
        new = place.put("k.json", records(2))
        for version in (new, old):  # and out of order
            place.send({"Records": [created("k.json", versionId=version)]})
        made, _ = await drained(place, house)
        assert (made.counts.objects, made.counts.duplicates) == (2, 0)

    run(test)
    assert house.raws() == lines([records(1), records(2)])


def test_a_message_is_deleted_when_its_objects_are_sealed_and_not_before(s3: S3, house: House) -> None:
    place = Announced(s3)

    async def test() -> None:
        place.announce()
        for number in range(12):
            place.put(f"{number}.json", records(number))
        intake, acts = await house.open(), Acts()
        made = puller(place, intake, acts)
        pulling = asyncio.create_task(made.run())
        await until(lambda: intake.counters().pending_batches == 12)
        assert place.waiting() >= 12
        await made.stop(intake.seal)
        await pulling
        assert (place.waiting(), made.held) == (0, 0)
        await intake.stop()

    run(test)
    assert house.raws() == lines([records(*range(12))])


class _DyingQueue(SqsQueue):
    """A queue that this process never reaches to delete anything: it died between the seal and that."""

    def delete(self, messages: Any) -> int:
        raise BucketUnavailable("dead")


def test_a_crash_between_seal_and_delete_seals_nothing_twice(s3: S3, house: House) -> None:
    place = Announced(s3)

    async def test() -> None:
        for number in range(5):
            version = place.put(f"{number}.json", records(number))
            place.send({"Records": [created(f"{number}.json", versionId=version)]})
        dying = _DyingQueue(place.access, place.url)
        made, _ = await drained(place, house, queue=dying)
        assert made.counts.objects == 5
        assert place.waiting() == 5
        _come_again(place)
        made, acts = await drained(place, house)
        assert (made.counts.objects, made.counts.duplicates, acts) == (5, 5, [])
        assert place.waiting() == 0

    run(test)
    assert house.raws() == lines([records(*range(5))])
    house.must_be_sound()


def _come_again(place: Announced) -> None:
    """Send what is in flight again, as its visibility timeout would."""
    client = place.client("sqs")
    client.purge_queue(QueueUrl=place.url)
    for item in place.s3.client.list_object_versions(Bucket=place.bucket)["Versions"]:
        place.send({"Records": [created(item["Key"], versionId=item["VersionId"])]})


class _Hasty(SqsQueue):
    """A queue whose messages come again at once instead of after a rest."""

    def extend(self, messages: Any, seconds: int) -> None:
        super().extend(messages, 0)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"hello": "world"}, "notification-invalid"),
        ({"Records": [{**created("k"), "s3": {"bucket": {"name": "elsewhere"}, "object": {"key": "k"}}}]},
         "outside-perimeter"),
        (from_eventbridge("Object Created", "there.json", size=99), "object-mismatch"),
    ],
)  # fmt: skip
def test_what_can_not_be_taken_goes_to_the_dead_letters_after_so_many_tries(
    s3: S3, house: House, message: dict[str, Any], code: str
) -> None:
    place = Announced(s3, tries=3)

    async def test() -> None:
        place.put("there.json", records(1))
        place.send(message)
        intake, acts = await house.open(), Acts()
        made = puller(place, intake, acts, queue=_Hasty(place.access, place.url))
        pulling = asyncio.create_task(made.run())
        await until(lambda: made.counts.dead_letters == 1 and not made.held)
        await made.stop(intake.seal)
        await pulling
        await intake.stop()
        assert (made.counts.messages, made.counts.retries, made.counts.dead_letters) == (3, 2, 1)
        ((what, target, facts),) = acts
        assert (what, target, facts["code"], facts["received"]) == ("pull.dead-letter", place.url, code, 3)
        (buried,) = place.dead()
        assert json.loads(buried["Body"]).keys() == message.keys()
        assert code in buried["MessageAttributes"]["strongroom.reason"]["StringValue"]
        assert place.waiting() == 0

    run(test)
    assert house.sealed() == []


def test_an_object_that_is_gone_leaves_a_record_of_the_gap(s3: S3, house: House) -> None:
    place = Announced(s3)

    async def test() -> None:
        place.send({"Records": [created("never.json", size=5), created("also.json", size=5)]})
        made, acts = await drained(place, house)
        assert made.counts.gone == 2
        assert [(what, target) for what, target, _ in acts] == [
            ("pull.gone", f"s3://{place.bucket}/never.json"),
            ("pull.gone", f"s3://{place.bucket}/also.json"),
        ]
        assert (place.waiting(), place.waiting(place.dead_url)) == (0, 0)

    run(test)


class _Flickering(Buckets):
    """A bucket that fails at first, and once in the middle of an object."""

    fails = 3

    def open(self, wanted: S3Object) -> S3Download:
        if self.fails:
            self.fails -= 1
            raise BucketUnavailable("away")
        return super().open(wanted)


def test_an_outage_is_waited_for_with_the_message_in_hand(s3: S3, house: House) -> None:
    place = Announced(s3)

    async def test() -> None:
        place.announce()
        place.put("k.json", records(1))
        flickering = _Flickering(place.access, place.buckets()._perimeter)
        made, acts = await drained(place, house, source=flickering)
        assert (made.counts.objects, made.counts.retries, made.problem, acts) == (1, 0, None, [])

    run(test)
    assert house.raws() == lines([records(1)])


def test_messages_in_hand_stay_ours_and_are_given_back_on_a_stop(house: House) -> None:
    """No real queue: what counts is what it is asked."""

    class Counting:
        name, tries, buries = "q", 5, False

        def __init__(self) -> None:
            self.extended: list[tuple[list[str], int]] = []
            self.messages = [Message("m", "h", json.dumps(from_eventbridge("Object Created", "k")), 1)]

        def receive(self, most: int, wait: int) -> list[Message]:
            taken, self.messages = self.messages, []
            return taken

        def delete(self, messages: Any) -> int:
            raise AssertionError("nothing was sealed")

        def extend(self, messages: Any, seconds: int) -> None:
            self.extended.append(([message.handle for message in messages], seconds))

    class Away:
        def open(self, wanted: S3Object) -> S3Download:
            raise BucketUnavailable("away")

    async def test() -> None:
        intake, queue, acts = await house.open(), Counting(), Acts()

        async def report(*_: Any) -> None:
            raise AssertionError("an outage is nothing to record")

        made = Puller(queue=queue, source=Away(), intake=intake, report=report, poll_seconds=1)
        pulling = asyncio.create_task(made.run())
        await until(lambda: made.problem is not None)
        await made.stop(intake.seal, seconds=0.3)
        await pulling
        assert (queue.extended, acts) == ([(["h"], 0)], [])
        await intake.stop()

    run(test)


def test_an_announcement_without_size_and_version_takes_what_is_there(s3: S3, house: House) -> None:
    """CloudTrail's own topic names keys only; an empty object is no trouble then either."""
    place = Announced(s3)

    async def test() -> None:
        place.put("AWSLogs/1.json", records(1))
        place.put("AWSLogs/empty", b"")
        told = {"s3Bucket": "central-logs", "s3ObjectKey": ["AWSLogs/1.json", "AWSLogs/empty"]}
        place.send({"Type": "Notification", "Message": json.dumps(told)})
        made, acts = await drained(place, house)
        assert (made.counts.objects, made.counts.empty, acts, place.waiting()) == (2, 1, [], 0)
        # The version that was found is the key: announced again with it, the object is known.
        version = place.s3.client.head_object(Bucket=place.bucket, Key="AWSLogs/1.json")["VersionId"]
        place.send({"Records": [created("AWSLogs/1.json", versionId=version)]})
        made, _ = await drained(place, house)
        assert made.counts.duplicates == 1

    run(test)
    assert house.raws() == lines([records(1)])
    house.must_be_sound()
