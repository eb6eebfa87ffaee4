"""What may stand in a maintenance window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from servmon.errors import InvalidInputError
from servmon.model import MaintenanceMode
from servmon.services.window_fields import parse_window

START = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
RIGHT = {"endpoint_ids": ["a"], "start_time": START, "end_time": START + timedelta(hours=2)}


def wrong_fields(**changes) -> set[str]:
    with pytest.raises(InvalidInputError) as caught:
        parse_window({**RIGHT, **changes}, default_creator="me", channels=["noc", "hook"])
    return {problem.field for problem in caught.value.problems}


def test_what_is_left_out_has_its_default():
    window = parse_window(RIGHT, default_creator="me")
    assert (window.mode, window.description, window.created_by) == (MaintenanceMode.MUTE, "", "me")


def test_naive_datetimes_count_as_utc():
    window = parse_window({**RIGHT, "start_time": START.replace(tzinfo=None)}, default_creator="me")
    assert window.start_time == START


def test_read_only_fields_are_ignored_and_every_window_gets_its_own_id():
    first, second = (parse_window({**RIGHT, "id": "x", "created_at": 1}, default_creator="me") for _ in range(2))
    assert "x" != first.id != second.id


def test_an_endpoint_named_twice_is_covered_once():
    assert parse_window({**RIGHT, "endpoint_ids": ("b", "a", "b")}, default_creator="me").endpoint_ids == ("b", "a")


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"endpoint_ids": []}, {"endpoint_ids"}),
        ({"endpoint_ids": None}, {"endpoint_ids"}),
        ({"endpoint_ids": "a"}, {"endpoint_ids"}),
        ({"endpoint_ids": {"a": 1}}, {"endpoint_ids"}),
        ({"endpoint_ids": ["a", 7, "", "a\0", "no/id"]}, {f"endpoint_ids.{n}" for n in (1, 2, 3, 4)}),
        ({"end_time": START}, {"end_time"}),
        ({"start_time": None, "end_time": None}, {"start_time", "end_time"}),
        ({"start_time": "2026-11-23T02:00:00"}, {"start_time"}),
        ({"mode": "MUTE"}, {"mode"}),
        ({"mode": ["mute"]}, {"mode"}),
        ({"description": 7, "created_by": []}, {"description", "created_by"}),
        ({"description": "x" * 2001}, {"description"}),
        ({"description": "a\0b"}, {"description"}),
        ({"end": 1}, {"end"}),
        ({"mode": "x", "end_time": "x", "description": 1}, {"mode", "end_time", "description"}),
        ({"endpoint_ids": [], "tags": [], "sites": []}, {"endpoint_ids"}),
        ({"endpoint_ids": "a", "tags": ["core"]}, {"endpoint_ids"}),
        ({"tags": ["", 7], "sites": "pop-north"}, {"tags.0", "tags.1", "sites"}),
        ({"tags": ["x"] * 1001}, {"tags"}),
        ({"timezone": "Mars/Olympus"}, {"timezone"}),
        ({"rrule": "FREQ=HOURLY"}, {"rrule"}),
        ({"rrule": 7}, {"rrule"}),
        ({"rrule": "FREQ=DAILY", "exdates": ["2026-11-24", "2026-11-22", "x"]}, {"exdates.2"}),
        ({"rrule": "FREQ=WEEKLY", "exdates": ["2026-11-30", "2026-12-01"]}, {"exdates.1"}),
        ({"exdates": ["2026-11-24"]}, {"exdates"}),
        ({"notify": ["noc", "sms", ""]}, {"notify.1", "notify.2"}),
        ({"creator_channel": "sms"}, {"creator_channel"}),
        ({"notify_before": ["24h"]}, {"notify_before"}),
        (
            {"notify": ["noc"], "notify_before": ["24h", "1 h", 60, "0m", "99d"]},
            {f"notify_before.{n}" for n in (1, 2, 3, 4)},
        ),
    ],
)
def test_every_wrong_field_is_named(changes, fields):
    assert wrong_fields(**changes) == fields


def test_a_window_may_be_for_tags_and_sites_alone():
    wanted = {**RIGHT, "endpoint_ids": [], "tags": ["core", "core"], "sites": ("pop-north",)}
    window = parse_window(wanted, default_creator="me")
    assert (window.endpoint_ids, window.tags, window.sites) == ((), ("core",), ("pop-north",))


def test_a_recurring_window_with_stakeholders_is_read_whole():
    wanted = {
        **RIGHT,
        "rrule": "RRULE:freq=weekly;byday=mo",
        "timezone": "Europe/Berlin",
        "exdates": ["2026-12-07", "2026-11-30"],
        "notify": ["noc"],
        "notify_before": ["1h", "1d", "60m"],
        "creator_channel": "hook",
    }
    window = parse_window(wanted, default_creator="me", channels=["noc", "hook"])
    assert (window.rrule, window.timezone) == ("FREQ=WEEKLY;BYDAY=MO", "Europe/Berlin")
    assert [day.day for day in window.exdates] == [30, 7]
    assert (window.notify, window.notify_before, window.creator_channel) == (("noc",), (86_400, 3600), "hook")
