"""Where clients come in: one at a time, with a turn of the loop between, so that a crowd keeps no check waiting.

The loop's own servers take all who wait at one stroke: five hundred held it for 8 to 52 ms.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from servmon.tasks import cancel, spawn, supervise

_log = structlog.get_logger(__name__)

TROUBLE = "API"
BACKLOG = 512
# After a failure that is this machine's: no descriptors, no memory.
PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Gate:
    """A socket that listens, and what lets in who comes there."""

    sock: socket.socket
    _doorman: asyncio.Task[None]

    @classmethod
    def at(cls, sock: socket.socket, protocol: Callable[[], asyncio.Protocol], troubles: dict[str, str]) -> Gate:
        """Let in who comes to ``sock``, which listens already; each client is one ``protocol``.

        What lets them in is started again where it fails. While it does not, ``troubles`` says so under ``trouble_at``.
        """
        sock.setblocking(False)
        name = trouble_at(sock)
        doorman = supervise(name, lambda: _let_in(sock, protocol, _Complaint(name, troubles)), troubles)
        return cls(sock, spawn(doorman, name="clients of the API"))

    async def close(self) -> None:
        """Nobody else comes in; who is in stays."""
        await cancel(self._doorman)
        self.sock.close()


@dataclass(slots=True)
class _Complaint:
    """Says why nobody is let in just now: in the log once for each reason, and in ``troubles`` until somebody is."""

    name: str
    troubles: dict[str, str]
    said: int | None = None

    def make(self, error: OSError) -> None:
        if error.errno != self.said:
            _log.error("the API lets nobody in for the moment", problem=error.strerror)
        self.said = error.errno
        self.troubles[self.name] = f"lets nobody in for the moment: {error.strerror}"

    def take_back(self) -> None:
        if self.said is not None:
            self.said = None
            self.troubles.pop(self.name, None)


def trouble_at(sock: socket.socket) -> str:
    """What troubles at a socket stand under: ``API at 127.0.0.1 port 8350``, ``API at /run/servmon/api.sock``."""
    address = sock.getsockname()
    return f"{TROUBLE} at {address}" if isinstance(address, str) else f"{TROUBLE} at {address[0]} port {address[1]}"


async def listening(host: str, port: int) -> list[socket.socket]:
    """A socket that listens for each address of ``host``, an empty one has all. Raises ``OSError``."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            sockets.append(_listening(family, address))
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _listening(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)  # only now two of one address are told
    except OSError:
        sock.close()
        raise
    return sock


async def _let_in(sock: socket.socket, protocol: Callable[[], asyncio.Protocol], complaint: _Complaint) -> None:
    while True:
        try:
            client, _ = sock.accept()
        except BlockingIOError:
            await _somebody(sock)
        except ConnectionError:  # gone again before it was in
            continue
        except OSError as error:
            complaint.make(error)
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            complaint.take_back()
            await _welcome(client, protocol)


async def _welcome(client: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
    client.setblocking(False)
    try:
        await asyncio.get_running_loop().connect_accepted_socket(protocol, client)
    except BaseException as error:
        client.close()
        if not isinstance(error, (OSError, RuntimeError)):  # it is gone, or the loop is about to be
            raise


async def _somebody(sock: socket.socket) -> None:
    """Wait until somebody comes to ``sock``. The loop's own way would lose one who comes as it is cancelled."""
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(sock, came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(sock)
