"""Where clients come in: a crowd keeps nobody waiting, and a machine without descriptors is waited for."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections import Counter

import pytest
from structlog.testing import capture_logs

from servmon.api import gate
from servmon.api.gate import Gate, listening
from servmon.tasks import cancel, spawn
from tests.fix_servers import settled

CROWD = 200


class Client(asyncio.Protocol):
    """Counts who comes in, by the turn of the loop."""

    def __init__(self, came_in: Counter[int], turn: list[int]) -> None:
        self.came_in, self.turn = came_in, turn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.came_in[self.turn[0]] += 1
        transport.abort()


@pytest.fixture
def troubles() -> dict[str, str]:
    return {}


@pytest.fixture
async def came_in(troubles):
    """Who came in through a gate that nobody minded yet, with the port of it."""
    came_in, turn = Counter(), [0]

    async def count() -> None:
        while True:
            turn[0] += 1
            await asyncio.sleep(0)

    (sock,) = await listening("127.0.0.1", 0)
    counting = spawn(count(), name="turns")
    opened = Gate.at(sock, lambda: Client(came_in, turn), troubles)
    yield came_in, sock.getsockname()
    await cancel(counting)
    await opened.close()


async def test_a_crowd_comes_in_one_by_one_with_turns_for_checks_between(came_in):
    counted, address = came_in
    crowd = [socket.create_connection(address) for _ in range(CROWD)]  # the loop stands still meanwhile
    await settled(lambda: counted.total() == CROWD)
    assert max(counted.values()) == 1
    for one in crowd:
        one.close()


async def test_with_no_descriptor_left_it_waits_says_so_once_and_goes_on(came_in, troubles, monkeypatch):
    counted, address = came_in
    monkeypatch.setattr(gate, "PAUSE_SECONDS", 0.01)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client, capture_logs() as said:
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            client.connect(address)
            await settled(lambda: bool(said))
            await asyncio.sleep(0.05)
            assert list(troubles.values()) == ["lets nobody in for the moment: Too many open files"]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        await settled(lambda: counted.total() == 1)
    assert troubles == {}
    assert [one["problem"] for one in said] == ["Too many open files"]


async def test_where_what_lets_clients_in_fails_it_is_named_and_works_again_without_a_restart(monkeypatch):
    monkeypatch.setattr("servmon.tasks.FIRST_RESTART_SECONDS", 0.05)
    came_in, troubles = Counter(), {}
    broken = [ValueError("nobody foresaw this")]

    def protocol() -> asyncio.Protocol:
        if broken:
            raise broken.pop()
        return Client(came_in, [0])

    (sock,) = await listening("127.0.0.1", 0)
    host, port = sock.getsockname()
    opened = Gate.at(sock, protocol, troubles)
    with socket.create_connection((host, port)) as first, capture_logs() as said:
        await settled(lambda: bool(troubles))
        assert troubles == {f"API at {host} port {port}": "ValueError: nobody foresaw this"}
        first.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(first, 1) == b""  # it is not left to wait
        with socket.create_connection((host, port)):
            await settled(lambda: came_in.total() == 1)
        await settled(lambda: not troubles)
    assert [one["event"] for one in said] == ["follower failed, starting it again"]
    await opened.close()


async def test_a_port_that_is_taken_is_told_and_leaves_no_socket_behind():
    (taken,) = await listening("127.0.0.1", 0)
    with taken, pytest.raises(OSError, match="Address already in use"):
        await listening("127.0.0.1", taken.getsockname()[1])


async def test_every_address_of_a_name_is_listened_at():
    sockets = await listening("localhost", 0)
    families = {sock.family for sock in sockets}
    for sock in sockets:
        sock.close()
    known = await asyncio.get_running_loop().getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)
    assert families == {family for family, *_ in known}
