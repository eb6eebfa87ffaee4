"""The server itself: health, metrics, failures of our own, starting and stopping."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from servmon.api.app import build_app
from servmon.api.health import Vitals
from servmon.api.server import serve
from servmon.errors import StartError, StoreUnavailableError
from servmon.metrics import Counters, Gauge, Histogram
from servmon.services.availability import AvailabilityService
from servmon.services.tokens import AccessToken, TokenBook
from tests.fix_api import NOTHING, TOKEN, serving
from tests.fix_servers import patience


async def test_healthz_tells_that_the_process_lives(door):
    reply = await door.get("/healthz", headers={"Authorization": ""})
    assert (reply.status, reply.json) == (200, {"status": "ok"})
    assert (await door.send("HEAD", "/healthz", headers={"Authorization": ""})).status == 200


async def test_readyz_names_what_is_away_and_is_200_all_the_same():
    vitals = Vitals(degraded=lambda: ["elasticsearch: no answer since 12:00"])
    async with serving(NOTHING, vitals=vitals) as api:
        reply = await api.get("/readyz", headers={"Authorization": ""})
    assert (reply.status, reply.json) == (200, {"ready": True, "degraded": ["elasticsearch: no answer since 12:00"]})


async def test_metrics_show_what_servmon_measures_about_itself():
    lateness = Histogram()
    lateness.observe(0.03)
    vitals = Vitals(Counters(checks=7), lateness, gauges=lambda: [Gauge("servmon_loop_lag_seconds", "Lag.", 0.25)])
    async with serving(NOTHING, vitals=vitals) as api:
        reply = await api.get("/metrics")
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = reply.body.decode().splitlines()
    for line in (
        "servmon_checks_total 7",
        'servmon_check_lateness_seconds_bucket{le="0.05"} 1',
        "servmon_check_lateness_seconds_count 1",
        "servmon_loop_lag_seconds 0.25",
    ):
        assert line in lines


async def test_the_root_lists_the_routes(door):
    reply = await door.get("/")
    assert {"method": "GET", "path": "/services/status/summary"} in reply.json["routes"]


async def test_answers_are_not_to_be_cached_nor_guessed_at(door):
    headers = (await door.get("/")).headers
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert "aiohttp" not in headers["Server"]


class Broken(AvailabilityService):
    """Fails in the way that was asked for."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def list_endpoints(self, **_options):
        raise self.error


async def test_a_defect_of_ours_is_500_without_details_and_logged_with_its_number(capsys):
    async with serving(replace(NOTHING, availability=Broken(ZeroDivisionError("the secret is 42")))) as api:
        reply = await api.get("/services/")
        assert (await api.get("/healthz")).status == 200
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert b"ZeroDivision" not in reply.body
    request_id = reply.json["detail"].split()[-1]
    logged = "".join(capsys.readouterr())
    assert request_id in logged
    assert reply.headers["X-Request-Id"] == request_id
    assert "ZeroDivisionError" in logged


async def test_every_answer_bears_its_requests_id_the_senders_own_where_that_is_one(door):
    ours = [(await door.get(path)).headers["X-Request-Id"] for path in ("/healthz", "/healthz", "/nowhere")]
    assert len(set(ours)) == 3
    theirs = await door.get("/healthz", headers={"X-Request-Id": "deploy-2026.11_7"})
    assert theirs.headers["X-Request-Id"] == "deploy-2026.11_7"
    for forged in ("a b", "x" * 65, "<b>", "-rf"):
        assert (await door.get("/healthz", headers={"X-Request-Id": forged})).headers["X-Request-Id"] != forged


async def test_postgres_away_is_503_and_says_when_to_come_again():
    async with serving(
        replace(NOTHING, availability=Broken(StoreUnavailableError("Postgres does not answer just now")))
    ) as api:
        reply = await api.get("/services/")
    assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
    assert reply.json["detail"] == "Postgres does not answer just now"


async def test_a_port_that_is_taken_stops_the_start_with_a_sentence(door):
    with pytest.raises(StartError, match=rf"cannot listen on 127\.0\.0\.1 port {door.port}: .*api\.port"):
        await serve(build_app(NOTHING, book=TokenBook([])), "127.0.0.1", door.port)


async def test_a_name_that_is_no_host_stops_the_start_with_a_sentence():
    with pytest.raises(StartError, match=r"cannot listen on no-such-host\.invalid"):
        await serve(build_app(NOTHING, book=TokenBook([])), "no-such-host.invalid", 0)


async def test_stopping_waits_for_no_idle_connection():
    server = await serve(build_app(NOTHING, book=TokenBook([])), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    server._runner._shutdown_timeout = 3600
    async with patience():
        await server.stop()
    writer.close()


async def test_stopping_cuts_off_a_request_that_never_ends():
    started = asyncio.Event()

    class Stuck(Broken):
        async def list_endpoints(self, **_options):
            started.set()
            await asyncio.Event().wait()

    app = build_app(replace(NOTHING, availability=Stuck(OSError())), book=TokenBook([AccessToken.of("admin", TOKEN)]))
    server = await serve(app, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET /services/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    await started.wait()
    server._runner._shutdown_timeout = 0.2  # the real 5 s would only make this test slow
    async with patience():
        await server.stop()
    assert await reader.read() == b""
    writer.close()
