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
        parse_window({**RIGHT, **changes}, default_creator="me")
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
    ],
)
def test_every_wrong_field_is_named(changes, fields):
    assert wrong_fields(**changes) == fields
