"""Networks that lose, delay and double what they carry: a forwarder for datagrams, and a host that only pings reach."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import socket
import struct
from typing import Any

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_ECHO_REQUEST, _ECHO_REPLY = 8, 0


class Weather:
    """What happens to each packet: ``loss`` and ``duplicates`` are shares of one, ``jitter_ms`` the longest delay."""

    def __init__(self, seed: int, *, loss: float = 0.0, duplicates: float = 0.0, jitter_ms: float = 0.0) -> None:
        self._random = random.Random(seed)
        self._loss = loss
        self._duplicates = duplicates
        self._jitter_ms = jitter_ms
        self.carried = self.lost = self.doubled = 0

    def delays(self) -> list[float]:
        """After how many seconds each copy of a packet arrives; empty where it is lost."""
        self.carried += 1
        if self._random.random() < self._loss:
            self.lost += 1
            return []
        copies = 2 if self._random.random() < self._duplicates else 1
        self.doubled += copies - 1
        return [self._random.random() * self._jitter_ms / 1000 for _ in range(copies)]


class Forwarder(asyncio.DatagramProtocol):
    """Passes datagrams on to ``(host, port)`` and their answers back, both ways through the weather."""

    def __init__(self, host: str, port: int, weather: Weather) -> None:
        self.port = 0
        self._to = (host, port)
        self._weather = weather
        self._front: asyncio.DatagramTransport | None = None
        self._backs: dict[Any, socket.socket] = {}

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._front, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.port = self._front.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        for delay in self._weather.delays():
            asyncio.get_running_loop().call_later(delay, self._forward, data, addr)

    def _forward(self, data: bytes, client: Any) -> None:
        if self._front.is_closing():
            return
        if client not in self._backs:
            back = self._backs[client] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            back.setblocking(False)
            back.connect(self._to)
            asyncio.get_running_loop().add_reader(back, self._bring_back, back, client)
        self._backs[client].send(data)

    def _bring_back(self, back: socket.socket, client: Any) -> None:
        data = back.recv(65_536)
        for delay in self._weather.delays():
            asyncio.get_running_loop().call_later(delay, self._answer, data, client)

    def _answer(self, data: bytes, client: Any) -> None:
        if not self._front.is_closing():
            self._front.sendto(data, client)

    def stop(self) -> None:
        self._front.close()
        for back in self._backs.values():
            asyncio.get_running_loop().remove_reader(back)
            back.close()


class PingableNetwork:
    """A TUN device behind which every address answers pings, through the weather. Open it inside a namespace.

    ``heard`` lists the source and the traffic class of each ping.
    """

    def __init__(self, weather: Weather, name: str = "far") -> None:
        self.name = name
        self._weather = weather
        self.heard: list[tuple[str, int]] = []
        self._file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self._file, _TUNSETIFF, struct.pack("16sH14x", name.encode(), _IFF_TUN | _IFF_NO_PI))

    def serve(self) -> None:
        """Answer, on the running loop."""
        asyncio.get_running_loop().add_reader(self._file, self._on_readable)

    def _on_readable(self) -> None:
        while True:
            try:
                packet = os.read(self._file, 65_536)
            except BlockingIOError:
                return
            start = (packet[0] & 15) * 4
            if packet[0] >> 4 == 4 and packet[9] == 1 and packet[start] == _ECHO_REQUEST:
                self.heard.append((socket.inet_ntoa(packet[12:16]), packet[1]))
                for delay in self._weather.delays():
                    asyncio.get_running_loop().call_later(delay, self._write, _replied(packet, start))

    def _write(self, packet: bytes) -> None:
        if self._file >= 0:
            os.write(self._file, packet)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._file)
        os.close(self._file)
        self._file = -1


def _replied(packet: bytes, start: int) -> bytes:
    """The echo reply to an echo request; swapping addresses leaves the IP header's checksum as it is."""
    header = packet[:12] + packet[16:20] + packet[12:16] + packet[20:start]
    body = bytes([_ECHO_REPLY, 0, 0, 0]) + packet[start + 4 :]
    padded = body + b"\0" * (len(body) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return header + body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
