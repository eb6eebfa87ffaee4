"""What is told around the end of a maintenance window, second by second."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from servmon.alerts.alert import MessageKind
from servmon.alerts.window_ends import ending_id
from servmon.detection.maintenance import Covered
from servmon.model import MaintenanceWindow, Occurrence, Severity
from tests.alerts.test_dispatcher import NEAR, START, Desk, down, outage, up

WINDOW_ID = "11111111-1111-4111-8111-111111111111"
NAMES = tuple(f"e{number}" for number in range(8))
# The window ends ten minutes into the test, its grace five minutes later.
END, DUE = 600, 900


def over(*names: str, end: float = END, **fields) -> Covered:
    times = START - timedelta(hours=1), START + timedelta(seconds=end)
    window = MaintenanceWindow(WINDOW_ID, "New firmware", *times, names, **fields)
    return Covered(window, Occurrence(WINDOW_ID, "", *times), frozenset(names))


def desk_with(*names: str, channels: tuple[str, ...] = ("email",), **fields) -> Desk:
    """A desk in a window over these endpoints."""
    desk = Desk(channels=channels)
    desk.present.near = [over(*names, **fields)]
    desk.present.windows = set(names)
    return desk


def end_window(desk: Desk) -> None:
    desk.present.windows = set()


def falls(desk: Desk, *names: str, seconds: float = 100, **fields) -> list:
    """News of outages that began in the window, and are open."""
    desk.present.outages |= {name: outage(name, seconds) for name in names}
    return [down(name, seconds, **fields) for name in names]


def body(desk: Desk) -> str:
    return next(one.body for told in reversed(desk.told) for one in told.notifications)


def test_what_did_not_come_back_is_one_message_for_the_window_after_the_grace():
    desk = desk_with(*NAMES)
    desk.at(1)
    end_window(desk)
    assert desk.at(END + 45, *falls(desk, "e1", "e2", "e3", **NEAR)) == []
    assert desk.run(END + 46, DUE) == []
    assert desk.at(DUE) == [(MessageKind.WINDOW_OVER, "MAINTENANCE OVER: New firmware: 3 of 8 still down")]
    assert "over. New firmware: 3 of 8 still down:" in body(desk)
    assert "- e1: since 2026-11-24 03:01:40 UTC" in body(desk)
    assert desk.run(DUE + 1, DUE + 3000, step=10) == []
    assert desk.reasons["down-e1"] == ("sent", "to email, with its window")


def test_its_recoveries_and_reminders_are_those_of_any_alert():
    desk = desk_with(*NAMES)
    desk.at(1)
    end_window(desk)
    desk.at(END + 45, *falls(desk, "e1", "e2"))
    desk.at(DUE)
    assert [kind for _, kind in desk.run(DUE + 3590, DUE + 3610)] == [MessageKind.LONG]
    told = desk.at(DUE + 4000, up("e1", 4000), up("e2", 4000))
    assert [kind for kind, _ in told] == [MessageKind.RECOVERED]


def test_what_comes_back_within_the_grace_is_told_to_nobody():
    desk = desk_with(*NAMES)
    desk.at(1)
    end_window(desk)
    desk.at(END + 45, *falls(desk, "e1"))
    desk.present.outages = {}
    assert desk.at(END + 200, up("e1", END + 190)) == []
    assert desk.run(END + 201, DUE + 60) == []
    assert desk.reasons["down-e1"][0] == "never told"


def test_an_outage_that_begins_after_the_end_is_told_at_once():
    desk = desk_with(*NAMES)
    desk.at(1)
    end_window(desk)
    told = desk.at(END + 60, *falls(desk, "e1", seconds=END + 10))
    assert [kind for kind, _ in told] == [MessageKind.DOWN]
    assert desk.run(END + 61, DUE + 60) == []


def test_an_outage_told_before_the_window_is_named_with_it_and_its_reminders_wait():
    desk = Desk()
    (news,) = falls(desk, "e0", seconds=0)
    assert len(desk.at(0, news)) == 1
    desk.present.near = [over(*NAMES, end=7200)]
    desk.present.windows = set(NAMES)
    assert desk.run(10, 7200, step=10) == []
    end_window(desk)
    assert desk.run(7200, 7500, step=10) == []
    assert desk.at(7500) == [(MessageKind.WINDOW_OVER, "MAINTENANCE OVER: New firmware: 1 of 8 still down")]
    assert "e0 is down since" in body(desk)
    # It was said just now, so nobody is reminded at once.
    assert desk.run(7510, 7500 + 3600, step=10) == []
    assert [kind for _, kind in desk.run(7500 + 3600, 7500 + 3620, step=10)] == [MessageKind.LONG]
    assert [kind for kind, _ in desk.at(20_000, up("e0", 20_000))] == [MessageKind.RECOVERED]


def test_old_and_new_outages_stand_in_the_same_message():
    desk = Desk()
    desk.at(0, *falls(desk, "e0", seconds=0))
    desk.present.near, desk.present.windows = [over(*NAMES)], set(NAMES)
    desk.at(10)
    end_window(desk)
    desk.at(END + 45, *falls(desk, "e1", "e2"))
    (message,) = desk.at(DUE)
    assert message[1] == "MAINTENANCE OVER: New firmware: 3 of 8 still down"
    assert all(f"- {name}: since" in body(desk) for name in ("e0", "e1", "e2"))
    # Each recovery belongs to the alert in which its outage was told first.
    recovered = desk.at(DUE + 100, up("e0", 1000), up("e1", 1000), up("e2", 1000))
    assert len(recovered) == 2


def test_a_recovery_inside_the_window_is_told_at_once_to_those_who_heard_of_the_outage():
    desk = Desk()
    desk.at(0, *falls(desk, "e0", seconds=0))
    desk.present.near, desk.present.windows = [over(*NAMES)], set(NAMES)
    desk.at(10)
    desk.present.outages = {}
    assert [kind for kind, _ in desk.at(100, up("e0", 90))] == [MessageKind.RECOVERED]
    end_window(desk)
    assert desk.run(END, DUE + 60) == []


def test_stakeholders_get_the_same_message_once():
    desk = desk_with("e1", channels=("email", "hook"), notify=("hook", "email"))
    desk.dispatcher.settings = desk.dispatcher.settings.model_copy(update={"notification_channels": ("email",)})
    desk.at(1)
    end_window(desk)
    desk.at(END + 45, *falls(desk, "e1"))
    desk.at(DUE)
    assert [one.channel for one in desk.told[-1].notifications] == ["email", "hook"]


def test_what_another_window_still_covers_waits_for_that_one():
    desk = Desk()
    assert len(desk.at(0, *falls(desk, "e1", seconds=0))) == 1
    other = over("e1", end=END + 3600)
    desk.present.near = [over(*NAMES), replace(other, occurrence=replace(other.occurrence, key="other"))]
    desk.present.windows = {"e1"}
    assert desk.run(10, DUE + 60) == []
    assert not any(desk.dispatcher.window_ends.told.values())
    end_window(desk)
    subjects = [subject for second in range(END + 3600, DUE + 3610) for _, subject in desk.at(second)]
    assert subjects == ["MAINTENANCE OVER: New firmware: 1 of 1 still down"]


def test_a_restart_in_the_grace_keeps_its_end_and_after_it_says_nothing_twice():
    desk = desk_with(*NAMES)
    end_window(desk)
    news = falls(desk, "e1")
    desk.at(END + 100, *news)
    assert desk.run(END + 101, DUE) == []
    assert len(desk.at(DUE)) == 1
    again = desk_with(*NAMES)
    end_window(again)
    again.present.outages = desk.present.outages
    again.dispatcher.restore(desk.dispatcher.alerts, [ending_id(desk.present.near[0])])
    assert again.run(DUE + 10, DUE + 700, step=10) == []


def test_after_being_away_over_the_end_servmon_finds_out_first():
    desk = desk_with(*NAMES)
    end_window(desk)
    desk.at(DUE + 500)
    desk.at(DUE + 560, *falls(desk, "e1", "e2"))
    assert desk.run(DUE + 561, DUE + 800) == []
    assert [kind for kind, _ in desk.at(DUE + 800)] == [MessageKind.WINDOW_OVER]


def test_the_worst_of_what_is_down_is_the_messages_severity():
    desk = desk_with(*NAMES)
    desk.at(1)
    end_window(desk)
    news = [*falls(desk, "e1"), *falls(desk, "e2", severity=Severity.CRITICAL)]
    desk.at(END + 45, *news)
    desk.at(DUE)
    assert desk.told[-1].notifications[0].severity is Severity.CRITICAL


def test_a_window_that_ends_while_many_are_down_is_no_storm():
    names = tuple(f"many-{number}" for number in range(800))
    desk = desk_with(*names)
    desk.at(1)
    end_window(desk)
    desk.at(END + 45, *falls(desk, *names[:37]))
    assert desk.run(END + 46, DUE, step=5) == []
    assert [subject for _, subject in desk.at(DUE)] == ["MAINTENANCE OVER: New firmware: 37 of 800 still down"]
