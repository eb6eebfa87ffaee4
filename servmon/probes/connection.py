"""How every probe over TCP connects: to one address, with the time taken next to the system's own calls."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING, NamedTuple

from servmon.clock import SYSTEM_CLOCK
from servmon.model import FailureKind
from servmon.probes.addresses import host_and_port
from servmon.probes.base import ProbeFailed, failure_from
from servmon.probes.route import ANY_ROUTE, Route

if TYPE_CHECKING:
    from servmon.probes.network import ProbeContext


class Connected(NamedTuple):
    """A connected non-blocking socket, which is now the caller's to close."""

    sock: socket.socket
    connect_ms: float


async def connect(context: ProbeContext, address: str, port: int) -> Connected:
    """Open a TCP connection. Raises ``ProbeFailed``."""
    place = host_and_port(address, port)
    context.doing = f"connecting to {place}"
    try:
        return await connect_to(address, port, context.route)
    except OSError as error:
        raise connect_failure(error, place, context.doing) from None


async def connect_to(address: str, port: int, route: Route = ANY_ROUTE) -> Connected:
    """Open a TCP connection over this way. Raises ``OSError``."""
    sock = open_socket(address, socket.SOCK_STREAM)
    try:
        if route is not ANY_ROUTE:
            route.prepare(sock)
        started = SYSTEM_CLOCK.monotonic()
        ended = await _established(sock, address, port)
    except BaseException:
        sock.close()
        raise
    return Connected(sock, (ended - started) * 1000)


def open_socket(address: str, kind: socket.SocketKind) -> socket.socket:
    """A non-blocking socket of the address's family."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    sock.setblocking(False)
    return sock


def connect_failure(error: OSError, place: str, doing: str) -> ProbeFailed:
    """The finding when ``place`` could not be connected to."""
    failure = failure_from(error, doing)
    if failure.kind is FailureKind.REFUSED:
        return ProbeFailed(FailureKind.REFUSED, f"{place} refused the connection")
    if failure.kind is FailureKind.RESET:
        return ProbeFailed(FailureKind.RESET, f"{place} reset the connection")
    if failure.kind is FailureKind.UNREACHABLE:
        return ProbeFailed(FailureKind.UNREACHABLE, f"{place} cannot be reached: {_unreachable_words(error)}")
    return failure


def _unreachable_words(error: OSError) -> str:
    return (error.strerror or os.strerror(error.errno or errno.EHOSTUNREACH)).lower()


async def _established(sock: socket.socket, address: str, port: int) -> float:
    """Connect ``sock``; the monotonic time at which the system said that it is connected."""
    error = sock.connect_ex((address, port))
    if error == 0:
        return SYSTEM_CLOCK.monotonic()
    if error != errno.EINPROGRESS:
        raise OSError(error, os.strerror(error))
    loop, number = asyncio.get_running_loop(), sock.fileno()
    established: asyncio.Future[float] = loop.create_future()
    loop.add_writer(number, _on_writable, sock, established)
    try:
        return await established
    finally:
        loop.remove_writer(number)


def _on_writable(sock: socket.socket, established: asyncio.Future[float]) -> None:
    now = SYSTEM_CLOCK.monotonic()
    if established.done():
        return
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        established.set_exception(OSError(number, os.strerror(number)))
    else:
        established.set_result(now)
