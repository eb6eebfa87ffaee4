"""Checks made on demand from Python, where no daemon need be running."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from servmon.errors import TooSoonError
from servmon.model import Endpoint, ServiceStatus
from servmon.probes.network import Network
from servmon.services.availability import AvailabilityService
from servmon.services.connection import Connection

AT_ONCE = 100
PAGE = 1000
# What of a check is told to who asked for it.
DESCRIBED = (
    "id", "endpoint_id", "status", "response_time", "timestamp", "attempts", "failure_kind", "error_message",
)  # fmt: skip


class ServiceAvailabilityCollector:
    """Checks endpoints now and stores what it finds, as a person's checks: they count for no outage."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._service = AvailabilityService(connection)

    async def collect(self, endpoint_id: str) -> dict[str, Any]:
        """Check one endpoint.

        The answer has ``id, endpoint_id, status, response_time`` (milliseconds), ``timestamp, attempts,
        failure_kind, error_message``. Raises ``NotFoundError``, and ``TooSoonError`` within a second of the last.
        """
        return _described(await self._service.check_endpoint(endpoint_id))

    async def collect_all(self) -> dict[str, dict[str, Any]]:
        """Check every active endpoint once, a hundred at a time; the answers of ``collect`` by endpoint id."""
        waiting = iter(await self._active_endpoints())
        found: dict[str, dict[str, Any]] = {}
        async with Network(self._connection.clock) as network:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(AT_ONCE):
                        group.create_task(self._work_off(waiting, network, found))
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None
        return found

    async def _active_endpoints(self) -> list[Endpoint]:
        active: list[Endpoint] = []
        page = await self._service.list_endpoints(limit=PAGE)
        while page:
            active += [endpoint for endpoint in page if endpoint.is_active]
            page = await self._service.list_endpoints(limit=PAGE, after=page[-1].id)
        return active

    async def _work_off(self, waiting: Iterator[Endpoint], network: Network, found: dict[str, dict[str, Any]]) -> None:
        for endpoint in waiting:
            await self._wait_for_turn(endpoint.id)
            found[endpoint.id] = _described(await self._service.check_through(network, endpoint))

    async def _wait_for_turn(self, endpoint_id: str) -> None:
        while True:
            try:
                return self._connection.manual_checks.admit(endpoint_id)
            except TooSoonError as error:
                await asyncio.sleep(error.retry_after)


async def collect_specific_service_availability(connection: Connection, endpoint_id: str) -> dict[str, Any]:
    """Check one endpoint now and store the result; the answer and the errors are those of ``collect``."""
    return await ServiceAvailabilityCollector(connection).collect(endpoint_id)


def _described(status: ServiceStatus) -> dict[str, Any]:
    return {name: getattr(status, name) for name in DESCRIBED}
