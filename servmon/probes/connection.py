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
from servmon.probes.readiness import Readiness
from servmon.probes.route import ANY_ROUTE, Route

if TYPE_CHECKING:
    from servmon.probes.network import ProbeContext


# Linux takes this with the kind, which saves a call; other systems are told afterwards.
_NOT_BLOCKING = getattr(socket, "SOCK_NONBLOCK", 0)
# As a name may lead to, which cannot say by which interface.
_LINK_LOCAL = ("[fe8", "[fe9", "[fea", "[feb")
_ON_ITS_WAY = frozenset({0, errno.EINPROGRESS})


class Connected(NamedTuple):
    """A connected non-blocking socket, which is now the caller's to close."""

    sock: socket.socket
    connect_ms: float


async def connect(context: ProbeContext, address: str, port: int) -> Connected:
    """Open a TCP connection. Raises ``ProbeFailed``."""
    place = host_and_port(address, port)
    context.doing = f"connecting to {place}"
    try:
        return await connect_to(context.network.readiness, address, port, context.route)
    except OSError as error:
        raise connect_failure(error, place, context.doing) from None


async def connect_to(readiness: Readiness, address: str, port: int, route: Route = ANY_ROUTE) -> Connected:
    """Open a TCP connection over this way. Raises ``OSError``."""
    sock, began_at = begin_to_connect(address, port, route)
    number = sock.fileno()
    established: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def ready() -> None:
        now = SYSTEM_CLOCK.monotonic()
        readiness.forget(number)
        error = connecting_error(sock)
        if established.done():
            return
        if error is None:
            established.set_result(now)
        else:
            established.set_exception(error)

    readiness.watch(number, ready, write=True)
    try:
        ended_at = await established
    except BaseException:
        readiness.forget(number)
        sock.close()
        raise
    return Connected(sock, (ended_at - began_at) * 1000)


class Connecting(NamedTuple):
    """A non-blocking socket on its way, the caller's to close: connected or failed as soon as it can be written to."""

    sock: socket.socket
    began_at: float


def begin_to_connect(address: str, port: int, route: Route = ANY_ROUTE) -> Connecting:
    """Begin to open a TCP connection over this way. Raises ``OSError`` where that fails at once."""
    sock = open_socket(address, socket.SOCK_STREAM)
    try:
        if route is not ANY_ROUTE:
            route.prepare(sock)
        began_at = SYSTEM_CLOCK.monotonic()
        error = sock.connect_ex((address, port))
    except BaseException:
        sock.close()
        raise
    if error in _ON_ITS_WAY:
        return Connecting(sock, began_at)
    sock.close()
    raise OSError(error, os.strerror(error))


def connecting_error(sock: socket.socket) -> OSError | None:
    """Why ``sock``, which can be written to now, is not connected; ``None`` where it is."""
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return OSError(error, os.strerror(error)) if error else None


def open_socket(address: str, kind: socket.SocketKind) -> socket.socket:
    """A non-blocking socket of the address's family."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind | _NOT_BLOCKING)
    if not _NOT_BLOCKING:
        sock.setblocking(False)
    return sock


def connect_failure(error: OSError, place: str, doing: str) -> ProbeFailed:
    """The finding when ``place`` could not be connected to."""
    if error.errno == errno.EINVAL and place.startswith(_LINK_LOCAL):
        return ProbeFailed(
            FailureKind.UNREACHABLE, f"{place} cannot be reached: a link-local address says not on which link"
        )
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
