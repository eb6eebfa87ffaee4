"""Ways to go: IP version, our own address, interface and traffic class, seen from the server's side."""

from __future__ import annotations

import asyncio
import socket

import pytest

from servmon.errors import InvalidInputError
from servmon.model import FailureKind, Status
from servmon.probes.base import ProbeFailed
from servmon.probes.icmp_engine import IcmpEngine
from servmon.probes.icmp_series import Packet
from servmon.probes.icmp_socket import Mode
from servmon.probes.network import Network
from servmon.probes.route import Route
from servmon.probes.specification import EndpointDefaults, parse_endpoint
from servmon.tasks import spawn
from tests.fix_dns import DnsServer
from tests.fix_lossy import PingableNetwork, Weather
from tests.fix_servers import check_once, closes_at_once, says, settled
from tests.probes.test_bad_weather import asked

# Linux numbers (tcp(7)) that Python's socket module does not name.
_TCP_SAVE_SYN, _TCP_SAVED_SYN = 27, 28
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


async def failure(asked) -> ProbeFailed:
    with pytest.raises(ProbeFailed) as failed:
        await asked
    return failed.value


@pytest.fixture
async def both(dns_server):
    """A network in which both.test is 127.0.0.1 and ::1."""
    dns_server.zone |= {
        ("both.test", "A"): ["127.0.0.1"],
        ("both.test", "AAAA"): ["::1"],
        ("four.test", "A"): ["127.0.0.1"],
    }
    async with Network(nameservers=[f"127.0.0.1:{dns_server.port}"]) as network:
        yield network


@pytest.mark.parametrize(("version", "address"), [("any", "127.0.0.1"), (4, "127.0.0.1"), (6, "::1")])
async def test_the_ip_version_is_as_wished(both, tcp_server, version, address):
    server = await tcp_server(says(NO_CONTENT), host=address)
    answer = await check_once(both, f"http://both.test:{server.port}", 5, ip_version=version)
    assert answer.details["address"] == address


async def test_a_name_without_an_address_of_that_version_is_said_so(both):
    failed = await failure(check_once(both, "tcp://four.test:9", 5, ip_version=6))
    assert failed.kind is FailureKind.DNS
    assert failed.message.startswith("no such record: four.test has no IPv6 address")


async def test_the_source_address_is_as_wished_over_tcp_udp_dns_and_icmp(network, tcp_server):
    seen = []

    async def behave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("peername")[0])

    class Echo(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            seen.append(addr[0])
            transport.sendto(data, addr)

    dns = DnsServer()
    dns.zone["example.test", "A"] = ["192.0.2.1"]
    await dns.start("127.0.0.1")
    server = await tcp_server(behave)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    await check_once(network, f"tcp://127.0.0.1:{server.port}", 5, source_address="127.0.0.7")
    await check_once(network, f"udp://127.0.0.1:{port}", 5, send="x", source_address="127.0.0.8")
    for way in ("udp", "tcp"):
        url = f"dns://127.0.0.1:{dns.port}/example.test"
        await check_once(network, url, 5, source_address="127.0.0.9", transport=way)
    await check_once(network, "icmp://127.0.0.1", 5, packets=1, source_address="127.0.0.10")
    await check_once(network, "tcp://127.0.0.1:" + str(server.port), 5)
    await settled(lambda: len(seen) == 3)
    assert sorted(seen) == ["127.0.0.1", "127.0.0.7", "127.0.0.8"]
    assert [source[0] for _, _, source in dns.asked] == ["127.0.0.9"] * 2
    transport.close()
    await dns.stop()


async def test_the_interface_is_as_wished(network, tcp_server):
    server = await tcp_server(closes_at_once)
    await check_once(network, f"tcp://127.0.0.1:{server.port}", 5, interface="lo")
    await check_once(network, "icmp://127.0.0.1", 5, packets=1, interface="lo")


@pytest.mark.parametrize(
    ("url", "fields"),
    [
        ("tcp://127.0.0.1:9", {"source_address": "192.0.2.99"}),
        ("udp://127.0.0.1:9", {"source_address": "192.0.2.99", "send": "x"}),
        ("tcp://127.0.0.1:9", {"interface": "no-such0"}),
        ("icmp://127.0.0.1", {"source_address": "192.0.2.99", "packets": 1}),
        ("icmp://[::1]", {"source_address": "2001:db8::9", "packets": 1}),
        ("dns://127.0.0.1/a.test", {"source_address": "192.0.2.99"}),
        ("dns://127.0.0.1/a.test", {"source_address": "192.0.2.99", "transport": "tcp"}),
        ("dns://127.0.0.1/a.test", {"interface": "no-such0"}),
    ],
)
async def test_a_way_that_this_machine_does_not_have_is_our_own_failure(network, url, fields):
    result = await asked(network, url, retries=0, **fields)
    assert (result.status, result.failure_kind) == (Status.UNKNOWN, FailureKind.LOCAL)
    assert ("have this source address" if "source_address" in fields else "interface") in result.error_message
    assert "starting" not in result.error_message


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_traffic_class_is_as_wished(network, host):
    """The kernel gives the class of what it received with each datagram."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as listening:
        listening.bind((host, 0))
        listening.setblocking(False)
        wanted = (socket.IPPROTO_IPV6, 66) if ":" in host else (socket.IPPROTO_IP, socket.IP_RECVTOS)
        listening.setsockopt(*wanted, 1)
        shown = f"[{host}]" if ":" in host else host
        port = listening.getsockname()[1]
        for url in (f"udp://{shown}:{port}", f"dns://{shown}:{port}/example.test"):
            with pytest.raises(TimeoutError):
                await check_once(network, url, 0.1, dscp=46)
            _, ancillary, _, _ = listening.recvmsg(2048, 256)
            assert [value[0] for _, _, value in ancillary] == [46 << 2]


@pytest.mark.parametrize("scheme", ["tcp", "http"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_traffic_class_stands_in_the_first_packet_of_a_connection(network, scheme, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, _TCP_SAVE_SYN, 1)
        listening.setblocking(False)
        listening.bind((host, 0))
        listening.listen()
        port = listening.getsockname()[1]
        url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        asking = spawn(check_once(network, url, 5, dscp=46), name="asking")
        accepted, _ = await loop.sock_accept(listening)
        with accepted:
            first = accepted.getsockopt(socket.IPPROTO_TCP, _TCP_SAVED_SYN, 128)
            await loop.sock_sendall(accepted, NO_CONTENT)
            await asking
    seen = (first[0] & 15) << 4 | first[1] >> 4 if ":" in host else first[1]
    assert seen == 46 << 2


@pytest.mark.parametrize(
    ("url", "fields", "sentence"),
    [
        ("tcp://192.0.2.1:9", {"ip_version": 6}, "ip_version: is 6, but 192.0.2.1 is IPv4"),
        (
            "icmp://192.0.2.1",
            {"source_address": "2001:db8::1"},
            "source_address: cannot reach 192.0.2.1, which is IPv4",
        ),
        ("udp://a.test:9", {"ip_version": 6, "source_address": "192.0.2.1"}, "source_address: is no IPv6 address"),
        ("dns://192.0.2.1/a.test", {"addresses": "all"}, "addresses: means nothing to 192.0.2.1, which is one"),
        ("http://a.test/", {"addresses": "some"}, "addresses: must be 'one' or 'all', not 'some'"),
        ("http://a.test/", {"ip_version": 5}, "ip_version: must be 4, 6 or 'any', not 5"),
        ("http://a.test/", {"source_address": "b.test"}, "source_address: 'b.test' is not an IP address"),
        ("http://a.test/", {"interface": "a/b"}, "interface: 'a/b' cannot be the name of a network interface"),
        ("http://a.test/", {"interface": "é" * 9}, "interface: 'ééééééééé' cannot be"),
        ("http://a.test/", {"interface": ".."}, "interface: '..' cannot be"),
        ("tcp://[fe80::1]:9", {}, "url: fe80::1 says not on which link; fe80::1%eth0 would"),
        ("icmp://224.0.0.1", {}, "url: 224.0.0.1 is the address of a group, and one host alone can be asked"),
        ("udp://[ff02::1]:9", {}, "url: ff02::1 is the address of a group"),
        ("udp://255.255.255.255:9", {}, "url: 255.255.255.255 is the address of a group"),
        ("icmp://0.0.0.0", {}, "url: 0.0.0.0 is nobody's address"),
        ("http://a.test/", {"dscp": 64}, "dscp: must be at most 63, not 64"),
    ],
)
def test_ways_that_lead_nowhere_are_refused_when_the_endpoint_is_made(url, fields, sentence):
    with pytest.raises(InvalidInputError) as wrong:
        parse_endpoint({"url": url, **fields}, EndpointDefaults())
    assert str(wrong.value).startswith(sentence)


@pytest.mark.parametrize(
    ("url", "fields"),
    [("tcp://[fe80::1%eth0]:9", {}), ("tcp://[fe80::1]:9", {"interface": "eth0"}), ("http://0.0.0.0:8080/", {})],
)
def test_ways_that_lead_somewhere_are_taken(url, fields):
    assert parse_endpoint({"url": url, **fields}, EndpointDefaults())


@pytest.mark.parametrize("mode", Mode)
def test_pings_go_the_way_that_is_wished_in_both_modes(make_netns, mode):
    namespace = make_netns()
    kinds = [Packet(route=Route(source_address="10.9.0.7", dscp=46)), Packet(route=Route(interface="far")), Packet()]

    async def main():
        far.serve()
        engine = IcmpEngine((mode,))
        for kind in kinds:
            assert (await engine.ask("10.9.3.3", kind, patience=5)).rtts_ms
        six = Packet(route=Route(source_address="::1", interface="lo", dscp=46))
        assert (await engine.ask("::1", six, patience=5)).rtts_ms
        await engine.close()
        far.close()
        return far.heard

    far = namespace.run(PingableNetwork, Weather(1))
    namespace.ip("addr add 10.9.0.1/16 dev far", "addr add 10.9.0.7/16 dev far", "link set far up")
    assert namespace.run_async(main) == [("10.9.0.7", 46 << 2), ("10.9.0.1", 0), ("10.9.0.1", 0)]
