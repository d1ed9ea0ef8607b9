"""The last run of each level, for Prometheus: the alert rule that matters most is on `age`, which needs no run at all.

strongroom_verify_verdict{level,verdict}        1 for the verdict of the last finished run, 0 for the others
strongroom_verify_seconds{level}                what it took
strongroom_verify_age_seconds{level}            since it ended
strongroom_verify_findings{level,code}          what it found
strongroom_verify_failures_total{level}         runs that gave no report, since the process started
strongroom_alerts_sent_total, strongroom_alerts_failures_total{sink}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from strongroom.archive.verification.findings import Verdict
from strongroom.service.alerts.dispatch import Alerts
from strongroom.service.checking.runs import Run


class VerificationMetrics(Collector):
    """Reads at scrape time; nothing is counted twice."""

    def __init__(self, last: Callable[[], Mapping[str, Run]], failures: Counter[str], alerts: Alerts) -> None:
        """`last`: the last finished run of each level."""
        self._last, self._failures, self._alerts = last, failures, alerts

    def collect(self) -> Iterable[Metric]:
        verdict = GaugeMetricFamily(
            "strongroom_verify_verdict", "Verdict of the last verification", labels=("level", "verdict")
        )
        seconds = GaugeMetricFamily(
            "strongroom_verify_seconds", "Seconds the last verification took", labels=("level",)
        )
        age = GaugeMetricFamily("strongroom_verify_age_seconds", "Seconds since it ended", labels=("level",))
        found = GaugeMetricFamily("strongroom_verify_findings", "What it found", labels=("level", "code"))
        now = datetime.now(UTC)
        for level, run in self._last().items():
            for word in get_args(Verdict):
                verdict.add_metric((level, word), float(word == run.verdict))
            seconds.add_metric((level,), run.seconds)
            if run.finished is not None:
                age.add_metric((level,), max(0.0, (now - run.finished).total_seconds()))
            for code, count in run.findings.items():
                found.add_metric((level, code), count)
        failures = CounterMetricFamily("strongroom_verify_failures", "Runs without a report", labels=("level",))
        for level, count in self._failures.items():
            failures.add_metric((level,), count)
        sent = CounterMetricFamily("strongroom_alerts_sent", "Alerts a sink took", labels=("sink",))
        refused = CounterMetricFamily("strongroom_alerts_failures", "Alerts a sink did not take", labels=("sink",))
        for family, counts in ((sent, self._alerts.sent), (refused, self._alerts.failures)):
            for name, count in counts.items():
                family.add_metric((name,), count)
        return [verdict, seconds, age, found, failures, sent, refused]

    def describe(self) -> Iterable[Metric]:
        return ()
