"""Real servers on loopback, ordinary and odd, and a network to ask them over."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import trustme
from aiohttp import web

from servmon.clock import SYSTEM_CLOCK
from servmon.probes.base import Answer
from servmon.probes.network import Network, ProbeContext
from servmon.probes.route import ANY_ROUTE
from servmon.probes.specification import EndpointDefaults, parse_endpoint, prepare
from tests.ports import free_port

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

CHUNK = b"x" * 65_536
# How long a test waits for what has to come. It says nothing of how long that may take: the machine may be busy.
PATIENCE_SECONDS = 40.0


def patience() -> asyncio.Timeout:
    """``async with patience():`` ends in vain what would else hang the test."""
    return asyncio.timeout(PATIENCE_SECONDS)


async def is_silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Accepts, reads and never says a word."""
    while await reader.read(65_536):
        pass


async def closes_at_once(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Accepts and closes."""


async def resets(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts and resets the connection."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


def says(answer: bytes, *, then: Behaviour = closes_at_once) -> Behaviour:
    """Reads the head of a request, sends exactly these bytes, and goes on as ``then`` does."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        await then(reader, writer)

    return behave


def greets(banner: bytes) -> Behaviour:
    """Speaks first, as SSH and SMTP do."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(banner)
        await is_silent(reader, writer)

    return behave


async def is_endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends for ever."""
    while True:
        writer.write(CHUNK)
        await writer.drain()


async def trickles(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends a byte at a time, for ever."""
    while True:
        writer.write(b"x")
        await asyncio.sleep(0.02)


class TcpServer:
    """A TCP (or TLS) server with one behaviour. ``accepted`` counts its connections."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.accepted = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[Any]] = set()

    async def start(self, host: str = "127.0.0.1", *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._serve, host, port, ssl=tls, backlog=1000)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._serving.add(asyncio.current_task())
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await self.behaviour(reader, writer)
        finally:
            self._serving.discard(asyncio.current_task())
            if not writer.is_closing() and writer.transport.get_write_buffer_size():
                with suppress(ConnectionError, TimeoutError):
                    async with asyncio.timeout(1):
                        await writer.drain()
            writer.close()

    async def stop(self) -> None:
        self._server.close()
        serving = tuple(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


@dataclass
class Page:
    """What the web server answers at a path."""

    status: int = 200
    body: bytes | str = "welcome"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    """What the web server was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class WebServer:
    """An ordinary web server: ``pages`` by path, everything else is 404; ``requests`` lists what came."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {"/": Page()}
        self.requests: list[Request] = []
        self.url = ""
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def start(self, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, 0, ssl_context=tls)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if tls else 'http'}://{shown}:{self.port}"

    async def _answer(self, request: web.Request) -> web.Response:
        self.requests.append(Request(request.method, request.path_qs, dict(request.headers), await request.read()))
        page = self.pages.get(request.path, Page(404, "nothing here"))
        body = page.body.encode() if isinstance(page.body, str) else page.body
        return web.Response(status=page.status, body=body, headers=page.headers)

    async def stop(self) -> None:
        await self._runner.cleanup()


class UdpServer(asyncio.DatagramProtocol):
    """Answers each datagram with what ``answer`` makes of it; ``None`` is silence."""

    def __init__(self) -> None:
        self.answer: Callable[[bytes], bytes | None] = lambda datagram: datagram
        self.received: list[bytes] = []
        self.port = 0
        self.transport: asyncio.DatagramTransport | None = None

    async def start(self, host: str = "127.0.0.1") -> None:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, 0))
        self.port = self.transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append(data)
        answer = self.answer(data)
        if answer is not None:
            self.transport.sendto(answer, addr)

    async def stop(self) -> None:
        self.transport.close()


def time_server(
    *, stratum: int = 2, leap: int = 0, ahead: float = 0.0, reference: bytes = b"\x0a\0\0\1", tells: bool = True
):
    """Answers as RFC 5905 says, from a clock that is ``ahead`` seconds of ours."""

    def answer(request: bytes) -> bytes:
        now = int((SYSTEM_CLOCK.wall() + 2_208_988_800 + ahead) * (1 << 32)) & ((1 << 64) - 1)
        head = struct.pack("!BBbbII4s", leap << 6 | 4 << 3 | 4, stratum, 6, -20, 0, 0, reference)
        return head + struct.pack("!Q", now) + request[40:48] + struct.pack("!QQ", now, now if tells else 0)

    return answer


@pytest.fixture
async def network():
    """A network of our own, closed at the end."""
    async with Network() as opened:
        yield opened


@pytest.fixture
def check(network):
    """Asks once, as the runner does: ``await check("tcp://127.0.0.1:7", timeout=2, **fields)``."""

    async def ask(url: str, *, timeout: float = 5.0, over: Network | None = None, **fields: Any) -> Answer:  # noqa: ASYNC109 - it is the endpoint's
        return await check_once(over or network, url, timeout, **fields)

    return ask


async def check_once(network: Network, url: str, seconds: float, **fields: Any) -> Answer:
    prepared = prepare(parse_endpoint({"url": url, **fields}, EndpointDefaults()))
    route = getattr(prepared.options, "route", ANY_ROUTE)
    context = ProbeContext(network, SYSTEM_CLOCK.monotonic() + 10 * seconds, route)
    context.attempt_seconds = seconds
    async with asyncio.timeout(seconds) as context.attempt:
        return await prepared.probe.check(prepared.target, prepared.options, context)


@pytest.fixture
async def tcp_server():
    """Starts TCP servers: ``await tcp_server(is_silent)``."""
    started: list[TcpServer] = []

    async def start(behaviour: Behaviour, **how: Any) -> TcpServer:
        server = TcpServer(behaviour)
        await server.start(**how)
        started.append(server)
        return server

    yield start
    for server in started:
        await server.stop()


@pytest.fixture
async def web_server():
    """Starts web servers: ``await web_server()``, with ``tls=context`` for HTTPS."""
    started: list[WebServer] = []

    async def start(**how: Any) -> WebServer:
        server = WebServer()
        await server.start(**how)
        started.append(server)
        return server

    yield start
    for server in started:
        await server.stop()


@pytest.fixture
async def udp_server():
    """A UDP server on 127.0.0.1 that sends back what it gets."""
    server = UdpServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """A certificate authority of our own."""
    return trustme.CA()


@pytest.fixture
def trusted(ca, tmp_path, monkeypatch) -> trustme.CA:
    """The same, trusted by whatever this test connects with."""
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return ca


def server_tls(authority: trustme.CA, *names: str, **how: Any) -> ssl.SSLContext:
    """A server's TLS context with a certificate for ``names``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **how).configure_cert(context)
    return context


def open_files() -> int:
    """How many file descriptors this process has open, watches of loops and over sockets (epoll) not counted."""
    return sum("eventpoll" not in link for link in map(_link_of, os.listdir("/proc/self/fd")))  # noqa: PTH208


def _link_of(number: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115 - it names no file
    except OSError:  # that of the listing itself is gone by now
        return ""


async def settled(wanted: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until ``wanted`` holds."""
    async with asyncio.timeout(seconds):
        while not wanted():  # noqa: ASYNC110 - what is waited for happens in the kernel or in libraries
            await asyncio.sleep(0.01)


class Site:
    """A web server that can be stopped and started on the same port."""

    def __init__(self) -> None:
        self.port = free_port()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        async def welcome(_request: web.Request) -> web.Response:
            return web.Response(text="welcome")

        application = web.Application()
        application.router.add_get("/", welcome)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


@pytest.fixture
async def site():
    site = Site()
    await site.start()
    yield site
    await site.stop()
