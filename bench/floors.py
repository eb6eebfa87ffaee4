"""The least that asking once can cost in Python on this loop: no schedule, no deadline, no record of it.

Flat out, and paced as servmon asks: what is due in a tick at once, and idle until the next. A process that was idle
pays for being woken, and finds no line of code or data in the caches any more.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

from servmon.clock import TICK_SECONDS

AT_ONCE = 64
ROUNDS = 5_000
PACED_SECONDS = 4.0
RATE = 1_000
PATIENCE_SECONDS = 30.0
HTTP_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
DNS_QUERY = bytes.fromhex("0001010000010000000000000562656e6368076578616d706c650000010001")

Ask = Callable[[int], Awaitable[None]]


class _HttpClient(asyncio.Protocol):
    def __init__(self) -> None:
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:
        transport.write(HTTP_REQUEST)

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


def _address(number: int) -> str:
    return f"127.0.0.{number % 250 + 1}"


def http(port: int) -> Ask:
    """One request over a new connection, on a bare transport."""
    loop = asyncio.get_running_loop()

    async def ask(number: int) -> None:
        _, client = await loop.create_connection(_HttpClient, _address(number), port)
        await client.ended

    return ask


def https(port: int) -> Ask:
    """The same over TLS, with whoever answers."""
    loop, context = asyncio.get_running_loop(), ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    async def ask(number: int) -> None:
        _, client = await loop.create_connection(_HttpClient, _address(number), port, ssl=context)
        await client.ended

    return ask


def tcp(port: int) -> Ask:
    """Connect and close."""
    loop = asyncio.get_running_loop()

    async def ask(number: int) -> None:
        transport, _ = await loop.create_connection(asyncio.Protocol, _address(number), port)
        transport.close()

    return ask


def udp(port: int) -> Ask:
    """One datagram and its echo, on a socket of its own."""
    loop = asyncio.get_running_loop()

    async def ask(number: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.connect((_address(number), port))
            sock.send(b"ping")
            await loop.sock_recv(sock, 512)

    return ask


class _Shared:
    """One socket for all; answers are found by a number in them."""

    def __init__(self, sock: socket.socket, number_at: Callable[[bytes], int]) -> None:
        self.sock = sock
        self.waiting: dict[int, asyncio.Future[None]] = {}
        self._number_at = number_at
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock, self._read)

    def _read(self) -> None:
        while True:
            try:
                packet = self.sock.recv(2048)
            except BlockingIOError:
                return
            waiting = self.waiting.pop(self._number_at(packet), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    async def ask(self, number: int, packet: bytes, to: tuple[str, int]) -> None:
        waiting = self.waiting[number] = asyncio.get_running_loop().create_future()
        self.sock.sendto(packet, to)
        await waiting


def dns(port: int) -> Ask:
    """One query on a shared socket."""
    shared = _Shared(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), lambda packet: int.from_bytes(packet[:2], "big"))

    async def ask(number: int) -> None:
        number &= 0xFFFF
        await shared.ask(number, number.to_bytes(2, "big") + DNS_QUERY[2:], (_address(number), port))

    return ask


def icmp(_port: int) -> Ask:
    """One echo on a shared raw socket."""
    own = os.getpid() & 0xFFFF

    def number_at(packet: bytes) -> int:
        kind, _, _, packet_id, sequence = struct.unpack_from("!BBHHH", packet, 20)
        return sequence if kind == 0 and packet_id == own else -1

    shared = _Shared(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), number_at)

    async def ask(number: int) -> None:
        number &= 0xFFFF
        await shared.ask(number, _echo(own, number), (_address(number), 0))

    return ask


def _echo(packet_id: int, sequence: int) -> bytes:
    body = struct.pack("!BBHHH", 8, 0, 0, packet_id, sequence)
    total = sum(struct.unpack("!4H", body))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBHHH", 8, 0, ~total & 0xFFFF, packet_id, sequence)


FLOORS: dict[str, Callable[[int], Ask]] = {
    "HTTP": http,
    "HTTPS": https,
    "TCP": tcp,
    "UDP": udp,
    "DNS": dns,
    "ICMP": icmp,
}


async def measure(protocol: str, port: int) -> tuple[float, float]:
    """CPU microseconds of this process for each question: flat out, 64 at once; and paced, 1,000 a second."""
    ask = FLOORS[protocol](port)
    numbers = iter(range(ROUNDS))

    async def work_off() -> None:
        for number in numbers:
            await ask(number)

    started = time.process_time()
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work_off())
    flat_out = (time.process_time() - started) / ROUNDS
    return flat_out * 1e6, await _paced(ask) * 1e6


async def _paced(ask: Ask) -> float:
    loop, asked = asyncio.get_running_loop(), 0
    each_tick = round(RATE * TICK_SECONDS)
    started, due, end = time.process_time(), loop.time(), loop.time() + PACED_SECONDS
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        while due < end:
            due += TICK_SECONDS
            await asyncio.sleep(due - loop.time())
            for _ in range(each_tick):
                group.create_task(ask(asked))
                asked += 1
    return (time.process_time() - started) / asked


if __name__ == "__main__":
    print(*uvloop.run(measure(sys.argv[1], int(sys.argv[2]))))
