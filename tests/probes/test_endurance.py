"""Whatever a server does: a check ends by its deadline, in bounded memory, and leaves nothing behind.

Deadlines are proved on virtual time over real sockets: only where nothing arrives any more does time go on.
"""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc

import pytest
import uvloop

from servmon.checks.attempts import ask
from servmon.checks.plan import Plan
from servmon.model import FailureKind, Status
from servmon.probes.network import Network
from servmon.probes.specification import EndpointDefaults, parse_endpoint
from tests.fix_dns import DnsServer
from tests.fix_servers import (
    TcpServer,
    UdpServer,
    check_once,
    closes_at_once,
    free_port,
    greets,
    is_endless,
    is_silent,
    open_files,
    resets,
    says,
    settled,
)
from tests.virtual import VirtualClock, VirtualLoop

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def a_byte_a_second(octets: bytes):
    """Sends the bytes slowly, then goes on with the last one for ever."""

    async def behave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at = 0
        while True:
            writer.write(octets[at : at + 1])
            at = min(at + 1, len(octets) - 1)
            await asyncio.sleep(1)

    return behave


def endless(octets: bytes, *, first: bytes = OK + b"\r\n"):
    """Sends these bytes again and again."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(first)
        while True:
            writer.write(octets * (65_536 // len(octets)))
            await writer.drain()

    return behave


ODD = {
    "silent after accept": (is_silent, FailureKind.TIMEOUT),
    "reset": (resets, FailureKind.RESET),
    "close without a word": (says(b""), FailureKind.PROTOCOL),
    "1 byte/s head": (a_byte_a_second(OK + b"X: " + b"y" * 1000), FailureKind.TIMEOUT),
    "1 byte/s body": (says(OK + b"\r\n", then=a_byte_a_second(b"x" * 1000)), FailureKind.TIMEOUT),
    "truncated length": (says(OK + b"Content-Length: 10\r\n\r\nshort"), FailureKind.PROTOCOL),
    "half an answer, then silence": (says(OK + b"Content-Length: 9\r\n\r\nx", then=is_silent), FailureKind.TIMEOUT),
    "bad chunk": (says(CHUNKED + b"zz\r\n"), FailureKind.PROTOCOL),
    "endless body": (endless(b"x"), None),
    "endless header": (endless(b"X: y\r\n", first=OK), FailureKind.PROTOCOL),
    "endless interim answers": (endless(b"HTTP/1.1 102 Wait\r\n\r\n", first=b""), FailureKind.PROTOCOL),
    "endless small chunks": (endless(b"1\r\nx\r\n", first=CHUNKED), None),
    "endless trailers": (endless(b"X: y\r\n", first=CHUNKED + b"0\r\n"), None),
    "endless chunk extension": (endless(b"x", first=CHUNKED + b"1;"), None),
    "2 MB header": (says(OK + b"X: " + b"x" * 2_000_000 + b"\r\n\r\n"), FailureKind.PROTOCOL),
    "SSH banner": (greets(b"SSH-2.0-OpenSSH_9.6\r\n"), FailureKind.PROTOCOL),
    "redirect loop": (says(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"), FailureKind.PROTOCOL),
    "redirect to a file": (says(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n"), FailureKind.PROTOCOL),
}


async def _ended_in_time(url: str, *, retries: int = 0, **fields):
    """The result of one check of 5 virtual seconds, which must not go on for longer."""
    clock = VirtualClock()
    plan = Plan.of(parse_endpoint({"url": url, "timeout": 5, **fields}, EndpointDefaults()))
    async with Network() as network:
        deadline = clock.monotonic() + 5
        result = await ask(plan, network, deadline=deadline, retries=retries, clock=clock)
        assert clock.monotonic() <= deadline + 0.1
    assert len(result.error_message or "") <= 500
    return result


def _virtual_loop() -> VirtualLoop:
    return VirtualLoop(grace=0.005)


def _on_virtual_time(main):
    with asyncio.Runner(loop_factory=_virtual_loop) as runner:
        return runner.run(main())


@pytest.mark.parametrize("retries", [0, 3])
@pytest.mark.parametrize("case", ODD)
def test_an_odd_web_server_costs_no_more_than_the_deadline(case, retries):
    behaviour, kind = ODD[case]

    async def main():
        server = TcpServer(behaviour)
        await server.start()
        url = f"http://127.0.0.1:{server.port}/"
        results = [
            await _ended_in_time(url, retries=retries),
            await _ended_in_time(url, retries=retries, expected_response_pattern="^"),
        ]
        await server.stop()
        return results

    for result in _on_virtual_time(main):
        assert result.failure_kind is kind
        assert result.status is (Status.UP if kind is None else Status.DOWN)


@pytest.mark.parametrize("case", ["silent after accept", "reset", "SSH banner", "endless body"])
def test_an_odd_server_where_tls_or_a_dialogue_is_expected_costs_no_more_than_the_deadline(case):
    async def main():
        server = TcpServer(ODD[case][0] if case != "endless body" else is_endless)
        await server.start()
        for scheme, fields in (
            ("https", {}),
            ("tcp", {"tls": True}),
            ("tcp", {"steps": [{"send": "HELO\r\n"}, {"expect": "^220"}, {"starttls": True}]}),
            ("dns", {"transport": "tcp", "query_name": "a.test"}),
            ("dns", {"transport": "tls", "query_name": "a.test"}),
        ):
            result = await _ended_in_time(f"{scheme}://127.0.0.1:{server.port}", **fields)
            assert result.status is Status.DOWN, (scheme, result)
            if case == "silent after accept":
                assert result.failure_kind is FailureKind.TIMEOUT
        await server.stop()

    _on_virtual_time(main)


def test_odd_datagrams_cost_no_more_than_the_deadline():
    garbage = random.Random(4)
    odd = {
        "silent": lambda _query: [],
        "garbage": lambda _query: [garbage.randbytes(n) for n in (0, 1, 11, 12, 40, 600)],
        "wrong id": lambda query: [bytes([query[0] ^ 1]) + dns.answer(query)[1:]],
        "truncated": lambda query: [dns.answer(query, truncate=True)],
    }
    dns = DnsServer()

    async def main():
        await dns.start("127.0.0.1")
        udp = UdpServer()
        udp.answer = lambda _datagram: None
        await udp.start()
        found = {}
        for name, behaviour in odd.items():
            dns.odd["example.test"] = behaviour
            dns.odd_tcp["example.test"] = lambda _query: [b"\xff\xff"]
            found[name] = await _ended_in_time(f"dns://127.0.0.1:{dns.port}/example.test")
        found["UDP silent"] = await _ended_in_time(f"udp://127.0.0.1:{udp.port}", send="x")
        found["UDP closed"] = await _ended_in_time(f"udp://127.0.0.1:{free_port()}", send="x")
        await udp.stop()
        await dns.stop()
        return {name: result.failure_kind for name, result in found.items()}

    assert _on_virtual_time(main) == {
        "silent": FailureKind.TIMEOUT,
        "garbage": FailureKind.TIMEOUT,
        "wrong id": FailureKind.TIMEOUT,
        "truncated": FailureKind.PROTOCOL,
        "UDP silent": FailureKind.TIMEOUT,
        "UDP closed": FailureKind.REFUSED,
    }


def test_a_black_hole_for_connections_costs_no_more_than_the_deadline(netns):
    async def main():
        urls = ("http://10.7.0.9/", "https://[fd07::9]/", "tcp://10.7.0.9:25", "dns://10.7.0.9/a.test")
        results = [await _ended_in_time(url) for url in urls]
        results.append(await _ended_in_time("dns://10.7.0.9/a.test", transport="tcp"))
        no_route = await _ended_in_time("http://192.0.2.1/")
        return results, no_route

    results, no_route = netns.run_async(main, _virtual_loop)
    assert {result.failure_kind for result in results} == {FailureKind.TIMEOUT}
    assert no_route.failure_kind is FailureKind.UNREACHABLE


# Memory


@pytest.mark.parametrize(
    "first",
    [OK + b"Content-Length: 5368709120\r\n\r\n", CHUNKED + b"140000000\r\n", OK + b"\r\n"],
    ids=["length", "one chunk", "until closed"],
)
async def test_an_answer_of_five_gigabytes_costs_little_memory(network, tcp_server, first):
    server = await tcp_server(says(first, then=is_endless))
    url = f"http://127.0.0.1:{server.port}/"
    await check_once(network, url, 10)
    tracemalloc.start()
    await check_once(network, url, 10)
    await check_once(network, url, 10, expected_response_pattern="^x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


# Nothing stays behind


@pytest.mark.parametrize("checks", [400, pytest.param(10_000, marks=pytest.mark.deep)])
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_thousands_of_failing_checks_leak_no_file_and_no_task(new_loop, checks, trusted):
    async def main():
        behaviours = (
            resets,
            closes_at_once,
            is_silent,
            greets(b"SSH-2.0\r\n"),
            says(OK + b"Content-Length: 9\r\n\r\n"),
        )
        servers = [TcpServer(behaviour) for behaviour in behaviours]
        for server in servers:
            await server.start("0.0.0.0")
        ports = [server.port for server in servers] + [free_port()]
        urls = [
            f"{scheme}://127.0.{n % 40}.{n % 200 + 1}:{port}{path}"
            for n, port in enumerate(ports)
            for scheme, path in (("http", "/"), ("https", "/"), ("dns", "/a.test"), ("udp", ""))
        ]
        numbers = iter(range(checks))

        async def work_off(network: Network) -> None:
            for number in numbers:
                plan = Plan.of(parse_endpoint({"url": urls[number % len(urls)], "timeout": 0.05}, EndpointDefaults()))
                deadline = asyncio.get_running_loop().time() + 5
                result = await ask(plan, network, deadline=deadline, retries=0)
                assert result.status is not Status.UP, result

        async with Network() as network:
            await asyncio.gather(*(work_off(network) for _ in range(32)))
            await settled(lambda: len(asyncio.all_tasks()) == 1)
            gc.collect()
            assert not any(network.slots.busy(f"127.0.{n % 40}.{n % 200 + 1}") for n in range(len(ports)))
        for server in servers:
            await server.stop()
        return len(asyncio.all_tasks())

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.sleep(0))  # libuv opens a pipe for the whole process
    before = open_files()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        tasks = runner.run(main())
    assert tasks == 1
    assert open_files() <= before
