"""Certificates are told before they expire: each day once, together, at a fitting time, over restarts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from servmon.certificates import Certificates
from servmon.clock import rfc3339
from servmon.detection.state import new_id
from servmon.model import Event, EventKind, Severity
from servmon.probes.base import Answer
from servmon.store import events as stored
from tests.virtual import World, endpoint, run_virtual

DAYS = (30, 14, 7, 3, 1)
# A Wednesday at noon where this machine stands.
NOON = datetime(2026, 11, 25, 12).astimezone()


class StandingClock:
    """Wall time is what it is set to."""

    def __init__(self) -> None:
        self.at = NOON

    def wall(self) -> float:
        return self.at.timestamp()

    def monotonic(self) -> float:
        return self.at.timestamp()


class Shop:
    """Endpoints whose certificates end so many days after NOON, checked anew before each look."""

    def __init__(self, ends: dict[str, float | None], told: Sequence[dict[str, Any]] = (), days: Sequence[int] = DAYS):
        self.clock = StandingClock()
        self.ends = {name: None if left is None else NOON + timedelta(days=left) for name, left in ends.items()}
        self.said: list[Event] = []
        self._told = told
        self._days = days

    def look(self, *moments: datetime) -> list[Event]:
        """What was said at these moments, by one run of servmon."""

        async def main() -> None:
            world = World(self._answer)
            world.watch([endpoint(name, check_interval=10) for name in self.ends])
            certificates = Certificates(
                world.monitor,
                lambda: self._days,
                tell=self.said.append,
                read_told=self._read_told,
                clock=self.clock,
            )
            for details in await self._read_told(NOON):
                certificates._note(details["days"], [tuple(one.split()) for one in details["expires"]])
            for self.clock.at in moments:
                await world.run(11)
                certificates.look()

        self.said.clear()
        run_virtual(main)
        return list(self.said)

    async def _read_told(self, _since: datetime) -> Sequence[dict[str, Any]]:
        return self._told

    async def _answer(self, name: str, _now: float) -> Answer:
        end = self.ends[name]
        if end is None:
            return Answer(5.0)
        left = (end - self.clock.at) // timedelta(days=1)
        return Answer(5.0, details={"certificate": {"not_after": rfc3339(end), "days_left": left}})


def days_of(said: Sequence[Event]) -> list[int]:
    return [event.details["days"] for event in said]


def test_each_of_the_days_is_told_once_until_it_has_expired():
    said = Shop({"web": 40}).look(*(NOON + timedelta(days=day) for day in range(43)))
    assert days_of(said) == list(DAYS)
    assert [event.message.removeprefix("the certificate of web expires ") for event in said] == [
        "in 28 days, on 2027-01-04",  # the 30th day before is a Saturday
        "in 14 days, on 2027-01-04",
        "in 7 days, on 2027-01-04",
        "in 3 days, on 2027-01-04",
        "in 1 day, on 2027-01-04",
    ]
    assert [event.severity for event in said] == [Severity.WARNING] * 3 + [Severity.MAJOR] * 2
    assert {event.kind for event in said} == {EventKind.CERTIFICATE_EXPIRES}


def test_what_is_first_seen_late_is_told_once_by_the_days_that_are_left():
    assert days_of(Shop({"web": 5}).look(NOON, NOON, NOON + timedelta(hours=1))) == [7]
    assert days_of(Shop({"web": -1}).look(NOON)) == []
    assert days_of(Shop({"web": 31.5, "plain": None}).look(NOON)) == []


def test_what_reaches_the_same_day_is_one_message():
    (event,) = Shop({f"web-{number}": 13.5 - number / 10 for number in range(5)}).look(NOON)
    assert event.message == "5 certificates expire within 14 days, first that of web-4, on 2026-12-08"
    assert [one.split()[0] for one in event.details["expires"]] == [f"web-{number}" for number in (4, 3, 2, 1, 0)]


def test_only_the_last_three_days_disturb_anybody_at_night_or_on_a_weekend():
    night, saturday, monday = NOON - timedelta(hours=9), NOON + timedelta(days=3), NOON + timedelta(days=5)
    assert days_of(Shop({"web": 10, "urgent": 2.5}).look(night)) == [3]
    assert days_of(Shop({"web": 17.5}).look(saturday, saturday + timedelta(days=1), monday)) == [14]


def test_a_new_certificate_is_told_anew_and_an_old_one_never_again():
    shop = Shop({"web": 5})
    assert days_of(shop.look(NOON)) == [7]
    again = Shop({"web": 5}, told=[dict(event.details) for event in shop.said])
    assert days_of(again.look(NOON)) == []
    assert days_of(again.look(NOON + timedelta(days=3))) == [3]
    renewed = Shop({"web": 6}, told=[dict(event.details) for event in shop.said])
    assert days_of(renewed.look(NOON)) == [7]


@pytest.mark.parametrize(("days", "expected"), [((), []), ((20,), [20]), ((1, 30), [30])])
def test_the_days_are_the_operators_choice(days, expected):
    assert days_of(Shop({"web": 10}, days=days).look(NOON)) == expected


async def test_what_was_told_is_read_from_the_stored_events(db):
    details = {"days": 7, "expires": [f"web {rfc3339(NOON)}"]}
    await stored.insert(db, Event(new_id(), EventKind.CERTIFICATE_EXPIRES, Severity.WARNING, "m", NOON, details))
    assert await stored.details_of(db, EventKind.CERTIFICATE_EXPIRES, NOON - timedelta(days=1)) == [details]
    assert await stored.details_of(db, EventKind.CERTIFICATE_EXPIRES, NOON) == []
    assert await stored.details_of(db, EventKind.BLIND, NOON - timedelta(days=1)) == []
