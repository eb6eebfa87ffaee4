"""Paths that lose 2 % of the packets, delay and double them; and a resolver that is half broken and half slow."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from servmon.checks.attempts import ask
from servmon.checks.plan import Plan
from servmon.clock import SYSTEM_CLOCK
from servmon.model import FailureKind, Status
from servmon.probes.network import Network
from servmon.probes.specification import EndpointDefaults, parse_endpoint
from tests.fix_dns import DnsServer
from tests.fix_lossy import Forwarder, PingableNetwork, Weather
from tests.fix_servers import closes_at_once


async def asked(network: Network, url: str, *, retries: int = 3, seconds: float = 30, **fields):
    plan = Plan.of(parse_endpoint({"url": url, **fields}, EndpointDefaults()))
    return await ask(plan, network, deadline=SYSTEM_CLOCK.monotonic() + seconds, retries=retries)


@pytest.mark.parametrize("checks", [150, pytest.param(5000, marks=pytest.mark.deep)])
async def test_datagrams_over_a_lossy_path_are_up_every_time(network, udp_server, dns_server, checks):
    weather = Weather(7, loss=0.02, duplicates=0.05, jitter_ms=20)
    udp, dns = Forwarder("127.0.0.1", udp_server.port, weather), Forwarder("127.0.0.1", dns_server.port, weather)
    await udp.start()
    await dns.start()
    results = []
    for _ in range(0, checks, 30):
        results += await asyncio.gather(
            *(asked(network, f"udp://127.0.0.1:{udp.port}", send="x", timeout=0.2) for _ in range(15)),
            *(asked(network, f"dns://127.0.0.1:{dns.port}/example.test", timeout=0.2) for _ in range(15)),
        )
    udp.stop()
    dns.stop()
    assert weather.lost > 2
    assert weather.doubled > 5
    assert {result.status for result in results} == {Status.UP}
    assert any(result.attempts > 1 for result in results)


@pytest.mark.parametrize("checks", [60, pytest.param(3000, marks=pytest.mark.deep)])
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_pings_over_a_lossy_path_count_what_was_lost_and_nothing_twice(make_netns, new_loop, checks):
    namespace, weather = make_netns(), Weather(11, loss=0.02, duplicates=0.05, jitter_ms=8)

    async def main():
        far.serve()
        async with Network() as network:
            found = []
            for first in range(0, checks, 30):
                found += await asyncio.gather(
                    *(
                        asked(network, f"icmp://10.9.{first // 30}.{n + 2}", packet_interval_ms=10, timeout=0.5)
                        for n in range(30)
                    )
                )
        await asyncio.sleep(0.02)
        far.close()
        return found

    far = namespace.run(PingableNetwork, weather)
    namespace.ip("addr add 10.9.0.1/16 dev far", "link set far up")
    results = namespace.run_async(main, new_loop)
    sent = sum(result.details["packets_sent"] for result in results)
    received = sum(result.details["packets_received"] for result in results)
    assert sent == 5 * checks
    assert (sent - received, weather.carried) == (weather.lost, sent)
    assert weather.doubled > 0
    assert not {result.status for result in results} & {Status.DOWN, Status.UNKNOWN}
    assert any(result.details["jitter_ms"] > 0.5 for result in results)


async def test_a_resolver_half_of_which_fails_and_half_of_which_is_slow_blames_the_dead_zone_alone(tcp_server):
    """Two name servers: one says SERVFAIL to everything, the other answers after 2 s, or for the dead zone never."""
    broken, slow = DnsServer(), DnsServer()
    names = [f"n{number}.test" for number in range(12)]
    server = await tcp_server(closes_at_once, host="0.0.0.0")
    for name in names:
        slow.zone[name, "A"] = ["127.0.0.1"]
        broken.rcodes[name] = "SERVFAIL"
        slow.odd[name] = slow.late(2.0)
    broken.rcodes["dead.zone"] = "SERVFAIL"
    slow.odd["dead.zone"] = lambda _query: []
    await broken.start("127.0.0.1")
    await slow.start("127.0.0.1")
    order = []

    async def note(name: str, check) -> None:
        order.append((name, await check))

    async with Network(nameservers=[f"127.0.0.1:{broken.port}", f"127.0.0.1:{slow.port}"]) as network:
        await asyncio.gather(
            *(note(name, asked(network, f"tcp://{name}:{server.port}", timeout=5)) for name in names),
            note("dead", asked(network, "tcp://dead.zone:9", timeout=5, retries=0)),
            *(note("ip", asked(network, f"tcp://127.0.0.{n + 1}:{server.port}")) for n in range(12)),
        )
    await broken.stop()
    await slow.stop()
    found = dict(order)
    assert [name for name, _ in order[:12]] == ["ip"] * 12
    assert [(name, one.error_message) for name, one in order if one.status is not Status.UP and name != "dead"] == []
    assert (found["dead"].status, found["dead"].failure_kind) == (Status.DOWN, FailureKind.DNS)
    assert "cannot be resolved, while other names can" in found["dead"].error_message
