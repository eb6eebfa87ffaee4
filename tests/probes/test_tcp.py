"""TCP: every way a connection can begin, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
import uvloop

from servmon.errors import InvalidInputError
from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed
from servmon.probes.network import Network
from tests.fix_servers import TcpServer, check_once, closes_at_once, free_port, is_silent, open_files, resets, settled


@pytest.mark.parametrize("behaviour", [is_silent, closes_at_once, resets])
async def test_a_port_that_accepts_is_up_whatever_comes_after(check, tcp_server, behaviour):
    server = await tcp_server(behaviour)
    answer = await check(f"tcp://127.0.0.1:{server.port}")
    assert 0 < answer.response_ms < 1000
    assert answer.phases.connect_ms == answer.response_ms
    assert answer.phases.dns_ms is None
    assert answer.details == {"address": "127.0.0.1"}
    await settled(lambda: server.accepted == 1)


async def test_a_name_from_the_hosts_file_is_resolved_and_its_time_told(check, tcp_server):
    server = await tcp_server(is_silent)
    answer = await check(f"localhost:{server.port}", protocol="TCP")
    assert answer.details == {"address": "127.0.0.1"}
    assert answer.phases.dns_ms > 0


async def test_ipv6(check, tcp_server):
    server = await tcp_server(is_silent, host="::1")
    assert (await check(f"tcp://[::1]:{server.port}")).details == {"address": "::1"}


async def test_a_closed_port_refuses(check):
    port = free_port()
    with pytest.raises(ProbeFailed) as failed:
        await check(f"tcp://127.0.0.1:{port}")
    assert failed.value.kind is FailureKind.REFUSED
    assert failed.value.message == f"127.0.0.1:{port} refused the connection"


async def test_a_name_that_leads_to_a_link_without_saying_which_is_its_own_fault(dns_server):
    dns_server.zone["link.test", "AAAA"] = ["fe80::1"]
    async with Network(nameservers=[f"127.0.0.1:{dns_server.port}"]) as names:
        with pytest.raises(ProbeFailed, match="a link-local address says not on which link") as failed:
            await check_once(names, "tcp://link.test:9", 5)
    assert failed.value.kind is FailureKind.UNREACHABLE


async def test_ipv6_addresses_stand_in_brackets_in_messages(check):
    port = free_port()
    with pytest.raises(ProbeFailed, match=rf"^\[::1\]:{port} refused the connection$"):
        await check(f"tcp://[::1]:{port}")


@pytest.mark.parametrize(
    ("address", "reason"), [("10.9.0.1", "no route to host"), ("203.0.113.1", "network is unreachable")]
)
def test_without_a_route_it_is_unreachable(netns, address, reason):
    netns.ip("route add unreachable 10.9.0.0/16")

    async def main():
        async with Network() as network:
            await check_once(network, f"tcp://{address}:7", 2)

    with pytest.raises(ProbeFailed) as failed:
        netns.run_async(main)
    assert failed.value.kind is FailureKind.UNREACHABLE
    assert failed.value.message == f"{address}:7 cannot be reached: {reason}"


def test_a_silent_host_is_left_at_the_runners_limit_with_nothing_open(netns):
    async def main():
        async with Network() as network:
            before = open_files()
            with pytest.raises(TimeoutError):
                await asyncio.gather(*(check_once(network, f"tcp://10.7.1.{n}:7", 0.3) for n in range(250)))
            await settled(lambda: open_files() <= before and len(asyncio.all_tasks()) == 1)

    netns.run_async(main)


async def test_a_full_backlog_is_silence_and_the_place_among_its_checks_is_given_back(network):
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        with pytest.raises(TimeoutError):
            await check_once(network, f"tcp://127.0.0.1:{listener.getsockname()[1]}", 0.3)
    assert network.slots.busy("127.0.0.1") == 0


async def test_a_port_is_needed():
    with pytest.raises(InvalidInputError, match=r"url: TCP needs a port, as in tcp://example\.test:7"):
        await check_once(None, "tcp://example.test", 1)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_five_hundred_checks_leave_nothing_behind(new_loop):
    async def main():
        server = TcpServer(closes_at_once)
        await server.start("0.0.0.0")
        async with Network() as network:
            await check_once(network, f"tcp://127.0.0.1:{server.port}", 5)
            await settled(lambda: len(asyncio.all_tasks()) == 1)
            before = open_files()
            for _ in range(10):
                await asyncio.gather(
                    *(check_once(network, f"tcp://127.0.0.{n + 1}:{server.port}", 5) for n in range(50))
                )
            await settled(lambda: open_files() <= before and len(asyncio.all_tasks()) == 1)
        await server.stop()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
