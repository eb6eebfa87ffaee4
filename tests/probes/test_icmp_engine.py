from __future__ import annotations

import asyncio
import os
import socket
import struct
import time

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from servmon.model import FailureKind
from servmon.probes import icmp_engine, icmp_socket
from servmon.probes.base import ProbeFailed
from servmon.probes.icmp_engine import IcmpEngine
from servmon.probes.icmp_packet import HEADER, _checksum, echo_request, parse_reply
from servmon.probes.icmp_series import PLAIN_PACKET, Packet
from servmon.probes.icmp_socket import IcmpSocket, Mode
from servmon.probes.network_pace import NetworkPace
from tests.fix_servers import PATIENCE_SECONDS, patience

LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
MODES = pytest.mark.parametrize("mode", list(Mode))
COOKIE = b"12345678"


@pytest.fixture
async def engine():
    """An engine on the machine's own loopback."""
    engine = IcmpEngine()
    try:
        await asyncio.wait_for(engine.ping("127.0.0.1"), PATIENCE_SECONDS)
    except ProbeFailed as error:
        pytest.skip(f"ICMP is not permitted here: {error}")
    yield engine
    await engine.close()


def ipv4(packet: bytes, source: str, to: str, ttl: int = 64, protocol: int = 1) -> bytes:
    head = (0x45, 0, 20 + len(packet), 1, 0, ttl, protocol, 0, socket.inet_aton(source), socket.inet_aton(to))
    return struct.pack("!BBHHHBBH4s4s", *head) + packet


def reply(identifier: int, sequence: int, cookie: bytes = COOKIE, kind: int = 0) -> bytes:
    """An echo reply with a right checksum."""
    packet = bytearray(echo_request(4, identifier, sequence, cookie))
    packet[0] = kind
    packet[2:4] = b"\0\0"
    words = struct.unpack(f"!{len(packet) // 2}H", packet)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    packet[2:4] = (0xFFFF - total).to_bytes(2, "big")
    return bytes(packet)


# What a packet says


def test_a_reply_is_read_with_and_without_its_ip_header():
    bare = parse_reply(reply(7, 9), 4)
    assert bare == (7, 9, COOKIE, None, None, None)
    assert parse_reply(ipv4(reply(7, 9), "192.0.2.1", "192.0.2.2", ttl=57), 4) == (7, 9, COOKIE, 57, None, None)


def test_an_ipv6_reply_is_read():
    assert parse_reply(HEADER.pack(129, 0, 0, 7, 9) + COOKIE, 6) == (7, 9, COOKIE, None, None, None)


def test_our_own_echo_request_seen_on_loopback_says_nothing():
    assert parse_reply(ipv4(echo_request(4, 7, 9, COOKIE), "127.0.0.1", "127.0.0.1"), 4) is None
    assert parse_reply(echo_request(6, 7, 9, COOKIE), 6) is None


def test_an_error_tells_which_request_it_is_about_and_why():
    quoted = ipv4(echo_request(4, 7, 9, COOKIE), "192.0.2.2", "203.0.113.5")
    error = HEADER.pack(3, 1, 0, 0, 0) + quoted
    expected = (7, 9, COOKIE, None, "203.0.113.5", "host unreachable")
    assert parse_reply(ipv4(error, "192.0.2.254", "192.0.2.2"), 4) == expected


def test_an_error_that_quotes_only_eight_bytes_is_understood():
    quoted = ipv4(echo_request(4, 7, 9, COOKIE), "192.0.2.2", "203.0.113.5")[:28]
    heard = parse_reply(HEADER.pack(11, 0, 0, 0, 0) + quoted, 4)
    assert heard.cookie == b""
    assert heard.complaint == "time to live exceeded"


def test_an_ipv6_error_is_understood():
    quoted = struct.pack("!IHBB", 6 << 28, 16, 58, 64) + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    quoted += socket.inet_pton(socket.AF_INET6, "2001:db8::2") + echo_request(6, 7, 9, COOKIE)
    heard = parse_reply(HEADER.pack(1, 3, 0, 0, 0) + quoted, 6)
    assert heard == (7, 9, COOKIE, None, "2001:db8::2", "address unreachable")


def test_an_error_about_another_protocol_says_nothing():
    quoted = ipv4(b"\0" * 16, "192.0.2.2", "203.0.113.5", protocol=socket.IPPROTO_UDP)
    assert parse_reply(HEADER.pack(3, 3, 0, 0, 0) + quoted, 4) is None


@given(st.binary(max_size=200), st.sampled_from([4, 6]))
def test_no_packet_however_garbled_breaks_the_reader(packet, version):
    parse_reply(packet, version)


@given(st.binary(max_size=100), st.integers(0, 65535), st.integers(0, 65535))
def test_the_checksum_is_that_of_rfc_1071(payload, identifier, sequence):
    packet = echo_request(4, identifier, sequence, payload)
    padded = packet + b"\0" * (len(packet) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


# Pinging for real


async def test_loopback_answers_and_the_round_trip_is_microseconds_not_our_delay(engine):
    heard = [await asyncio.wait_for(engine.ping("127.0.0.1"), PATIENCE_SECONDS) for _ in range(20)]
    assert 0 < min(one.rtt_ms for one in heard) < 5  # a busy machine may be late for some of them
    assert {one.ttl for one in heard} == {64}


async def test_a_blocked_loop_does_not_lengthen_the_round_trip(engine):
    for _ in range(50):  # the first socket that wants its packets stamped has to wait until the kernel does so
        await engine.ping("127.0.0.1")
    for _ in range(20):  # on a busy machine longer than that
        pinging = asyncio.get_running_loop().create_task(engine.ping("127.0.0.1"))
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 - the stall is what is tested
        if (heard := await pinging).rtt_ms < 100:
            break
    assert heard.rtt_ms < 100


async def test_a_reply_that_waits_in_the_buffer_when_time_is_up_still_counts(engine):
    asking = asyncio.get_running_loop().create_task(engine.ask("127.0.0.1", patience=0.05))
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251 - the stall is what is tested
    assert len((await asking).rtts_ms) == 1


@LOOPS
@MODES
def test_both_families_answer_in_both_modes(netns, mode, loop):
    async def main():
        engine = IcmpEngine((mode,))
        try:
            async with patience():
                heard = [
                    await engine.ping(address) for address in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1")
                ]
                large = await engine.ask("127.0.0.1", Packet(20_000))
        finally:
            await engine.close()
        assert len(large.rtts_ms) == 1
        return heard

    for heard in netns.run_async(main, loop):
        assert heard.ttl == 64
        assert heard.rtt_ms > 0


@LOOPS
@MODES
def test_500_live_and_500_silent_hosts_at_once_are_told_apart(netns, mode, loop):
    live = [f"127.0.{n // 200}.{n % 200 + 1}" for n in range(500)]
    silent = [f"10.7.{n // 200}.{n % 200 + 2}" for n in range(500)]

    async def main():
        engine = IcmpEngine((mode,))
        mixed = [address for pair in zip(live, silent, strict=True) for address in pair]
        series = await asyncio.gather(*(engine.ask(address, patience=5) for address in mixed))
        left = [len(sock.outstanding) for sock in engine._sockets.values()]
        await engine.close()
        return {one.to.host: one for one in series}, left

    outcome, left = netns.run_async(main, loop)
    assert {host for host, series in outcome.items() if series.rtts_ms} == set(live)
    assert {host for host, series in outcome.items() if not series.rtts_ms} == set(silent)
    assert [series for series in outcome.values() if series.failure is not None or series.sent != 1] == []
    assert left == [0]


@pytest.mark.deep
@LOOPS
@MODES
def test_3000_live_and_3000_silent_hosts_at_once_are_told_apart(netns, mode, loop):
    live = {f"127.1.{n // 200}.{n % 200 + 1}" for n in range(3000)}
    silent = {f"10.7.{n // 200}.{n % 200 + 2}" for n in range(3000)}

    async def main():
        engine = IcmpEngine((mode,))
        mixed = [address for pair in zip(sorted(live), sorted(silent), strict=True) for address in pair]
        series = await asyncio.gather(*(engine.ask(address, patience=5) for address in mixed))
        await engine.close()
        return series

    series = netns.run_async(main, loop)
    assert {one.to.host for one in series if one.rtts_ms} == live
    assert {one.to.host for one in series if not one.rtts_ms} == silent
    assert not any(one.rushed or one.failure for one in series)


@MODES
def test_silent_ipv6_hosts_are_silent(netns, mode):
    async def main():
        engine = IcmpEngine((mode,))
        both = await asyncio.gather(engine.ask("fd07::9", patience=0.2), engine.ask("fd07::1", patience=1))
        await engine.close()
        return [len(series.rtts_ms) for series in both]

    assert netns.run_async(main) == [0, 1]


@LOOPS
@MODES
def test_a_router_that_says_unreachable_is_named_at_once(make_netns, mode, loop):
    here, router = make_netns(), make_netns()
    here.ip("link add out type veth peer name wire", f"link set wire netns {router.tid}", "link set out up")
    router.ip("link set wire up", "addr add 10.7.0.2/24 dev wire", "addr add fd07::2/64 dev wire nodad")
    router.ip(
        "route add unreachable 10.9.0.0/16", "route add 10.10.0.0/16 via 10.7.0.1", "route add unreachable fd09::/64"
    )
    router.sysctl("net.ipv4.ip_forward", "1")
    router.sysctl("net.ipv6.conf.all.forwarding", "1")
    here.ip("addr add 10.7.0.1/24 dev out", "route add default via 10.7.0.2")
    here.ip("addr add fd07::1/64 dev out nodad", "route add default via fd07::2")

    async def failure_of(engine, address, kind=PLAIN_PACKET):
        with pytest.raises(ProbeFailed) as caught:
            async with patience():
                await engine.ping(address, kind)
        return caught.value.kind, caught.value.message

    async def main():
        engine = IcmpEngine((mode,))
        async with patience():
            await engine.ping("10.7.0.2")
        found = [
            await failure_of(engine, "10.9.0.1"),
            # A second one proves that listening goes on after an error.
            await failure_of(engine, "10.10.0.1", Packet(ttl=1)),
            await failure_of(engine, "fd09::1"),
        ]
        async with patience():
            await engine.ping("10.7.0.2")
            await engine.ping("fd07::2")
        await engine.close()
        return found

    assert here.run_async(main, loop) == [
        (FailureKind.UNREACHABLE, "10.9.0.1 cannot be reached: host unreachable, says 10.7.0.2"),
        (FailureKind.UNREACHABLE, "10.10.0.1 cannot be reached: time to live exceeded, says 10.7.0.2"),
        (FailureKind.UNREACHABLE, "fd09::1 cannot be reached: no route to the destination, says fd07::2"),
    ]


@pytest.fixture
def narrow(make_netns):
    """A namespace from which 10.9.0.2 and fd09::2 are reached through a router (10.7.0.2) and a link of 1,280 bytes."""
    here, router, there = make_netns(), make_netns(), make_netns()
    for one in (here, router, there):
        one.sysctl("net.ipv6.conf.all.accept_dad", "0")
        one.sysctl("net.ipv6.conf.default.accept_dad", "0")
    here.ip("link add out type veth peer name wire", f"link set wire netns {router.tid}", "link set out up")
    router.ip("link add far mtu 1280 type veth peer name end mtu 1280", f"link set end netns {there.tid}")
    router.ip("link set wire up", "link set far up", "addr add 10.7.0.2/24 dev wire", "addr add 10.9.0.1/24 dev far")
    router.ip("addr add fd07::2/64 dev wire nodad", "addr add fd09::1/64 dev far nodad")
    router.sysctl("net.ipv4.ip_forward", "1")
    router.sysctl("net.ipv6.conf.all.forwarding", "1")
    there.ip("link set end up", "addr add 10.9.0.2/24 dev end", "addr add fd09::2/64 dev end nodad")
    there.ip("route add default via 10.9.0.1", "route add default via fd09::1")
    here.ip("addr add 10.7.0.1/24 dev out", "route add default via 10.7.0.2")
    here.ip("addr add fd07::1/64 dev out nodad", "route add default via fd07::2")
    return here


@MODES
@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("10.9.0.2", "fragmentation needed, but the packet may not be fragmented, says 10.7.0.2"),
        ("fd09::2", "packet too big, says fd07::2"),
    ],
)
def test_a_link_with_a_small_mtu_is_found_by_whole_packets_and_only_by_them(narrow, mode, address, complaint):
    async def main():
        engine = IcmpEngine((mode,))
        large, small = Packet(1400, dont_fragment=True), Packet(1100, dont_fragment=True)
        # Twice, since the kernel remembers what it learned of the path the first time.
        found = [await engine.ask(address, kind, patience=2) for kind in (large, large, small)]
        found.append(await engine.ask(address, Packet(1400), packets=2, interval=0.01, patience=2))
        await engine.close()
        return [str(series.failure) if not series.rtts_ms else "answered" for series in found]

    complaint = f"{address} cannot be reached: {complaint}"
    assert narrow.run_async(main) == [complaint, complaint, "answered", "answered"]


@MODES
def test_a_packet_that_is_too_large_for_this_machine_is_our_own_failure(narrow, mode):
    async def main():
        engine = IcmpEngine((mode,))
        found = []
        for address in ("10.9.0.2", "fd09::2"):
            with pytest.raises(ProbeFailed) as caught:
                await engine.ping(address, Packet(1600, dont_fragment=True))
            found.append((caught.value.kind, caught.value.message))
        await engine.close()
        return found

    words = (
        "1600 bytes of payload to {} do not fit into one packet of this machine's network; a smaller payload_size would"
    )
    assert narrow.run_async(main) == [
        (FailureKind.LOCAL, words.format("10.9.0.2")),
        (FailureKind.LOCAL, words.format("fd09::2")),
    ]


@MODES
def test_an_unreachable_host_does_not_disturb_the_others(netns, mode):
    netns.ip(
        "link add lan type veth peer name cable", "link set lan up", "link set cable up", "addr add 10.8.0.1/24 dev lan"
    )
    netns.sysctl("net.ipv4.neigh.lan.retrans_time_ms", "50")

    async def main():
        engine = IcmpEngine((mode,))
        dead = [engine.ask(f"10.8.0.{n}", patience=3) for n in range(2, 22)]
        live = [engine.ask(f"127.0.0.{n}", patience=3, packets=5, interval=0.1) for n in range(1, 101)]
        series = await asyncio.gather(*dead, *live)
        await engine.close()
        return series

    series = netns.run_async(main)
    assert {one.failure.message.split(": ")[1] for one in series[:20]} == {"host unreachable, says 10.8.0.1"}
    assert [len(one.rtts_ms) for one in series[20:]] == [5] * 100


def test_without_permission_the_setting_to_change_is_named(make_netns):
    namespace = make_netns()
    namespace.sysctl("net.ipv4.ping_group_range", "1 0")
    namespace.drop_net_raw()

    async def main():
        engine = IcmpEngine()
        with pytest.raises(ProbeFailed) as caught:
            await engine.ping("127.0.0.1")
        return caught.value

    failure = namespace.run_async(main)
    assert failure.kind is FailureKind.LOCAL
    assert 'sysctl -w net.ipv4.ping_group_range="0 2147483647"' in failure.message
    assert "CAP_NET_RAW" in failure.message


def test_without_cap_net_raw_the_unprivileged_socket_is_used(make_netns):
    namespace = make_netns()
    namespace.drop_net_raw()

    async def main():
        engine = IcmpEngine()
        async with patience():
            await engine.ping("127.0.0.1")
        mode = engine._sockets[4].mode
        await engine.close()
        return mode

    assert namespace.run_async(main) is Mode.DGRAM


def test_what_this_machine_cannot_send_is_said_in_words(netns):
    netns.ip("route add blackhole 10.9.0.0/16", "route add prohibit 10.10.0.0/16")

    async def main():
        engine = IcmpEngine()
        found = {}
        for address in ("10.9.0.1", "10.10.0.1"):
            with pytest.raises(ProbeFailed) as caught:
                await engine.ping(address)
            found[address] = caught.value.kind, caught.value.message
        # Nothing leads there: that is a finding about the way, not a fault in asking.
        series = await engine.ask("192.0.2.1", packets=2, interval=0.01)
        await engine.close()
        return found, series.failure.kind

    found, no_route = netns.run_async(main)
    assert found["10.9.0.1"][0] is FailureKind.LOCAL
    assert found["10.10.0.1"] == (
        FailureKind.LOCAL,
        "this machine forbids sending ICMP to 10.10.0.1 (firewall or prohibited route)",
    )
    assert no_route is FailureKind.UNREACHABLE


# What must not satisfy a request


class Forger:
    """Sends any IPv4 packet to this machine's own address."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def send(self, packet: bytes, source: str) -> None:
        self.socket.sendto(ipv4(packet, source, "10.7.0.1"), ("10.7.0.1", 0))


async def waiting_echo(engine):
    """The one request that is on its way."""
    async with patience():
        while not (engine._sockets and engine._sockets[4].outstanding):  # noqa: ASYNC110 - the engine has no event for it
            await asyncio.sleep(0)
    [echo] = engine._sockets[4].outstanding.values()
    return echo


def test_wrong_id_sequence_cookie_and_source_are_ignored_and_the_right_reply_is_taken(netns):
    async def main():
        engine, forger = IcmpEngine((Mode.RAW,)), Forger()
        asking = asyncio.get_running_loop().create_task(engine.ask("10.7.0.9", patience=5))
        echo = await waiting_echo(engine)
        identifier, sequence = echo.socket.identifier, echo.sequence
        forger.send(reply(identifier ^ 1, sequence, echo.cookie), "10.7.0.9")
        forger.send(reply(identifier, sequence ^ 1, echo.cookie), "10.7.0.9")
        forger.send(reply(identifier, sequence, os.urandom(8)), "10.7.0.9")
        forger.send(reply(identifier, sequence, echo.cookie), "10.7.0.8")
        forger.send(reply(identifier, sequence, echo.cookie[:6]), "10.7.0.9")
        await asyncio.sleep(0.1)
        still_asking = not asking.done()
        for _ in range(3):
            forger.send(reply(identifier, sequence, echo.cookie), "10.7.0.9")
        series = await asking
        await engine.close()
        forger.socket.close()
        return still_asking, len(series.rtts_ms)

    assert netns.run_async(main) == (True, 1)


def test_a_duplicate_does_not_stand_for_a_lost_packet_of_the_series(netns):
    async def main():
        engine, forger = IcmpEngine((Mode.RAW,)), Forger()
        asking = asyncio.get_running_loop().create_task(engine.ask("10.7.0.9", packets=2, interval=0.02, patience=0.3))
        echo = await waiting_echo(engine)
        for _ in range(5):
            forger.send(reply(echo.socket.identifier, echo.sequence, echo.cookie), "10.7.0.9")
        series = await asking
        await engine.close()
        forger.socket.close()
        return series.sent, len(series.rtts_ms)

    assert netns.run_async(main) == (2, 1)


def test_a_late_reply_of_an_earlier_run_is_ignored_even_when_the_sequence_number_comes_round(netns):
    async def main():
        engine, forger = IcmpEngine((Mode.RAW,)), Forger()
        earlier = asyncio.get_running_loop().create_task(engine.ping("10.7.0.9"))
        old = await waiting_echo(engine)
        earlier.cancel()
        await asyncio.gather(earlier, return_exceptions=True)
        assert not old.socket.outstanding
        old.socket._sequence = (old.sequence - 1) & 0xFFFF
        # Else it would keep its distance to the earlier one; on a stalled machine its time could be up by then.
        engine._pace = NetworkPace()
        asking = asyncio.get_running_loop().create_task(engine.ask("10.7.0.9", patience=0.3))
        new = await waiting_echo(engine)
        assert new.sequence == old.sequence
        forger.send(reply(old.socket.identifier, old.sequence, old.cookie), "10.7.0.9")
        series = await asking
        await engine.close()
        forger.socket.close()
        return series.rtts_ms

    assert netns.run_async(main) == []


def test_a_forged_error_about_another_destination_is_ignored(netns):
    async def main():
        engine, forger = IcmpEngine((Mode.RAW,)), Forger()
        asking = asyncio.get_running_loop().create_task(engine.ask("10.7.0.9", patience=0.3))
        echo = await waiting_echo(engine)
        request = echo_request(4, echo.socket.identifier, echo.sequence, echo.cookie)
        forger.send(HEADER.pack(3, 1, 0, 0, 0) + ipv4(request, "10.7.0.1", "10.7.0.8"), "10.7.0.254")
        other = echo_request(4, echo.socket.identifier, echo.sequence, COOKIE)
        forger.send(HEADER.pack(3, 1, 0, 0, 0) + ipv4(other, "10.7.0.1", "10.7.0.9"), "10.7.0.254")
        series = await asking
        await engine.close()
        forger.socket.close()
        return series.failure

    assert netns.run_async(main) is None


@MODES
@pytest.mark.parametrize(("kind", "code"), [(5, 1), (4, 0)], ids=["redirect", "source quench"])
def test_what_a_router_advises_is_no_failure_as_the_packet_went_on(netns, mode, kind, code):
    """Gateways send redirects to whom a nearer one would serve; an unprivileged socket gets them as errors."""

    async def main():
        engine, forger = IcmpEngine((mode,)), Forger()
        asking = asyncio.get_running_loop().create_task(engine.ask("10.7.0.9", patience=5))
        echo = await waiting_echo(engine)
        request = echo_request(4, echo.socket.identifier, echo.sequence, echo.cookie)
        quoted = ipv4(request, "10.7.0.1", "10.7.0.9")
        advice = HEADER.pack(kind, code, 0, 0x0A07, 0x00FE) + quoted
        forger.send(HEADER.pack(kind, code, _checksum(advice), 0x0A07, 0x00FE) + quoted, "10.7.0.254")
        await asyncio.sleep(0.05)
        still_asking = not asking.done()
        forger.send(reply(echo.socket.identifier, echo.sequence, echo.cookie), "10.7.0.9")
        series = await asking
        await engine.close()
        forger.socket.close()
        return still_asking, series.failure, len(series.rtts_ms)

    assert netns.run_async(main) == (True, None, 1)


# Living long


async def test_a_cancelled_ping_leaves_nothing_behind(engine):
    sock = engine._sockets[4]
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await engine.ping("127.0.0.1")
    assert sock.outstanding == {}
    assert engine._pacers[4].waiting == 0


async def test_the_socket_is_renewed_and_the_old_one_drains(engine, monkeypatch):
    old = engine._sockets[4]
    asking = asyncio.get_running_loop().create_task(engine.ask("127.0.0.1", packets=2, interval=0.1))
    await asyncio.sleep(0)
    assert old.outstanding
    monkeypatch.setattr(icmp_engine, "RENEW_AFTER_SECONDS", -1.0)
    await asyncio.wait_for(engine.ping("127.0.0.1"), PATIENCE_SECONDS)
    assert len((await asyncio.wait_for(asking, PATIENCE_SECONDS)).rtts_ms) == 2
    assert engine._sockets[4] is not old
    assert old._shared._socket.fileno() == -1


async def test_a_thousand_pings_on_ever_new_sockets_leak_none(engine, monkeypatch):
    monkeypatch.setattr(icmp_engine, "RENEW_AFTER_SECONDS", -1.0)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counting descriptors
    for _ in range(20):
        async with patience():
            await asyncio.gather(*(engine.ping("127.0.0.1") for _ in range(50)))
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208 - counting descriptors


async def test_closing_tells_who_still_waits_for_an_answer_or_for_its_turn(engine):
    asking = asyncio.get_running_loop().create_task(engine.ask("127.0.0.1", packets=2, interval=5))
    await asyncio.sleep(0.05)
    await engine.close()
    with pytest.raises(ProbeFailed, match="closing its ICMP socket") as caught:
        await asyncio.wait_for(asking, PATIENCE_SECONDS)
    assert caught.value.kind is FailureKind.LOCAL


async def test_when_all_sequence_numbers_are_in_use_sending_waits(engine, monkeypatch):
    monkeypatch.setattr(icmp_socket, "_MAX_OUTSTANDING", 0)
    asking = asyncio.get_running_loop().create_task(engine.ask("127.0.0.1"))
    await asyncio.sleep(0.05)
    assert not asking.done()
    monkeypatch.undo()
    assert len((await asyncio.wait_for(asking, PATIENCE_SECONDS)).rtts_ms) == 1


async def test_a_full_send_buffer_is_tried_again(engine, monkeypatch):
    shared = engine._sockets[4]._shared
    real, refusals = shared._send, [OSError(105, "No buffer space available"), BlockingIOError(11, "again")]

    def send(*arguments):
        if refusals:
            raise refusals.pop()
        real(*arguments)

    monkeypatch.setattr(shared, "_send", send)
    series = await asyncio.wait_for(engine.ask("127.0.0.1"), PATIENCE_SECONDS)
    assert (series.sent, len(series.rtts_ms), refusals) == (1, 1, [])


async def test_packets_that_could_not_be_sent_in_time_are_not_lost_but_rushed(engine, monkeypatch):
    monkeypatch.setattr(icmp_socket, "_MAX_OUTSTANDING", 0)
    series = await engine.ask("127.0.0.1", patience=0.05)
    assert (series.sent, series.rushed) == (0, True)


def test_the_filter_lets_only_replies_and_errors_through(netns):
    async def main():
        sock = IcmpSocket(4, Mode.RAW)
        heard = []
        sock._shared._heard = lambda packet, _ancillary, _source: heard.append(packet[20])
        forger = Forger()
        for kind in range(20):
            forger.send(reply(1, 1, COOKIE, kind), "10.7.0.9")
        await asyncio.sleep(0.05)
        sock.close()
        forger.socket.close()
        return heard

    assert netns.run_async(main) == [0, 3, 11, 12]
