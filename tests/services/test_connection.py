"""The way to the database, and what all services on it share."""

from __future__ import annotations

import pytest

from servmon.errors import StoreUnavailableError, TooSoonError
from servmon.services.availability import AvailabilityService
from servmon.services.connection import ManualChecks, connect


class HandClock:
    def __init__(self) -> None:
        self.now = 100.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


async def test_a_connection_can_be_awaited_and_closed(database):
    db = await connect(database)
    assert await AvailabilityService(db).list_endpoints() == []
    await db.close()


async def test_an_awaited_connection_closes_at_the_end_of_its_block(database):
    async with await connect(database) as db:
        assert await AvailabilityService(db).list_endpoints() == []


async def test_a_database_that_is_not_there_is_told_without_the_password(closed_port):
    with pytest.raises(StoreUnavailableError) as caught:
        await connect(f"postgresql://servmon:hunter2@127.0.0.1:{closed_port}/servmon")
    assert "hunter2" not in str(caught.value)
    assert str(closed_port) in str(caught.value)


def test_an_endpoint_is_checked_by_hand_once_a_second():
    clock = HandClock()
    checks = ManualChecks(clock)
    checks.admit("a")
    checks.admit("b")
    clock.now += 0.4
    with pytest.raises(TooSoonError, match="a was checked by hand") as caught:
        checks.admit("a")
    assert caught.value.retry_after == pytest.approx(0.6)
    clock.now += 0.6
    checks.admit("a")
