"""The servers that are asked, in a process of their own on the other core: they answer at once and keep nothing."""

from __future__ import annotations

import asyncio
import ssl
import sys

import dns.message
import trustme
import uvloop

ADDRESSES = 250
HTTP_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nok"


class HttpServer(asyncio.Protocol):
    """Answers the first bytes of anything with one small page and closes."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(HTTP_ANSWER)
        self.transport.close()


class TcpServer(asyncio.Protocol):
    """Accepts; whoever connected closes."""


class UdpServer(asyncio.DatagramProtocol):
    """Sends back what it gets."""

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.transport.sendto(data, address)


class DnsServer(UdpServer):
    """Answers every question with the same address; the answer is built once and its id and question replaced."""

    def __init__(self) -> None:
        query = dns.message.make_query("bench.example", "A")
        answer = dns.message.make_response(query)
        answer.answer.append(dns.rrset.from_text("bench.example.", 60, "IN", "A", "192.0.2.1"))
        self.rest = answer.to_wire()[2:]

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.transport.sendto(data[:2] + self.rest, address)


def server_tls() -> ssl.SSLContext:
    """A certificate for every address asked, by nobody who is trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


async def serve() -> None:
    """Listen on every address of this machine; print the ports, then wait for the end of stdin."""
    loop = asyncio.get_running_loop()
    http = await loop.create_server(HttpServer, "0.0.0.0", 0, backlog=4096)
    https = await loop.create_server(HttpServer, "0.0.0.0", 0, backlog=4096, ssl=server_tls())
    tcp = await loop.create_server(TcpServer, "0.0.0.0", 0, backlog=4096)
    ports = [server.sockets[0].getsockname()[1] for server in (http, https, tcp)]
    ports += [await serve_datagrams(UdpServer), await serve_datagrams(DnsServer)]
    print(*ports, flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


async def serve_datagrams(server: type[UdpServer]) -> int:
    """Listen on 127.0.0.1 to 127.0.0.250: on a wildcard socket, answers would leave from another address."""
    loop = asyncio.get_running_loop()
    first, _ = await loop.create_datagram_endpoint(server, local_addr=("127.0.0.1", 0))
    port: int = first.get_extra_info("sockname")[1]
    for number in range(2, ADDRESSES + 1):
        await loop.create_datagram_endpoint(server, local_addr=(f"127.0.0.{number}", port))
    return port


if __name__ == "__main__":
    uvloop.run(serve())
