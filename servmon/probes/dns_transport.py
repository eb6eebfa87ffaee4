"""How DNS questions travel: over one shared UDP socket per address family, over TCP where an answer was truncated.

An answer counts only if it comes from the asked server and port, with the question's random id, and repeats the
question; anything else is ignored, and asking goes on. The socket, and with it the source port, is renewed every
minute, so that a forger who cannot see our packets has port and id to guess (RFC 5452).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections import Counter
from contextlib import suppress
from typing import Any, NamedTuple

from servmon.clock import SYSTEM_CLOCK
from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed, failure_from
from servmon.probes.connection import connect_to
from servmon.probes.readiness import Readiness
from servmon.probes.route import ANY_ROUTE, Ancillary, Route, why_not_sent
from servmon.probes.shared_socket import RECVERR, NetworkError, Pacer, SharedSocket, destination, elapsed_ms
from servmon.probes.tls_words import tls_failure

RENEW_AFTER_SECONDS = 60.0

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_HEADER_SIZE = 12
_MAX_OUTSTANDING_PER_SERVER = 30_000
# We offer 1,232 bytes (EDNS); servers that send more than they were offered are still read as far as this.
_READ_SIZE = 8192
_NOERROR, _NXDOMAIN = 0, 3
# Counting what strangers send must not become work of its own.
_QUERIES_TOLD = 16


class Reply(NamedTuple):
    """The bytes of an answer to our question; ``truncated`` means that the server has more to say than fits."""

    wire: bytes
    elapsed_ms: float
    truncated: bool
    connect_ms: float | None = None
    tls_ms: float | None = None


class Query:
    """One question on its way to one server. ``ignored`` counts by reason what arrived instead of an answer."""

    __slots__ = (
        "answered",
        "carrier",
        "host",
        "id",
        "ignored",
        "port",
        "sent",
        "sent_monotonic",
        "sent_wall",
        "source",
        "to",
        "way",
        "wire",
    )

    def __init__(self, address: str, port: int, wire: bytes, route: Route = ANY_ROUTE) -> None:
        self.to = destination(address)
        self.source = route.source_address
        self.way: Ancillary = () if route is ANY_ROUTE else route.ancillary(self.to.version)
        self.host = self.to.host
        self.port = port
        self.wire = wire
        self.id = -1
        self.ignored: Counter[str] = Counter()
        self.answered: asyncio.Future[Reply | ProbeFailed] = asyncio.get_running_loop().create_future()
        self.carrier: UdpSocket | None = None
        self.sent = False
        self.sent_wall = 0.0
        self.sent_monotonic = 0.0

    @property
    def server(self) -> str:
        """The server as people write it."""
        return f"[{self.host}]:{self.port}" if self.to.version == 6 else f"{self.host}:{self.port}"

    def fail(self, failure: ProbeFailed) -> None:
        """End the wait without an answer."""
        if not self.answered.done():
            self.answered.set_result(failure)


def why_not_an_answer(question: bytes, datagram: bytes) -> str | None:
    """Why ``datagram`` does not answer ``question`` (both whole messages), or ``None`` where it does.

    Ids are not compared here. A refusal may leave the question out, as servers do that could not read it.
    """
    if len(datagram) < _HEADER_SIZE:
        return "something too short for DNS"
    flags, rcode = datagram[2], datagram[3] & 0x0F
    if not flags & 0x80:
        return "a question, not an answer"
    count = int.from_bytes(datagram[4:6], "big")
    if count == 0 and rcode not in {_NOERROR, _NXDOMAIN}:
        return None
    end = _question_end(question)
    asked, repeated = question[_HEADER_SIZE:end], datagram[_HEADER_SIZE:end]
    # Names are compared without regard to case; type and class follow in the last four bytes.
    same = asked[:-4].lower() == repeated[:-4].lower() and asked[-4:] == repeated[-4:]
    return None if count == 1 and same else "an answer to another question"


def _question_end(message: bytes) -> int:
    at = _HEADER_SIZE
    while message[at]:
        at += 1 + message[at]
    return at + 5


class UdpSocket:
    """One UDP socket and the questions outstanding on it, by server and id."""

    def __init__(self, version: int) -> None:
        self.opened_at = SYSTEM_CLOCK.monotonic()
        self.waiting: dict[tuple[str, int], dict[int, Query]] = {}
        self._retired = False
        sock = socket.socket(_FAMILY[version], socket.SOCK_DGRAM)
        with suppress(OSError):
            sock.setsockopt(*RECVERR[version], 1)
        self._shared = SharedSocket(sock, heard=self._heard, failed=self._failed, read_size=_READ_SIZE)

    def send(self, query: Query) -> bool:
        """Send the question with an id nobody else waits for; ``False`` where it has to wait."""
        queries = self.waiting.setdefault((query.host, query.port), {})
        if len(queries) >= _MAX_OUTSTANDING_PER_SERVER:
            return False
        query.id = _free_id(queries)
        queries[query.id] = query
        query.carrier = self
        query.sent_wall, query.sent_monotonic = SYSTEM_CLOCK.wall(), SYSTEM_CLOCK.monotonic()
        packet = query.id.to_bytes(2, "big") + query.wire[2:]
        try:
            sent = self._shared.send(packet, query.to.socket_address(query.port), query.way)
        except OSError as error:
            self.forget(query)
            query.fail(failure_from(why_not_sent(error, query.source), f"sending a question to {query.server}"))
            return True
        if not sent:
            self.forget(query)
        query.sent = sent
        return sent

    def forget(self, query: Query) -> None:
        """Whatever comes for this question from now on is too late."""
        query.carrier = None
        server = (query.host, query.port)
        queries = self.waiting.get(server)
        if queries is not None and queries.get(query.id) is query:
            del queries[query.id]
            if not queries:
                del self.waiting[server]
        if self._retired and not self.waiting:
            self.close()

    def retire(self) -> None:
        """Close as soon as nothing is waited for here."""
        self._retired = True
        if not self.waiting:
            self.close()

    def close(self) -> None:
        """Close now."""
        self._shared.close()

    def _heard(self, datagram: bytes, ancillary: list[tuple[int, int, bytes]], source: tuple[Any, ...]) -> None:
        queries = self.waiting.get((source[0], source[1]))
        if queries is None:
            return
        query = queries.get(int.from_bytes(datagram[:2], "big"))
        reason = why_not_an_answer(query.wire, datagram) if query else "an answer with a wrong id"
        if query is None or reason is not None:
            for told in (query,) if query else tuple(queries.values())[:_QUERIES_TOLD]:
                told.ignored[reason or ""] += 1
        elif not query.answered.done():
            elapsed = elapsed_ms(query.sent_wall, query.sent_monotonic, ancillary)
            query.answered.set_result(Reply(datagram, elapsed, truncated=bool(datagram[2] & 0x02)))

    def _failed(self, error: NetworkError) -> None:
        """An entry of the error queue quotes our question, or at least says which server it is about."""
        queries = self.waiting.get((error.address[0], error.address[1]))
        if queries is None:
            return
        quoted = queries.get(int.from_bytes(error.payload[:2], "big")) if len(error.payload) >= 2 else None
        for query in (quoted,) if quoted else tuple(queries.values()) if len(error.payload) < 2 else ():
            query.fail(_network_failure(error, query))


def _free_id(queries: dict[int, Query]) -> int:
    while True:
        number = int.from_bytes(os.urandom(2), "big")
        if number not in queries:
            return number


def _network_failure(error: NetworkError, query: Query) -> ProbeFailed:
    by = f", says {error.reporter}" if error.reporter else ""
    if error.number == errno.ECONNREFUSED:
        return ProbeFailed(FailureKind.REFUSED, f"nothing answers DNS at {query.server}: {error.words}{by}")
    return ProbeFailed(FailureKind.UNREACHABLE, f"{query.server} cannot be reached: {error.words}{by}")


def _spoken(tls: ssl.SSLContext | None) -> str:
    return "TCP" if tls is None else "TLS"


class DnsTransport:
    """Carries everybody's questions in this process. Nothing is cached: every question reaches its server.

    ``readiness`` watches the connections of those that go over TCP.
    """

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._sockets: dict[int, UdpSocket] = {}
        self._draining: list[UdpSocket] = []
        self._asking: set[Query] = set()
        self._pacers = {version: Pacer(self._send) for version in (4, 6)}

    async def ask(self, query: Query) -> Reply:
        """Send once over UDP and wait for the answer, as long as the caller has patience.

        Raises ``ProbeFailed``: REFUSED or UNREACHABLE as soon as the network says so, LOCAL where we cannot send.
        """
        self._asking.add(query)
        try:
            self._pacers[query.to.version].put(query)
            answer = await query.answered
        finally:
            self._asking.discard(query)
            # So that a question still in line is not sent.
            query.answered.cancel()
            if query.carrier is not None:
                query.carrier.forget(query)
        if isinstance(answer, ProbeFailed):
            raise answer
        return answer

    async def ask_over_tcp(
        self, query: Query, route: Route = ANY_ROUTE, *, tls: ssl.SSLContext | None = None, name: str = ""
    ) -> Reply:
        """Ask over a connection of its own (RFC 7766), or with ``tls`` over TLS with the server ``name`` (RFC 7858).

        Raises ``ProbeFailed``, and ``OSError`` where the connection breaks.
        """
        started = SYSTEM_CLOCK.monotonic()
        question = os.urandom(2) + query.wire[2:]
        host = f"{query.host}%{query.to.scope}" if query.to.scope else query.host
        sock, connect_ms = await connect_to(self._readiness, host, query.port, route)
        began_at = SYSTEM_CLOCK.monotonic()
        try:
            reader, writer = await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=name or None)
        except ssl.SSLError as error:
            raise tls_failure(error, query.server, name) from None
        tls_ms = None if tls is None else (SYSTEM_CLOCK.monotonic() - began_at) * 1000
        try:
            writer.write(len(question).to_bytes(2, "big") + question)
            answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        except asyncio.IncompleteReadError as error:
            message = f"{query.server} closed the {_spoken(tls)} connection in the middle of its answer"
            raise ProbeFailed(FailureKind.PROTOCOL, message) from error
        finally:
            writer.transport.abort()
        is_ours = len(answer) < _HEADER_SIZE or question[:2] == answer[:2]
        reason = why_not_an_answer(question, answer) if is_ours else "an answer with a wrong id"
        if reason is not None:
            raise ProbeFailed(FailureKind.PROTOCOL, f"{query.server} sent {reason} over {_spoken(tls)}")
        elapsed = (SYSTEM_CLOCK.monotonic() - started) * 1000
        return Reply(answer, elapsed, truncated=False, connect_ms=connect_ms, tls_ms=tls_ms)

    def _send(self, query: Query) -> bool:
        if query.answered.done():
            return True
        try:
            carrier = self._socket(query.to.version)
        except OSError as error:
            query.fail(failure_from(error, "opening a DNS socket"))
            return True
        return carrier.send(query)

    def _socket(self, version: int) -> UdpSocket:
        current = self._sockets.get(version)
        if current is None:
            current = self._sockets[version] = UdpSocket(version)
        elif SYSTEM_CLOCK.monotonic() - current.opened_at > RENEW_AFTER_SECONDS:
            # Where a new one cannot be opened just now, the old one goes on.
            with suppress(OSError):
                self._sockets[version] = UdpSocket(version)
                current.retire()
                self._draining = [sock for sock in (*self._draining, current) if sock.waiting]
                return self._sockets[version]
        return current

    async def close(self) -> None:
        """Close the sockets. Who still waits gets ``ProbeFailed`` (LOCAL)."""
        for pacer in self._pacers.values():
            pacer.close()
        for query in self._asking:
            query.fail(ProbeFailed(FailureKind.LOCAL, "servmon is closing its DNS socket"))
        for sock in (*self._sockets.values(), *self._draining):
            sock.close()
        self._sockets.clear()
        self._draining.clear()
