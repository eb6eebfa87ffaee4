"""What the shared-socket protocols (ICMP, DNS over UDP) have in common: one socket for many questions, sent in bursts.

A socket per question costs several times as much as the question, and a thousand at once overflow a buffer.
Here one socket serves them all; replies are drained many at a wake-up, and so are the errors that Linux keeps for
a socket with ``IP_RECVERR`` (a router's "unreachable", a closed port).
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import ipaddress
import itertools
import math
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

from servmon.clock import SYSTEM_CLOCK, TIMER_SLACK_SECONDS
from servmon.probes.network_pace import network_of

T = TypeVar("T")

BURST = 64
TICK_SECONDS = 0.02
# A long queue is sent in bursts of the same size, only closer together, so that it never outgrows the checks.
HURRIED_TICK_SECONDS = 0.005
HURRY_ABOVE = 5 * BURST

RECEIVE_BUFFER = 4 << 20
_ANCILLARY_SIZE = 256
_READS_PER_WAKE = 512

# Linux numbers that Python's socket module does not name.
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_MSG_ERRQUEUE = 0x2000
RECVERR = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}
_RECVERR_LEVELS = frozenset(RECVERR.values())

# Where an error comes from, and the ICMP messages among them that are none: the packet went on its way (source quench,
# redirect, as gateways send them to whom a nearer one would serve).
_FROM_ICMP = 2
_ADVICE = frozenset({4, 5})

_TIMESPEC = struct.Struct("@ll")
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_TRY_LATER = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM, errno.EINTR})

_V4_WORDS = {
    (3, 0): "network unreachable",
    (3, 1): "host unreachable",
    (3, 2): "protocol unreachable",
    (3, 3): "port unreachable",
    (3, 4): "fragmentation needed, but the packet may not be fragmented",
    (3, 6): "network unknown",
    (3, 7): "host unknown",
    (3, 9): "network administratively prohibited",
    (3, 10): "host administratively prohibited",
    (3, 13): "communication administratively prohibited",
    (11, 0): "time to live exceeded",
    (11, 1): "not all fragments arrived in time",
}
_V6_WORDS = {
    (1, 0): "no route to the destination",
    (1, 1): "communication administratively prohibited",
    (1, 2): "beyond the scope of the source address",
    (1, 3): "address unreachable",
    (1, 4): "port unreachable",
    (1, 5): "source address failed the ingress or egress policy",
    (1, 6): "route rejected",
    (2, 0): "packet too big",
    (3, 0): "hop limit exceeded",
    (3, 1): "not all fragments arrived in time",
}


class Destination(NamedTuple):
    """An address as the socket calls want it; ``host`` is its canonical text, as it comes back with a reply.

    ``network`` names those whom we ask at one pace (see ``network_pace``).
    """

    version: int
    host: str
    scope: int
    network: str

    def socket_address(self, port: int) -> tuple[Any, ...]:
        """What to hand to ``sendto``."""
        return (self.host, port) if self.version == 4 else (self.host, port, 0, self.scope)


@lru_cache(maxsize=65536)
def destination(address: str) -> Destination:
    """The destination that an IP literal stands for, zone included; ``OSError`` where the zone does not exist."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv4Address):
        return Destination(4, str(parsed), 0, network_of(parsed))
    if parsed.ipv4_mapped is not None:
        return Destination(4, str(parsed.ipv4_mapped), 0, network_of(parsed.ipv4_mapped))
    zone = parsed.scope_id
    scope = 0 if zone is None else int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    return Destination(6, socket.inet_ntop(socket.AF_INET6, parsed.packed), scope, network_of(parsed))


class NetworkError(NamedTuple):
    """An ICMP error that came back for one of our packets; ``payload`` is what it quotes of that packet."""

    number: int
    words: str
    reporter: str | None
    address: tuple[Any, ...]
    payload: bytes


def icmp_words(version: int, kind: int, code: int) -> str:
    """An ICMP error in words (RFC 792, RFC 4443)."""
    words = (_V4_WORDS if version == 4 else _V6_WORDS).get((kind, code))
    return words or f"ICMP error of type {kind}, code {code}"


def arrival_time(ancillary: Iterable[tuple[int, int, bytes]]) -> float | None:
    """When the kernel took the datagram in, in wall seconds; ``None`` where it does not say."""
    for level, kind, value in ancillary:
        if kind == _SO_TIMESTAMPNS and level == socket.SOL_SOCKET and len(value) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(value)
            return float(seconds + nanoseconds * 1e-9)
    return None


def elapsed_ms(sent_wall: float, sent_monotonic: float, ancillary: Iterable[tuple[int, int, bytes]]) -> float:
    """Milliseconds from sending until the kernel had the reply: what we took to get round to reading is not counted.

    Where the wall clock was set in between, or the kernel keeps no timestamps, the monotonic clock decides.
    """
    upper = SYSTEM_CLOCK.monotonic() - sent_monotonic
    arrived = arrival_time(ancillary)
    if arrived is None:
        return upper * 1000
    measured = arrived - sent_wall
    return (measured if 0 <= measured <= upper else upper) * 1000


class SharedSocket:
    """A non-blocking datagram socket whose replies and errors go to two callables, on the running loop.

    ``heard(datagram, ancillary, source)`` is called once a datagram, ``failed(error)`` once a network error.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        heard: Callable[[bytes, list[tuple[int, int, bytes]], tuple[Any, ...]], None],
        failed: Callable[[NetworkError], None],
        read_size: int,
    ) -> None:
        self._socket = sock
        self._heard = heard
        self._failed = failed
        self._read_size = read_size
        sock.setblocking(False)
        _widen(sock)
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._on_readable)

    def send(self, packet: bytes, address: tuple[Any, ...], ancillary: Iterable[tuple[int, int, bytes]] = ()) -> bool:
        """Send now; ``False`` when the system has no room at the moment. An ``OSError`` is about this packet."""
        try:
            self._send(packet, address, ancillary)
        except OSError as error:
            if error.errno in _TRY_LATER:
                return False
            if not self._drain_errors():
                raise
            # It may have been the error of an earlier packet, which Linux reports to whoever calls next.
            self._send(packet, address, ancillary)
        return True

    def _send(self, packet: bytes, address: tuple[Any, ...], ancillary: Iterable[tuple[int, int, bytes]]) -> None:
        if ancillary:
            self._socket.sendmsg([packet], ancillary, 0, address)
        else:
            self._socket.sendto(packet, address)

    def _on_readable(self) -> None:
        if not self.drain() and not self._drain_errors():
            self._loop.call_soon(self._watch_again)

    def drain(self) -> bool:
        """Read what has arrived, a bounded number at once; whether there was anything."""
        receive, heard, size = self._socket.recvmsg, self._heard, self._read_size
        for count in range(_READS_PER_WAKE):
            try:
                datagram, ancillary, _, source = receive(size, _ANCILLARY_SIZE)
            except (BlockingIOError, InterruptedError):
                return count > 0
            except OSError:
                # The error of a packet sent earlier; what it was stands in the error queue.
                if self._closed or not self._drain_errors():
                    return count > 0
            else:
                heard(datagram, ancillary, source)
                if self._closed:
                    break
        return True

    def _drain_errors(self) -> bool:
        """Hand over the errors the kernel keeps for this socket; whether there were any."""
        found = False
        for _ in range(_READS_PER_WAKE):
            try:
                payload, ancillary, _, address = self._socket.recvmsg(self._read_size, _ANCILLARY_SIZE, _MSG_ERRQUEUE)
            except OSError:
                break
            found = True
            error = network_error(payload, ancillary, address)
            if error is not None:
                self._failed(error)
        if found:
            # libuv stops watching a descriptor once it showed an error, so watching starts again.
            self._loop.call_soon(self._watch_again)
        return found

    def _watch_again(self) -> None:
        if not self._closed:
            self._loop.remove_reader(self._socket)
            self._loop.add_reader(self._socket, self._on_readable)

    @property
    def _closed(self) -> bool:
        return self._socket.fileno() < 0

    def close(self) -> None:
        """Stop listening. Twice is as good as once."""
        if not self._closed:
            self._loop.remove_reader(self._socket)
            self._socket.close()


def _widen(sock: socket.socket) -> None:
    # The administrator's limit is passed where we may: thousands of replies can arrive in one turn of the loop.
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


def network_error(
    payload: bytes, ancillary: Iterable[tuple[int, int, bytes]], address: tuple[Any, ...]
) -> NetworkError | None:
    """The error in one message of a socket's error queue (``struct sock_extended_err``, ip(7)); ``None`` if none is."""
    for level, kind, value in ancillary:
        if (level, kind) in _RECVERR_LEVELS and len(value) >= _EXTENDED_ERROR.size:
            number, origin, icmp_type, code, *_ = _EXTENDED_ERROR.unpack_from(value)
            if origin == _FROM_ICMP and icmp_type in _ADVICE:
                return None
            words = icmp_words(4 if level == socket.IPPROTO_IP else 6, icmp_type, code)
            return NetworkError(number, words, _reporter(value[_EXTENDED_ERROR.size :]), address, payload)
    return None


def _reporter(raw: bytes) -> str | None:
    if len(raw) < 8:
        return None
    family = int.from_bytes(raw[:2], "little" if struct.pack("=H", 1)[0] else "big")
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[4:8])
    if family == socket.AF_INET6 and len(raw) >= 24:
        return socket.inet_ntop(socket.AF_INET6, raw[8:24])
    return None


class Pacer(Generic[T]):
    """Sends at most ``BURST`` things a tick and keeps the rest in line; bounded is what is sent, not what is awaited.

    ``send`` returns ``False`` when it cannot send just now: the thing keeps its place and the burst ends.
    """

    def __init__(self, send: Callable[[T], bool]) -> None:
        self._send = send
        self._line: deque[T] = deque()
        self._later: list[tuple[float, int, T]] = []
        self._order = itertools.count()
        self._room = 0
        self._tick_at = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    @property
    def waiting(self) -> int:
        """How many are in line now."""
        return len(self._line)

    def put(self, thing: T) -> None:
        """Send at once where this tick has room, else as soon as a later one has."""
        if not self._line and self._take_room() and self._send(thing):
            return
        self._line.append(thing)
        self._wake_at(self._tick_at + self._tick)

    def put_at(self, thing: T, when: float) -> None:
        """Send at the first tick after ``when`` (monotonic), so that those of one tick go out together."""
        due = math.ceil(when / TICK_SECONDS) * TICK_SECONDS
        heapq.heappush(self._later, (due, next(self._order), thing))
        self._wake_at(due)

    def close(self) -> list[T]:
        """Forget all that is in line, or was to be sent later, and return it."""
        left = [*self._line, *(thing for _, _, thing in self._later)]
        self._line.clear()
        self._later.clear()
        self._stop_timer()
        return left

    @property
    def _tick(self) -> float:
        return HURRIED_TICK_SECONDS if len(self._line) > HURRY_ABOVE else TICK_SECONDS

    def _take_room(self) -> bool:
        now = SYSTEM_CLOCK.monotonic() + TIMER_SLACK_SECONDS
        if now >= self._tick_at + self._tick:
            self._tick_at, self._room = now, BURST
        if self._room == 0:
            return False
        self._room -= 1
        return True

    def _on_tick(self) -> None:
        self._stop_timer()
        now = SYSTEM_CLOCK.monotonic() + TIMER_SLACK_SECONDS
        while self._later and self._later[0][0] <= now:
            self._line.append(heapq.heappop(self._later)[2])
        while self._line and self._take_room():
            if not self._send(self._line[0]):
                self._room = 0
                break
            self._line.popleft()
        if self._line:
            self._wake_at(self._tick_at + self._tick)
        elif self._later:
            self._wake_at(self._later[0][0])

    def _wake_at(self, when: float) -> None:
        if when < self._timer_at:
            self._stop_timer()
            self._timer_at = when
            delay = max(0.0, when - SYSTEM_CLOCK.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_tick)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, math.inf
