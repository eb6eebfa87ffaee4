"""TCP dialogues: what servers say, what they should have said, and TLS at the start or later."""

from __future__ import annotations

import asyncio
import ssl

import pytest
import uvloop

from servmon.errors import InvalidInputError
from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed
from servmon.probes.conversation import TEXT_LIMIT
from servmon.probes.network import Network
from servmon.probes.specification import EndpointDefaults, parse_endpoint
from tests.fix_servers import (
    TcpServer,
    check_once,
    closes_at_once,
    greets,
    is_endless,
    is_silent,
    open_files,
    resets,
    server_tls,
    settled,
    trickles,
)

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])

SMTP = (
    b"220-mail.test welcomes\r\n220 you\r\n",
    {b"EHLO": b"250-mail.test\r\n250 STARTTLS\r\n", b"STARTTLS": b"220 go on\r\n", b"QUIT": b"221 bye\r\n"},
)
SCRIPTS = {
    "smtp": SMTP,
    "imap": (b"* OK ready\r\n", {b"a1 STARTTLS": b"a1 OK go on\r\n", b"a2 LOGOUT": b"* BYE see you\r\na2 OK done\r\n"}),
    "pop3": (b"+OK ready\r\n", {b"STLS": b"+OK go on\r\n", b"QUIT": b"+OK bye\r\n"}),
    "ftp": (b"220-FTP\r\n 220 not the end\r\n220 ready\r\n", {b"AUTH TLS": b"234 go on\r\n", b"QUIT": b"221 bye\r\n"}),
    "ssh": (b"some words first\r\nSSH-2.0-OpenSSH_9.2p1 Debian\r\n", {}),
}


def talks(greeting: bytes, answers: dict[bytes, bytes], tls: ssl.SSLContext | None = None, log: list | None = None):
    """A server with a script; after what answers a wish for TLS it begins TLS."""

    async def behave(reader, writer):
        writer.write(greeting)
        while line := (await reader.readline()).rstrip():
            if log is not None:
                log.append((line, writer.get_extra_info("ssl_object") is not None))
            found = next((answers[start] for start in answers if line.startswith(start)), b"500 what?\r\n")
            writer.write(found)
            await writer.drain()
            if tls is not None and b"go on" in found:
                await writer.start_tls(tls)

    return behave


@pytest.mark.parametrize("preset", SCRIPTS)
async def test_ready_made_dialogues_are_held_to_the_end(check, tcp_server, preset):
    server = await tcp_server(talks(*SCRIPTS[preset]))
    answer = await check(f"tcp://127.0.0.1:{server.port}", preset=preset)
    assert answer.details["address"] == "127.0.0.1"
    assert answer.details["banner"] == SCRIPTS[preset][0].partition(b"\r\n")[0].decode()
    assert 0 < answer.phases.connect_ms < answer.response_ms
    assert answer.phases.first_byte_ms > 0
    assert answer.phases.tls_ms is None


async def test_codes_may_stand_alone_and_imap_knows_no_capitals(check, tcp_server):
    bare = await tcp_server(talks(b"220\r\n", {b"EHLO": b"250\r\n", b"QUIT": b"221\r\n"}))
    await check(f"tcp://127.0.0.1:{bare.port}", preset="smtp")
    small = await tcp_server(talks(b"* ok ready\r\n", {b"a2 LOGOUT": b"* bye\r\na2 ok\r\n"}))
    await check(f"tcp://127.0.0.1:{small.port}", preset="imap")
    busy = await tcp_server(talks(b"421\r\n", {}))
    with pytest.raises(ProbeFailed, match="says '421', expected"):
        await check(f"tcp://127.0.0.1:{busy.port}", preset="smtp")


@pytest.mark.parametrize("preset", [preset for preset in SCRIPTS if preset != "ssh"])
@LOOPS
def test_they_go_over_to_tls_and_verify_the_certificate(trusted, preset, new_loop):
    log: list = []

    async def main():
        server = TcpServer(talks(*SCRIPTS[preset], server_tls(trusted, "mail.test"), log))
        await server.start()
        async with Network() as network:
            url = f"tcp://127.0.0.1:{server.port}"
            answer = await check_once(network, url, 5, preset=preset, starttls=True, tls_server_name="mail.test")
            with pytest.raises(ProbeFailed) as failed:
                await check_once(network, url, 5, preset=preset, starttls=True)
            unverified = await check_once(network, url, 5, preset=preset, starttls=True, tls_verify=False)
        await server.stop()
        return answer, failed.value, unverified

    with asyncio.Runner(loop_factory=new_loop) as runner:
        answer, failed, unverified = runner.run(main())
    assert answer.details["tls_version"] == unverified.details["tls_version"] == "TLSv1.3"
    assert answer.phases.tls_ms > 0
    assert log[-1][1] is True
    assert failed.kind is FailureKind.TLS
    assert failed.message.endswith("its certificate is for another address than 127.0.0.1: it is for mail.test")
    assert failed.details["banner"]


async def test_what_is_slipped_in_before_tls_does_not_count(check, tcp_server, trusted):
    script = {b"STARTTLS": b"220 go on\r\n250 injected\r\n", b"EHLO": b"250 STARTTLS\r\n"}
    server = await tcp_server(talks(SMTP[0], script, server_tls(trusted, "mail.test")))
    with pytest.raises(ProbeFailed) as failed:
        await check(
            f"tcp://127.0.0.1:{server.port}", preset="smtp", starttls=True, tls_server_name="mail.test", timeout=2
        )
    # The injected 250 was not taken for EHLO's answer: QUIT was reached, and had no answer that ends it well.
    assert failed.value.message.startswith(f"127.0.0.1:{server.port} says '500 what?', expected '^221")


async def test_tls_at_once(check, tcp_server, trusted):
    server = await tcp_server(greets(b"* OK ready\r\n"), tls=server_tls(trusted, "127.0.0.1"))
    url = f"tcp://127.0.0.1:{server.port}"
    details = (await check(url, tls=True)).details
    assert details["certificate"]["issuer"].startswith("O=trustme")
    assert (details["address"], details["tls_version"]) == ("127.0.0.1", "TLSv1.3")
    answer = await check(url, tls=True, steps=[{"expect": "^\\* OK"}])
    assert answer.details["banner"] == "* OK ready"
    assert answer.phases.tls_ms > 0


async def test_an_untrusted_certificate_is_down_in_words(check, tcp_server, ca):
    server = await tcp_server(is_silent, tls=server_tls(ca, "127.0.0.1"))
    url = f"tcp://127.0.0.1:{server.port}"
    with pytest.raises(ProbeFailed, match="its certificate is not trusted") as failed:
        await check(url, tls=True)
    assert failed.value.kind is FailureKind.TLS
    assert failed.value.phases.connect_ms > 0
    await check(url, tls=True, tls_verify=False)


@pytest.mark.parametrize(
    ("behaviour", "kind", "message"),
    [
        (
            greets(b"SSH-2.0-OpenSSH_9.2\r\n"),
            FailureKind.TLS,
            "no TLS connection: it does not speak TLS on this port",
        ),
        (resets, FailureKind.RESET, "broke off the connection during the TLS handshake"),
        (closes_at_once, FailureKind.RESET, "broke off the connection during the TLS handshake"),
    ],
)
@LOOPS
def test_who_does_not_speak_tls_is_told_apart(behaviour, kind, message, new_loop):
    async def main():
        server = TcpServer(behaviour)
        await server.start()
        async with Network() as network:
            with pytest.raises(ProbeFailed) as failed:
                await check_once(network, f"tcp://127.0.0.1:{server.port}", 5, tls=True)
        await server.stop()
        return failed.value

    with asyncio.Runner(loop_factory=new_loop) as runner:
        failed = runner.run(main())
    assert failed.kind is kind
    assert message in failed.message


# Dialogues of one's own


async def test_steps_are_taken_in_turn(check, tcp_server):
    log: list = []
    server = await tcp_server(talks(b"hello\r\n", {b"PING": b"PONG 7\r\n"}, log=log))
    steps = [{"expect": "^hello$"}, {"send": "PING ü\r\n"}, {"expect": r"^PONG \d$"}]
    await check(f"tcp://127.0.0.1:{server.port}", steps=steps)
    assert log == [("PING ü".encode(), False)]


@pytest.mark.parametrize(
    ("behaviour", "kind", "message"),
    [
        (greets(b"554 no service\x1b[0m\r\n"), FailureKind.PROTOCOL, r"says '554 no service\x1b[0m', expected '^220 '"),
        (closes_at_once, FailureKind.PROTOCOL, "closed the connection while '^220 ' was expected without a word"),
        (resets, FailureKind.RESET, "reset the connection while '^220 ' was expected without a word"),
        (is_endless, FailureKind.PATTERN, f"sent {TEXT_LIMIT} bytes in which '^220 ' is not found: 'xxxxxxx"),
    ],
    ids=["refuses", "closes", "resets", "endless"],
)
async def test_a_server_that_says_something_else_is_quoted(check, tcp_server, behaviour, kind, message):
    server = await tcp_server(behaviour)
    with pytest.raises(ProbeFailed) as failed:
        await check(f"tcp://127.0.0.1:{server.port}", steps=[{"expect": "^220 ", "fail": r"^[45]\d\d"}])
    assert failed.value.kind is kind
    assert failed.value.message.startswith(f"127.0.0.1:{server.port} {message}")


async def test_half_a_dialogue_is_told_when_the_server_closes(check, tcp_server):
    async def half(_reader, writer):
        writer.write(b"220-half a gree")

    server = await tcp_server(half)
    with pytest.raises(ProbeFailed) as failed:
        await check(f"tcp://127.0.0.1:{server.port}", preset="smtp")
    assert failed.value.message.endswith("was expected; it said '220-half a gree'")


@pytest.mark.parametrize("behaviour", [is_silent, trickles])
async def test_silence_and_trickling_end_at_the_limit(network, tcp_server, behaviour):
    server = await tcp_server(behaviour)
    with pytest.raises(TimeoutError):
        await check_once(network, f"tcp://127.0.0.1:{server.port}", 0.2, preset="smtp")


@LOOPS
def test_failing_dialogues_leave_nothing_behind(new_loop, trusted):
    async def main():
        server, plain = TcpServer(greets(b"no\r\n")), TcpServer(is_silent)
        await server.start(tls=server_tls(trusted, "127.0.0.1"))
        await plain.start()
        async with Network() as network:
            before = open_files()
            for _ in range(50):
                for port, options in ((server.port, {"steps": [{"expect": "yes"}]}), (plain.port, {})):
                    with pytest.raises((ProbeFailed, TimeoutError)):
                        await check_once(network, f"tcp://127.0.0.1:{port}", 0.02, tls=True, **options)
            await settled(lambda: open_files() <= before + 2)
            assert len(asyncio.all_tasks()) < 10
        await server.stop()
        await plain.stop()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"preset": "smtp", "steps": [{"send": "x"}]}, "steps: excludes preset"),
        ({"preset": "gopher"}, "preset: must be 'smtp'"),
        ({"starttls": True}, "starttls: needs a preset"),
        ({"preset": "ssh", "starttls": True}, "starttls: needs a preset"),
        ({"preset": "smtp", "starttls": True, "tls": True}, "tls: excludes starttls"),
        ({"steps": [{"starttls": True}, {"starttls": True}]}, "steps: has starttls twice"),
        ({"steps": [{"send": "a", "expect": "b"}]}, "steps.0: must be one of send, expect and starttls"),
        ({"steps": [{"send": "a", "fail": "b"}]}, "steps.0: fail means nothing without expect"),
        ({"steps": [{"expect": "("}]}, "steps.0.expect: is not a regular expression"),
        ({"steps": [{"say": "a"}]}, "steps.0.say: is not known here"),
        ({"steps": ["a"]}, "steps.0: must be a table of names and values"),
        ({"answer_limit": 100}, "answer_limit: means nothing without preset or steps"),
        ({"tls_verify": False}, "tls_verify: means nothing without tls or starttls"),
    ],
)
def test_dialogues_that_cannot_be_held_are_refused(options, sentence):
    with pytest.raises(InvalidInputError) as refused:
        parse_endpoint({"url": "tcp://mail.test:25", **options}, EndpointDefaults())
    assert sentence in str(refused.value)
