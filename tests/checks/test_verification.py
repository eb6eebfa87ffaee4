"""The second look over real sockets: what confirms, what refutes, what only explains; and how a crowd waits."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import uvloop

from servmon.checks import second_ping
from servmon.checks.plan import Plan
from servmon.checks.verification import AT_ONCE, SAMPLE_ABOVE, Verifier
from servmon.detection.verdict import Method, SecondLook
from servmon.metrics import Counters
from servmon.model import FailureKind, Status
from servmon.probes.specification import EndpointDefaults, parse_endpoint
from tests.fix_servers import free_port


def plan(url: str, **fields) -> Plan:
    return Plan.of(parse_endpoint({"id": "web", "url": url, "timeout": 1, **fields}, EndpointDefaults()))


@asynccontextmanager
async def listening(answer: bytes | None):
    async def serve(reader, writer):
        if answer is None:
            await asyncio.sleep(30)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_a_refused_port_is_confirmed_and_the_answering_host_explains_it(netns):
    async def look():
        return await Verifier(counters=Counters()).look_again(plan(f"tcp://127.0.0.1:{port}"))

    port = free_port()
    found = netns.run_async(look)
    assert (found.result.status, found.result.failure_kind) == (Status.DOWN, FailureKind.REFUSED)
    assert found.explanations[0].startswith("host answers ping (")
    assert f"port {port} refuses" in found.explanations


async def test_a_good_answer_refutes():
    async with listening(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as port:
        found = await Verifier(counters=Counters()).look_again(plan(f"http://127.0.0.1:{port}/"))
    assert found.result.status is Status.UP


async def test_a_host_that_answers_pings_and_a_wrong_page_is_still_down():
    async with listening(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n") as port:
        found = await Verifier(counters=Counters()).look_again(plan(f"http://127.0.0.1:{port}/"))
    assert (found.result.status, found.result.failure_kind) == (Status.DOWN, FailureKind.STATUS)


@pytest.mark.parametrize("loop", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("has_aioping", [True, False], ids=["aioping", "own engine"])
@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", Status.UP), ("10.7.0.9", Status.DOWN)])
def test_pings_are_sent_again_by_another_way(netns, monkeypatch, loop, has_aioping, host, status):
    monkeypatch.setattr(second_ping, "SECONDS_BETWEEN", 0.05)
    if not has_aioping:
        monkeypatch.setattr(second_ping, "find_aioping", lambda: None)
    monkeypatch.setattr("servmon.checks.verification.EXTRA_SECONDS", 0.3)

    async def look():
        return await Verifier(counters=Counters()).look_again(plan(f"icmp://{host}", timeout=0.5))

    found = netns.run_async(look, loop)
    assert found.result.status is status
    assert found.result.details["packets_sent"] == 5


def test_without_raw_sockets_aioping_uses_the_unprivileged_kind(netns, monkeypatch):
    monkeypatch.setattr(second_ping, "SECONDS_BETWEEN", 0.05)
    netns.drop_net_raw()

    async def look():
        return await Verifier(counters=Counters()).look_again(plan("icmp://127.0.0.1"))

    assert netns.run_async(look).result.status is Status.UP


async def test_one_dead_address_of_two_is_degraded_and_not_down(monkeypatch):
    async with listening(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as port:

        async def addresses(_self, _host):
            return ["127.0.0.2", "127.0.0.1"]

        monkeypatch.setattr("servmon.checks.verification.Look._addresses", addresses)
        first = replace(plan(f"http://two.invalid:{port}/"), address="127.0.0.2")
        found = await Verifier(counters=Counters()).look_again(first)
    assert found.result.status is Status.DEGRADED
    assert found.result.error_message == "1 of 2 addresses answer; dead: 127.0.0.2"


class Crowded(Verifier):
    """Looks that wait until the test says what they find."""

    def __init__(self, **more):
        super().__init__(counters=Counters(), **more)
        self.begun: list[str] = []
        self.go = asyncio.Event()

    async def _look_in_turn(self, one: Plan):
        await self._take_place(one.endpoint.id)
        try:
            self.begun.append(one.endpoint.id)
            await self.go.wait()
            result = self._by_sample(one)
            return SecondLook(result)
        finally:
            self._give_place()


def crowd(number: int, site: str = "pop") -> list[Plan]:
    first = plan("tcp://127.0.0.1:1")
    return [replace(first, endpoint=replace(first.endpoint, id=f"e-{n}", site=site)) for n in range(number)]


async def test_in_a_crowd_a_site_is_judged_by_a_sample():
    verifier = Crowded()
    looks = [asyncio.ensure_future(verifier.look_again(one)) for one in crowd(300)]  # noqa: TID251 - of the test's own
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    verifier.go.set()
    found = await asyncio.gather(*looks)
    methods = [one.method for one in found]
    assert methods.count(Method.LOOK) == AT_ONCE + SAMPLE_ABOVE
    assert methods.count(Method.SAMPLE) == 300 - AT_ONCE - SAMPLE_ABOVE
    assert all(one.result.status is Status.DOWN for one in found)


async def test_parents_are_looked_at_first_and_at_most_twenty_at_once():
    verifier = Crowded(dependents=lambda endpoint_id: endpoint_id == "e-39")
    looks = [asyncio.ensure_future(verifier.look_again(one)) for one in crowd(40)]  # noqa: TID251 - of the test's own
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(verifier.begun) == AT_ONCE
    verifier.go.set()
    await asyncio.gather(*looks)
    assert verifier.begun[AT_ONCE] == "e-39"
