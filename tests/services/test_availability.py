"""Service endpoints as Python callers see them."""

from __future__ import annotations

import pytest

from servmon.errors import ConflictError, InvalidInputError, NotFoundError, TooSoonError
from servmon.model import CheckSource, FailureKind, State, Status
from servmon.probes.specification import EndpointDefaults, parse_endpoint
from servmon.services.availability import AvailabilityService
from servmon.services.connection import ManualChecks
from servmon.services.listing import next_ids
from servmon.store import endpoints
from tests.services.test_connection import HandClock

WEB = {"id": "web", "url": "https://192.0.2.1/health", "expected_response_pattern": "UP", "tags": ["edge"]}


@pytest.fixture
def service(connection) -> AvailabilityService:
    return AvailabilityService(connection)


async def test_an_update_changes_only_the_given_fields(service):
    before = await service.create_endpoint(WEB)
    after = await service.update_endpoint("web", {"timeout": 2, "name": "Web"})
    assert (after.timeout, after.name) == (2, "Web")
    assert (after.expected_response_pattern, after.tags) == (before.expected_response_pattern, before.tags)
    assert after.created_at == before.created_at
    assert await service.get_endpoint("web") == after


async def test_an_update_with_none_brings_back_the_default(service):
    await service.create_endpoint(WEB)
    assert (await service.update_endpoint("web", {"expected_response_pattern": None})).expected_response_pattern is None


async def test_an_update_to_another_protocol_leaves_its_options_behind(service):
    await service.create_endpoint({"id": "ns", "url": "dns://192.0.2.1/example.org?type=AAAA"})
    after = await service.update_endpoint("ns", {"url": "tcp://192.0.2.1:53", "protocol": "TCP"})
    assert after.protocol == "TCP"


async def test_an_update_names_every_wrong_field_and_changes_nothing(service):
    before = await service.create_endpoint(WEB)
    with pytest.raises(InvalidInputError) as caught:
        await service.update_endpoint("web", {"timeout": -1, "retries": "x", "name": "Web"})
    assert {problem.field for problem in caught.value.problems} == {"timeout", "retries"}
    assert await service.get_endpoint("web") == before


async def test_a_new_endpoint_takes_its_defaults_from_the_connection(connection, service):
    connection.defaults = EndpointDefaults(check_interval=7, timeout=2, retries=1)
    endpoint = await service.create_endpoint(WEB)
    assert (endpoint.check_interval, endpoint.timeout, endpoint.retries) == (7, 2, 1)


async def test_an_endpoint_of_the_configuration_file_can_only_be_changed_there(connection, service):
    configured = parse_endpoint(WEB, connection.defaults, source="config:main")
    await endpoints.provision(connection.pool, "config:main", [configured])
    for change in (
        service.update_endpoint("web", {"timeout": 2}),
        service.replace_endpoint("web", WEB),
        service.delete_endpoint("web"),
    ):
        with pytest.raises(
            ConflictError, match=r"web comes from the configuration file \(instance main\); change it there"
        ):
            await change
    with pytest.raises(ConflictError):
        await service.create_endpoint(WEB)
    assert (await service.get_endpoint("web")).source == "config:main"


async def test_nobody_chooses_where_an_endpoint_comes_from(service):
    endpoint = await service.create_endpoint({**WEB, "source": "config:main", "revision": 99, "key": 5})
    assert endpoint.source == "api"


async def test_an_unknown_endpoint_is_not_found_whatever_is_asked(service):
    for endpoint_id in ("nobody", "", "a\0b", "\ud800", "../x"):
        for asked in (
            service.get_endpoint(endpoint_id),
            service.update_endpoint(endpoint_id, {}),
            service.delete_endpoint(endpoint_id),
            service.check_endpoint(endpoint_id),
            service.get_current_status(endpoint_id),
            service.get_status_history(endpoint_id),
        ):
            with pytest.raises(NotFoundError):
                await asked


async def test_every_service_on_a_connection_shares_the_limit_on_manual_checks(connection, open_port):
    connection.manual_checks = ManualChecks(HandClock())
    service = AvailabilityService(connection)
    await service.create_endpoint({"id": "port", "url": f"tcp://127.0.0.1:{open_port}"})
    checked = await service.check_endpoint("port")
    assert (checked.status, checked.source) == (Status.UP, CheckSource.MANUAL)
    with pytest.raises(TooSoonError):
        await AvailabilityService(connection).check_endpoint("port")


async def test_outside_a_daemon_the_rows_tell_the_current_status(service, history):
    await service.create_endpoint(WEB)
    results = await history.check("web", Status.UP, Status.DOWN, Status.UNKNOWN, Status.DOWN)
    opened = await history.outage("web", minutes=10)
    current = await service.get_current_status("web")
    assert (current.status, current.failure_kind) == (Status.DOWN, FailureKind.REFUSED)
    assert (current.timestamp, current.consecutive_failures) == (results[-1].timestamp, 2)
    assert (current.state, current.since, current.outage_id) == (State.DOWN, opened.declared_at, opened.id)


async def test_the_history_of_a_deleted_endpoint_stays_and_comes_back_with_its_id(service, history):
    await service.create_endpoint(WEB)
    await history.check("web", Status.UP, Status.DOWN)
    await service.delete_endpoint("web")
    rows = await service.get_status_history("web")
    assert [row.status for row in rows] == [Status.DOWN, Status.UP]
    await service.create_endpoint(WEB)
    assert await service.get_status_history("web") == rows


@pytest.mark.parametrize(
    "changes",
    [{"is_active": False}, {"url": "https://192.0.2.2/health"}, {"url": "tcp://192.0.2.1:1", "protocol": "TCP"}],
)
async def test_an_endpoint_that_asks_another_question_has_its_outage_resolved(service, history, changes):
    await service.create_endpoint({"id": "web", "url": "https://192.0.2.1/health"})
    opened = await history.outage("web")
    await service.update_endpoint("web", {"name": "Web"})
    assert (await service.get_current_status("web")).outage_id == opened.id
    await service.update_endpoint("web", changes)
    assert (await service.get_current_status("web")).outage_id is None


def test_a_page_of_those_with_a_status_asks_postgres_for_little_more_than_the_page():
    ids = [f"e{number:05}" for number in range(10_000)]
    shuffled = ids[1::2] + ids[::2]
    for backwards in (False, True):
        ordered = ids[::-1] if backwards else ids
        assert next_ids(shuffled, None, 3, backwards)[:3] == ordered[:3]
        assert next_ids(shuffled, ordered[7], 3, backwards)[:3] == ordered[8:11]
        assert next_ids(shuffled, ordered[-2], 3, backwards) == ordered[-1:]
        assert len(next_ids(shuffled, None, 100, backwards)) < 300
