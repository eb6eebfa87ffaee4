from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import InvalidInputError
from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed, Target
from servmon.probes.icmp import IcmpOptions, IcmpProbe, mean_opinion_score, percentile, spacing
from servmon.probes.network import Network, ProbeContext
from servmon.probes.shared_socket import Pacer
from servmon.probes.specification import EndpointDefaults, parse_endpoint
from tests.fix_servers import PATIENCE_SECONDS


async def check(host: str, seconds: float = 2.0, network: Network | None = None, **options):
    """One attempt of so many seconds, which has to end by itself: only what hangs is cut off."""
    async with network or Network() as open_network:
        context = ProbeContext(open_network, SYSTEM_CLOCK.monotonic() + seconds)
        context.attempt_seconds = seconds
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await IcmpProbe().check(Target(host, host), IcmpOptions(**options), context)


async def failure_of(host: str, seconds: float = 2.0, network: Network | None = None, **options):
    """The failure of one attempt, in the probe's own words."""
    with pytest.raises(ProbeFailed) as caught:
        await check(host, seconds, network, **options)
    return caught.value


async def test_a_host_that_answers_is_up_with_its_round_trips():
    try:
        answer = await check("127.0.0.1", packet_interval_ms=10)
    except ProbeFailed as error:
        pytest.skip(f"ICMP is not permitted here: {error}")
    details = answer.details
    assert answer.degraded is None
    assert (details["packets_sent"], details["packets_received"], details["loss_percent"]) == (5, 5, 0)
    assert 0 < details["rtt_min_ms"] <= details["rtt_median_ms"] <= details["rtt_max_ms"]
    assert details["rtt_min_ms"] <= details["rtt_avg_ms"] <= details["rtt_max_ms"] == details["rtt_p95_ms"]
    liked = mean_opinion_score(details["rtt_avg_ms"], details["jitter_ms"], 0)
    assert details["mos"] == pytest.approx(liked, abs=0.01)
    assert details["rtt_median_ms"] == pytest.approx(answer.response_ms, abs=0.001)
    assert details["address"] == "127.0.0.1"


async def test_packets_are_sent_as_far_apart_as_asked():
    started = SYSTEM_CLOCK.monotonic()
    try:
        await check("127.0.0.1", packets=3, packet_interval_ms=100)
    except ProbeFailed as error:
        pytest.skip(f"ICMP is not permitted here: {error}")
    assert SYSTEM_CLOCK.monotonic() - started >= 0.2


def test_packets_move_together_where_the_time_is_short():
    assert spacing(5, 0.2, 4.98) == 0.2
    assert spacing(5, 0.2, 0.8) == pytest.approx(0.1)
    assert spacing(1, 0.2, 0.1) == 0.2


def test_a_silent_host_is_reported_in_words_before_the_deadline(netns):
    failure = netns.run_async(lambda: failure_of("10.7.0.9", seconds=0.5))
    assert failure.kind is FailureKind.LOSS
    assert failure.message == "none of 5 packets to 10.7.0.9 was answered within 0.5 s"
    assert failure.details["loss_percent"] == 100


def test_a_single_unanswered_packet_is_reported_in_words(netns):
    failure = netns.run_async(lambda: failure_of("fd07::9", seconds=0.3, packets=1))
    assert failure.kind is FailureKind.LOSS
    assert failure.message == "the packet to fd07::9 was not answered within 0.3 s"


def test_an_unreachable_host_is_reported_with_who_says_so(netns):
    netns.ip("link add lan type veth peer name cable", "link set lan up", "link set cable up")
    netns.ip("addr add 10.8.0.1/24 dev lan")
    netns.sysctl("net.ipv4.neigh.lan.retrans_time_ms", "50")
    failure = netns.run_async(lambda: failure_of("10.8.0.2", seconds=3, packet_interval_ms=10))
    assert failure.kind is FailureKind.UNREACHABLE
    assert failure.message == "10.8.0.2 cannot be reached: host unreachable, says 10.8.0.1"


@pytest.mark.parametrize(
    ("options", "verdict"),
    [
        ({"packets": 5}, "2 of 5 packets lost"),
        ({"packets": 10}, None),
        ({"packets": 10, "degraded_loss_percent": 10}, "2 of 10 packets lost"),
        ({"packets": 5, "degraded_loss_percent": 40}, None),
    ],
)
def test_partial_loss_above_the_limit_is_degraded(netns, options, verdict):
    answer = netns.run_async(lambda: _through_a_gap(packets_lost=2, options=options))
    assert answer.degraded == verdict
    assert answer.details["packets_received"] == options["packets"] - 2
    assert answer.response_ms > 0


def test_loss_above_the_tolerable_is_a_failure(netns):
    async def failing():
        with pytest.raises(ProbeFailed) as caught:
            await _through_a_gap(packets_lost=2, options={"packets": 4, "max_loss_percent": 40})
        return caught.value

    failure = netns.run_async(failing)
    assert (failure.kind, failure.message) == (FailureKind.LOSS, "2 of 4 packets lost")
    assert failure.response_ms > 0


async def _through_a_gap(packets_lost: int, options):
    """A check during which the host's address disappears from the network for some packets."""
    async with Network() as network:
        engine, sent = network.icmp, 0
        real = engine._send

        def send(series):
            nonlocal sent
            sent += 1
            if sent > packets_lost:
                return real(series)
            # The same packet to a neighbour that is silent: sent for real, and lost for real.
            to, series.to = series.to, series.to._replace(host="10.7.0.9")
            try:
                return real(series)
            finally:
                series.to = to

        engine._pacers[4] = Pacer(send)
        context = ProbeContext(network, SYSTEM_CLOCK.monotonic() + 0.6)
        context.attempt_seconds = 0.6
        async with asyncio.timeout(PATIENCE_SECONDS):
            probe_options = IcmpOptions(packet_interval_ms=10, **options)
            return await IcmpProbe().check(Target("127.0.0.1", "127.0.0.1"), probe_options, context)


def test_what_this_machine_could_not_send_in_time_is_not_held_against_the_host(netns):
    async def main():
        async with Network() as network:
            network.icmp._pacers[4] = Pacer(lambda _series: False)
            context = ProbeContext(network, SYSTEM_CLOCK.monotonic() + 0.2)
            context.attempt_seconds = 0.2
            with pytest.raises(ProbeFailed) as caught:
                await IcmpProbe().check(Target("127.0.0.1", "127.0.0.1"), IcmpOptions(), context)
        return caught.value

    failure = netns.run_async(main)
    assert failure.kind is FailureKind.LOCAL
    assert failure.message == "this machine was too busy to send its packets to 127.0.0.1 in time"


def test_without_permission_it_is_our_failure(make_netns):
    namespace = make_netns()
    namespace.sysctl("net.ipv4.ping_group_range", "1 0")
    namespace.drop_net_raw()
    failure = namespace.run_async(lambda: failure_of("127.0.0.1"))
    assert failure.kind is FailureKind.LOCAL
    assert "net.ipv4.ping_group_range" in failure.message


def test_the_time_to_live_can_be_set(netns):
    answer = netns.run_async(lambda: check("127.0.0.1", packets=2, packet_interval_ms=1, ttl=1, payload_size=1000))
    assert answer.details["packets_received"] == 2


@pytest.mark.parametrize(
    "options",
    [{"packets": 0}, {"packets": 21}, {"packet_interval_ms": 0}, {"payload_size": 7}, {"payload_size": 65500},
     {"ttl": 0}, {"ttl": 256}, {"max_loss_percent": 101}, {"count": 5}],
)  # fmt: skip
def test_impossible_options_are_refused_when_loaded(options):
    with pytest.raises(ValidationError):
        IcmpOptions(**options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"packets": 1, "packet_interval_ms": 5}, "packet_interval_ms: means nothing where packets is 1"),
        (
            {"degraded_loss_percent": 50, "max_loss_percent": 20},
            "degraded_loss_percent: is more than max_loss_percent, 20",
        ),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(options, sentence):
    with pytest.raises(InvalidInputError) as refused:
        parse_endpoint({"url": "icmp://a.test", **options}, EndpointDefaults())
    assert str(refused.value).startswith(sentence)
    assert parse_endpoint({"url": "icmp://a.test", "max_loss_percent": 10}, EndpointDefaults())


def test_a_single_packet_tells_its_loss_too(netns):
    answer = netns.run_async(lambda: check("127.0.0.1", packets=1))
    assert answer.details == {"address": "127.0.0.1", "packets_sent": 1, "packets_received": 1, "loss_percent": 0}


def test_the_95th_percentile_is_one_of_the_values():
    assert percentile([5.0], 95) == 5
    assert percentile([float(n) for n in range(1, 21)], 95) == 19
    assert percentile([3.0, 1.0, 2.0], 95) == 3


@pytest.mark.parametrize(
    ("rtt_ms", "jitter_ms", "loss_percent", "score"),
    # Worked by hand from the published formula: R = 92.45, 85.2, 73.2; 50 % of loss leaves nothing.
    [(20, 0, 0, 4.40), (150, 20, 0, 4.20), (180, 40, 2, 3.74), (20, 0, 50, 1.0)],
)
def test_the_opinion_of_a_call_follows_the_published_formula(rtt_ms, jitter_ms, loss_percent, score):
    assert mean_opinion_score(rtt_ms, jitter_ms, loss_percent) == pytest.approx(score, abs=0.01)
