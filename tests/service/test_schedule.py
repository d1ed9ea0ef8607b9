"""Who verifies when: claims out of the log, cron expressions, and what is overdue. Pure parts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from strongroom.archive.entry import Draft, place
from strongroom.service.checking.claims import Claims
from strongroom.service.checking.cron import Cron
from strongroom.service.checking.schedule import overdue

NOW = datetime(2026, 11, 24, 12, 2, tzinfo=UTC)
DUE = "2026-11-24T12:00:00.000000Z"


class Told(Claims):
    """Claims that are fed short sentences."""

    def tell(self, state: str, report: str, by: str, due: str = "", at: datetime = NOW, level: str = "quick") -> None:
        data = {"report": report, "state": state, "by": by, "level": level} | ({"due": due} if due else {})
        self.follow(place(Draft("report", at, data=data), origin="o", index=0, prev="00" * 32))


def claims() -> Told:
    return Told(lambda level: 600.0)


def test_the_first_claim_in_the_log_holds() -> None:
    told = claims()
    assert told.refusal("quick", DUE, "a", NOW) == ""
    told.tell("started", "r1", "a", DUE)
    told.tell("started", "r2", "b", DUE)
    assert (told.holds("r1"), told.holds("r2")) == (True, False)
    told.tell("finished", "r1", "a")
    assert "a has run r1" in told.refusal("quick", DUE, "b", NOW), "this time was run"
    assert told.refusal("quick", "2026-11-24T12:05:00.000000Z", "b", NOW) == ""


def test_an_open_run_keeps_others_out_until_its_lease_is_over() -> None:
    told = claims()
    told.tell("started", "r1", "a")
    assert "a is running" in told.refusal("quick", "", "b", NOW + timedelta(seconds=599))
    assert told.refusal("complete", "", "b", NOW) == "", "another level may run"
    assert told.refusal("quick", "", "a", NOW) == "", "its own node knows what it runs"
    assert told.refusal("quick", "", "b", NOW + timedelta(seconds=601)) == ""
    told.tell("failed", "r1", "a")
    assert told.refusal("quick", "", "b", NOW) == ""


def test_odd_report_entries_claim_nothing() -> None:
    told = claims()
    for data in ({}, {"report": 3, "state": "started"}, {"report": "r", "state": "started", "due": "yesterday"}):
        told.follow(place(Draft("report", NOW, data=data), origin="o", index=0, prev="00" * 32))
    assert told.refusal("quick", DUE, "b", NOW) == ""


def test_cron_expressions_are_in_utc_and_exact() -> None:
    cron = Cron("*/5 * * * *")
    on_time = NOW.replace(minute=5)
    assert (cron.after(NOW), cron.after(on_time), cron.before(on_time)) == (
        on_time,
        on_time + timedelta(minutes=5),
        on_time,
    )
    weekly = Cron("47 4 * * sun")
    assert weekly.after(NOW) == datetime(2026, 11, 29, 4, 47, tzinfo=UTC)
    assert weekly.before(NOW) == datetime(2026, 11, 22, 4, 47, tzinfo=UTC)
    seconds = Cron("*/20 * * * * *")
    assert seconds.after(NOW) == NOW + timedelta(seconds=20)
    for bad in ("* * * *", "61 * * * *", "nonsense", "0 0 30 feb *"):
        with pytest.raises(ValueError):
            Cron(bad)


def test_overdue_is_what_nobody_has_begun_for_a_while() -> None:
    quick, nightly = Cron("*/5 * * * *"), Cron("17 2 * * *")
    last = NOW.replace(minute=0)
    assert overdue(quick, None, NOW) is None, "a new archive owes nothing"
    assert overdue(quick, last, last + timedelta(minutes=10)) is None
    assert overdue(quick, last, last + timedelta(minutes=11)) == last + timedelta(minutes=5)
    night = datetime(2026, 11, 25, 2, 17, tzinfo=UTC)
    assert overdue(nightly, last, night + timedelta(minutes=59)) is None
    assert overdue(nightly, last, night + timedelta(minutes=61)) == night
    assert overdue(quick, NOW + timedelta(days=1), NOW) is None, "the clock was set back"
