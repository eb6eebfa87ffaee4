"""Clients that mean harm, or are merely broken: they are refused in a sentence or cut off, and cost others nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import NamedTuple

from servmon.api import server, typed
from servmon.api.app import build_app
from servmon.api.server import DOOR, MOST_CONNECTIONS, SLOWEST_READER_SECONDS, serve
from servmon.checks.lanes import RESERVED_DESCRIPTORS
from servmon.services.availability import AvailabilityService
from servmon.services.tokens import AccessToken, TokenBook
from servmon.tasks import spawn
from tests.fix_api import NOTHING, TOKEN
from tests.fix_servers import patience

HEAD = f"POST /services/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
JSON = "Content-Type: application/json\r\n"
# Left for Postgres, files, the loop: what the reserve is for beside the API's clients.
OTHERS = 100


class Raw(NamedTuple):
    """A connection on which anything can be sent."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def answer(self) -> bytes:
        """All that comes until the server closes; what was answered before a reset counts."""
        got = b""
        with contextlib.suppress(ConnectionError):
            while part := await self.reader.read(65_536):
                got += part
        return got

    async def status(self) -> int:
        """The status of the next answer; 0 where the connection ends without one."""
        with contextlib.suppress(ConnectionError):
            line = await self.reader.readline()
            return int(line.split()[1]) if line else 0
        return 0


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield Raw(reader, writer)
    writer.transport.abort()


async def asked(port: int, request: bytes) -> bytes:
    """What comes back, whatever is sent."""
    async with connected(port) as raw:
        await raw.send(request)
        return await raw.answer()


def post(body: bytes, headers: str = JSON) -> bytes:
    return f"{HEAD}{headers}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


# What is no HTTP at all, or breaks its rules.
NO_HTTP = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    b"GET / HTTP/9.9\r\n\r\n",
    b"G\x00T / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(500)) + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n: c\r\n\r\n",
    f"{HEAD}{JSON}Content-Length: -1\r\n\r\n".encode(),
    f"{HEAD}{JSON}Content-Length: 9\r\nContent-Length: 2\r\n\r\n{{}}".encode(),
    f"{HEAD}{JSON}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{{}}".encode(),
    f"{HEAD}{JSON}Transfer-Encoding: chunked\r\n\r\nZZ\r\n{{}}\r\n0\r\n\r\n".encode(),
    f"{HEAD}{JSON}Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n{{".encode(),
]


async def test_what_is_no_http_is_400_without_a_traceback_or_a_word_of_what_was_sent(door, capsys):
    for request in NO_HTTP:
        got = await asked(door.port, request)
        assert got[8:13] == b" 400 ", (request[:60], got[:200])
        assert b"aiohttp" not in got
    logged = "".join(capsys.readouterr())
    assert "Traceback" not in logged
    assert TOKEN not in logged
    assert (await door.get("/healthz")).status == 200


async def test_a_body_is_not_unpacked(door):
    bomb = gzip.compress(b" " * 50_000_000)
    for coding in ("gzip", "deflate", "br", "zstd", "nonsense"):
        got = await asked(door.port, post(bomb, f"{JSON}Content-Encoding: {coding}\r\n"))
        assert got.startswith(b"HTTP/1.1 415 "), coding


async def test_a_hundred_megabytes_are_refused_before_they_are_read(door):
    async with connected(door.port) as raw:
        await raw.send(f"{HEAD}{JSON}Content-Length: 104857600\r\n\r\n".encode())
        sending = spawn(raw.send(b"[" * 104_857_600), name="sending")
        assert await raw.status() == 413
        sending.cancel()
        await asyncio.wait([sending])


async def test_chunks_without_an_end_are_refused_at_one_mebibyte(door):
    async with connected(door.port) as raw:
        await raw.send(f"{HEAD}{JSON}Transfer-Encoding: chunked\r\n\r\n".encode())
        sending = spawn(raw.send((b"10000\r\n" + b" " * 65_536 + b"\r\n") * 64), name="sending")
        assert await raw.status() == 413
        sending.cancel()
        await asyncio.wait([sending])


async def test_a_body_that_comes_too_slowly_is_408(door, monkeypatch):
    monkeypatch.setattr("servmon.api.requests.SLOWEST_BODY_SECONDS", 0.2)
    async with connected(door.port) as raw:
        await raw.send(f"{HEAD}{JSON}Content-Length: 1000\r\n\r\n{{".encode())
        assert await raw.status() == 408


async def test_who_sends_no_whole_request_is_cut_off(monkeypatch):
    app = build_app(NOTHING, book=TokenBook([]))
    app[DOOR].idle_seconds = 0.2
    listening = await serve(app, "127.0.0.1", 0)
    try:
        for begun in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "):
            async with connected(listening.port) as raw:
                await raw.send(begun)
                assert await raw.answer() == b""
    finally:
        await listening.stop()


class Full(AvailabilityService):
    """Has more to tell than fits into a socket."""

    def __init__(self) -> None:
        pass

    async def count_tags(self):
        return {f"{number:0100d}": number for number in range(200_000)}


async def test_who_does_not_read_what_was_asked_for_is_cut_off():
    app = build_app(replace(NOTHING, availability=Full()), book=TokenBook([AccessToken.of("admin", TOKEN)]))
    listening = await serve(app, "127.0.0.1", 0)
    waits = app[DOOR]
    async with connected(listening.port) as raw:
        await raw.send(f"GET /tags HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        (connection,) = await until(lambda: [one for one in waits.connections if server._waiting_bytes(one)])
        waits.look_at(100.0)
        waits.look_at(100.0 + SLOWEST_READER_SECONDS - 1)
        assert connection in waits.connections
        waits.look_at(100.0 + SLOWEST_READER_SECONDS)
        await until(lambda: not waits.connections)
    await listening.stop()


async def test_a_request_that_takes_too_long_is_given_up(monkeypatch):
    class Stuck(Full):
        async def count_tags(self):
            await asyncio.Event().wait()

    limited = typed._in_time
    monkeypatch.setattr(typed, "_in_time", lambda work, seconds: limited(work, seconds and 0.05))
    app = build_app(replace(NOTHING, availability=Stuck()), book=TokenBook([AccessToken.of("admin", TOKEN)]))
    listening = await serve(app, "127.0.0.1", 0)
    request = f"GET /tags HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    got = await asked(listening.port, request.encode())
    await listening.stop()
    assert got.startswith(b"HTTP/1.1 503 ")
    assert b"given up" in got


async def test_a_thousand_idle_connections_leave_room_for_requests_and_for_checks(door):
    assert MOST_CONNECTIONS + OTHERS <= RESERVED_DESCRIPTORS
    async with contextlib.AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connected(door.port)) for _ in range(1000)]
        for raw in idle[::2]:
            await raw.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        for _ in range(5):
            assert (await door.get("/healthz")).status == 200
        async with patience():
            # Those that came first had to go.
            assert [await raw.answer() for raw in idle[: 1000 - MOST_CONNECTIONS]] == [b""] * (1000 - MOST_CONNECTIONS)
        open_still = [raw for raw in idle if not raw.reader.at_eof()]
        assert MOST_CONNECTIONS - 5 <= len(open_still) <= MOST_CONNECTIONS


async def test_where_all_are_at_work_it_is_the_new_one_that_has_to_go():
    app = build_app(NOTHING, book=TokenBook([AccessToken.of("admin", TOKEN)]))
    app[DOOR].most = 2
    listening = await serve(app, "127.0.0.1", 0)
    events = f"GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    async with connected(listening.port) as first, connected(listening.port) as second:
        for stream in (first, second):
            await stream.send(events)
            assert await stream.status() == 200
        async with connected(listening.port) as third:
            assert await third.answer() == b""
        assert not first.reader.at_eof()
        first.writer.transport.abort()
        await until(lambda: len(app[DOOR].connections) == 1)
        assert b" 401 " in await asked(listening.port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await listening.stop()


async def until(holds):
    """What ``holds`` answers, as soon as it is something."""
    async with patience():
        while not (found := holds()):  # noqa: ASYNC110 - the other end rings no bell
            await asyncio.sleep(0.01)
        return found


FIELDS = ("id", "url", "tags", "depends_on", "name", "timeout", "retries", "expected_status", "check_interval", "x")
VALUES = (
    *('""', '"\\u0000"', '"\\ud800"', '"\\udfff\\ud800"', '"a\\nb"', f'"{"x" * 5000}"', '"%s%n"', '"../../etc"'),
    *("null", "true", "-1", "1e308", "1e999", "-0", "0.1e-400", "9" * 400, "123456789012345678901234567890", "NaN"),
    *("[]", "{}", "[[]]", "[null]", '[["a"]]', "[" * 40 + "]" * 40, '{"a":' * 33 + "1" + "}" * 33),
    *(f"[{','.join('1' for _ in range(20_000))}]", f"[{','.join('[1]' for _ in range(9_000))}]"),
)


def fuzzed(seed: int) -> Iterator[bytes]:
    """Bodies without end that nobody would send on purpose."""
    chance = random.Random(seed)
    for number in itertools.count():
        names = chance.choices(FIELDS, k=chance.randint(1, 5))
        body = "{" + ",".join(f'"{name}":{chance.choice(VALUES)}' for name in names) + "}"
        whole = body.encode("utf-8", "surrogatepass")
        if number % 3 == 0:
            place = chance.randrange(len(whole))
            whole = whole[:place] + bytes(chance.choices(range(256), k=chance.randint(1, 4))) + whole[place + 1 :]
        yield whole


ADDRESSES = (
    *(("POST", "/services/"), ("POST", "/services/bulk"), ("POST", "/maintenance/"), ("POST", "/silences/")),
    *(("PUT", "/services/a"), ("PATCH", "/services/a"), ("POST", "/tokens/"), ("POST", "/config/reload")),
)


async def test_fuzzed_bodies_are_refused_and_never_a_defect_of_ours(api, capsys):
    await api.post("/services/", {"id": "a", "url": "tcp://192.0.2.1:1"})
    bodies = fuzzed(1)
    for body, (method, path) in zip(bodies, ADDRESSES * 12, strict=False):
        headers = {"Content-Type": "application/json"}
        reply = await api.send(method, path, data=body, headers=headers)
        assert reply.status in {200, 201} or 400 <= reply.status < 500, (path, body[:300], reply.body[:500])
        assert len(reply.body) < 200_000, (path, body[:300])
    assert "Traceback" not in "".join(capsys.readouterr())


async def test_a_body_of_nothing_but_mistakes_gets_a_short_answer(api):
    await api.post("/services/", {"id": "a", "url": "tcp://192.0.2.1:1"})
    for method, path in ADDRESSES:
        for name in ("tags", "depends_on", "operations", "endpoint_ids"):
            for entries in (10_000, 10_001):
                reply = await api.send(method, path, {name: [1] * entries})
                assert reply.status in {409, 422}, (path, name, reply.body[:300])
                assert len(reply.body) < 50_000, (path, name)
                assert len(reply.json.get("errors", ())) <= 100


async def test_hostile_requests_leave_the_daemon_s_memory_as_it_was(servmon_daemon):
    daemon = servmon_daemon("")
    await daemon.start()
    token = (daemon.data_dir / "admin.token").read_text(encoding="ascii").strip()

    def with_token(request: bytes) -> bytes:
        return request.replace(TOKEN.encode(), token.encode())

    async def attack(seed: int) -> None:
        bodies = [json.dumps({"tags": [1] * 200_000}).encode(), b"[" * 1_000_000, b'{"a":"' + b"x" * 1_040_000 + b'"}']
        bodies += itertools.islice(fuzzed(seed), 12)
        requests = [with_token(post(body)) for body in bodies] + [with_token(request) for request in NO_HTTP]
        requests.append(with_token(post(b"[" * 10_000_000)))
        for got in await asyncio.gather(*(asked(daemon.port, request) for request in requests)):
            assert got[9:12] in {b"", b"400", b"413", b"415", b"422"}, got[:300]

    for seed in range(4):
        await attack(seed)
    before = resident_bytes(daemon.process.pid)
    for seed in range(4, 12):
        await attack(seed)
    grown = resident_bytes(daemon.process.pid) - before
    assert grown < 20_000_000, f"{grown} bytes more"
    assert "Traceback" not in daemon.log()
    assert token not in daemon.log()


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123 - the kernel answers at once
        return int(file.read().split()[1]) * 4096
