"""A real DNS server on loopback, over UDP and TCP, which can also be made to misbehave."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

Odd = Callable[[bytes], list[bytes]]


class DnsServer(asyncio.DatagramProtocol):
    """``zone`` maps (name, type) to records, ``rcodes`` a name to another rcode.

    ``odd`` maps a name to what is sent over UDP for a query in place of an answer, ``odd_tcp`` the same over TCP
    (with the length in front); a name in ``large`` is truncated over UDP. ``asked`` lists (transport, name, source).
    """

    def __init__(self) -> None:
        self.zone: dict[tuple[str, str], list[str]] = {}
        self.rcodes: dict[str, str] = {}
        self.odd: dict[str, Odd] = {}
        self.odd_tcp: dict[str, Odd] = {}
        self.large: set[str] = set()
        self.flags = 0
        self.nsid: bytes | None = None
        self.asked: list[tuple[str, str, Any]] = []
        self.host = ""
        self.port = 0
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    async def start(self, host: str, *, tls: ssl.SSLContext | None = None) -> None:
        """Over UDP and TCP on one port; with ``tls`` what comes over TCP has to come over TLS."""
        loop = asyncio.get_running_loop()
        for _ in range(20):
            self._tcp = await asyncio.start_server(self._serve, host, 0, ssl=tls)
            self.host, self.port = self._tcp.sockets[0].getsockname()[:2]
            try:
                self._udp, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, self.port))
            except OSError:
                self._tcp.close()
            else:
                # Hundreds may ask at once while this machine is busy; none of them is to be lost here.
                self._udp.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                return
        raise AssertionError("no port was free for both UDP and TCP")

    async def stop(self) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        name = self._note("udp", data, addr)
        for answer in self.odd[name](data) if name in self.odd else [self.answer(data, truncate=name in self.large)]:
            self._udp.sendto(answer, addr)

    def late(self, seconds: float) -> Odd:
        """An answer that is right, and comes late."""

        def answer(query: bytes) -> list[bytes]:
            asked_by = self.asked[-1][2]
            asyncio.get_running_loop().call_later(seconds, self._send, self.answer(query), asked_by)
            return []

        return answer

    def _send(self, answer: bytes, to: Any) -> None:
        if not self._udp.is_closing():
            self._udp.sendto(answer, to)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            name = self._note("tcp", data, writer.get_extra_info("peername"))
            if name in self.odd_tcp:
                writer.writelines(self.odd_tcp[name](data))
            else:
                answer = self.answer(data)
                writer.write(len(answer).to_bytes(2, "big") + answer)
            await writer.drain()
        finally:
            writer.close()

    def _note(self, transport: str, data: bytes, source: Any) -> str:
        name = str(dns.message.from_wire(data).question[0].name).rstrip(".").lower()
        self.asked.append((transport, name, source))
        return name

    def answer(self, data: bytes, *, truncate: bool = False) -> bytes:
        """The right answer to a query, as bytes."""
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        question = query.question[0]
        name, kind = str(question.name).rstrip(".").lower(), dns.rdatatype.to_text(question.rdtype)
        if name in self.rcodes:
            response.set_rcode(dns.rcode.from_text(self.rcodes[name]))
        for (owner, rtype), texts in self.zone.items():
            if (owner == name and kind in (rtype, "ANY")) or (owner == name and rtype == "CNAME"):
                response.answer.append(dns.rrset.from_text_list(question.name, 60, "IN", rtype, texts))
        response.flags |= self.flags
        if self.nsid and any(option.otype == dns.edns.OptionType.NSID for option in query.options):
            response.use_edns(0, options=[dns.edns.NSIDOption(self.nsid)])
        if truncate:
            response.answer.clear()
            response.flags |= dns.flags.TC
        return response.to_wire()


@pytest.fixture
async def dns_server():
    """A DNS server on 127.0.0.1 with ``example.test A 192.0.2.1``."""
    server = DnsServer()
    server.zone["example.test", "A"] = ["192.0.2.1"]
    await server.start("127.0.0.1")
    yield server
    await server.stop()
