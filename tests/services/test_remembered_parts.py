"""A list of endpoints is what Postgres says, also where most of it comes from the daemon's memory."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import product

import pytest

from servmon.errors import StoreUnavailableError
from servmon.model import State, Status
from servmon.services.availability import AvailabilityService
from servmon.services.listing import read_part
from servmon.services.memory import stored_or_remembered
from servmon.store.endpoints import EVERYTHING, EndpointFilter, Part
from tests.fix_api import window
from tests.services.test_live import create

PARTS = [
    Part(100),
    Part(2),
    Part(2, after="b"),
    Part(100, backwards=True),
    Part(1, "c", EVERYTHING, backwards=True),
    Part(100, wanted=EndpointFilter(site="pop")),
    Part(100, wanted=EndpointFilter(text="192.0.2", ids=["d", "a"])),
    Part(100, wanted=EndpointFilter(is_active=False)),
    Part(100, wanted=EndpointFilter(tag="none")),
]


@pytest.fixture
async def fleet(daemon):
    for endpoint_id in "abde":
        await create(daemon, endpoint_id, site="pop", tags=["core"], depends_on=[["x", "y"]])
    await create(daemon, "c", is_active=False)
    return daemon


class Reads:
    """Postgres, with a note of what it was asked for; ``between`` is done before the second question."""

    def __init__(self, db, between=None) -> None:
        self._db = db
        self._between = between
        self.asked: list[str] = []

    async def fetch(self, query: str, *given):
        if self.asked and self._between:
            await self._between()
        self.asked.append("ids" if query.startswith("select id, revision") else "rows")
        return await self._db.fetch(query, *given)


async def test_it_is_the_same_with_and_without_a_memory(fleet, connection):
    db = connection.pool
    for part in PARTS:
        assert await read_part(db, part, fleet.view) == await read_part(db, part, None), part
    assert [len(await read_part(db, part, fleet.view)) for part in PARTS] == [5, 2, 2, 5, 1, 4, 2, 1, 0]


async def test_while_postgres_is_away_memory_chooses_among_what_is_active_as_postgres_does(fleet, connection):
    wanted = [EVERYTHING, *(part.wanted for part in PARTS), EndpointFilter(text="A\nA"), EndpointFilter("TCP", "core")]
    active = [one for one in wanted if one.is_active is not False]
    stored = [await read_part(connection.pool, Part(100, wanted=one), None) for one in active]
    fleet.away = True
    for one, found in zip(active, stored, strict=True):
        remembered = await fleet.availability.list_endpoints(wanted=one)
        assert remembered == [endpoint for endpoint in found if endpoint.is_active], one
    assert {len(found) for found in stored} == {0, 1, 2, 4, 5}
    with pytest.raises(StoreUnavailableError):
        await fleet.availability.list_endpoints(wanted=EndpointFilter(is_active=False))


async def test_memory_and_rows_choose_the_same_by_how_endpoints_are_now(fleet, connection):
    await create(fleet, "f", detection_threshold=2)
    await fleet.finds("a", Status.UP)
    await fleet.finds("b", Status.DOWN)
    await fleet.finds("f", Status.DOWN)
    await fleet.outages.create_maintenance_window(window("a", "c", "e"))
    stored = AvailabilityService(connection)
    told = {}
    for how in product((None, Status.DOWN, Status.UNKNOWN), (None, *State), (None, True, False)):
        wanted = dict(zip(("status", "state", "in_maintenance"), how, strict=True))
        for further in ({}, {"backwards": True}, {"wanted": EndpointFilter(site="pop")}):
            found = await fleet.availability.list_endpoints(**wanted, **further)
            assert found == await stored.list_endpoints(**wanted, **further), (how, further)
        told[how] = "".join(one.id for one in await stored.list_endpoints(**wanted))
    assert told[None, None, None] == "abcdef"
    assert (told[None, State.DOWN, None], told[None, State.SUSPECTED, None]) == ("b", "f")
    assert (told[Status.DOWN, None, None], told[None, State.UNKNOWN, True]) == ("bf", "e")
    assert told[None, None, False] == "bdf"


async def test_a_server_that_hangs_is_not_waited_for_though_the_driver_does(fleet, monkeypatch):
    monkeypatch.setattr("servmon.services.memory.PATIENCE_SECONDS", 0.01)
    answered = asyncio.Event()

    async def hang():
        with suppress(asyncio.CancelledError):
            await answered.wait()
        await answered.wait()

    found = await stored_or_remembered(fleet.view, hang, lambda live: live.endpoint("a"))
    assert found.id == "a"
    with pytest.raises(StoreUnavailableError, match="does not remember"):
        await stored_or_remembered(fleet.view, hang, lambda _live: None)
    answered.set()


async def test_what_is_remembered_as_it_stands_is_not_read_again(fleet, connection):
    db = Reads(connection.pool)
    found = await read_part(db, Part(2), fleet.view)
    assert db.asked == ["ids"]
    assert [one is fleet.view.endpoint(one.id) for one in found] == [True, True]


async def test_what_was_changed_behind_the_daemon_s_back_is_shown_as_it_stands_now(fleet, connection):
    await connection.pool.execute("update service_endpoint set name = 'new' where id = 'b'")
    assert fleet.view.endpoint("b").name == "b"  # it has not heard yet
    shown = await read_part(connection.pool, Part(100), fleet.view)
    assert {one.id: one.name for one in shown} == {"a": "a", "b": "new", "c": "c", "d": "d", "e": "e"}


async def test_an_endpoint_deleted_between_the_two_questions_leaves_no_gap(fleet, connection):
    async def delete() -> None:
        await connection.pool.execute("update service_endpoint set archived_at = now() where id = 'c'")

    db = Reads(connection.pool, between=delete)
    assert [one.id for one in await read_part(db, Part(3), fleet.view)] == ["a", "b", "d"]
    assert db.asked == ["ids", "rows", "rows"]
