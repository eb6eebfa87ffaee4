"""The seed's four Python examples, and the names they use."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import servmon
from servmon import (
    AvailabilityService,
    OutageManagementService,
    ProtocolType,
    ServiceAvailabilityCollector,
    collect_specific_service_availability,
)

SEED_NAMES = [
    "AvailabilityService",
    "MaintenanceWindow",
    "OutageManagementService",
    "ProtocolType",
    "ServiceAvailabilityCollector",
    "ServiceEndpoint",
    "ServiceOutage",
    "ServiceStatus",
    "collect_specific_service_availability",
    "connect",
]


def utcnow() -> datetime:
    """As the seed's ``datetime.utcnow()``: the time in UTC, without saying so."""
    return datetime.now(UTC).replace(tzinfo=None)  # noqa: TID251 - the examples run in real time


@pytest.fixture
async def db(database):
    async with servmon.connect(database) as connection:
        yield connection


@pytest.fixture
async def site() -> AsyncIterator[int]:
    """A web server whose every page says that it is up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"status":"UP"}'
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def add_service_endpoint(db, **fields):
    service = AvailabilityService(db)
    return await service.create_endpoint(
        {
            "id": "api-gateway",
            "name": "API Gateway",
            "url": "https://api.example.com/health",
            "protocol": ProtocolType.HTTPS,
            "check_interval": 60,
            "timeout": 5,
            "retries": 3,
            "expected_status_code": 200,
            "expected_response_pattern": '"status":"UP"',
            "is_active": True,
            **fields,
        }
    )


async def test_adding_a_service_endpoint(db):
    endpoint = await add_service_endpoint(db)
    assert isinstance(endpoint, servmon.ServiceEndpoint)
    assert (endpoint.id, endpoint.protocol, endpoint.expected_status_code) == ("api-gateway", "HTTPS", 200)
    assert endpoint.created_at.tzinfo is not None


async def test_manually_checking_a_service(db, site, capsys):
    await add_service_endpoint(db, url=f"http://127.0.0.1:{site}/health", protocol=ProtocolType.HTTP)
    result = await collect_specific_service_availability(db, "api-gateway")
    print(f"Service status: {result['status']}")  # noqa: T201 - as the seed does
    assert capsys.readouterr().out == "Service status: UP\n"
    assert (result["error_message"], result["response_time"] > 0) == (None, True)


async def test_creating_a_maintenance_window(db):
    await add_service_endpoint(db)
    await add_service_endpoint(db, id="auth-service")
    outage_service = OutageManagementService(db)
    start = utcnow() + timedelta(days=1)
    window = await outage_service.create_maintenance_window(
        {
            "endpoint_ids": ["api-gateway", "auth-service"],
            "start_time": start,
            "end_time": utcnow() + timedelta(days=1, hours=2),
            "description": "Scheduled maintenance for API gateway and Auth service",
            "created_by": "admin",
        }
    )
    assert isinstance(window, servmon.MaintenanceWindow)
    assert set(window.endpoint_ids) == {"api-gateway", "auth-service"}
    assert window.start_time == start.replace(tzinfo=UTC)


async def test_resolving_an_outage(db, history):
    await add_service_endpoint(db)
    opened = await history.outage("api-gateway")
    outage_service = OutageManagementService(db)
    resolved_outage = await outage_service.resolve_outage(
        opened.id, resolution_notes="Fixed network connectivity issue"
    )
    assert isinstance(resolved_outage, servmon.ServiceOutage)
    assert resolved_outage.resolved
    assert resolved_outage.resolution_notes == "Fixed network connectivity issue"


@pytest.fixture
def readme() -> dict[str, Any]:
    """What the README's Python block defines."""
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if "add_service_endpoint" in block)
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    return names


async def test_the_readme_has_the_four_examples_and_they_run(readme, db, history, site, capsys):
    endpoint = await readme["add_service_endpoint"](db)
    assert endpoint.expected_response_pattern == '"status":"UP"'
    here = {"url": f"http://127.0.0.1:{site}/health", "protocol": "HTTP"}
    await AvailabilityService(db).update_endpoint("api-gateway", here)
    await readme["check_service"](db)
    assert capsys.readouterr().out == "Service status: UP\n"
    window = await readme["create_maintenance_window"](db)
    assert window.end_time - window.start_time == timedelta(hours=2)
    opened = await history.outage("api-gateway")
    assert (await readme["resolve_outage"](db, opened.id)).resolved


async def test_the_collector_checks_every_active_endpoint_once(db, site, closed_port):
    url = f"http://127.0.0.1:{site}/health"
    await add_service_endpoint(db, url=url, protocol="HTTP")
    await add_service_endpoint(db, id="dead", url=f"http://127.0.0.1:{closed_port}/", protocol="HTTP", retries=0)
    await add_service_endpoint(db, id="off", url=url, protocol="HTTP", is_active=False)
    found = await ServiceAvailabilityCollector(db).collect_all()
    assert {endpoint_id: one["status"] for endpoint_id, one in found.items()} == {"api-gateway": "UP", "dead": "DOWN"}
    assert found["dead"]["failure_kind"] == "refused"


@pytest.mark.parametrize("name", SEED_NAMES)
def test_every_name_of_the_seed_stands_in_servmon(name):
    assert getattr(servmon, name).__module__.startswith("servmon.")
    assert name in dir(servmon)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'servmon' has no attribute 'nothing'"):
        servmon.nothing  # noqa: B018


def test_importing_servmon_loads_nothing_else():
    code = "import sys, servmon; print([name for name in ('aiohttp', 'asyncpg', 'pydantic') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
