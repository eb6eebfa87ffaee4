"""Where clients come in: one at a time, with a turn of the loop between, so that a crowd keeps no check waiting.

The loop's own servers take all who wait at one stroke: five hundred held it for 8 to 52 ms.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from servmon.tasks import cancel, spawn

_log = structlog.get_logger(__name__)

BACKLOG = 512
# After a failure that is this machine's: no descriptors, no memory.
PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Gate:
    """A socket that listens, and what lets in who comes there."""

    sock: socket.socket
    _doorman: asyncio.Task[None]

    @classmethod
    def at(cls, sock: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> Gate:
        """Let in who comes to ``sock``, which listens already; each client is one ``protocol``."""
        sock.setblocking(False)
        return cls(sock, spawn(_let_in(sock, protocol), name="clients of the API"))

    async def close(self) -> None:
        """Nobody else comes in; who is in stays."""
        await cancel(self._doorman)
        self.sock.close()


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


async def _let_in(sock: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
    loop = asyncio.get_running_loop()
    said: int | None = None
    while True:
        try:
            client, _ = sock.accept()
        except BlockingIOError:
            await _somebody(sock)
        except ConnectionError:  # gone again before it was in
            continue
        except OSError as error:
            if error.errno != said:
                _log.error("the API lets nobody in for the moment", problem=error.strerror)
            said = error.errno
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            said = None
            client.setblocking(False)
            with suppress(OSError, RuntimeError):  # it is gone, or the loop is about to be
                await loop.connect_accepted_socket(protocol, client)


async def _somebody(sock: socket.socket) -> None:
    """Wait until somebody comes to ``sock``. The loop's own way would lose one who comes as it is cancelled."""
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(sock, came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(sock)
