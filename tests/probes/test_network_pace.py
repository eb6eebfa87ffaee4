"""A router that lets ten pings a second through must not make its hosts look dead."""

from __future__ import annotations

import heapq
import ipaddress
from zlib import crc32

import pytest

from servmon.probes.network_pace import GAP_SECONDS, NetworkPace, network_of

ATTEMPT_SECONDS = 5.0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.254", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_neighbours_share_a_network(one, other, same):
    assert (network_of(ipaddress.ip_address(one)) == network_of(ipaddress.ip_address(other))) is same


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine_limits_nothing(address):
    assert network_of(ipaddress.ip_address(address)) == ""
    pace = NetworkPace()
    both = [pace.due_times("", 10.0, packets=1, interval=0.2, patience=5) for _ in range(2)]
    assert both == [[10.0], [10.0]]


def test_who_is_alone_keeps_his_own_distance():
    assert NetworkPace().due_times("n", 10.0, packets=3, interval=0.2, patience=5) == [10.0, 10.2, 10.4]


def test_neighbours_wait_for_each_other_but_never_beyond_half_of_their_time():
    pace = NetworkPace()
    sent = [pace.due_times("n", 10.0, packets=1, interval=0.2, patience=2)[0] for _ in range(20)]
    assert sent[:5] == pytest.approx([10 + n * GAP_SECONDS for n in range(5)])
    assert max(sent) == 11.0


def test_other_networks_do_not_wait():
    pace = NetworkPace()
    pace.due_times("n", 10.0, packets=5, interval=0.2, patience=5)
    assert pace.due_times("m", 10.0, packets=1, interval=0.2, patience=5) == [10.0]


def test_networks_long_gone_are_forgotten(monkeypatch):
    monkeypatch.setattr("servmon.probes.network_pace._NETWORKS_KEPT", 100)
    pace = NetworkPace()
    for n in range(1000):
        pace.due_times(str(n), float(n), packets=1, interval=0.2, patience=1)
    assert len(pace._reserved) <= 100


class Limiter:
    """Lets ``rate`` packets a second through, ``depth`` at once, and drops the rest without a word."""

    def __init__(self, rate: float, depth: int) -> None:
        self.rate, self.depth = rate, depth
        self.tokens, self.at = float(depth), 0.0

    def passes(self, now: float) -> bool:
        self.tokens = min(self.depth, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@pytest.mark.parametrize("depth", [1, 10])
@pytest.mark.parametrize("interval", [60, 45])
def test_fifty_endpoints_behind_a_limiter_of_ten_a_second_for_an_hour(depth, interval):
    failed, lost, sent = hour_behind(Limiter(10, depth), endpoints=50, interval=interval)
    assert failed == 0
    # After a start all are asked within seconds, more than any pace can stretch; what is lost is mostly lost then.
    assert lost / sent < (0.02 if depth > 1 else 0.2)


def hour_behind(limiter: Limiter, *, endpoints: int, interval: float) -> tuple[int, int, int]:
    """Checks of five packets with three retries at an endpoint's usual phase; how many ended without any reply.

    Time is counted, not waited for: what is sent when is what the pace says, as the engine follows it.
    """
    pace, order = NetworkPace(), 0
    # (time, order, endpoint, attempt, replies) of starts (attempt >= 0) and packets (attempt None).
    agenda: list[tuple[float, int, int, int, list[bool] | None]] = []
    failed = lost = sent = 0
    for endpoint in range(endpoints):
        phase = crc32(f"host-{endpoint}".encode()) / 2**32
        for start in (phase * min(interval, 5), *(phase * interval + n * interval for n in range(1, 3600 // interval))):
            heapq.heappush(agenda, (start, order := order + 1, endpoint, 0, None))
    while agenda:
        now, _, endpoint, attempt, replies = heapq.heappop(agenda)
        if replies is None:
            replies = []
            for due in pace.due_times("n", now, packets=5, interval=0.2, patience=ATTEMPT_SECONDS):
                heapq.heappush(agenda, (due, order := order + 1, endpoint, attempt, replies))
            continue
        replies.append(limiter.passes(now))
        sent, lost = sent + 1, lost + (not replies[-1])
        if len(replies) == 5 and not any(replies):
            if attempt == 3:
                failed += 1
            else:
                heapq.heappush(agenda, (now + ATTEMPT_SECONDS, order := order + 1, endpoint, attempt + 1, None))
    return failed, lost, sent
