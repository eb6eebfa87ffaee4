"""ICMP sockets: echo requests go out, and what comes back is matched with what is waited for (RFC 792, RFC 4443).

A reply counts only if its source, sequence number and random cookie are those of a request still waited for, and on
a raw socket its identifier too. Late replies of earlier checks, duplicates and other programs' replies match nothing.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import StrEnum
from typing import Any

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
from servmon.probes.icmp_series import Echo, Series
from servmon.probes.route import why_not_sent
from servmon.probes.shared_socket import RECVERR, NetworkError, SharedSocket, elapsed_ms

_INT = struct.Struct("@i")
_FILLER = bytes(range(256)) * 256
# The cookie stands in front and an error quotes the front, so the rest of a large reply need not be read.
_READ_SIZE = 512
# Sequence numbers have 16 bits, and each in use belongs to one request.
_MAX_OUTSTANDING = 60_000
# The system is asked for randomness once for so many cookies.
_COOKIES_AT_ONCE = 512

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_ANY_ADDRESS = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - only binds the identifier of an ICMP socket, nothing listens

# Linux numbers that Python's socket module does not name.
_SOL_RAW, _ICMP_FILTER, _ICMP6_FILTER = 255, 1, 1
_RECEIVE_TTL = {4: (socket.IPPROTO_IP, 12), 6: (socket.IPPROTO_IPV6, 51)}
_TTL = {4: (socket.IPPROTO_IP, 2), 6: (socket.IPPROTO_IPV6, 52)}

_LEVEL = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
# IP_MTU_DISCOVER; IPV6_MTU_DISCOVER and IPV6_DONTFRAG: usually, and for packets that must not be cut up whatever the
# kernel remembers of the path (ip(7): IP_PMTUDISC_DONT and IP_PMTUDISC_PROBE; IPv6 is cut up by the sender alone).
_FRAGMENTATION = {4: {10: (0, 3)}, 6: {23: (1, 3), 62: (0, 1)}}


class Mode(StrEnum):
    """The two ways to speak ICMP: with CAP_NET_RAW, or as any user whom the kernel's ping_group_range allows."""

    RAW = "raw"
    DGRAM = "dgram"


class IcmpSocket:
    """One ICMP socket and the requests outstanding on it, by sequence number."""

    def __init__(self, version: int, mode: Mode) -> None:
        self.version = version
        self.mode = mode
        self.opened_at = SYSTEM_CLOCK.monotonic()
        self.outstanding: dict[int, Echo] = {}
        self._retired = False
        self._sequence = int.from_bytes(os.urandom(2), "big")
        sock, self.identifier = _open_raw(version) if mode is Mode.RAW else _open_dgram(version)
        self._socket = sock
        self._cookies = _random_cookies()
        self._forbid_fragments(False)
        self._shared = SharedSocket(sock, heard=self._heard, failed=self._failed, read_size=_READ_SIZE)
        self.drain = self._shared.drain

    def send(self, series: Series) -> bool:
        """Send the series' next request; ``False`` where it has to wait. What is wrong locally ends the series."""
        if len(self.outstanding) >= _MAX_OUTSTANDING:
            return False
        echo = Echo(series, self, self._next_sequence(), next(self._cookies))
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

    def forget(self, echo: Echo) -> None:
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

    def _echo_of(self, heard: Heard, source: str) -> Echo | None:
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


def _random_cookies() -> Iterator[bytes]:
    while True:
        octets = os.urandom(COOKIE_SIZE * _COOKIES_AT_ONCE)
        for start in range(0, len(octets), COOKIE_SIZE):
            yield octets[start : start + COOKIE_SIZE]


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
    error = why_not_sent(error, series.source)
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
