"""How often somebody may do the same thing."""

from __future__ import annotations

import pytest

from servmon.errors import TooSoonError
from servmon.services import pace
from servmon.services.connection import MOST_MANUAL_CHECKS, ManualChecks
from servmon.services.pace import Pace
from tests.services.test_connection import HandClock


def test_so_many_go_through_in_a_while_and_whoever_waited_goes_on():
    clock = HandClock()
    limit = Pace(2, 10.0, clock)
    assert [limit.wait("a"), limit.wait("b")] == [0.0, 0.0]
    clock.now += 4
    assert [limit.wait("a"), limit.wait("a"), limit.wait("b")] == [0.0, pytest.approx(6), 0.0]
    clock.now += 6
    assert limit.wait("a") == 0.0
    assert limit.wait("a") == pytest.approx(4)


def test_of_too_many_who_came_longest_ago_is_forgotten(monkeypatch):
    monkeypatch.setattr(pace, "MOST_KNOWN", 3)
    limit = Pace(1, 10.0, HandClock())
    for who in "abac":
        limit.wait(who)
    assert [bool(limit.wait(who)) for who in ("a", "d", "b", "a")] == [True, False, False, True]
    assert len(limit._came) == 3


def test_one_person_has_only_so_many_endpoints_checked_in_a_minute():
    clock = HandClock()
    checks = ManualChecks(clock)
    for number in range(MOST_MANUAL_CHECKS):
        checks.admit(f"e{number}", "night shift")
    with pytest.raises(TooSoonError, match="night shift asked for 120 checks within a minute") as caught:
        checks.admit("one more", "night shift")
    assert caught.value.retry_after == pytest.approx(60)
    checks.admit("one more yet", "day shift")
    checks.admit("and one from Python")
    clock.now += 60
    checks.admit("one more", "night shift")
