"""What fails and has no outage yet: from a daemon's memory, and from the rows by one that does not check."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from servmon.clock import now
from servmon.model import CheckResult, FailureKind, Status
from servmon.probes.network import Network
from servmon.services.availability import AvailabilityService
from tests.fix_api import services_on, serving, window
from tests.fix_live import Daemon

WHY = {"failure_kind": FailureKind.REFUSED, "error_message": "connection refused"}


async def watch(daemon, *endpoint_ids: str, **fields) -> None:
    for endpoint_id in endpoint_ids:
        known = {"id": endpoint_id, "url": "tcp://192.0.2.1:1", "detection_threshold": 3, **fields}
        await daemon.availability.create_endpoint(known)


async def fails(daemon, endpoint_id: str, times: int) -> None:
    for _ in range(times):
        await daemon.finds(endpoint_id, Status.DOWN, **WHY)


@pytest.fixture
def stored(daemon, connection):
    """The service of a daemon that does not check."""
    return AvailabilityService(connection)


async def test_a_suspect_is_what_fails_until_its_outage_is_declared_or_it_answers_again(daemon, stored):
    await watch(daemon, "a", "b", "fine")
    await daemon.finds("fine", Status.UP)
    await fails(daemon, "a", 2)
    first = daemon.monitor.watched["a"].state.first_failure_at
    await fails(daemon, "b", 1)
    for service in (daemon.availability, stored):
        total, (a, b) = await service.get_suspects()
        assert (total, a.endpoint_id, a.since, a.failures, a.failures_needed) == (2, "a", first, 2, 1)
        assert (a.failure_kind, a.error_message, a.verifying) == (*WHY.values(), False)
        assert (b.endpoint_id, b.failures, b.failures_needed) == ("b", 1, 2)
    await fails(daemon, "a", 1)
    await daemon.finds("b", Status.UP)
    for service in (daemon.availability, stored):
        assert await service.get_suspects() == (0, [])


async def test_what_is_being_verified_and_what_a_person_closed_while_it_is_down_are_told(daemon):
    await watch(daemon, "a", "closed")
    await fails(daemon, "a", 2)
    watched = daemon.monitor.watched["a"]
    watched.state = replace(watched.state, failures=3, verifying=True)
    await fails(daemon, "closed", 3)
    await daemon.outages.resolve_outage(daemon.view.current("closed").outage_id)
    _, shown = await daemon.availability.get_suspects()
    assert {one.endpoint_id: (one.failures_needed, one.verifying) for one in shown} == {
        "a": (0, True),
        "closed": (3, False),
    }


async def test_a_detection_window_counts_its_own_failures(daemon, stored):
    await watch(daemon, "a", detection_window=5)
    for status in (Status.DOWN, Status.UP, Status.DOWN):
        await daemon.finds("a", status, **(WHY if status is Status.DOWN else {}))
    _, (live,) = await daemon.availability.get_suspects()
    assert (live.failures, live.failures_needed) == (2, 1)
    _, (known,) = await stored.get_suspects()
    assert known.failures_needed is None


async def test_what_fails_in_a_window_is_no_suspect(daemon, stored, connection):
    await watch(daemon, "a")
    await fails(daemon, "a", 1)
    async with serving(services_on(connection, daemon.view), live=daemon.view) as api:
        assert (await api.post("/maintenance/", window("a"))).status == 201
    for service in (daemon.availability, stored):
        assert await service.get_suspects() == (0, [])


async def test_suspects_are_told_page_by_page_those_that_fail_longest_first(daemon, connection):
    ids = [f"e{number}" for number in range(5)]
    await watch(daemon, *ids)
    for endpoint_id in reversed(ids):
        await fails(daemon, endpoint_id, 1)
    for view in (daemon.view, None):
        async with serving(services_on(connection, view), live=view) as api:
            seen, query = [], ""
            while True:
                page = (await api.get(f"/services/status/suspects?limit=2{query}")).json
                assert page["total"] == len(ids)
                seen += [one["endpoint_id"] for one in page["items"]]
                if page["next_cursor"] is None:
                    break
                query = f"&cursor={page['next_cursor']}"
            assert seen == ids[::-1]
            assert page["items"][0]["failure_kind"] == "refused"
            assert (await api.get("/services/status/suspects?cursor=x")).status == 422


async def test_who_fails_for_longer_than_is_kept_for_a_start_does_so_since_the_same_moment_after_one(
    daemon, database, connection
):
    await watch(daemon, "a", detection_threshold=500)
    endpoint = daemon.monitor.watched["a"].plan.endpoint
    begun = now() - timedelta(minutes=25)
    for number in range(100):
        at = begun + number * timedelta(seconds=15)
        daemon.monitor.receive(CheckResult("a", endpoint.key, Status.DOWN, at, **WHY))
    await daemon.writer.drain()
    _, (before,) = await daemon.availability.get_suspects()
    async with Network() as network:
        again = Daemon(database, connection, network)
        again.view.load(await again.view.recollect(), again.writer)
        _, (after,) = await again.availability.get_suspects()
        await again.monitor.stop()
    assert (after.since, before.since) == (begun, begun)
    assert again.view.current("a").since == begun


class Counting:
    """A pool that counts what it is asked."""

    def __init__(self, pool) -> None:
        self._pool = pool
        self.queries = 0

    async def fetch(self, *given, **options):
        self.queries += 1
        return await self._pool.fetch(*given, **options)


async def test_a_page_of_statuses_costs_as_many_queries_as_one(daemon, stored, connection):
    await watch(daemon, "a", "b", "suspected", "never")
    await daemon.finds("a", Status.UP)
    await fails(daemon, "b", 3)
    await fails(daemon, "suspected", 2)
    asked = await stored.list_endpoints()
    pool = Counting(connection.pool)
    counted = AvailabilityService(replace(connection, pool=pool))
    assert [*await counted.get_current_statuses(asked[:1])] == ["a"]
    of_one = pool.queries
    found = await counted.get_current_statuses(asked)
    assert (pool.queries, 0 < of_one <= 5) == (2 * of_one, True)
    assert found == {one.id: daemon.view.current(one.id) for one in asked}
    assert found["b"].outage_id
