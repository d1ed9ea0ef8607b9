"""Which object falls under which rule, and what orders add up to."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.archive import entry as entries
from strongroom.archive import layout
from strongroom.archive.entry import Draft
from strongroom.archive.errors import FormatError
from strongroom.archive.retention import orders
from strongroom.archive.retention import rules as retention
from strongroom.archive.retention.orders import Obligations, Order
from strongroom.archive.retention.rules import Promise, Retention, Rule

NOW = datetime(2026, 11, 24, 12, 0, 0, 1, UTC)
FLOWS = layout.segment_key("vpcflow", date(2026, 11, 24), "w1", 1, 0, 0)
TRAIL = layout.segment_key("cloudtrail", date(2026, 11, 24), "w1", 1, 0, 0)

RULES = retention.parse({"default": "365", "vpcflow": "governance 90 days", "cloudtrail": "COMPLIANCE 2555d"})

rules = st.builds(Rule, st.sampled_from(retention.MODES), st.integers(1, retention.MAX_DAYS))
retentions = st.builds(Retention, st.none() | rules, st.dictionaries(st.sampled_from(["vpcflow", "waf"]), rules))


def test_rules_by_source_and_the_strictest_for_the_rest() -> None:
    assert RULES.rule_of(FLOWS) == Rule("GOVERNANCE", 90)
    assert RULES.rule_of(layout.segment_key("waf", date(2026, 1, 1), "w1", 1, 0, 0)) == Rule("COMPLIANCE", 365)
    for key in (layout.entry_key(0), layout.checkpoint_key(1), layout.details_key("w1", 1, 0, 0), layout.IDENTITY):
        assert RULES.rule_of(key) == Rule("COMPLIANCE", 2555)
    assert RULES.rule_of("spool/w1/1") is None
    assert not Retention() and Retention().promise(FLOWS, NOW) is None


@pytest.mark.parametrize("text", ["", "0", "ten", "365 years", "STRICT 3", "99999999", "-1", "36501"])
def test_a_rule_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(FormatError, match="vpcflow"):
        retention.parse({"vpcflow": text})
    with pytest.raises(FormatError, match="Not A Source"):
        retention.parse({"Not A Source": "3"})


@given(retentions, rules)
def test_nothing_falls_below_the_floor(rules: Retention, floor: Rule) -> None:
    raised = rules.raised_to(floor)
    for key in (FLOWS, TRAIL, layout.entry_key(5)):
        rule, before = raised.rule_of(key), rules.rule_of(key)
        assert rule is not None
        assert rule.days == max(floor.days, before.days if before else 0)
        assert rule.mode == "COMPLIANCE" or (floor.mode == "GOVERNANCE" and (not before or before.mode == "GOVERNANCE"))
    assert rules.raised_to(None) is rules


@given(retentions)
def test_the_log_outlives_every_segment(rules: Retention) -> None:
    log = rules.promise(layout.entry_key(0), NOW)
    for key in (FLOWS, TRAIL):
        if (promise := rules.promise(key, NOW)) is not None:
            assert log is not None and log.until >= promise.until
            assert retention.MODES.index(log.mode) >= retention.MODES.index(promise.mode)


def test_promises_read_back_from_the_entry() -> None:
    flows = RULES.promise(FLOWS, NOW)
    assert flows == Promise("GOVERNANCE", (NOW + timedelta(days=90)).replace(microsecond=0) + timedelta(seconds=1))
    whole = RULES.promise(layout.entry_key(3), NOW)
    assert whole is not None
    data = {retention.MEMBER: retention.stated({"vpcflow": flows})}
    entry = entries.place(
        Draft("segment", NOW, retain_until=whole.until, data=data), origin="logs.example.org/t", index=3, prev="0" * 64
    )
    entry = entries.decode(entries.encode(entry))
    assert retention.promised(entry, FLOWS) == flows
    assert retention.promised(entry, TRAIL) is None
    assert retention.promised(entry, layout.entry_key(3)) == Promise("GOVERNANCE", whole.until)


@given(st.recursive(st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_a_malformed_promise_promises_nothing(member: object) -> None:
    entry = entries.place(Draft("segment", NOW, data={"retention": member}), origin="o", index=0, prev="0" * 64)
    assert retention.promised(entry, FLOWS) is None


def order(action: orders.Action, *segments: str, case: str = "", until: str = "", log: bool = False) -> Order:
    return Order(
        "00", action, "tester", case=case, view="segments", where="true", until=until, log=log, segments=segments
    )


def test_orders_read_back_and_odd_ones_do_not() -> None:
    held = order("hold", FLOWS, case="2026-17")
    assert orders.decode(orders.encode(held)) == held
    for odd in (
        order("hold", FLOWS),
        order("extend", FLOWS),
        order("extend", FLOWS, until="tomorrow"),
        order("prune", FLOWS, case="x"),
        Order("00", "release", "t", case="x", format="strongroom/order/2"),
    ):
        with pytest.raises(FormatError):
            orders.decode(orders.encode(odd))
    assert [len(part) for part in orders.split([str(n) for n in range(25_000)])] == [10_000, 10_000, 5_000]
    assert list(orders.split([])) == [()]


def followed(*given: Order) -> Obligations:
    found = Obligations()
    for index, item in enumerate(given):
        found.follow(index, entries.timestamp(NOW + timedelta(days=index)), item)
    return found


def test_a_segment_under_two_cases_stays_held() -> None:
    placed = (order("hold", FLOWS, TRAIL, case="a"), order("hold", FLOWS, case="b"), order("cover", "later", case="b"))
    assert followed(*placed).held == {FLOWS, TRAIL, "later"}
    one = followed(*placed, order("release", case="a"))
    assert one.held == {FLOWS, "later"} and one.freed_by("a") == {TRAIL} and one.holders(FLOWS) == ["b"]
    assert not followed(*placed, order("release", case="a"), order("release", case="b")).held
    # A cover that comes after the release, from a node that had not seen it, holds nothing.
    assert not followed(placed[0], order("release", case="a"), order("cover", "later", case="a")).held
    again = followed(placed[0], order("release", case="a"), order("hold", "new", case="a"))
    assert again.held == {"new"}


def test_extensions_never_go_back_and_prunes_keep_their_first_word() -> None:
    near, far = (entries.timestamp(NOW + timedelta(days=days)) for days in (10, 20))
    found = followed(
        order("extend", FLOWS, until=far),
        order("extend", FLOWS, until=near, log=True),
        order("hold", TRAIL, case="a"),
        order("prune", FLOWS, TRAIL),
        order("prune", FLOWS),
    )
    assert found.extended[FLOWS] == entries.parse_timestamp(far)
    assert found.log_until(0) == entries.parse_timestamp(near) and found.log_until(1) is None
    assert found.pruned[FLOWS][0] == 3 and found.held_at_prune == {TRAIL}
