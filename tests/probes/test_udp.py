"""UDP: only a reply proves anything."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from servmon.errors import InvalidInputError
from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed
from servmon.probes.network import Network
from servmon.probes.specification import EndpointDefaults, parse_endpoint
from tests.fix_servers import UdpServer, check_once, free_port, open_files, settled, time_server


@pytest.mark.parametrize(
    ("options", "datagram"),
    [
        ({}, b""),
        ({"send": "ping ü\n"}, "ping ü\n".encode()),
        ({"send_hex": "e3 00 06ec"}, b"\xe3\x00\x06\xec"),
        ({"send": ""}, b""),
    ],
)
async def test_it_sends_what_the_options_say_and_any_reply_will_do(check, udp_server, options, datagram):
    udp_server.answer = lambda received: received + b"!"
    answer = await check(f"udp://127.0.0.1:{udp_server.port}", **options)
    assert udp_server.received == [datagram]
    assert answer.details == {"address": "127.0.0.1", "bytes": len(datagram) + 1}
    assert 0 < answer.response_ms < 1000


@pytest.mark.parametrize("name", ["expect", "expected_response_pattern"])
async def test_the_reply_must_match_the_pattern(check, udp_server, name):
    udp_server.answer = lambda _: b"stratum \xff 2\x1b[0m"
    url = f"udp://127.0.0.1:{udp_server.port}"
    await check(url, **{name: r"stratum . \d"})
    with pytest.raises(ProbeFailed) as failed:
        await check(url, **{name: "^no"})
    assert failed.value.kind is FailureKind.PATTERN
    assert failed.value.response_ms > 0
    assert "does not match '^no'" in failed.value.message
    assert "\x1b" not in failed.value.message


async def test_a_closed_port_refuses_at_once(check):
    port = free_port(socket.SOCK_DGRAM)
    with pytest.raises(ProbeFailed) as failed:
        await check(f"udp://127.0.0.1:{port}", timeout=5)
    assert failed.value.kind is FailureKind.REFUSED
    assert failed.value.message == f"nothing listens at 127.0.0.1:{port}: its host says port unreachable"


async def test_no_reply_is_silence_until_the_limit(check, udp_server):
    udp_server.answer = lambda _: None
    with pytest.raises(TimeoutError):
        await check(f"udp://127.0.0.1:{udp_server.port}", timeout=0.1)


async def test_a_datagram_of_somebody_else_is_no_reply(check, udp_server):
    def answer_from_elsewhere(_datagram):
        source = udp_server.source
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"me too", source)

    class Noting(UdpServer):
        def datagram_received(self, data, addr):
            udp_server.source = addr
            super().datagram_received(data, addr)

    server = Noting()
    server.answer = answer_from_elsewhere
    await server.start()
    with pytest.raises(TimeoutError):
        await check(f"udp://127.0.0.1:{server.port}", timeout=0.2)
    await server.stop()


async def test_ipv6(check):
    server = UdpServer()
    await server.start("::1")
    assert (await check(f"udp://[::1]:{server.port}", send="x")).details == {"address": "::1", "bytes": 1}
    await server.stop()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"send": "a", "send_hex": "00"}, "send_hex: excludes send: one of them says what is sent"),
        ({"send_hex": "0g"}, "send_hex: '0g' is not hexadecimal; pairs of digits such as 'e3 00 06' would be"),
        ({"send": "x" * 65_508}, "send: is 65508 bytes; a datagram holds 65507"),
        ({"send_hex": "00" * 65_508}, "send_hex: is 65508 bytes; a datagram holds 65507"),
        ({"expect": "("}, "expect: is not a regular expression: missing ), unterminated subpattern at position 0"),
        (
            {"expect": "a", "expected_response_pattern": "b"},
            "expect: excludes expected_response_pattern: one of them says what must come",
        ),
        ({"expected_status_code": 200}, "expected_status_code: means nothing to UDP; only HTTP answers have one"),
    ],
)
def test_bad_options_are_refused_when_the_endpoint_is_made(options, sentence):
    with pytest.raises(InvalidInputError) as wrong:
        parse_endpoint({"url": "udp://192.0.2.1:53", **options}, EndpointDefaults())
    assert str(wrong.value) == sentence


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_five_hundred_unanswered_checks_leave_nothing_behind(new_loop):
    async def main():
        server = UdpServer()
        server.answer = lambda _: None
        await server.start("0.0.0.0")
        async with Network() as network:
            before = open_files()
            for _ in range(2):
                checks = (check_once(network, f"udp://127.0.1.{n}:{server.port}", 0.3) for n in range(250))
                found = await asyncio.gather(*checks, return_exceptions=True)
                assert {type(error) for error in found} == {TimeoutError}
            await settled(lambda: open_files() == before and len(asyncio.all_tasks()) == 1)
        await server.stop()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


# Bytes


async def test_bytes_can_be_sent_and_expected(check, udp_server):
    url = f"udp://127.0.0.1:{udp_server.port}"
    udp_server.answer = lambda received: b"\0" + received + b"\xff"
    await check(url, send_base64="4wAG7A==", expect_hex="00 e3 00 06")
    assert udp_server.received == [b"\xe3\x00\x06\xec"]
    with pytest.raises(ProbeFailed) as failed:
        await check(url, send_base64="4wAG7A==", expect_hex="beef")
    assert failed.value.kind is FailureKind.PATTERN
    assert failed.value.message == "the reply 00 e3 00 06 ec ff does not hold the bytes beef"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"send_base64": "no base64!"}, "send_base64: 'no base64!' is not base64"),
        ({"send_hex": "00", "send_base64": "AA=="}, "send_base64: excludes send_hex"),
        ({"expect": "a", "expect_hex": "61"}, "expect_hex: excludes expect"),
        ({"expected_response_pattern": "a", "expect_hex": "61"}, "expect_hex: excludes expected_response_pattern"),
        ({"preset": "ntp", "send": "x"}, "send: means nothing beside preset"),
        ({"preset": "ntp", "expected_response_pattern": "x"}, "expected_response_pattern: means nothing beside preset"),
        ({"max_offset_ms": 5}, 'max_offset_ms: means nothing without preset = "ntp"'),
        ({"preset": "dns"}, "preset: must be 'ntp'"),
        ({"expect": ""}, "expect: is empty, and every reply holds that"),
        ({"expect_hex": " "}, "expect_hex: is empty"),
    ],
)
def test_what_cannot_go_together_is_refused(options, sentence):
    with pytest.raises(InvalidInputError) as refused:
        parse_endpoint({"url": "udp://192.0.2.1:9", **options}, EndpointDefaults())
    assert sentence in str(refused.value)


# Time


async def test_a_time_server_tells_stratum_and_offset(check, udp_server):
    udp_server.answer = time_server(ahead=0.25)
    answer = await check(f"udp://127.0.0.1:{udp_server.port}", preset="ntp")
    assert answer.details["stratum"] == 2
    assert answer.details["reference"] == "10.0.0.1"
    assert answer.details["offset_ms"] == pytest.approx(250, abs=20)


@pytest.mark.parametrize(
    ("server", "options", "words"),
    [
        (time_server(stratum=16), {}, "its clock is not synchronised"),
        (time_server(leap=3), {}, "its clock is not synchronised"),
        (time_server(stratum=0, reference=b"RATE"), {}, "it wants to be left alone (kiss code RATE)"),
        (time_server(stratum=0, reference=b"\x1b[\0\xff"), {}, "(kiss code \\x1b[\\x00\\xff)"),
        (time_server(tells=False), {}, "it does not tell the time: a timestamp of its answer is zero"),
        (time_server(stratum=5), {"max_stratum": 3}, "its stratum is 5, at most 3 was expected"),
        (time_server(ahead=-9), {"max_offset_ms": 100}, "ms behind ours, at most 100 was expected"),
        (time_server(ahead=2**32 + 9), {"max_offset_ms": 100}, "ms ahead of ours, at most 100 was expected"),
    ],
)
async def test_a_clock_that_cannot_be_trusted_is_a_failure_in_words(check, udp_server, server, options, words):
    udp_server.answer = server
    with pytest.raises(ProbeFailed) as failed:
        await check(f"udp://127.0.0.1:{udp_server.port}", preset="ntp", **options)
    assert failed.value.kind is FailureKind.CONTENT
    assert words in failed.value.message
    assert failed.value.response_ms > 0


@pytest.mark.parametrize(
    "forged",
    [b"", b"\x24" * 47, b"\x24" + b"\x01" * 47, b"\x23" + b"\x01" * 47],
    ids=["empty", "short", "other", "ask"],
)
async def test_what_does_not_repeat_our_question_is_no_time(check, udp_server, forged):
    udp_server.answer = lambda _: forged
    with pytest.raises(TimeoutError):
        await check(f"udp://127.0.0.1:{udp_server.port}", preset="ntp", timeout=0.1)
