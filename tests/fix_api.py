"""The API on a real socket over a real Postgres, and things for it to check."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientSession

from servmon.alerts.links import Links
from servmon.api.app import Entrance, Services, build_app
from servmon.api.server import serve
from servmon.clock import rfc3339
from servmon.metrics import Counters
from servmon.model import (
    CheckResult,
    CheckSource,
    FailureKind,
    Outage,
    Role,
    Severity,
    State,
    StateChange,
    Status,
    Transition,
)
from servmon.services.alert_rules import AlertRuleService
from servmon.services.alerts import AlertService
from servmon.services.availability import AvailabilityService
from servmon.services.connection import Connection, connect
from servmon.services.outages import OutageManagementService
from servmon.services.tokens import AccessToken, TokenBook, TokenService
from servmon.store.writer import Writer
from servmon.web import PAGES
from servmon.web.acknowledge import LINKS
from tests.ports import free_port

TOKEN = "svm_00000000_for-tests"
_NOW = datetime.now(UTC)  # noqa: TID251 - windows of the real daemon need the real time
UNKNOWN_UUID = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def wrong_fields(self) -> list[str]:
        return [error["field"] for error in self.json["errors"]]


class Client:
    """Speaks to the API with a token, and says exactly what came back."""

    def __init__(self, session: ClientSession, port: int) -> None:
        self.session = session
        self.port = port

    async def send(self, method: str, path: str, body: Any = None, **options: Any) -> Reply:
        token = {} if options.pop("skip_token", False) else {"Authorization": f"Bearer {TOKEN}"}
        headers = token | options.pop("headers", {})
        if body is not None:
            options |= {"json": body}
        async with self.session.request(method, path, headers=headers, allow_redirects=False, **options) as response:
            return Reply(response.status, response.headers, await response.read())

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.send("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Reply:
        return await self.send("POST", path, body, **options)


def window(*endpoint_ids: str, start: float = -1, end: float = 1, **fields) -> dict:
    times = {"start_time": rfc3339(_NOW + timedelta(hours=start)), "end_time": rfc3339(_NOW + timedelta(hours=end))}
    return {"endpoint_ids": list(endpoint_ids), "description": "card swap", **times, **fields}


class History:
    """Writes what a daemon would have found out before the test began."""

    def __init__(self, dsn: str, connection: Connection) -> None:
        self._dsn = dsn
        self._connection = connection
        self._at = datetime.now(UTC) - timedelta(hours=1)  # noqa: TID251 - real rows need the real time

    async def check(self, endpoint_id: str, *statuses: Status) -> list[CheckResult]:
        """One scheduled result for each status, a minute apart."""
        endpoint = await AvailabilityService(self._connection).get_endpoint(endpoint_id)
        results = [
            CheckResult(
                endpoint_id=endpoint.id,
                endpoint_key=endpoint.key,
                status=status,
                timestamp=self._at + timedelta(minutes=number),
                response_time=12.5 if status is Status.UP else None,
                failure_kind=FailureKind.REFUSED if status is Status.DOWN else None,
                error_message="connection refused" if status is Status.DOWN else None,
                source=CheckSource.SCHEDULE,
            )
            for number, status in enumerate(statuses)
        ]
        await self._write([(result, ()) for result in results])
        return results

    async def outage(
        self,
        endpoint_id: str,
        *,
        minutes: float = 30,
        resolved: bool = False,
        description: str = "connection refused",
    ) -> Outage:
        """An outage that began so many minutes ago, and where resolved lasted 5 minutes."""
        start = self._at + timedelta(minutes=60 - minutes)
        opened = Outage(
            id=str(uuid4()),
            endpoint_id=endpoint_id,
            severity=Severity.MAJOR,
            description=description,
            start_time=start,
            declared_at=start + timedelta(seconds=40),
            revision=1,
        )
        down = self._change(opened, State.SUSPECTED, State.DOWN, opened.declared_at)
        await self._write([(None, [Transition(down, opened)])])
        if not resolved:
            return opened
        ended_at = start + timedelta(minutes=5)
        closed = replace(opened, resolved=True, resolved_at=ended_at, revision=2)
        up = self._change(closed, State.DOWN, State.UP, ended_at)
        await self._write([(None, [Transition(up, closed)])])
        return closed

    def _change(self, outage: Outage, old: State, new: State, at: datetime) -> StateChange:
        return StateChange(str(uuid4()), outage.endpoint_id, old, new, "tested", at, outage.id)

    async def _write(self, entries: list[tuple[CheckResult | None, Any]]) -> None:
        writer = Writer(self._dsn, Counters(), observer=1)
        for result, transitions in entries:
            writer.put(result, transitions)
        await writer.drain()


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as opened:
        yield opened


@pytest.fixture
def history(database: str, connection: Connection) -> History:
    return History(database, connection)


READ_TOKEN = "svm_11111111_reads"
OPERATE_TOKEN = "svm_22222222_operates"


@asynccontextmanager
async def serving(services: Services, links: Links | None = None, **parts: Any) -> AsyncIterator[Client]:
    """A client of an API over these services, with one token of each role; on a ``port`` where one is given."""
    port = parts.pop("port", 0)
    book = TokenBook(
        [
            AccessToken.of("night-shift", "another"),
            AccessToken.of("admin", TOKEN),
            AccessToken.of("reader", READ_TOKEN, Role.READ),
            AccessToken.of("operator", OPERATE_TOKEN, Role.OPERATE),
        ]
    )
    if services.connection is not None:
        services = replace(services, tokens=TokenService(services.connection, book))
    entrance = replace(parts.pop("entrance", Entrance()), pages=PAGES)
    app = build_app(services, book=book, entrance=entrance, **parts)
    app[LINKS] = links
    server = await serve(app, "127.0.0.1", port)
    async with ClientSession(f"http://127.0.0.1:{server.port}") as session:
        yield Client(session, server.port)
    await server.stop()


def services_on(connection: Connection, live: Any = None) -> Services:
    """All services on one connection, without a daemon around them."""
    return Services(
        connection,
        AvailabilityService(connection, live),
        OutageManagementService(connection, live),
        AlertService(connection),
        None,
        AlertRuleService(connection),
    )


NOTHING = Services(None, None, None, None, None, None)


@pytest.fixture
async def api(connection: Connection) -> AsyncIterator[Client]:
    async with serving(services_on(connection)) as client:
        yield client


@pytest.fixture
async def door() -> AsyncIterator[Client]:
    """An API with nothing behind it: a request that is not refused at the door, but for ``/metrics``, is a 500."""
    async with serving(NOTHING) as client:
        yield client


@pytest.fixture
async def open_port() -> AsyncIterator[int]:
    """A port where connections are accepted and closed again."""

    async def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    """A port where nothing listens."""
    return free_port()
