"""Who else is told while nobody sees to it, and at which hours what is not urgent waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from servmon.alerts.alert import MessageKind, NewsKind
from servmon.alerts.quiet_hours import QuietHours
from servmon.alerts.routing import Silence
from servmon.alerts.settings import AlertSection, EscalationStep, RuleKind, RuleSection
from servmon.model import Severity
from tests.alerts.test_dispatcher import START, Desk, kinds
from tests.alerts.test_rules import falls, recovers, restarted, said

STEPS = (EscalationStep(after=900, channels=("second",)), EscalationStep(after=1800, channels=("boss",)))
ALL = ("email", "second", "boss")


def desk_with(**settings) -> Desk:
    desk = Desk(channels=ALL)
    desk.dispatcher.settings = AlertSection(**{"notification_channels": ("email",), "escalation": STEPS, **settings})
    return desk


def steps(desk: Desk) -> list[tuple[str, str]]:
    """What was decided of steps."""
    return [(one.stage, one.reason) for told in desk.told for one in told.decisions if one.kind is NewsKind.STEP]


# Escalation.


def test_each_step_is_made_once_at_its_time_and_all_who_were_told_hear_of_the_end():
    desk = desk_with()
    desk.at(0, falls(desk, "a"))
    assert desk.run(1, 3000) == [(900, MessageKind.ESCALATED), (1800, MessageKind.ESCALATED)]
    assert said(desk, "second") == ["ESCALATED: a (MAJOR, for 15 min)"]
    assert said(desk, "boss") == ["ESCALATED: a (MAJOR, for 30 min)"]
    assert said(desk) == ["DOWN: a (MAJOR)"]
    assert "step 2: nobody saw to it for 15 min" in next(
        one.body for told in desk.told for one in told.notifications if one.channel == "second"
    )
    assert steps(desk)[0] == ("sent", "to second: step 2: nobody saw to it for 15 min")
    desk.at(3000, recovers(desk, "a", 3000))
    assert said(desk)[-1] == said(desk, "second")[-1] == said(desk, "boss")[-1] == "UP: a (down for 50 min)"


def test_an_acknowledgement_stops_it_and_says_so_once():
    desk = desk_with()
    desk.at(0, falls(desk, "a"))
    desk.run(1, 600)
    desk.dispatcher.acknowledged = frozenset({"outage-a"})
    desk.run(600, 4000)
    assert said(desk, "second") == said(desk, "boss") == []
    assert steps(desk) == [("acknowledged", "somebody sees to it")]
    desk.at(4000, recovers(desk, "a", 4000))
    assert said(desk, "second") == []


def test_an_acknowledgement_taken_back_lets_it_go_on():
    desk = desk_with()
    desk.dispatcher.acknowledged = frozenset({"outage-a"})
    desk.at(0, falls(desk, "a"))
    desk.run(1, 1000)
    desk.dispatcher.acknowledged = frozenset()
    assert kinds(desk.at(1000)) == [MessageKind.ESCALATED]


@pytest.mark.parametrize("restart_at", [1, 899, 901, 1799, 1801])
def test_a_restart_at_any_time_neither_repeats_nor_forgets_a_step(restart_at):
    desk = desk_with()
    desk.at(0, falls(desk, "a"))
    desk.run(1, restart_at)
    again = restarted(desk)
    again.run(restart_at, 3000)
    for channel in ("second", "boss"):
        assert len(said(desk, channel) + said(again, channel)) == 1


@pytest.mark.parametrize("why", ["window", "silence"])
def test_a_window_or_silence_pauses_it(why):
    desk = desk_with()
    desk.at(0, falls(desk, "a"))
    if why == "window":
        desk.present.windows = {"a"}
    else:
        end = START + timedelta(seconds=1200)
        desk.dispatcher.silences = [Silence("1", {"ids": ["a"]}, "known", START, end)]
    assert desk.run(1, 1200) == []
    desk.present.windows = set()
    assert desk.run(1200, 1300) == [(1200, MessageKind.ESCALATED)]


def test_a_step_to_a_channel_that_is_gone_goes_to_the_default_ones_and_that_is_recorded():
    desk = desk_with()
    desk.at(0, falls(desk, "a"))
    desk.dispatcher.channel_names = ("email", "boss")
    assert desk.run(1, 1000) == [(900, MessageKind.ESCALATED)]
    assert said(desk) == ["DOWN: a (MAJOR)", "ESCALATED: a (MAJOR, for 15 min)"]
    expected = "to email: step 2: nobody saw to it for 15 min; there is no channel second any more"
    assert steps(desk) == [("sent", expected)]


def test_a_step_that_reaches_nobody_is_not_recorded_as_sent():
    desk = desk_with()
    desk.at(0, falls(desk, "a"))
    desk.dispatcher.channel_names = ("boss",)
    desk.run(1, 1000)
    assert said(desk, "second") == []
    ((stage, reason),) = steps(desk)
    assert (stage, reason.startswith("none of its channels is there any more: step 2")) == ("whom", True)


def test_of_two_channels_of_a_step_the_one_that_is_there_is_told():
    desk = desk_with(escalation=(EscalationStep(after=60, channels=("second", "boss")),))
    desk.at(0, falls(desk, "a"))
    desk.dispatcher.channel_names = ("email", "boss")
    desk.run(1, 100)
    assert (len(said(desk)), len(said(desk, "boss"))) == (1, 1)
    assert steps(desk)[0][1].startswith("to boss: step 2")


def test_a_rule_may_have_steps_of_its_own_or_none():
    rules = (
        RuleSection(name="calm", tags=("lab",), escalation=()),
        RuleSection(name="rest", escalation=(EscalationStep(after=60, channels=("boss",)),)),
    )
    desk = desk_with(rules=rules)
    desk.at(0, falls(desk, "a", tags=("lab",)), falls(desk, "b"))
    desk.run(1, 2000)
    assert said(desk, "boss") == ["ESCALATED: b (MAJOR, for 1 min)"]
    assert said(desk, "second") == []


def test_without_steps_nothing_escalates():
    desk = desk_with(escalation=())
    desk.at(0, falls(desk, "a"))
    assert desk.run(1, 3000, step=5) == []


def test_a_step_that_comes_no_later_than_the_one_before_is_refused():
    with pytest.raises(ValidationError, match="each step must come later than the one before"):
        AlertSection(escalation=(STEPS[1], STEPS[0]))


# Quiet hours. The tests begin at 3:00 UTC, a Tuesday.

NIGHT = QuietHours(severities=("MINOR", "WARNING"), begins="22:00", ends="07:00")
TO_SEVEN = 4 * 3600


def test_what_is_not_urgent_is_one_message_in_the_morning_without_what_came_back():
    desk = desk_with(quiet_hours=(NIGHT,), escalation=())
    for number, name in enumerate("abcd"):
        desk.at(number * 600, falls(desk, name, number * 600, severity=Severity.MINOR, site=f"pop-{name}"))
    desk.at(3000, recovers(desk, "b", 3000))
    assert desk.run(3001, TO_SEVEN, step=5) == []
    found = desk.at(TO_SEVEN + 5)
    assert [subject for _, subject in found] == ["DOWN: 3 endpoints at 3 sites (MINOR)"]
    assert desk.reasons["down-b"][0] == "never told"
    assert ("when", "quiet hours until 07:00 (UTC)") in [
        (one.stage, one.reason) for told in desk.told for one in told.decisions
    ]


def test_what_is_urgent_and_ends_are_told_at_any_hour():
    desk = desk_with(quiet_hours=(NIGHT,), escalation=())
    assert kinds(desk.at(0, falls(desk, "a"))) == [MessageKind.DOWN]
    assert kinds(desk.at(60, recovers(desk, "a", 60))) == [MessageKind.RECOVERED]


def test_reminders_and_steps_wait_for_the_morning():
    desk = desk_with()
    desk.at(0, falls(desk, "a", severity=Severity.MINOR))
    desk.dispatcher.settings = AlertSection(
        notification_channels=("email",), escalation=STEPS, quiet_hours=(NIGHT,), reminder_after=600
    )
    assert desk.run(1, TO_SEVEN, step=5) == []
    assert steps(desk) == [("when", "quiet hours until 07:00 (UTC)")]
    morning = {kind for _, kind in desk.run(TO_SEVEN, TO_SEVEN + 30)}
    assert morning >= {MessageKind.ESCALATED}


def test_slow_answers_and_counts_are_kept_back_too():
    rules = (RuleSection(name="any", kind=RuleKind.ACTIVE_OUTAGES, channels=("boss",), severity="WARNING"),)
    desk = desk_with(quiet_hours=(NIGHT,), rules=rules, escalation=())
    desk.at(0, falls(desk, "a"))
    desk.run(1, TO_SEVEN, step=5)
    assert said(desk, "boss") == []
    desk.run(TO_SEVEN, TO_SEVEN + 10)
    assert len(said(desk, "boss")) == 1


def local(hours: QuietHours, *moment: int) -> str | None:
    end = hours.until(Severity.WARNING, datetime(*moment, tzinfo=UTC))
    return end and f"{end.astimezone(UTC):%d %H:%M}"


def test_quiet_hours_follow_their_own_clock_and_its_changes():
    night = QuietHours(severities=("WARNING",), begins="22:00", ends="07:00", timezone="Europe/Berlin")
    assert local(night, 2026, 11, 23, 20, 59) is None
    assert local(night, 2026, 11, 23, 21, 0) == "24 06:00"
    assert local(night, 2026, 11, 24, 5, 59) == "24 06:00"
    assert local(night, 2026, 11, 24, 6, 0) is None
    # The night in which clocks go back is an hour longer, that in which they go forward an hour shorter.
    assert local(night, 2026, 10, 24, 20, 0) == "25 06:00"
    assert local(night, 2026, 3, 28, 21, 0) == "29 05:00"
    assert night.until(Severity.MAJOR, datetime(2026, 11, 24, 1, tzinfo=UTC)) is None


def test_days_are_those_on_which_they_begin():
    weekend = QuietHours(severities=("WARNING",), begins="20:00", ends="08:00", days=("fri", "sat"))
    assert local(weekend, 2026, 11, 29, 7, 0) == "29 08:00"  # a Sunday morning
    assert local(weekend, 2026, 11, 29, 21, 0) is None
    assert local(weekend, 2026, 11, 27, 7, 0) is None  # a Friday morning
    noon = QuietHours(severities=("WARNING",), begins="12:00", ends="13:00")
    assert local(noon, 2026, 11, 29, 12, 30) == "29 13:00"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"begins": "24:00"}, "begins"),
        ({"ends": "22:00"}, "ends: must be another time than begins"),
        ({"timezone": "Mars/Olympus"}, 'must be a time zone such as "Europe/Berlin"'),
        ({"severities": ()}, "severities"),
        ({"days": ("monday",)}, "days"),
    ],
)
def test_wrong_quiet_hours_are_one_sentence(fields, sentence):
    with pytest.raises(ValidationError) as caught:
        QuietHours(**{"severities": ("WARNING",), "begins": "22:00", "ends": "07:00", **fields})
    assert sentence in str(caught.value)
