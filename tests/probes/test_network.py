"""What probes share: names and whose fault they are, places at an address, time that is ours, and patterns."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from servmon.clock import SYSTEM_CLOCK
from servmon.model import FailureKind
from servmon.probes import pattern as pattern_module
from servmon.probes.base import ProbeFailed
from servmon.probes.network import Network, ProbeContext
from servmon.probes.pattern import is_quick, search
from servmon.probes.resolver import Evidence
from tests.fix_dns import DnsServer
from tests.fix_servers import PATIENCE_SECONDS, check_once, closes_at_once, open_files, settled
from tests.virtual import VirtualClock, run_virtual


class Clock:
    """Real time that can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def wall(self) -> float:
        return SYSTEM_CLOCK.wall() + self.ahead

    def monotonic(self) -> float:
        return SYSTEM_CLOCK.monotonic() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def names(dns_server, clock):
    """A network that asks the test's name server."""
    dns_server.zone |= {
        ("other.test", "A"): ["192.0.2.2"],
        ("six.test", "AAAA"): ["2001:db8::6"],
        ("both.test", "AAAA"): ["2001:db8::7"],
        ("both.test", "A"): ["192.0.2.7"],
    }
    dns_server.rcodes |= {"missing.test": "NXDOMAIN", "broken.test": "SERVFAIL", "refused.test": "REFUSED"}
    dns_server.odd["silent.test"] = lambda _query: []
    async with Network(clock, nameservers=[f"127.0.0.1:{dns_server.port}"]) as network:
        yield network


def context_of(network: Network, seconds: float = 5.0) -> ProbeContext:
    return ProbeContext(network, network.clock.monotonic() + seconds)


async def resolve(network: Network, name: str, seconds: float = 5.0) -> str:
    return await context_of(network, seconds).resolve(name)


async def failure(network: Network, name: str, seconds: float = 5.0) -> ProbeFailed:
    with pytest.raises(ProbeFailed) as failed:
        await resolve(network, name, seconds)
    return failed.value


# Names


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("example.test", "192.0.2.1"),
        ("six.test", "2001:db8::6"),
        ("both.test", "192.0.2.7"),
        ("localhost", "127.0.0.1"),
        ("192.0.2.9", "192.0.2.9"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
async def test_a_name_becomes_an_address(names, name, address):
    context = context_of(names)
    assert await context.resolve(name) == address
    assert context.address == address


async def test_an_address_is_never_looked_up(names, dns_server):
    context = context_of(names)
    await context.resolve("192.0.2.9")
    await context.resolve("2001:db8::1")
    assert context.dns_ms is None
    assert dns_server.asked == []
    assert names._resolver is None


async def test_the_attempts_of_a_check_share_one_look_up_and_its_time(names, dns_server):
    context = context_of(names)
    await context.resolve("example.test")
    assert context.dns_ms > 0
    before, asked = context.dns_ms, len(dns_server.asked)
    dns_server.zone["example.test", "A"] = ["192.0.2.99"]
    names.clock.ahead = 61
    assert await context.resolve("example.test") == "192.0.2.1"
    assert (context.dns_ms, len(dns_server.asked)) == (before, asked)


async def test_answers_are_no_older_than_a_minute(names, dns_server, clock):
    assert await resolve(names, "example.test") == "192.0.2.1"
    dns_server.zone["example.test", "A"] = ["192.0.2.99"]
    assert await resolve(names, "example.test") == "192.0.2.1"
    clock.ahead += 61
    assert await resolve(names, "example.test") == "192.0.2.99"


async def test_a_fresh_network_asks_afresh(names, dns_server):
    await resolve(names, "example.test")
    dns_server.zone["example.test", "A"] = ["192.0.2.99"]
    async with names.fresh() as fresh:
        assert await resolve(fresh, "example.test") == "192.0.2.99"


async def test_a_name_that_does_not_exist_is_its_own_fault(names):
    failed = await failure(names, "missing.test")
    assert failed.kind is FailureKind.DNS
    assert failed.message == "name does not exist: NXDOMAIN for missing.test"


async def test_a_name_without_an_address_is_its_own_fault(names):
    failed = await failure(names, "empty.test")
    assert failed.kind is FailureKind.DNS
    assert failed.message == "no such record: empty.test has no address, neither A nor AAAA"


@pytest.mark.parametrize(
    ("name", "why"),
    [("broken.test", "SERVFAIL"), ("refused.test", "REFUSED"), ("silent.test", "no answer within 0.35 s")],
)
async def test_a_failing_resolver_is_ours_until_something_else_resolves(names, clock, name, why):
    failed = await failure(names, name, 0.5)
    assert failed.kind is FailureKind.LOCAL
    assert failed.message == f"our own name resolution failed for {name}: {why}, and no other name resolved lately"
    await resolve(names, "example.test")
    failed = await failure(names, name, 0.5)
    assert failed.kind is FailureKind.DNS
    assert failed.message == f"{name} cannot be resolved, while other names can: {why}"
    clock.ahead += 10.5
    assert (await failure(names, name, 0.5)).kind is FailureKind.LOCAL


async def test_a_second_look_over_a_fresh_network_knows_what_resolved(names):
    await resolve(names, "example.test")
    async with names.fresh() as fresh:
        assert (await failure(fresh, "broken.test")).kind is FailureKind.DNS


async def test_what_c_ares_remembers_and_the_hosts_file_prove_nothing(names, clock):
    await resolve(names, "example.test")
    clock.ahead += 15
    await resolve(names, "example.test")
    await resolve(names, "localhost")
    assert (await failure(names, "broken.test")).kind is FailureKind.LOCAL


def test_a_names_own_success_is_no_evidence_against_it():
    evidence = Evidence()
    evidence.note("a", 100)
    assert not evidence.speaks_against("a", 101)
    assert evidence.speaks_against("b", 101)
    evidence.note("b", 105)
    evidence.note("b", 106)
    assert evidence.speaks_against("a", 115)
    assert evidence.speaks_against("b", 109)
    assert not evidence.speaks_against("b", 111)
    assert not evidence.speaks_against("a", 117)


async def test_five_hundred_names_on_a_silent_resolver_delay_no_check_by_address(names, dns_server, tcp_server):
    server = await tcp_server(closes_at_once)
    dns_server.odd |= {f"n{number}.test": lambda _query: [] for number in range(500)}
    stuck = asyncio.gather(*(failure(names, f"n{number}.test", 1.0) for number in range(500)))
    longer = asyncio.gather(*(failure(names, f"n{number}.test", PATIENCE_SECONDS) for number in range(500)))
    await asyncio.sleep(0.05)
    for _ in range(50):
        await check_once(names, f"tcp://127.0.0.1:{server.port}", PATIENCE_SECONDS)
    assert not longer.done()
    longer.cancel()
    assert {failed.kind for failed in await stuck} == {FailureKind.LOCAL}


# Canaries


@pytest.fixture
async def with_canaries(names, dns_server, clock):
    """The same, with names that are known to resolve."""
    dns_server.zone["canary.test", "A"] = ["192.0.2.53"]
    nameservers = [f"127.0.0.1:{dns_server.port}"]
    async with Network(clock, nameservers=nameservers, canary_names=["silent.test", "canary.test"]) as network:
        yield network


async def test_while_a_canary_sings_a_name_is_its_own_fault(with_canaries):
    failed = await failure(with_canaries, "broken.test")
    assert failed.kind is FailureKind.DNS
    assert failed.message == "broken.test cannot be resolved, while other names can: SERVFAIL"


async def test_while_no_canary_sings_it_is_our_own_fault_whatever_resolved_lately(with_canaries, dns_server):
    await resolve(with_canaries, "example.test")
    dns_server.odd["canary.test"] = lambda _query: []
    failed = await failure(with_canaries, "refused.test", 0.5)
    assert failed.kind is FailureKind.LOCAL
    words = "our own name resolution failed for refused.test: REFUSED, and no canary name can be resolved either"
    assert failed.message == words


async def test_canaries_are_not_asked_for_by_every_check(with_canaries, dns_server, clock):
    for _ in range(2):
        await asyncio.gather(*(failure(with_canaries, "broken.test") for _ in range(20)))
    assert [name for _, name, _ in dns_server.asked].count("canary.test") <= 2  # A and AAAA
    clock.ahead += 3
    dns_server.rcodes["canary.test"] = "SERVFAIL"
    dns_server.zone.pop(("canary.test", "A"))
    assert (await failure(with_canaries, "broken.test", 1)).kind is FailureKind.LOCAL


async def test_a_dead_zone_is_blamed_alone_even_where_the_canary_is_slow_to_sing(with_canaries, dns_server, tcp_server):
    server = await tcp_server(closes_at_once)
    living = [f"n{number}.test" for number in range(20)]
    dns_server.zone |= {(name, "A"): ["192.0.2.20"] for name in living}
    dns_server.odd["canary.test"] = dns_server.late(0.9)
    dns_server.rcodes["dead.test"] = "SERVFAIL"
    asked = asyncio.gather(failure(with_canaries, "dead.test"), *(resolve(with_canaries, name) for name in living))
    meanwhile = 0
    while not asked.done():
        await check_once(with_canaries, f"tcp://127.0.0.1:{server.port}", PATIENCE_SECONDS)
        meanwhile += not asked.done()
        await asyncio.sleep(0.01)
    failed, *addresses = asked.result()
    assert failed.kind is FailureKind.DNS
    assert addresses == ["192.0.2.20"] * 20
    assert meanwhile > 0


async def test_closing_ends_look_ups_as_our_own_failure(names):
    async with names.fresh() as fresh:
        asked = asyncio.gather(failure(fresh, "silent.test"))
        await asyncio.sleep(0.05)
        await fresh.close()
        assert (await asked)[0].kind is FailureKind.LOCAL


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_fresh_networks_and_look_ups_that_are_cut_off_leave_nothing_behind(new_loop):
    async def use(network: Network) -> None:
        async with network:
            await resolve(network, "example.test")
            cut_off = (asyncio.wait_for(resolve(network, "silent.test"), 0.05) for _ in range(20))
            await asyncio.gather(*cut_off, return_exceptions=True)

    async def main():
        server = DnsServer()
        server.zone["example.test", "A"] = ["192.0.2.1"]
        server.odd["silent.test"] = lambda _query: []
        await server.start("127.0.0.1")
        first = Network(nameservers=[f"127.0.0.1:{server.port}"])
        await use(first)
        await settled(lambda: len(asyncio.all_tasks()) == 1)
        await asyncio.sleep(0.2)
        before = open_files()
        for _ in range(10):
            await use(first.fresh())
        await settled(lambda: open_files() <= before and len(asyncio.all_tasks()) == 1)
        await server.stop()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


# Places at an address


async def test_no_more_than_sixteen_are_busy_with_one_address(network, tcp_server):
    busy, most = 0, 0

    async def hold(address: str) -> None:
        nonlocal busy, most
        async with context_of(network).slot(address):
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0.001)
            busy -= 1

    await asyncio.gather(*(hold("192.0.2.1") for _ in range(100)))
    assert most == 16
    assert network.slots.busy("192.0.2.1") == 0
    most = 0
    await asyncio.gather(*(hold(f"192.0.2.{n % 2}") for n in range(100)))
    assert most == 32


def on_virtual_time(main: Callable[[Network], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Network(VirtualClock()) as network:
            await main(network)

    run_virtual(run)


def test_waiting_for_a_place_is_not_the_targets_time():
    """Four times sixteen silent checks of 2 s each at one address: all have their full time, none is cut short."""

    async def main(network: Network) -> None:
        took: list[float] = []

        async def one() -> None:
            context = context_of(network, 10)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2) as context.attempt, context.slot("127.0.0.1"):
                    started = network.clock.monotonic()
                    try:
                        await asyncio.sleep(50)
                    finally:
                        took.append(network.clock.monotonic() - started)

        await asyncio.gather(*(one() for _ in range(64)))
        assert took == pytest.approx([2] * 64)

    on_virtual_time(main)


def test_a_place_that_does_not_come_before_the_deadline_is_our_own_failure():
    async def main(network: Network) -> None:
        holders = [context_of(network).slot("192.0.2.1") for _ in range(16)]
        for holder in holders:
            await holder.__aenter__()
        context = context_of(network, 2)
        with pytest.raises(ProbeFailed) as failed:
            async with asyncio.timeout(1) as context.attempt, context.slot("192.0.2.1"):
                pass
        assert failed.value.kind is FailureKind.LOCAL
        assert failed.value.message == "16 other checks were busy with 192.0.2.1 until it was too late"
        for holder in holders:
            await holder.__aexit__(None, None, None)
        assert network.slots.busy("192.0.2.1") == 0

    on_virtual_time(main)


def test_the_time_given_back_ends_at_the_deadline():
    async def main(network: Network) -> None:
        context = context_of(network, 3)
        started = network.clock.monotonic()

        async def attempt() -> None:
            async with asyncio.timeout(2) as context.attempt:
                with context.our_time():
                    await asyncio.sleep(2)
                await asyncio.sleep(50)

        with pytest.raises(TimeoutError):
            await attempt()
        assert network.clock.monotonic() - started == pytest.approx(3)

    on_virtual_time(main)


async def test_who_is_cancelled_in_line_loses_no_place(network):
    async def hold(seconds: float) -> None:
        async with context_of(network).slot("192.0.2.1"):
            await asyncio.sleep(seconds)

    async with asyncio.TaskGroup() as group:
        for number in range(200):
            task = group.create_task(hold(0.002))
            if number % 3:
                asyncio.get_running_loop().call_later(number / 20_000, task.cancel)
    assert network.slots.busy("192.0.2.1") == 0
    assert network.slots._waiting == {}


# Patterns


@pytest.mark.parametrize(
    ("pattern", "length", "quick"),
    [
        ("welcome", 1 << 20, True),
        (r"welcome|hello", 1 << 19, True),
        (r'\{"status":\s*"UP"', 1000, True),
        (r'\{"status":\s*"UP"', 1 << 20, False),
        (r"[+*(]\(a\)\+", 1 << 20, True),
        ("(?i:welcome)(?P<name>x)", 1 << 20, True),
        ("(a+)+b", 30, False),
        ("(a|a)*b", 30, False),
        ("(a{1,9}){1,9}b", 30, False),
        ("(?=a+)+b", 30, False),
        (r"(a*)\1", 30, False),
        ("(?P<x>a+)(?P=x)", 30, False),
        ("(?x)(a+) +", 30, False),
        ("(?x:(a+) +b)", 30, False),
        ("(?ix-s:(a+) +b)", 30, False),
        ("(?#[)(a+)+b]", 30, False),
        ("a?" * 25 + "a" * 25, 30, False),
        ("a*" * 9 + "b", 30, False),
    ],
)
def test_only_what_must_be_quick_is_searched_at_once(pattern, length, quick):
    assert is_quick(re.compile(pattern), length) is quick


@pytest.mark.parametrize("pattern", ["a*a*b", "x*x*x*y", "a?a?a?a?a?a?a?a?a?a?aaaaaaaaaa", "a+b", r"[^b]*b"])
def test_what_counts_as_quick_is(pattern):
    """The longest text that still counts, of the worst kind."""
    compiled = re.compile(pattern)
    length = next(size for size in range(1 << 21, 0, -97) if is_quick(compiled, size))
    for letter in "ax":
        started = time.process_time()
        compiled.search(letter * length)
        assert time.process_time() - started < 0.5


@pytest.mark.parametrize("text", ["aaa\nend ü€😀", "x" * (1 << 20) + "end"])
async def test_the_worker_finds_what_is_there(network, text):
    context = context_of(network)
    assert await search(re.compile(r"(e|n)+d"), text, context)
    assert not await search(re.compile(r"(e|n)+d$(?<!ü€😀)z"), text, context)
    assert await search(re.compile(r"(?im)(E|N)+D"), text, context)


async def test_a_pattern_once_too_slow_makes_only_its_like_wait(network, monkeypatch):
    monkeypatch.setattr(pattern_module, "SEARCH_SECONDS", 0.3)
    slow, text = re.compile("(a+)+b"), "a" * 5000
    with pytest.raises(ProbeFailed) as failed:
        await search(slow, text, context_of(network))
    assert failed.value.kind is FailureKind.LOCAL
    again = asyncio.gather(search(slow, text, context_of(network)), return_exceptions=True)
    await asyncio.sleep(0)
    assert await search(re.compile("(a+)+$"), text, context_of(network))
    assert not again.done()
    await again


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_search_that_is_cut_off_leaves_the_worker_of_use_and_no_process(new_loop):
    async def main():
        async with Network() as network:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await search(re.compile("(a+)+b"), "a" * 5000, context_of(network))
            assert await search(re.compile("(a+)+$"), "aaa", context_of(network))
            async with network.fresh() as fresh:
                assert fresh.matcher is network.matcher
            process = network.matcher._workers[0]._process
            assert process.returncode is None
        assert process.returncode is not None

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
