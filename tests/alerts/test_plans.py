"""What people hear of planned work, minute by minute: before, at its begin, when it changes, at its end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from servmon.alerts.alert import MessageKind
from servmon.alerts.plan_messages import compose
from servmon.alerts.plans import Present, Told, due
from servmon.model import MaintenanceMode, MaintenanceWindow, Occurrence

START = datetime(2026, 11, 29, 1, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
WINDOW = MaintenanceWindow(
    "22222222-2222-4222-8222-222222222222",
    "New firmware",
    START,
    START + 2 * HOUR,
    ("a", "b"),
    created_by="lea",
    notify=("noc", "hook"),
    notify_before=(86_400, 3600),
)
KEY = (WINDOW.id, "")
PLANNED, CHANGED, CANCELLED = MessageKind.PLANNED, MessageKind.PLAN_CHANGED, MessageKind.PLAN_CANCELLED
BEGINS, SOON, WELL = MessageKind.WINDOW_BEGINS, MessageKind.WINDOW_ENDS_SOON, MessageKind.WINDOW_WENT_WELL


class Office:
    """Windows and what was told of them; ``at(hours)`` is one look, relative to the start."""

    def __init__(self, *windows: MaintenanceWindow) -> None:
        self.windows = list(windows)
        self.told: dict[tuple[str, str], Told] = {}
        self.down: dict = {}
        self.ended: dict = {}
        self.notices: list = []

    def at(self, hours: float) -> list[MessageKind]:
        present = Present(START + hours * HOUR, self.down, self.ended, ("default",))
        self.notices, changed = due(self.windows, list(self.told.values()), present)
        self.told |= {(one.window_id, one.key): one for one in changed}
        return [one.kind for one in self.notices]

    def run(self, first: float, last: float) -> list[tuple[float, MessageKind]]:
        """Every look, a minute apart."""
        found = []
        for minute in range(round(first * 60), round(last * 60)):
            found += [(minute / 60, kind) for kind in self.at(minute / 60)]
        return found

    def change(self, **fields) -> None:
        self.windows = [replace(one, **fields) for one in self.windows]


def test_stakeholders_are_told_before_at_start_and_at_the_end_each_once():
    office = Office(WINDOW)
    assert office.run(-30, 2) == [(-24, PLANNED), (-1, PLANNED), (0, BEGINS)]
    assert [one.channels for one in office.notices] == []
    office.ended = {KEY: False}
    assert office.run(2, 4) == [(2, WELL)]


def test_where_something_is_still_down_that_message_is_the_one_at_the_end():
    office = Office(WINDOW)
    office.run(-2, 2)
    office.ended = {KEY: True}
    assert office.run(2, 4) == []


def test_a_window_made_late_is_announced_once_for_all_leads_that_have_passed():
    office = Office(WINDOW)
    assert office.at(-10) == [PLANNED]
    assert office.run(-10, -0.5) == [(-1, PLANNED)]
    later = Office(WINDOW)
    assert later.run(-0.5, 1) == [(-0.5, PLANNED), (0, BEGINS)]
    running = Office(WINDOW)
    assert running.at(0.5) == [BEGINS]


def test_without_lead_times_only_begin_and_end_are_told():
    office = Office(replace(WINDOW, notify_before=()))
    assert office.run(-30, 1) == [(0, BEGINS)]


def test_a_window_that_nobody_is_to_hear_of_is_told_to_nobody():
    office = Office(replace(WINDOW, notify=(), notify_before=()))
    assert office.run(-30, 2) == []
    office.ended = {KEY: False}
    assert office.run(2, 3) == []


def test_a_change_is_told_to_those_who_know_and_to_nobody_before():
    office = Office(WINDOW)
    office.change(start_time=START + HOUR, end_time=START + 3 * HOUR)
    assert office.run(-30, -24) == []
    assert office.run(-24, -22.9) == [(-23, PLANNED)]
    office.change(start_time=START + 2 * HOUR, end_time=START + 4 * HOUR)
    assert office.at(-10) == [CHANGED]
    (notice,) = office.notices
    assert (notice.was.start_time, notice.told.start_time) == (START + HOUR, START + 2 * HOUR)
    assert notice.told.sequence == 1
    assert office.run(-10, 3) == [(1, PLANNED), (2, BEGINS)]


def test_an_extension_while_it_runs_is_a_change():
    office = Office(WINDOW)
    office.run(-1, 1)
    office.change(end_time=START + 3 * HOUR)
    assert office.at(1) == [CHANGED]
    assert office.run(1, 3) == []
    office.ended = {KEY: False}
    assert office.at(3.1) == [WELL]


def test_a_cancelled_window_is_told_once_to_those_who_know():
    office = Office(WINDOW)
    office.run(-24, -20)
    office.change(deleted_at=START - 20 * HOUR)
    assert office.run(-20, 3) == [(-20, CANCELLED)]
    unheard = Office(WINDOW)
    unheard.run(-40, -39)
    unheard.change(deleted_at=START - 39 * HOUR)
    assert unheard.run(-39, 3) == []


def test_a_window_deleted_while_it_runs_ends_for_its_readers():
    office = Office(WINDOW)
    office.run(-1, 1)
    office.change(deleted_at=START + HOUR)
    assert office.run(1, 1.5) == []
    office.ended = {KEY: False}
    assert office.at(1.5) == [WELL]


def test_a_window_put_off_for_weeks_is_changed_and_announced_anew():
    office = Office(WINDOW)
    office.run(-24, -20)
    office.change(start_time=START + 500 * HOUR, end_time=START + 502 * HOUR)
    assert office.at(-20) == [CHANGED]
    assert office.run(-20, 475) == []
    assert office.run(475, 501) == [(476, PLANNED), (499, PLANNED), (500, BEGINS)]


def test_of_a_recurring_window_each_night_is_told_and_an_excluded_one_is_cancelled():
    office = Office(replace(WINDOW, rrule="FREQ=WEEKLY", notify_before=(3600,)))
    assert office.run(-2, 0.5) == [(-1, PLANNED), (0, BEGINS)]
    office.ended = {(WINDOW.id, "2026-11-29"): False}
    assert office.run(2, 5) == [(2, WELL)]
    assert office.run(166, 167.5) == [(167, PLANNED)]
    office.change(exdates=(date(2026, 12, 6),))
    assert office.at(167.6) == [CANCELLED]
    assert office.run(167.6, 170) == []
    office.change(exdates=())
    assert office.at(167.7) == [PLANNED]
    assert office.notices[0].told.sequence == 2


def test_a_quarter_of_an_hour_before_the_end_its_creator_hears_what_is_down_and_again_after_an_extension():
    office = Office(replace(WINDOW, notify=(), notify_before=(), creator_channel="lea"))
    office.down = {KEY: ["a"]}
    assert office.run(0, 1.9) == [(1.75, SOON)]
    office.change(end_time=START + 3 * HOUR)
    assert office.run(1.9, 3) == [(2.75, SOON)]
    office.at(2.75)
    silent = Office(WINDOW)
    assert SOON not in [kind for _, kind in silent.run(0, 2)]
    short = Office(replace(WINDOW, end_time=START + 15 * MINUTE))
    short.down = {KEY: ["a"]}
    assert SOON not in [kind for _, kind in short.run(0, 0.25)]
    paused = Office(replace(WINDOW, mode=MaintenanceMode.PAUSE))
    paused.down = {KEY: ["a"]}
    assert SOON not in [kind for _, kind in paused.run(0, 2)]


def test_without_a_channel_of_its_creator_the_default_ones_hear_it():
    office = Office(WINDOW)
    office.down = {KEY: ["a"]}
    office.run(0, 1.7)
    assert office.at(1.8) == [SOON]
    assert office.notices[0].channels == ("default",)


def test_after_being_away_all_the_time_nothing_is_told():
    office = Office(WINDOW)
    office.ended = {KEY: False}
    assert office.run(2.1, 4) == []


def said(kind_at: float, office: Office, *, covered: int | None = 2, down: tuple[str, ...] = ()) -> list:
    office.at(kind_at)
    return [message for notice in office.notices for message in compose(notice, START + kind_at * HOUR, covered, down)]


def test_a_message_says_when_in_the_windows_own_time_and_what():
    office = Office(replace(WINDOW, timezone="Europe/Berlin", sites=("pop-north",)))
    noc, hook = said(-24, office)
    assert (noc.channel, hook.channel) == ("noc", "hook")
    assert noc.id != hook.id
    assert noc.alert_id == hook.alert_id
    assert noc.subject == "PLANNED: New firmware (2026-11-29 02:00 Europe/Berlin, in 1 d 0 h)"
    assert "2026-11-29 02:00 to 04:00 Europe/Berlin (2026-11-29 01:00 to 03:00 UTC)." in noc.body
    assert "Sites: pop-north" in noc.body
    assert "Planned by: lea" in noc.body
    assert noc.content["calendar"]["start"] == "20261129T010000Z"


def test_the_reminder_says_how_to_extend():
    office = Office(WINDOW)
    office.down = {KEY: ["a"]}
    office.run(0, 1.75)
    (message,) = said(1.75, office, covered=2, down=("a",))
    assert message.subject == (
        "MAINTENANCE ENDS SOON: New firmware (1 of 2 do not answer, it ends at 2026-11-29 03:00 UTC)"
    )
    assert f'POST /maintenance/{WINDOW.id}/extend {{"minutes": 30}}' in message.body
    assert "- a" in message.body


@pytest.mark.parametrize("description", ["", "a\r\nBcc: x@y.example", "<b>\x1b[31m", "x" * 2000])
def test_a_strange_description_stays_on_its_line(description):
    office = Office(replace(WINDOW, description=description))
    for message in said(-24, office):
        assert message.subject.isprintable()
        assert len(message.subject) <= 200
        assert all(line.isprintable() for line in message.body.splitlines())


def test_recorded_occurrences_are_told_like_any():
    moved = Occurrence(WINDOW.id, "2026-11-29", START, START + 4 * HOUR)
    office = Office(replace(WINDOW, rrule="FREQ=WEEKLY", notify_before=(3600,)))
    office.run(-1, 1)
    office.change(recorded=(moved,))
    assert office.at(1) == [CHANGED]
