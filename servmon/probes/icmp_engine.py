"""ICMP echo for the whole process: one socket per address family, however many hosts are asked (RFC 792, RFC 4443).

A reply counts only if its source, sequence number and random cookie are those of a request still waited for, and on
a raw socket its identifier too. Late replies of earlier checks, duplicates and other programs' replies match nothing.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any, NamedTuple

from servmon.clock import SYSTEM_CLOCK
from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed, failure_from
from servmon.probes.icmp_packet import (
    COOKIE_SIZE,
    ECHO_REPLY,
    ERRORS,
    HEADER,
    PROTOCOL,
    Heard,
    echo_request,
    parse_reply,
)
from servmon.probes.network_pace import NetworkPace
from servmon.probes.route import ANY_ROUTE, Ancillary, Route
from servmon.probes.shared_socket import (
    RECVERR,
    Destination,
    NetworkError,
    Pacer,
    SharedSocket,
    destination,
    elapsed_ms,
)

RENEW_AFTER_SECONDS = 600.0

_INT = struct.Struct("@i")
_FILLER = bytes(range(256)) * 256
# The cookie stands in front and an error quotes the front, so the rest of a large reply need not be read.
_READ_SIZE = 512
_LAST_READS = 16
# A packet sent with less than this share of the time left was not given a fair chance to be answered.
_FAIR_SHARE = 0.25
# Sequence numbers have 16 bits, and each in use belongs to one request.
_MAX_OUTSTANDING = 60_000

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_ANY_ADDRESS = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - only binds the identifier of an ICMP socket, nothing listens

# Not for this user; or no such kind of socket on this system.
_MODE_REFUSED = frozenset({errno.EPERM, errno.EACCES, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT})

# Linux numbers that Python's socket module does not name.
_SOL_RAW, _ICMP_FILTER, _ICMP6_FILTER = 255, 1, 1
_RECEIVE_TTL = {4: (socket.IPPROTO_IP, 12), 6: (socket.IPPROTO_IPV6, 51)}
_TTL = {4: (socket.IPPROTO_IP, 2), 6: (socket.IPPROTO_IPV6, 52)}

_LEVEL = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
# IP_MTU_DISCOVER; IPV6_MTU_DISCOVER and IPV6_DONTFRAG: usually, and for packets that must not be cut up whatever the
# kernel remembers of the path (ip(7): IP_PMTUDISC_DONT and IP_PMTUDISC_PROBE; IPv6 is cut up by the sender alone).
_FRAGMENTATION = {4: {10: (0, 3)}, 6: {23: (1, 3), 62: (0, 1)}}

NOT_PERMITTED = (
    "this process may not send ICMP: allow it with "
    '`sysctl -w net.ipv4.ping_group_range="0 2147483647"`, or give it CAP_NET_RAW '
    "(AmbientCapabilities=CAP_NET_RAW in the service unit, or `setcap cap_net_raw+ep` on its Python)"
)


class Mode(StrEnum):
    """The two ways to speak ICMP: with CAP_NET_RAW, or as any user whom the kernel's ping_group_range allows."""

    RAW = "raw"
    DGRAM = "dgram"


class Reply(NamedTuple):
    """An answered echo request; ``ttl`` is the reply's (IPv6: hop limit), ``None`` where the system does not say."""

    rtt_ms: float
    ttl: int | None


class Packet(NamedTuple):
    """What kind of echo requests to send; ``payload_size`` is in bytes, without any header."""

    payload_size: int = 56
    ttl: int | None = None
    dont_fragment: bool = False
    route: Route = ANY_ROUTE


PLAIN_PACKET = Packet()


class Series:
    """The echo requests of one check to one address, and what became of each.

    ``rtts_ms`` holds the round trips in order of arrival, ``failure`` the last request that failed for a known
    reason. Requests in neither are lost, or were never sent: see ``sent``. ``rushed`` means that time ran out while
    this machine had yet to send, or had hardly sent, the last of them: their loss proves nothing.
    """

    __slots__ = (
        "_settled",
        "dont_fragment",
        "failure",
        "finished",
        "last_sent_at",
        "open",
        "packets",
        "payload_size",
        "rtts_ms",
        "rushed",
        "sent",
        "to",
        "ttl",
        "ttl_heard",
        "way",
    )

    def __init__(self, to: Destination, packets: int, kind: Packet) -> None:
        self.to = to
        self.packets = packets
        self.payload_size = kind.payload_size
        self.ttl = kind.ttl
        self.dont_fragment = kind.dont_fragment
        self.way: Ancillary = () if kind.route is ANY_ROUTE else kind.route.ancillary(to.version)
        self.sent = 0
        self.last_sent_at = -math.inf
        self.rushed = False
        self.rtts_ms: list[float] = []
        self.ttl_heard: int | None = None
        self.failure: ProbeFailed | None = None
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.open: list[_Echo] = []
        self._settled = 0

    def answer(self, rtt_ms: float, ttl: int | None) -> None:
        """One request was answered."""
        self.rtts_ms.append(rtt_ms)
        self.ttl_heard = ttl
        self._settle()

    def refuse(self, failure: ProbeFailed) -> None:
        """One request failed for a known reason; one of our own ends the series, since asking on would not help."""
        self.failure = failure
        if failure.kind is FailureKind.LOCAL:
            self.finish()
        else:
            self._settle()

    def finish(self) -> None:
        """Wait for nothing more."""
        if not self.finished.done():
            self.finished.set_result(None)

    def _settle(self) -> None:
        self._settled += 1
        if self._settled == self.packets:
            self.finish()


class _Echo:
    """One request that is waited for."""

    __slots__ = ("cookie", "sent_monotonic", "sent_wall", "sequence", "series", "socket")

    def __init__(self, series: Series, sock: IcmpSocket, sequence: int, cookie: bytes) -> None:
        self.series = series
        self.socket = sock
        self.sequence = sequence
        self.cookie = cookie
        self.sent_wall = 0.0
        self.sent_monotonic = 0.0


class IcmpSocket:
    """One ICMP socket and the requests outstanding on it, by sequence number."""

    def __init__(self, version: int, mode: Mode) -> None:
        self.version = version
        self.mode = mode
        self.opened_at = SYSTEM_CLOCK.monotonic()
        self.outstanding: dict[int, _Echo] = {}
        self._retired = False
        self._sequence = int.from_bytes(os.urandom(2), "big")
        sock, self.identifier = _open_raw(version) if mode is Mode.RAW else _open_dgram(version)
        self._socket = sock
        self._forbid_fragments(False)
        self._shared = SharedSocket(sock, heard=self._heard, failed=self._failed, read_size=_READ_SIZE)
        self.drain = self._shared.drain

    def send(self, series: Series) -> bool:
        """Send the series' next request; ``False`` where it has to wait. What is wrong locally ends the series."""
        if len(self.outstanding) >= _MAX_OUTSTANDING:
            return False
        echo = _Echo(series, self, self._next_sequence(), os.urandom(COOKIE_SIZE))
        payload = echo.cookie + _FILLER[: series.payload_size - COOKIE_SIZE]
        packet = echo_request(self.version, self.identifier, echo.sequence, payload)
        ancillary = series.way if series.ttl is None else (*series.way, (*_TTL[self.version], _INT.pack(series.ttl)))
        self.outstanding[echo.sequence] = echo
        series.open.append(echo)
        echo.sent_wall, echo.sent_monotonic = SYSTEM_CLOCK.wall(), SYSTEM_CLOCK.monotonic()
        try:
            if series.dont_fragment:
                self._forbid_fragments(True)
            sent = self._shared.send(packet, series.to.socket_address(0), ancillary)
        except OSError as error:
            self.forget(echo)
            series.sent += 1
            series.refuse(_send_failure(error, series))
            return True
        finally:
            if series.dont_fragment:
                self._forbid_fragments(False)
        if not sent:
            self.forget(echo)
            return False
        series.sent += 1
        series.last_sent_at = echo.sent_monotonic
        return True

    def _forbid_fragments(self, forbidden: bool) -> None:
        # No packet can say so for itself under IPv4, but nobody else sends between two lines of ours.
        for option, (usual, without) in _FRAGMENTATION[self.version].items():
            # Systems other than Linux have other numbers, and go on as they do.
            with suppress(OSError):
                self._socket.setsockopt(_LEVEL[self.version], option, without if forbidden else usual)

    def forget(self, echo: _Echo) -> None:
        """Whatever comes for this request from now on is too late."""
        echo.series.open.remove(echo)
        self.outstanding.pop(echo.sequence, None)
        if self._retired and not self.outstanding:
            self.close()

    def retire(self) -> None:
        """Close as soon as nothing is waited for here."""
        self._retired = True
        if not self.outstanding:
            self.close()

    def close(self) -> None:
        """Close now."""
        self._shared.close()

    def _next_sequence(self) -> int:
        while True:
            self._sequence = (self._sequence + 1) & 0xFFFF
            if self._sequence not in self.outstanding:
                return self._sequence

    def _heard(self, packet: bytes, ancillary: list[tuple[int, int, bytes]], source: tuple[Any, ...]) -> None:
        heard = parse_reply(packet, self.version)
        if heard is None:
            return
        echo = self._echo_of(heard, source[0])
        if echo is None:
            return
        self.forget(echo)
        if heard.complaint is None:
            ttl = heard.ttl if heard.ttl is not None else _ttl_of(ancillary, self.version)
            echo.series.answer(elapsed_ms(echo.sent_wall, echo.sent_monotonic, ancillary), ttl)
        else:
            echo.series.refuse(_unreachable(echo.series.to.host, heard.complaint, source[0]))

    def _echo_of(self, heard: Heard, source: str) -> _Echo | None:
        echo = self.outstanding.get(heard.sequence)
        if echo is None or (self.mode is Mode.RAW and heard.identifier != self.identifier):
            return None
        if heard.complaint is None:
            return echo if echo.cookie == heard.cookie and echo.series.to.host == source else None
        # Some routers quote eight bytes of our packet and no more, which leaves no cookie to compare.
        same = echo.cookie.startswith(heard.cookie) and echo.series.to.host == heard.destination
        return echo if same else None

    def _failed(self, error: NetworkError) -> None:
        """An entry of the error queue quotes our packet from its ICMP header on."""
        if len(error.payload) < HEADER.size:
            return
        _, _, _, identifier, sequence = HEADER.unpack_from(error.payload)
        cookie = error.payload[HEADER.size : HEADER.size + COOKIE_SIZE]
        echo = self._echo_of(Heard(identifier, sequence, cookie, None, error.address[0], error.words), "")
        if echo is not None:
            self.forget(echo)
            echo.series.refuse(_unreachable(echo.series.to.host, error.words, error.reporter))


def _ttl_of(ancillary: Iterable[tuple[int, int, bytes]], version: int) -> int | None:
    for level, kind, value in ancillary:
        if (level, kind) == _TTL[version] and len(value) >= _INT.size:
            return int(_INT.unpack_from(value)[0])
    return None


def _unreachable(host: str, words: str, reporter: str | None) -> ProbeFailed:
    by = f", says {reporter}" if reporter else ""
    return ProbeFailed(FailureKind.UNREACHABLE, f"{host} cannot be reached: {words}{by}")


def _send_failure(error: OSError, series: Series) -> ProbeFailed:
    host = series.to.host
    if isinstance(error, PermissionError):
        message = f"this machine forbids sending ICMP to {host} (firewall or prohibited route)"
        return ProbeFailed(FailureKind.LOCAL, message)
    if error.errno == errno.EMSGSIZE:
        message = (
            f"{series.payload_size} bytes of payload to {host} do not fit into one packet of this machine's network"
        )
        return ProbeFailed(FailureKind.LOCAL, f"{message}; a smaller payload_size would")
    return failure_from(error, f"sending an echo request to {host}")


def _open_raw(version: int) -> tuple[socket.socket, int]:
    sock = socket.socket(_FAMILY[version], socket.SOCK_RAW, PROTOCOL[version])
    wanted = {ECHO_REPLY[version], *ERRORS[version]}
    # Without the filter every ping that others send through this machine would wake us. Other systems have none.
    with suppress(OSError):
        if version == 4:
            mask = 0xFFFFFFFF & ~sum(1 << kind for kind in wanted)
            sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", mask))
        else:
            words = [0xFFFFFFFF & ~sum(1 << kind - 32 * n for kind in wanted if kind // 32 == n) for n in range(8)]
            sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *words))
    if version == 6:  # under IPv4 the header comes along, and says it
        _ask_for_ttl(sock, version)
    return sock, int.from_bytes(os.urandom(2), "big")


def _open_dgram(version: int) -> tuple[socket.socket, int]:
    sock = socket.socket(_FAMILY[version], socket.SOCK_DGRAM, PROTOCOL[version])
    # The kernel would hand out identifiers in order; a port is an ICMP identifier here.
    for _ in range(8):
        with suppress(OSError):
            sock.bind((_ANY_ADDRESS[version], 1 + int.from_bytes(os.urandom(2), "big") % 65535))
            break
    with suppress(OSError):
        sock.setsockopt(*RECVERR[version], 1)
    _ask_for_ttl(sock, version)
    return sock, sock.getsockname()[1]


def _ask_for_ttl(sock: socket.socket, version: int) -> None:
    with suppress(OSError):
        sock.setsockopt(*_RECEIVE_TTL[version], 1)


class IcmpEngine:
    """Sends echo requests for everybody in this process; sockets open at first use, with the first mode permitted.

    Sending is bounded to bursts, waiting is not. A socket is replaced every 10 minutes, and with it the identifier,
    since a firewall may hold on to a broken session for as long as the identifier stays; the old one drains.
    """

    def __init__(self, modes: Sequence[Mode] = tuple(Mode)) -> None:
        self._modes = modes
        self._sockets: dict[int, IcmpSocket] = {}
        self._draining: list[IcmpSocket] = []
        self._asking: set[Series] = set()
        self._pacers = {version: Pacer(self._send) for version in (4, 6)}
        self._pace = NetworkPace()

    async def ping(self, address: str, kind: Packet = PLAIN_PACKET) -> Reply:
        """One echo request. Waits until it is answered, refused (``ProbeFailed``) or the caller gives up."""
        series = await self.ask(address, kind)
        if series.failure is not None:
            raise series.failure
        return Reply(series.rtts_ms[0], series.ttl_heard)

    async def ask(
        self,
        address: str,
        kind: Packet = PLAIN_PACKET,
        *,
        packets: int = 1,
        interval: float = 0.2,
        patience: float | None = None,
    ) -> Series:
        """Send ``packets`` requests ``interval`` seconds apart and wait for all of them, at most ``patience`` seconds.

        They may be sent later, in the first half of that time, where many ask the same network.
        Raises ``ProbeFailed`` (LOCAL) where this machine cannot ask at all; everything else stands in the series.
        """
        to = destination(address)
        self._socket(to.version)
        series = Series(to, packets, kind)
        timer = None
        if patience is not None:
            timer = asyncio.get_running_loop().call_later(patience, self._give_up, series, patience)
        self._asking.add(series)
        try:
            self._start(series, interval, patience or 0.0)
            await series.finished
        finally:
            if timer is not None:
                timer.cancel()
            self._asking.discard(series)
            # Done, so that requests still in line are not sent, and what comes later finds nobody waiting.
            series.finish()
            for echo in tuple(series.open):
                echo.socket.forget(echo)
        if series.failure is not None and series.failure.kind is FailureKind.LOCAL:
            raise series.failure
        return series

    def _start(self, series: Series, interval: float, patience: float) -> None:
        pacer, now = self._pacers[series.to.version], SYSTEM_CLOCK.monotonic()
        due_times = self._pace.due_times(
            series.to.network, now, packets=series.packets, interval=interval, patience=patience
        )
        for due in due_times:
            if due <= now:
                pacer.put(series)
            else:
                pacer.put_at(series, due)

    def _give_up(self, series: Series, patience: float) -> None:
        # After a stall of the loop the answer may be in the buffer already: look before saying that there is none.
        for sock in {echo.socket for echo in series.open}:
            for _ in range(_LAST_READS):
                if not (series.open and sock.drain()):
                    break
        waited = SYSTEM_CLOCK.monotonic() - series.last_sent_at
        series.rushed = series.sent < series.packets or waited < _FAIR_SHARE * patience
        series.finish()

    def _send(self, series: Series) -> bool:
        if series.finished.done():
            return True
        return self._socket(series.to.version).send(series)

    def _socket(self, version: int) -> IcmpSocket:
        current = self._sockets.get(version)
        if current is None:
            current = self._sockets[version] = self._open(version)
        elif SYSTEM_CLOCK.monotonic() - current.opened_at > RENEW_AFTER_SECONDS:
            # Where a new one cannot be opened just now, the old one goes on.
            with suppress(OSError, ProbeFailed):
                self._sockets[version] = self._open(version)
                current.retire()
                self._draining = [sock for sock in (*self._draining, current) if sock.outstanding]
                return self._sockets[version]
        return current

    def _open(self, version: int) -> IcmpSocket:
        for mode in self._modes:
            try:
                return IcmpSocket(version, mode)
            except OSError as error:
                if error.errno not in _MODE_REFUSED:
                    raise
        raise ProbeFailed(FailureKind.LOCAL, NOT_PERMITTED)

    async def close(self) -> None:
        """Close the sockets. Who still waits gets ``ProbeFailed`` (LOCAL)."""
        for pacer in self._pacers.values():
            pacer.close()
        for series in self._asking:
            series.refuse(ProbeFailed(FailureKind.LOCAL, "servmon is closing its ICMP socket"))
        for sock in (*self._sockets.values(), *self._draining):
            sock.close()
        self._sockets.clear()
        self._draining.clear()
