"""Messages of Amazon SNS, as it delivers them over HTTPS.

A record is the whole document SNS sent, not the message in it: its signature is over these fields, and stays checkable
for whoever has the record and the certificate it names. `message` is the text inside; if that is JSON, it is reached by
path: `(message::JSON)->>'$.detail.id'`. Source: Amazon SNS developer guide, "Parsing Amazon SNS message formats".
"""

from __future__ import annotations

from strongroom.ingest.sources.declared import JsonSource, events
from strongroom.ingest.sources.fields import ACCOUNT_OF_ARN, REGION_OF_ARN, field
from strongroom.ingest.sources.source import TIME

SOURCE = JsonSource(
    name="sns",
    description="Messages of Amazon SNS with their signatures",
    columns=(
        field("event_time", "Timestamp", type=TIME),
        field("message_id", "MessageId"),
        field("type", "Type"),
        field("topic_arn", "TopicArn"),
        field("account", "TopicArn", convert=ACCOUNT_OF_ARN),
        field("region", "TopicArn", convert=REGION_OF_ARN),
        field("subject", "Subject"),
        field("message", "Message"),
    ),
    events=events(
        "sns",
        account="account",
        region="region",
        action="type",
        target="topic_arn",
        event_id="message_id",
        message="coalesce(subject, message)",
    ),
    sort=("topic_arn", "event_time"),
    summary_columns=("account", "topic_arn"),
    marks=(("Type", "MessageId", "TopicArn"),),
    natural_id="message_id",
)
