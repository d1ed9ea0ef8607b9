"""Amazon SNS over HTTPS: `POST /v1/sns`, the endpoint of a subscription, with a token as password in its URL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from strongroom.ingest.errors import SignatureRefused
from strongroom.ingest.protocols import Delivery, sns
from strongroom.service.auth import Pushes
from strongroom.service.receiving.fetching import Fetch
from strongroom.service.receiving.reception import destination, receiving
from strongroom.service.routes.answers import node_of
from strongroom.service.routes.speaking import Refusal, response, speaking
from strongroom.service.tokens import Principal

MAY_PUSH = Pushes("basic", "bearer")
_MAX_MESSAGE_BYTES = 2 << 20


def _refuse(request: Request, refusal: Refusal) -> Response:
    # SNS sends user and password only after it was asked for them.
    return response(sns.refused(refusal.status, refusal.text), refusal, challenge='Basic realm="strongroom"')


router = APIRouter(route_class=speaking(_refuse), tags=["push"])


@router.post("/v1/sns", summary="Amazon SNS, HTTPS delivery")
async def push(request: Request, principal: Annotated[Principal, Depends(MAY_PUSH)]) -> Response:
    """A signed message of a topic named in `sns_topics`, into source `sns`. Subscriptions are confirmed."""
    source, fetch = destination(principal, "sns"), _fetch_of(request)
    topics = {topic.strip() for topic in node_of(request).settings.sns_topics.split(",") if topic.strip()}
    async with receiving(request, principal, "sns") as reception:
        body = await reception.whole(_MAX_MESSAGE_BYTES)
        if request.headers.get(sns.RAW_HEADER, "").lower() == "true":
            raise SignatureRefused("raw messages are not signed", hint="turn raw message delivery off")
        message = sns.read(body, topics)
        certificate = await fetch(message.SigningCertURL, keep=True)
        sns.verify(message, certificate, datetime.now(UTC))
        await reception.deliver_whole(Delivery(body, "identity", sns.key(message), message.TopicArn), source)
        if message.Type == "SubscriptionConfirmation":
            await fetch(message.SubscribeURL or "", keep=False)
    return response(sns.taken())


def _fetch_of(request: Request) -> Fetch:
    fetch: Fetch = request.app.state.fetch
    return fetch
