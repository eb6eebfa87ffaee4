"""servmon's own rules beside "service down": what fires, who hears of it how often, and that nothing missing fires."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from servmon.alerts.alert import MessageKind, NewsKind
from servmon.alerts.response_times import LOOK_SECONDS, ResponseTimes, percentile
from servmon.alerts.routing import Silence
from servmon.alerts.settings import AlertSection, RuleKind, RuleSection
from servmon.model import CheckResult, Severity, Status
from tests.alerts.test_dispatcher import NEAR, START, Desk, down, endpoint, kinds, outage, up

SLOW = RuleSection(name="slow", kind=RuleKind.RESPONSE_TIME, threshold_ms=1000, window=300)
BOSS = ("email", "boss")


def answer(seconds: float, ms: float | None, status: Status = Status.UP, name: str = "api") -> CheckResult:
    return CheckResult(name, 1, status, START + timedelta(seconds=seconds), response_time=ms)


def falls(desk: Desk, name: str, seconds: float = 0, **fields) -> object:
    """News of an outage that stays open."""
    desk.present.outages[name] = outage(
        name, seconds, caused_by=fields.get("caused_by"), severity=fields.get("severity", Severity.MAJOR)
    )
    desk.present.endpoint_fields[name] = {key: value for key, value in fields.items() if key in ("site", "tags")}
    return down(name, seconds, **fields)


def recovers(desk: Desk, name: str, seconds: float) -> object:
    desk.present.outages.pop(name)
    return up(name, seconds)


def said(desk: Desk, channel: str = "email") -> list[str]:
    """The subjects that a channel got, in their order."""
    return [one.subject for told in desk.told for one in told.notifications if one.channel == channel]


def restarted(desk: Desk) -> Desk:
    """Another desk that takes up the alerts of the first one."""
    fresh = Desk(channels=desk.dispatcher.channel_names)
    fresh.present, fresh.dispatcher.facts = desk.present, desk.present
    fresh.dispatcher.settings = desk.dispatcher.settings
    fresh = fresh_facts(fresh)
    fresh.dispatcher.restore(list(desk.dispatcher.alerts))
    return fresh


def fresh_facts(desk: Desk) -> Desk:
    desk.dispatcher.window_ends._facts = desk.present
    return desk


# Several services down.


def test_the_third_outage_says_in_its_own_message_that_several_services_are_down():
    desk = Desk()
    desk.at(0, falls(desk, "a", 0))
    desk.at(60, falls(desk, "b", 60))
    assert desk.at(120, falls(desk, "c", 120)) == [(MessageKind.DOWN, "DOWN: c (MAJOR)")]
    (message,) = desk.told[-1].notifications
    assert message.body.endswith("3 services are down: a, b, c, threshold 3\n")
    assert message.content["rules"] == ["multiple_services_down"]
    (alert,) = [one for one in desk.dispatcher.alerts if one.kind == "multiple_services_down"]
    assert (alert.channels, alert.reason) == ((), "3 services are down: a, b, c, threshold 3")
    (decided,) = [one for one in desk.told[-1].decisions if one.kind is NewsKind.RULE]
    assert decided.reason.startswith("with the message on the outage to email: 3 services are down")
    assert desk.run(121, 1000) == []
    ends = desk.at(1000, *(recovers(desk, name, 1000) for name in "abc"))
    assert kinds(ends) == [MessageKind.RECOVERED] * 3
    assert desk.run(1001, 3000) == []
    assert list(desk.dispatcher.alerts) == []


def test_who_hears_only_of_several_services_gets_one_message_and_its_end_over_a_restart():
    desk = Desk(channels=BOSS)
    desk.dispatcher.settings = AlertSection(
        notification_channels=("email",),
        rules=(RuleSection(name="many", kind=RuleKind.MULTIPLE_SERVICES_DOWN, count=2, channels=("boss",)),),
    )
    desk.at(0, falls(desk, "a", 0))
    assert said(desk, "boss") == []
    desk.at(60, falls(desk, "b", 60))
    assert said(desk, "boss") == ["RULE: 2 services are down: a, b, threshold 2 (MAJOR)"]
    desk.at(70, falls(desk, "c", 70))
    again = restarted(desk)
    again.run(100, 400)
    assert said(again, "boss") == []
    again.at(400, recovers(again, "a", 400), recovers(again, "b", 400))
    again.run(401, 500)
    assert said(again, "boss") == ["OVER: 2 services are down: a, b, threshold 2 (MAJOR)"]


def test_a_count_around_the_threshold_is_told_once():
    desk = Desk(channels=BOSS)
    many = RuleSection(name="many", kind=RuleKind.MULTIPLE_SERVICES_DOWN, count=2, channels=("boss",))
    desk.dispatcher.settings = AlertSection(notification_channels=("email",), rules=(many,))
    desk.at(0, falls(desk, "a", 0), falls(desk, "b", 0))
    for minute in range(1, 10):
        last = desk.present.outages["b"].id
        ends = recovers(desk, "b", 60 * minute)
        desk.at(60 * minute, replace(ends, outage=replace(ends.outage, id=last)))
        news = falls(desk, "b", 60 * minute + 20)
        desk.present.outages["b"] = another = replace(news.outage, id=f"outage-b-{minute}")
        desk.at(60 * minute + 20, replace(news, id=f"again-{minute}", outage=another))
    assert len(said(desk, "boss")) == 1


def test_what_is_planned_silenced_or_somebody_elses_doing_does_not_count():
    desk = Desk(channels=BOSS)
    many = RuleSection(name="many", kind=RuleKind.MULTIPLE_SERVICES_DOWN, count=2, channels=("boss",))
    desk.dispatcher.settings = AlertSection(notification_channels=("email",), rules=(many,))
    desk.present.windows = {"planned"}
    desk.dispatcher.silences = [Silence("1", {"ids": ["quiet"]}, "known", START, START + timedelta(hours=1))]
    desk.at(0, *(falls(desk, name) for name in ("a", "planned", "quiet")), falls(desk, "child", caused_by="a"))
    desk.run(1, 600)
    assert said(desk, "boss") == []
    desk.present.windows = set()
    desk.run(600, 700)
    assert said(desk, "boss") == ["RULE: 2 services are down: a, planned, threshold 2 (MAJOR)"]


def test_a_site_told_in_one_message_is_not_told_again_as_several_services():
    desk = Desk()
    desk.present.suspected = True
    desk.at(0, *(falls(desk, f"e{number}", **NEAR) for number in range(12)))
    desk.run(1, 600)
    assert len(said(desk)) == 1
    assert said(desk)[0].startswith("DOWN: site pop-north: 12 of 12 endpoints")


@pytest.mark.parametrize(("number", "fires"), [(4, False), (5, True)])
def test_a_share_counts_what_the_rule_selects_at_each_site(number, fires):
    desk = Desk(channels=BOSS)
    share = RuleSection(name="half", kind=RuleKind.MULTIPLE_SERVICES_DOWN, share=50, per="site", channels=("boss",))
    desk.dispatcher.settings = AlertSection(notification_channels=(), rules=(share,))
    desk.present.known = tuple(f"e{one}" for one in range(10))
    desk.present.endpoint_fields = dict.fromkeys(desk.present.known, NEAR)
    desk.at(0, *(falls(desk, f"e{one}", **NEAR) for one in range(number)))
    desk.run(1, 120)
    assert bool(said(desk, "boss")) is fires
    if fires:
        assert said(desk, "boss")[0].startswith("RULE: 5 of 10 services are down (site pop-north): e0, e1")


def test_a_share_of_one_is_not_several():
    desk = Desk()
    share = RuleSection(name="any", kind=RuleKind.MULTIPLE_SERVICES_DOWN, share=1)
    desk.dispatcher.settings = AlertSection(notification_channels=("email",), rules=(share,))
    desk.present.known = ("a",)
    desk.at(0, falls(desk, "a"))
    desk.run(1, 60)
    assert [one.kind for one in desk.dispatcher.alerts] == ["service_down"]


def test_active_outages_are_off_until_somebody_writes_the_rule():
    assert AlertSection().rules_of(RuleKind.ACTIVE_OUTAGES) == ()
    desk = Desk(channels=BOSS)
    rules = (RuleSection(name="any", kind=RuleKind.ACTIVE_OUTAGES, channels=("boss",), severity="WARNING"),)
    desk.dispatcher.settings = AlertSection(notification_channels=("email",), rules=rules)
    desk.at(0, falls(desk, "a"))
    desk.at(10, falls(desk, "b", 10))
    desk.at(60, recovers(desk, "a", 60))
    desk.at(600, recovers(desk, "b", 600))
    desk.run(601, 700)
    assert [subject.split(":")[0] for subject in said(desk, "boss")] == ["RULE", "OVER"]


def test_what_no_rule_selects_is_told_to_nobody_by_the_rules_that_nobody_wrote():
    desk = Desk(channels=BOSS, rules=(RuleSection(name="core", tags=("core",), channels=("boss",)),))
    desk.at(0, *(falls(desk, name, tags=("lab",)) for name in "abcd"))
    assert desk.run(1, 8000, step=5) == []
    desk.at(8000, *(falls(desk, name, 8000, tags=("core",)) for name in ("e", "f")))
    desk.run(8001, 8100)
    desk.at(8100, falls(desk, "g", 8100, tags=("core",)))
    assert said(desk) == []
    assert desk.told[-1].notifications[-1].body.endswith("3 services are down: e, f, g, threshold 3\n")


# Outages that last.


def test_a_long_outage_is_told_once_in_place_of_the_reminder_of_that_hour():
    desk = Desk()
    desk.at(0, falls(desk, "a"))
    assert desk.run(1, 7000, step=5) == [(3601, MessageKind.LONG)]
    assert said(desk)[1] == "LONG OUTAGE: a (MAJOR, for 1 h 0 min)"
    assert desk.run(7000, 12000, step=5)[0][1] is MessageKind.REMINDER


def test_a_lone_outage_of_ten_minutes_is_two_messages_with_the_default_rules():
    desk = Desk()
    desk.at(0, falls(desk, "a"))
    assert desk.run(1, 600) == []
    desk.at(600, recovers(desk, "a", 600))
    assert desk.run(601, 8000, step=5) == []
    assert said(desk) == ["DOWN: a (MAJOR)", "UP: a (down for 10 min)"]


def test_a_long_outage_reaches_others_who_then_hear_of_its_end_over_a_restart():
    desk = Desk(channels=BOSS)
    rules = (RuleSection(name="boss", kind=RuleKind.LONG_OUTAGE, after=600, channels=("boss",)),)
    desk.dispatcher.settings = AlertSection(notification_channels=("email",), rules=rules)
    desk.at(0, falls(desk, "a"))
    desk.run(1, 1000)
    assert said(desk, "boss") == ["LONG OUTAGE: a (MAJOR, for 10 min)"]
    assert said(desk) == ["DOWN: a (MAJOR)"]
    again = restarted(desk)
    again.run(1000, 2000)
    again.at(2000, recovers(again, "a", 2000))
    assert said(again, "boss") == said(again) == ["UP: a (down for 33 min)"]


def test_many_that_last_are_one_message_as_they_were_told():
    desk = Desk()
    desk.present.suspected = True
    desk.at(0, *(falls(desk, f"e{number}", number, **NEAR) for number in range(200)))
    desk.run(1, 5000, step=5)
    assert [one.split(":")[0] for one in said(desk)] == ["DOWN", "LONG OUTAGE"]


@pytest.mark.parametrize(("why", "stage"), [("window", "maintenance"), ("seen to", "acknowledged")])
def test_what_is_planned_or_seen_to_is_not_told_as_long_and_the_reason_is_kept_once(why, stage):
    desk = Desk(reminder_after=0)
    desk.at(0, falls(desk, "a"))
    desk.present.windows = {"a"} if why == "window" else set()
    desk.dispatcher.acknowledged = frozenset({"outage-a"}) if why == "seen to" else frozenset()
    assert desk.run(1, 5000, step=5) == []
    decided = [one for told in desk.told for one in told.decisions if one.kind is NewsKind.LONG]
    assert [(one.stage, one.outage_id) for one in decided] == [(stage, "outage-a")]
    desk.present.windows, desk.dispatcher.acknowledged = set(), frozenset()
    assert kinds(desk.at(5005)) == [MessageKind.LONG]


def test_what_nobody_is_told_of_at_once_may_be_told_when_it_lasts():
    rules = (
        RuleSection(name="core", tags=("core",)),
        RuleSection(name="lab", kind=RuleKind.LONG_OUTAGE, tags=("lab",), after=1800),
    )
    desk = Desk(rules=rules)
    desk.at(0, falls(desk, "a", tags=("lab",)))
    assert desk.run(1, 1900, step=1) == [(1800, MessageKind.LONG)]
    desk.at(2000, recovers(desk, "a", 2000))
    assert said(desk)[-1] == "UP: a (down for 33 min)"


# Slow answers.


class Watch:
    """A desk whose response times are fed second by second."""

    def __init__(self, *rules: RuleSection, interval: int = 60, name: str = "api", **fields) -> None:
        self.desk = Desk(rules=rules or (SLOW,))
        self.endpoint = endpoint(name, check_interval=interval, **fields)
        self.desk.present.endpoint_fields[name] = fields

    def answers(self, first: float, last: float, ms: float | None, status: Status = Status.UP) -> None:
        """One answer at every check from ``first`` up to ``last``; servmon looks at them as it does."""
        moment, due, result = first, first, None
        while moment < last:
            if moment >= due:
                result = answer(moment, ms, status, self.endpoint.id)
                due += self.endpoint.check_interval
            self.look(moment, result)
            moment += LOOK_SECONDS

    def look(self, seconds: float, result: CheckResult | None) -> None:
        present = START + timedelta(seconds=seconds)
        rules = self.desk.dispatcher.settings.rules_of(RuleKind.RESPONSE_TIME)
        self.desk.dispatcher.response_times.take(self.endpoint, result, rules, present)
        self.desk.at(seconds)


def test_slow_answers_are_told_once_and_so_is_their_end_each_with_the_values():
    watch = Watch()
    watch.answers(0, 600, 200)
    watch.answers(600, 1500, 1500)
    watch.answers(1500, 3000, 100)
    slow, fast = said(watch.desk)
    assert slow == "SLOW: api (WARNING)"
    assert fast.startswith("FAST AGAIN: api (slow for ")
    body = watch.desk.told[0].notifications or next(
        told.notifications for told in watch.desk.told if told.notifications
    )
    assert "average 1" in body[0].body
    assert "threshold 1000 ms" in body[0].body
    assert list(watch.desk.dispatcher.alerts) == []


def test_95_of_100_decide_where_the_rule_says_so():
    assert percentile([1.0] * 95 + [9.0] * 5, 95) == 1.0
    assert percentile([1.0] * 94 + [9.0] * 6, 95) == 9.0
    assert percentile([7.0], 95) == 7.0
    watch = Watch(SLOW.model_copy(update={"statistic": "p95"}), interval=10)
    watch.answers(0, 600, 100)
    watch.answers(600, 630, 5000)  # a tenth of the window: the average is below, the slowest twentieth is not
    assert said(watch.desk) == ["SLOW: api (WARNING)"]
    assert "95th percentile 5000 ms over 300 s" in next(iter(watch.desk.dispatcher.alerts)).reason


def test_response_times_are_watched_only_where_somebody_writes_a_rule():
    assert AlertSection().rules_of(RuleKind.RESPONSE_TIME) == ()


def test_slow_answers_in_a_silence_wait_and_what_is_fast_again_by_then_is_told_to_nobody():
    watch = Watch()
    end = START + timedelta(seconds=2000)
    watch.desk.dispatcher.silences = [Silence("1", {"ids": ["api"]}, "tests", START, end)]
    watch.answers(0, 1000, 5000)
    watch.answers(1000, 2500, 10)
    assert said(watch.desk) == []
    stages = [one.stage for told in watch.desk.told for one in told.decisions]
    assert stages == ["silence", "never told", "never told"]
    watch.answers(2500, 3500, 5000)
    assert said(watch.desk) == ["SLOW: api (WARNING)"]


def test_slow_answers_over_a_restart_are_neither_told_again_nor_forgotten():
    watch = Watch()
    watch.answers(0, 1000, 5000)
    again = Watch()
    again.desk.dispatcher.restore(list(watch.desk.dispatcher.alerts))
    again.answers(1000, 2000, 5000)
    assert said(again.desk) == []
    again.answers(2000, 3000, 10)
    (over,) = said(again.desk)
    assert over.startswith("FAST AGAIN: api (slow for ")


def test_slow_and_then_down_is_told_as_down_and_stays_slow_until_it_answers():
    watch = Watch()
    watch.answers(0, 1000, 5000)
    watch.desk.at(1000, falls(watch.desk, "api", 1000))
    watch.answers(1000, 2000, None, Status.DOWN)
    watch.desk.at(2000, recovers(watch.desk, "api", 2000))
    watch.answers(2000, 3000, 10)
    assert [one.split(":")[0] for one in said(watch.desk)] == ["SLOW", "DOWN", "UP", "FAST AGAIN"]


def test_an_endpoint_that_is_gone_and_a_rule_that_is_gone_close_what_they_began():
    watch = Watch()
    watch.answers(0, 1000, 5000)
    watch.desk.dispatcher.settings = AlertSection(notification_channels=("email",))
    watch.desk.at(1010)
    assert said(watch.desk)[-1].startswith("CLOSED: api")


def test_a_slow_site_is_one_message():
    desk = Desk(rules=(SLOW,))
    times = desk.dispatcher.response_times
    for name in (f"e{number}" for number in range(40)):
        desk.present.endpoint_fields[name] = NEAR
        for second in range(0, 700, 60):
            one = endpoint(name, **NEAR)
            times.take(one, answer(second, 3000, name=name), (SLOW,), START + timedelta(seconds=second))
    desk.at(700)
    desk.run(701, 800)
    assert len(said(desk)) == 1
    assert said(desk)[0] == "SLOW: 40 of 40 endpoints at pop-north (WARNING)"


MAYBE = st.one_of(
    st.none(),
    st.floats(min_value=0, max_value=500_000),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), -1.0]),
)


@given(st.lists(st.tuples(st.floats(0, 400), MAYBE, st.sampled_from(Status)), max_size=12), st.floats(0, 3600))
def test_missing_single_and_partial_windows_never_fire(checks, at):
    """Whatever comes: a reading has at least three real answers, over a window that was watched from its beginning."""
    times = ResponseTimes()
    one = endpoint("api", check_interval=60)
    real: set[float] = set()
    seen = [-1.0]
    first = None
    for second, value, status in sorted(checks, key=lambda check: check[0]):
        times.take(one, answer(second, value, status), (SLOW,), START + timedelta(seconds=second))
        first = second if first is None else first
        good = value is not None and 0 <= value < float("inf") and status in (Status.UP, Status.DEGRADED)
        if second > seen[-1] and good:
            real.add(second)
        seen.append(max(seen[-1], second))
    present = max(at, seen[-1], 0)
    times.take(one, None, (SLOW,), START + timedelta(seconds=present))
    reading = times.reading(SLOW, "api")
    if reading is not None:
        within = [second for second in real if second >= present - 300.001]
        assert 3 <= reading.answers <= len(within)
        assert first is not None
        assert first <= present - 300 + 60.001
        assert 0 <= reading.value < float("inf")


def test_no_answer_in_no_time_at_all_counts_as_an_answer():
    times = ResponseTimes()
    one = endpoint("api", check_interval=60)
    for second in range(0, 660, 60):
        times.take(one, answer(second, 0.0), (SLOW,), START + timedelta(seconds=second))
    reading = times.reading(SLOW, "api")
    assert reading is not None
    assert (reading.value, reading.answers, reading.is_slow) == (0.0, 6, False)


def test_an_endpoint_that_is_asked_seldom_has_a_window_of_three_checks():
    watch = Watch(SLOW.model_copy(update={"window": 60}), interval=300)
    watch.answers(0, 500, 9000)
    assert said(watch.desk) == []
    watch.answers(600, 1300, 9000)
    assert said(watch.desk) == ["SLOW: api (WARNING)"]


# How rules are written.


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"threshold_ms": 5}, "threshold_ms: is no key of a rule of the kind service_down"),
        ({"kind": "multiple_services_down", "count": 3, "share": 5}, "count and share exclude each other"),
        ({"kind": "multiple_services_down", "count": 1}, "count: must be at least 2"),
        ({"kind": "response_time", "threshold_ms": float("nan")}, "finite number"),
        ({"kind": "long_outage", "after": 0}, "greater than or equal to 1"),
        ({"kind": "anomaly"}, "'service_down', 'response_time'"),
        ({"name": "isolated"}, "not a name of servmon's own"),
        ({"name": "a\nb"}, "must be printable text"),
    ],
)
def test_a_wrong_rule_is_one_sentence(fields, sentence):
    with pytest.raises(ValidationError) as caught:
        RuleSection(**{"name": "a rule", **fields})
    assert sentence in str(caught.value)


def test_two_rules_have_two_names():
    with pytest.raises(ValidationError, match="two rules are called 'a'"):
        AlertSection(rules=(RuleSection(name="a"), RuleSection(name="a")))


def test_what_is_written_of_one_kind_leaves_the_others_as_they_are():
    settings = AlertSection(rules=(RuleSection(name="off", kind=RuleKind.LONG_OUTAGE, enabled=False),))
    assert settings.rules_of(RuleKind.LONG_OUTAGE) == ()
    assert [rule.name for rule in settings.rules_of(RuleKind.MULTIPLE_SERVICES_DOWN)] == ["multiple_services_down"]
    assert not settings.chooses
    assert Severity.WARNING.value == "WARNING"
