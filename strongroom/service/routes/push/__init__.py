"""The routes of the push protocols, a module each: thin, over ingest/protocols/ and service/receiving/reception.py."""

from __future__ import annotations

from fastapi import APIRouter

from strongroom.service.routes.push import elastic, eventbridge, firehose, hec, journal, loki, otlp, sns

ROUTERS: tuple[APIRouter, ...] = (
    firehose.router,
    hec.router,
    otlp.router,
    elastic.router,
    loki.router,
    sns.router,
    eventbridge.router,
    journal.router,
)
# What clients ask before they have a token, as they do with the services these protocols come from.
PUBLIC = hec.PUBLIC
