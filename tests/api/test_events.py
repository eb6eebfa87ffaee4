"""Server-sent events: what happens as it happens, resumed where a listener left, ended when its token is revoked."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import ClientSession

from servmon.api.app import build_app
from servmon.api.server import serve
from servmon.clock import now, rfc3339
from servmon.model import Outage, Severity, State, StateChange, Transition
from servmon.services.stream import REMEMBERED, Stream, TooSlowError
from servmon.services.tokens import AccessToken, TokenBook
from tests.fix_api import NOTHING, TOKEN, Client, services_on, serving
from tests.fix_servers import patience, settled

AT = datetime(2026, 11, 23, 15, 43, 49, tzinfo=UTC)


@dataclass
class Events:
    """Reads one open stream."""

    response: object

    async def next(self) -> dict[str, str]:
        """The fields of the next event that is one."""
        while True:
            fields = {}
            while line := (await self.response.content.readline()).decode().rstrip("\n"):
                name, _, value = line.partition(": ")
                fields[name] = value
            if "event" in fields:
                return fields

    async def ended(self) -> bool:
        return await self.response.content.read() == b""


@asynccontextmanager
async def listening(api, token: str = TOKEN, **headers: str):
    headers = {"Authorization": f"Bearer {token}", **headers}
    async with api.session.get("/events", headers=headers) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert (await response.content.readline()).startswith(b"retry: ")
        await response.content.readline()
        yield Events(response)


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
async def live_api(stream):
    async with serving(NOTHING, stream=stream) as client:
        yield client


def transition() -> Transition:
    outage = Outage("o-1", "shop", Severity.MAJOR, "refuses\n\nevent: forged", AT, AT)
    return Transition(StateChange("c-1", "shop", State.SUSPECTED, State.DOWN, "3 failed checks", AT, "o-1"), outage)


async def test_a_state_change_and_its_outage_arrive_as_the_api_shows_them(live_api, stream):
    async with listening(live_api) as events:
        stream.publish_transitions([transition()])
        change, outage = await events.next(), await events.next()
    assert change["event"] == "state_change"
    assert json.loads(change["data"]) == {
        "endpoint_id": "shop",
        "old": "suspected",
        "new": "down",
        "reason": "3 failed checks",
        "at": "2026-11-23T15:43:49.000000Z",
        "outage_id": "o-1",
    }
    assert outage["event"] == "outage"
    shown = json.loads(outage["data"])
    assert (shown["id"], shown["start_time"]) == ("o-1", "2026-11-23T15:43:49.000000Z")
    assert shown["description"] == "refuses\n\nevent: forged"


async def test_a_listener_that_comes_back_misses_nothing(live_api, stream):
    async with listening(live_api) as events:
        stream.publish("change", {"n": 1})
        seen = await events.next()
    stream.publish("change", {"n": 2})
    async with listening(live_api, **{"Last-Event-ID": seen["id"]}) as events:
        stream.publish("change", {"n": 3})
        assert [json.loads((await events.next())["data"])["n"] for _ in range(2)] == [2, 3]


async def test_one_who_was_away_too_long_or_over_a_restart_is_told_that_something_is_missing(live_api, stream):
    for number in range(REMEMBERED + 5):
        stream.publish("change", {"n": number})
    for last in ("deadbeef-3", "nonsense", "-", "\u0661"):
        async with listening(live_api, **{"Last-Event-ID": last}) as events:
            assert (await events.next())["event"] == "missed"
            assert json.loads((await events.next())["data"]) == {"n": 5}


@pytest.fixture
def sleepy(monkeypatch):
    """A stream in which nothing happens sees to nothing by itself: what ends it has to wake it."""
    monkeypatch.setattr("servmon.api.events.HEARTBEAT_SECONDS", 3600.0)


async def test_a_revoked_token_s_stream_ends_at_once_and_no_other_does(connection, sleepy):
    async with serving(services_on(connection)) as api:
        made, other = [(await api.post("/tokens/", {"name": name})).json for name in ("wallboard", "other")]
        async with listening(api, made["token"]) as events, listening(api, other["token"]) as others:
            await api.send("DELETE", f"/tokens/{made['id']}")
            async with patience():
                assert await events.ended()
                assert json.loads((await others.next())["data"])["target"] == f"/tokens/{made['id']}"


async def test_a_stream_ends_with_the_time_its_token_has(connection, sleepy):
    async with serving(services_on(connection)) as api:
        for seconds in (0.3, 3, 20):  # a busy machine may need longer than the first to open the stream
            soon = rfc3339(now() + timedelta(seconds=seconds))
            made = (await api.post("/tokens/", {"name": f"wallboard-{seconds}", "expires_at": soon})).json
            headers = {"Authorization": f"Bearer {made['token']}"}
            async with api.session.get("/events", headers=headers) as stream, patience():
                if stream.status == 200:
                    assert (await stream.content.read()).replace(b": nothing new\n\n", b"") == b"retry: 3000\n\n"
                    break
        assert stream.status == 200
        assert (await api.get("/services/", headers=headers)).status == 401


async def test_one_who_reads_nothing_cannot_keep_a_revoked_stream_open(connection, stream, sleepy):
    async with serving(services_on(connection), stream=stream) as api:
        made = (await api.post("/tokens/", {"name": "wallboard"})).json
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=1000)
        writer.write(f"GET /events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {made['token']}\r\n\r\n".encode())
        await reader.readuntil(b"retry: 3000\n")
        assert len(stream._listeners) == 1
        for _ in range(REMEMBERED):
            stream.publish("change", {"text": "x" * 20_000})
        await api.send("DELETE", f"/tokens/{made['id']}")
        await settled(lambda: not stream._listeners)
        assert not stream._listeners  # though not a byte of what was published has been read
        writer.transport.abort()


async def test_a_change_over_the_api_is_heard_of(connection):
    async with serving(services_on(connection)) as api, listening(api) as events:
        await api.post("/services/", {"id": "a", "url": "tcp://192.0.2.1:1"})
        heard = json.loads((await events.next())["data"])
        noted = (await api.get("/audit")).json["items"][0]
    assert heard == {"action": "create_endpoint", "target": "/services/a", "who": "admin", "at": noted["at"]}


async def test_open_streams_do_not_hold_up_a_stop():
    server = await serve(build_app(NOTHING, book=TokenBook([AccessToken.of("admin", TOKEN)])), "127.0.0.1", 0)
    async with (
        ClientSession(f"http://127.0.0.1:{server.port}") as session,
        listening(Client(session, server.port)) as events,
        patience(),
    ):
        server._runner._shutdown_timeout = 3600
        await server.stop()
        assert await events.ended()


async def test_a_listener_that_does_not_keep_up_is_let_go_after_what_could_be_kept():
    stream = Stream()
    with stream.listen() as listener:
        for number in range(REMEMBERED + 1):
            stream.publish("change", {"n": number})
        got = [(await listener.next()).data["n"] for _ in range(REMEMBERED)]
        assert got == list(range(REMEMBERED))
        with pytest.raises(TooSlowError):
            await listener.next()
