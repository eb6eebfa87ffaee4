"""Serves the API: who is let in at the door, how long anybody may take, and how it all ends.

What its clients do costs no check its place: connections are bounded, one that asks for nothing gives way to a new
one, and whoever sends or reads too slowly is cut off.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from aiohttp import web

from servmon.api.gate import BACKLOG, Gate, listening
from servmon.api.problems import problem_response
from servmon.api.unix_socket import UnixPlace
from servmon.errors import StartError
from servmon.tasks import cancel, spawn, supervise

_log = structlog.get_logger(__name__)

SHUTDOWN_SECONDS = 5
# Part of what checks/lanes.py keeps free of checks' sockets.
MOST_CONNECTIONS = 256
# For a request's line and headers, and between two requests: longer than proxies keep their connections (60 s).
IDLE_SECONDS = 75.0
# Whoever takes nothing of what waits for him for so long is gone, or wants to hold us up.
SLOWEST_READER_SECONDS = 30.0
SWEEP_SECONDS = 5.0
# What a client still sends of a body that was refused is read and thrown away for so long.
LINGERING_SECONDS = 1.0


class Connection(web.RequestHandler):
    """One client's connection, which the door knows of."""

    __slots__ = ("_door",)

    def __init__(self, door: Door, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=door.idle_seconds,
            lingering_time=LINGERING_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # what aiohttp itself takes for none
            # A body is read as it was sent: a small one cannot unfold into a large one.
            auto_decompress=False,
        )
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, if there is room."""
        super().connection_made(transport)
        self._door.let_in(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is gone."""
        self._door.forget(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it repeats what was sent
    ) -> web.StreamResponse:
        """Answer what is no request at all. What was sent is not logged: it may hold a token."""
        if status < 500:
            _log.info("what came was no HTTP", address=request.remote, error=type(exc).__name__)
            answer = problem_response(status, "this is no HTTP/1.1 request that can be read")
        else:
            _log.error("request failed", exc_info=exc)
            answer = problem_response(status, "servmon failed to answer; its log says more")
        if request.writer.output_size > 0:
            raise ConnectionResetError("a part of the answer is sent already")
        answer.headers["Server"] = "servmon"
        answer.force_close()
        return answer

    def cut(self) -> None:
        """End it now, whatever still waits to be sent."""
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()
        self.force_close()


@dataclass(slots=True)
class Door:
    """Knows every connection, and which of them have no request under way, those that rest for longest first."""

    most: int = MOST_CONNECTIONS
    idle_seconds: float = IDLE_SECONDS
    connections: set[Connection] = field(default_factory=set)
    _idle: dict[Connection, None] = field(default_factory=dict)
    # Since when, and on how many bytes, a client that reads nothing has been sitting.
    _stuck: dict[Connection, tuple[float, int]] = field(default_factory=dict)

    def let_in(self, new: Connection) -> None:
        """Take one more in; where there are too many, the one that rests for longest has to go, else the new one."""
        self.connections.add(new)
        self._idle[new] = None
        if len(self.connections) > self.most:
            longest = next(iter(self._idle))
            self.forget(longest)
            longest.cut()

    def forget(self, connection: Connection) -> None:
        """It is gone, or about to be."""
        self.connections.discard(connection)
        self._idle.pop(connection, None)
        self._stuck.pop(connection, None)

    @contextmanager
    def at_work(self, request: web.Request) -> Iterator[None]:
        """While its ``request`` is under way a connection gives way to no other."""
        connection = request.protocol
        self._idle.pop(connection, None)  # type: ignore[call-overload]  # only ours get in
        try:
            yield
        finally:
            if isinstance(connection, Connection) and connection in self.connections:
                self._idle[connection] = None

    async def cut_slow_readers(self) -> None:
        """Look again and again, for ever, for clients that do not take what waits for them."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.look_at(loop.time())

    def look_at(self, at: float) -> None:
        """Cut off whoever took nothing for too long, as of the loop's time ``at``."""
        for connection in tuple(self.connections):
            waiting = _waiting_bytes(connection)
            since, before = self._stuck.get(connection, (at, 0))
            if waiting == 0 or waiting != before:
                self._stuck.pop(connection, None)
                if waiting:
                    self._stuck[connection] = (at, waiting)
            elif at - since >= SLOWEST_READER_SECONDS:
                self.forget(connection)
                connection.cut()


def _waiting_bytes(connection: Connection) -> int:
    transport = connection.transport
    return transport.get_write_buffer_size() if isinstance(transport, asyncio.WriteTransport) else 0


DOOR = web.AppKey("door", Door)


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A listening API. ``port`` is the real one where any free one was asked for; 0 where there is none."""

    port: int
    _gates: tuple[Gate, ...]
    _runner: web.AppRunner
    _sweeper: asyncio.Task[None]
    _place: UnixPlace | None

    async def stop(self) -> None:
        """Listen no more and end what is under way, within 5 s."""
        for gate in self._gates:
            await gate.close()
        if self._place is not None:
            self._place.remove()
        await cancel(self._sweeper)
        await self._runner.cleanup()


async def serve(
    app: web.Application,
    host: str | None,
    port: int,
    place: UnixPlace | None = None,
    *,
    troubles: dict[str, str] | None = None,
) -> ApiServer:
    """Listen on ``host`` (``None``: on none) and ``port`` (0: any free one), and on a unix socket at ``place``.

    While nobody is let in somewhere, ``troubles`` says why. Raises ``StartError`` where it cannot listen.
    """
    troubles = {} if troubles is None else troubles
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    door, server = app[DOOR], runner.server
    assert server is not None  # noqa: S101 - setup() made it
    gates: list[Gate] = []
    try:
        async for sock in _listening(host, port, place):
            gate = Gate.at(sock, lambda: Connection(door, server), troubles)
            gates.append(gate)
    except StartError:
        for gate in gates:
            await gate.close()
        await runner.cleanup()
        raise
    real_port = gates[0].sock.getsockname()[1] if host is not None else 0
    sweeper = spawn(supervise("slow readers", door.cut_slow_readers, troubles), name="slow readers of the API")
    return ApiServer(real_port, tuple(gates), runner, sweeper, place)


async def _listening(host: str | None, port: int, place: UnixPlace | None) -> AsyncIterator[socket.socket]:
    if host is not None:
        try:
            for sock in await listening(host, port):
                yield sock
        except OSError as error:
            reason = error.strerror or error
            raise StartError(f"api: cannot listen on {host} port {port}: {reason}; set api.host or api.port") from None
    if place is not None:
        sock = place.bind()
        sock.listen(BACKLOG)
        yield sock
