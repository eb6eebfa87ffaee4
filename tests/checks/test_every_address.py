"""Names with several addresses of which each has to answer, and endpoints that must not answer at all."""

from __future__ import annotations

import pytest

from servmon.checks.attempts import ask
from servmon.checks.every_address import together
from servmon.checks.inverted import inverted
from servmon.checks.plan import Plan
from servmon.clock import SYSTEM_CLOCK
from servmon.model import FailureKind, Status
from servmon.probes.base import Answer, ProbeFailed
from servmon.probes.network import Network
from servmon.probes.specification import EndpointDefaults, parse_endpoint
from tests.fix_servers import TcpServer, free_port, is_silent, says, server_tls

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.fixture
async def names(dns_server):
    dns_server.zone |= {
        ("four.test", "A"): [f"127.0.0.{n}" for n in (1, 2, 3, 4)],
        ("one.test", "A"): ["127.0.0.1"],
    }
    dns_server.rcodes["missing.test"] = "NXDOMAIN"
    async with Network(nameservers=[f"127.0.0.1:{dns_server.port}"]) as network:
        yield network


@pytest.fixture
async def listening():
    """Serves on some of the addresses, all on one port."""
    started = []

    async def start(addresses) -> int:
        port = free_port()
        for address in addresses:
            server = TcpServer(says(NO_CONTENT))
            await server.start(address, port=port)
            started.append(server)
        return port

    yield start
    for server in started:
        await server.stop()


async def asked(network: Network, url: str, *, retries: int = 0, **fields):
    plan = Plan.of(parse_endpoint({"url": url, "timeout": 2, **fields}, EndpointDefaults()))
    return await ask(plan, network, deadline=SYSTEM_CLOCK.monotonic() + 10, retries=retries)


async def test_one_of_four_that_refuses_is_degraded_by_name_a_hundred_times(names, listening):
    port = await listening(["127.0.0.1", "127.0.0.2", "127.0.0.4"])
    for _ in range(100):
        result = await asked(names, f"http://four.test:{port}", addresses="all")
        assert result.status is Status.DEGRADED
        assert result.error_message == f"1 of 4 addresses fails: 127.0.0.3:{port} refused the connection"
    assert result.details["addresses"] == {f"127.0.0.{n}": n != 3 for n in (1, 2, 3, 4)}
    assert result.failure_kind is None
    assert result.response_time > 0


async def test_all_four_are_up_and_none_is_down(names, listening):
    port = await listening([f"127.0.0.{n}" for n in (1, 2, 3, 4)])
    assert (await asked(names, f"tcp://four.test:{port}", addresses="all")).status is Status.UP
    result = await asked(names, f"tcp://four.test:{free_port()}", addresses="all", retries=1)
    assert (result.status, result.failure_kind, result.attempts) == (Status.DOWN, FailureKind.REFUSED, 2)
    assert result.error_message.startswith("none of 4 addresses answers as it should: 127.0.0.1:")
    assert result.error_message.endswith("; and 1 more")


async def test_a_silent_one_is_degraded_too_and_costs_one_timeout(names, listening):
    port = await listening(["127.0.0.1", "127.0.0.2", "127.0.0.3"])
    silent = TcpServer(is_silent)
    await silent.start("127.0.0.4", port=port)
    result = await asked(names, f"http://four.test:{port}", addresses="all", timeout=1)
    await silent.stop()
    assert result.status is Status.DEGRADED
    assert "1 of 4 addresses fails: no answer within 1 s" in result.error_message
    assert "127.0.0.4" in result.error_message


async def test_a_name_with_one_address_is_as_ever(names, listening):
    port = await listening(["127.0.0.1"])
    assert (await asked(names, f"tcp://one.test:{port}", addresses="all")).details == {"address": "127.0.0.1"}
    result = await asked(names, f"tcp://missing.test:{port}", addresses="all")
    assert (result.status, result.failure_kind) == (Status.DOWN, FailureKind.DNS)


async def test_pings_go_to_every_address(names):
    result = await asked(names, "icmp://four.test", addresses="all", packets=1)
    assert result.status is Status.UP
    assert len(result.details["addresses"]) == 4


def test_what_we_could_not_ask_is_held_against_nobody():
    fine, ours = Answer(1.0), ProbeFailed(FailureKind.LOCAL, "no descriptor")
    refused = ProbeFailed(FailureKind.REFUSED, "b:1 refused")
    assert together({"a": fine, "b": ours}).degraded is None
    assert together({"a": ours, "b": refused}).kind is FailureKind.LOCAL
    degraded = together({"a": Answer(5.0, degraded="slow"), "b": fine})
    assert (degraded.degraded, degraded.response_ms) == ("a: slow", 5.0)


# Inverted


async def test_what_must_not_answer_is_up_while_it_does_not(names, listening):
    port = await listening(["127.0.0.1"])
    result = await asked(names, f"tcp://127.0.0.1:{free_port()}", inverted=True, retries=2)
    assert (result.status, result.attempts, result.response_time) == (Status.UP, 1, None)
    assert "refused the connection" in result.details["silence"]
    result = await asked(names, f"tcp://127.0.0.1:{port}", inverted=True)
    assert (result.status, result.failure_kind) == (Status.DOWN, FailureKind.CONTENT)
    assert result.error_message == "it answers, though it must not"
    result = await asked(names, f"http://127.0.0.1:{port}", inverted=True)
    assert result.error_message == "it answers, though it must not"


async def test_with_all_addresses_not_one_may_answer(names, listening):
    port = await listening(["127.0.0.3"])
    result = await asked(names, f"tcp://four.test:{port}", addresses="all", inverted=True)
    assert result.status is Status.DOWN
    result = await asked(names, f"tcp://four.test:{free_port()}", addresses="all", inverted=True)
    assert result.status is Status.UP


def test_where_one_says_something_and_the_others_are_silent_somebody_answers():
    silent, odd = ProbeFailed(FailureKind.TIMEOUT, "silence"), ProbeFailed(FailureKind.PROTOCOL, "it says 'SSH'")
    for outcomes in ({"a": silent, "b": odd}, {"a": odd, "b": silent}):
        outcome = inverted(together(outcomes))
        assert isinstance(outcome, ProbeFailed)
        assert outcome.kind is FailureKind.CONTENT


@pytest.mark.parametrize("kind", FailureKind)
def test_every_kind_of_failure_has_its_meaning_when_inverted(kind):
    outcome = inverted(ProbeFailed(kind, "words"))
    silence = {"timeout", "refused", "reset", "unreachable", "loss"}
    heard = {"status", "pattern", "content", "protocol", "tls"}
    if kind in silence:
        assert isinstance(outcome, Answer)
    elif kind in heard:
        assert (outcome.kind, outcome.message) == (FailureKind.CONTENT, "it answers, though it must not: words")
    else:
        assert (outcome.kind, outcome.message) == (kind, "words")


async def test_what_failed_tells_which_address_was_asked_and_how_long_its_name_took(names, tcp_server):
    server = await tcp_server(is_silent)
    for url, fields in (
        (f"tcp://one.test:{free_port()}", {}),
        (f"http://one.test:{server.port}/", {"timeout": 0.2}),
        (f"tcp://one.test:{server.port}", {"timeout": 0.2, "steps": [{"expect": "x"}]}),
        (f"udp://one.test:{free_port()}", {"send": "x"}),
    ):
        result = await asked(names, url, **fields)
        assert result.status is Status.DOWN
        assert result.details["address"] == "127.0.0.1", url
        assert result.phases.dns_ms > 0, url
    assert (await asked(names, "tcp://missing.test:9")).details is None


async def test_a_check_that_is_cut_off_tells_how_far_it_got(names, tcp_server, trusted):
    """Connected and agreed on TLS, and then silence: it is the application, not the network."""
    server = await tcp_server(is_silent, tls=server_tls(trusted, "127.0.0.1"))
    result = await asked(names, f"https://127.0.0.1:{server.port}/", timeout=1)
    assert result.failure_kind is FailureKind.TIMEOUT
    assert result.error_message.endswith(f"while waiting for an answer from 127.0.0.1:{server.port}")
    assert result.phases.connect_ms > 0
    assert result.phases.tls_ms > 0
    assert result.phases.first_byte_ms is None
    plain = await tcp_server(is_silent)
    result = await asked(names, f"https://127.0.0.1:{plain.port}/", timeout=0.5)
    assert result.error_message.endswith(f"while agreeing on TLS with 127.0.0.1:{plain.port}")
    assert (result.phases.connect_ms > 0, result.phases.tls_ms) == (True, None)
