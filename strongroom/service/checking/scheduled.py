"""The verifier put together out of the settings, and `strongroom verify --scheduled`: what is due, once.

For an outside scheduler (cron, systemd timers, EventBridge): call it every few minutes; it does what the cron
expressions in the settings say is due, as the service would, and nothing when nothing is. It shares the state folder
with a service, not its runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import structlog

from strongroom.archive.locks import attempted
from strongroom.archive.log import Log
from strongroom.archive.stores.store import ObjectStore
from strongroom.archive.verification.findings import Level
from strongroom.service.alerts.dispatch import Alerts
from strongroom.service.alerts.log import LogSink
from strongroom.service.alerts.sink import AlertSink
from strongroom.service.checking.cron import Cron
from strongroom.service.checking.reports import Reports
from strongroom.service.checking.runs import Runs
from strongroom.service.checking.verifier import Verifier, VerifierLimits
from strongroom.service.errors import VerificationBusy
from strongroom.service.settings import Settings
from strongroom.service.state import StateFolder

log = structlog.get_logger(__name__)

_QUICK_LEASE_SECONDS = 600.0


def crons(settings: Settings) -> dict[Level, Cron]:
    """The levels that run by themselves."""
    levels = ("quick", "inventory", "complete", "sampled", "deep")
    expressions = {level: str(getattr(settings, f"verify_{level}")) for level in levels}
    return {cast(Level, level): Cron(text) for level, text in expressions.items() if text}


def make_verifier(
    settings: Settings, store: ObjectStore, log: Log, by: str, sign: Callable[[], object], runs: Path
) -> Verifier:
    """A verifier of this node. `by`: its name in the log; `runs`: folder of its runs. Raises SettingsInvalid."""
    state = StateFolder(settings.state.absolute())
    limits = VerifierLimits(
        settings.verify_seconds,
        settings.verify_workers,
        settings.verify_fraction,
        settings.promise_seconds,
        settings.tsa_roots,
        settings.sources_file,
    )
    reports = Reports(store, log, by, sign, lambda level: _lease(level, settings.verify_seconds))
    alerts = Alerts(sinks(settings), state.alerts, settings.alert_repeat_seconds)
    return Verifier(settings.way_to_archive, state.policy, Runs(runs), reports, alerts, limits, log.origin)


def sinks(settings: Settings) -> list[AlertSink]:
    """Those the settings name, and the log. Raises SettingsInvalid."""
    found: list[AlertSink] = [LogSink()]
    if settings.alert_webhook and settings.alert_webhook_secret:
        from strongroom.service.alerts.webhook import WebhookSink, read_secret

        found.append(WebhookSink(settings.alert_webhook, read_secret(settings.alert_webhook_secret)))
    if settings.alert_sns_topic:
        from strongroom.service.alerts.sns import SnsSink

        found.append(SnsSink(settings.alert_sns_topic))
    if settings.alert_security_hub:
        from strongroom.service.alerts.securityhub import SecurityHubSink

        found.append(SecurityHubSink())
    return found


def run_due(settings: Settings, level: Level | None) -> list[dict[str, Any]]:
    """Run what is due (or `level`, due or not), file and tell; the reports. Raises StrongroomError, OSError."""
    from strongroom.service.node import ArchiveWriter, intake_limits  # which imports this module

    # Only its log and its signer are used: without a start it takes no deliveries and holds no lock.
    writer = ArchiveWriter(settings, intake_limits(settings), "_outside")
    # A long run must not keep the quick ones from running: each level called for by name has a place of its own.
    folder = writer.state.runs / f"outside-{level or 'due'}"
    verifier = make_verifier(settings, writer.store, writer.log, writer.name, writer.sign_checkpoint, folder)
    with attempted(folder.with_suffix(".lock")) as mine:
        if not mine:
            log.info("another scheduled verification is running here")
            return []
        return asyncio.run(_run_due(verifier, crons(settings), level))


async def _run_due(verifier: Verifier, crons: Mapping[Level, Cron], wanted: Level | None) -> list[dict[str, Any]]:
    reports = []
    await verifier.recover(wait=True)
    for level in [wanted] if wanted else crons:
        now = datetime.now(UTC)
        due = crons[level].before(now) if level in crons else None
        last = verifier.reports.last(level)
        if wanted is None and due is not None and last is not None and last >= due:
            continue
        try:
            reports.append(await verifier.run(level, "schedule", due if wanted is None else None, wait=True))
        except VerificationBusy as error:
            log.info("not verified here", level=level, detail=error.message)
    return reports


def _lease(level: str, seconds: float) -> float:
    return _QUICK_LEASE_SECONDS if level == "quick" else 2 * seconds
