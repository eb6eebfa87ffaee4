from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import struct

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from servmon.clock import SYSTEM_CLOCK
from servmon.model import FailureKind
from servmon.probes import dns_transport, shared_socket
from servmon.probes.base import ProbeFailed
from servmon.probes.dns_transport import DnsTransport, Query, why_not_an_answer
from servmon.probes.readiness import readiness
from servmon.probes.shared_socket import BURST, TICK_SECONDS, Pacer, elapsed_ms
from tests.fix_dns import DnsServer
from tests.fix_servers import PATIENCE_SECONDS, patience
from tests.ports import free_port
from tests.virtual import VirtualClock, run_virtual

LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


def message(name: str, kind: int = 1, flags: int = 0x0100, number: int = 0) -> bytes:
    """A DNS message with one question, written by hand."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", number, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


QUESTION = message("example.test")


@pytest.fixture
async def transport():
    """A transport of its own for each test."""
    transport = DnsTransport(readiness())
    yield transport
    await transport.close()


async def ask(transport: DnsTransport, query: Query, seconds: float = PATIENCE_SECONDS):
    async with asyncio.timeout(seconds):
        return await transport.ask(query)


# What is an answer


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (message("example.test", flags=0x8180), None),
        (message("EXAMPLE.Test", flags=0x8180), None),
        (message("example.test", flags=0x8180) + b"records", None),
        (message("example.test"), "a question, not an answer"),
        (message("example.test", 28, 0x8180), "an answer to another question"),
        (message("example.toast", flags=0x8180), "an answer to another question"),
        (struct.pack("!HHHHHH", 0, 0x8180, 0, 0, 0, 0), "an answer to another question"),
        (struct.pack("!HHHHHH", 0, 0x8181, 0, 0, 0, 0), None),
        (b"SSH-2.0-Ope", "something too short for DNS"),
    ],
    ids=["same", "case", "records", "query", "type", "name", "none", "formerr", "short"],
)
def test_an_answer_repeats_the_question(datagram, reason):
    assert why_not_an_answer(QUESTION, datagram) == reason


@given(st.binary(max_size=80))
def test_no_datagram_however_garbled_breaks_the_comparison(datagram):
    why_not_an_answer(QUESTION, datagram)


# Asking


async def test_a_question_is_answered_and_timed(transport, dns_server):
    reply = await ask(transport, Query("127.0.0.1", dns_server.port, QUESTION))
    assert b"\xc0\x00\x02\x01" in reply.wire
    assert 0 < reply.elapsed_ms < 200
    assert not reply.truncated


async def test_a_question_is_answered_over_ipv6(transport):
    server = DnsServer()
    server.zone["example.test", "A"] = ["192.0.2.6"]
    try:
        await server.start("::1")
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    query = Query("::1", server.port, QUESTION)
    reply = await ask(transport, query)
    assert b"\xc0\x00\x02\x06" in reply.wire
    assert query.server == f"[::1]:{server.port}"
    assert b"\xc0\x00\x02\x06" in (await transport.ask_over_tcp(query)).wire
    await server.stop()


@LOOPS
def test_500_questions_at_once_each_get_their_own_answer(loop):
    async def main():
        server, transport = DnsServer(), DnsTransport(readiness())
        for n in range(500):
            server.zone[f"n{n}.test", "A"] = [f"10.1.{n // 250}.{n % 250 + 1}"]
        await server.start("127.0.0.1")
        queries = [Query("127.0.0.1", server.port, message(f"n{n}.test")) for n in range(500)]
        async with patience():
            replies = await asyncio.gather(*(transport.ask(query) for query in queries))
        waiting = [dict(sock.waiting) for sock in transport._sockets.values()]
        await transport.close()
        await server.stop()
        return [socket.inet_ntoa(reply.wire[-4:]) for reply in replies], waiting

    with asyncio.Runner(loop_factory=loop) as runner:
        addresses, waiting = runner.run(main())
    assert addresses == [f"10.1.{n // 250}.{n % 250 + 1}" for n in range(500)]
    assert waiting == [{}]


@LOOPS
def test_a_closed_port_is_refused_at_once_and_the_next_question_is_answered_all_the_same(loop):
    async def main():
        port = free_port(socket.SOCK_DGRAM)
        server, transport = DnsServer(), DnsTransport(readiness())
        server.zone["example.test", "A"] = ["192.0.2.1"]
        await server.start("127.0.0.1")
        refusals = []
        for _ in range(3):
            outcomes = await asyncio.gather(
                *(ask(transport, Query("127.0.0.1", port, QUESTION)) for _ in range(4)),
                *(ask(transport, Query("127.0.0.1", server.port, QUESTION)) for _ in range(4)),
                return_exceptions=True,
            )
            refusals += outcomes[:4]
            assert all(b"\xc0\x00\x02\x01" in reply.wire for reply in outcomes[4:])
        await transport.close()
        await server.stop()
        return port, refusals

    with asyncio.Runner(loop_factory=loop) as runner:
        port, refusals = runner.run(main())
    words = f"nothing answers DNS at 127.0.0.1:{port}: port unreachable, says 127.0.0.1"
    assert [(one.kind, one.message) for one in refusals] == [(FailureKind.REFUSED, words)] * 12


def test_where_no_way_leads_it_is_said_at_once(netns):
    async def main():
        transport = DnsTransport(readiness())
        with pytest.raises(ProbeFailed) as caught:
            await transport.ask(Query("192.0.2.1", 53, QUESTION))
        await transport.close()
        return caught.value.kind, caught.value.message

    assert netns.run_async(main) == (FailureKind.UNREACHABLE, "unreachable while sending a question to 192.0.2.1:53")


async def test_a_silent_server_is_waited_for_until_the_caller_gives_up(transport, dns_server):
    dns_server.odd["example.test"] = lambda _query: []
    with pytest.raises(TimeoutError):
        await ask(transport, Query("127.0.0.1", dns_server.port, QUESTION), 0.1)
    assert all(not sock.waiting for sock in transport._sockets.values())


async def test_garbage_wrong_ids_and_wrong_questions_are_ignored_and_the_right_answer_is_taken(transport, dns_server):
    def answers(query):
        right = dns_server.answer(query)
        wrong_id = bytes([query[0] ^ 0xFF]) + right[1:]
        other = message("other.test", flags=0x8180, number=int.from_bytes(query[:2], "big"))
        return [b"", b"x", os.urandom(40), wrong_id, other, query, right, right]

    dns_server.odd["example.test"] = answers
    query = Query("127.0.0.1", dns_server.port, QUESTION)
    reply = await ask(transport, query)
    assert b"\xc0\x00\x02\x01" in reply.wire
    assert query.ignored["an answer to another question"] == 1
    assert query.ignored["a question, not an answer"] == 1
    assert query.ignored["an answer with a wrong id"] >= 3


async def test_an_answer_from_another_port_or_address_is_ignored(transport, dns_server):
    def answers(query):
        forged = dns_server.answer(query).replace(b"\xc0\x00\x02\x01", b"\x06\x06\x06\x06")
        client = dns_server.asked[-1][2]
        for address in ("127.0.0.1", "127.0.0.9"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
                forger.bind((address, 0 if address == "127.0.0.1" else dns_server.port))
                forger.sendto(forged, client)
        return [dns_server.answer(query)]

    dns_server.odd["example.test"] = answers
    reply = await ask(transport, Query("127.0.0.1", dns_server.port, QUESTION))
    assert b"\xc0\x00\x02\x01" in reply.wire


async def test_a_late_answer_of_an_earlier_question_is_ignored(transport, dns_server):
    late = []
    dns_server.odd["example.test"] = lambda query: late.append(dns_server.answer(query)) or []
    with pytest.raises(TimeoutError):
        await ask(transport, Query("127.0.0.1", dns_server.port, QUESTION), 0.1)
    dns_server.odd["example.test"] = lambda _query: late
    query = Query("127.0.0.1", dns_server.port, QUESTION)
    with pytest.raises(TimeoutError):
        await ask(transport, query, 0.5)
    # Its id is right by a chance of one in 65,536.
    assert query.ignored["an answer with a wrong id"] == 1


async def test_ids_are_random_and_ports_change_with_the_socket(transport, dns_server, monkeypatch):
    ids = []
    dns_server.odd["example.test"] = lambda query: ids.append(query[:2]) or [dns_server.answer(query)]
    monkeypatch.setattr(dns_transport, "RENEW_AFTER_SECONDS", -1.0)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counting descriptors
    for _ in range(30):
        await ask(transport, Query("127.0.0.1", dns_server.port, QUESTION))
    assert len(set(ids)) > 25
    assert len({source[1] for _, _, source in dns_server.asked}) > 20
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208 - counting descriptors


async def test_a_retired_socket_still_takes_its_answers(transport, dns_server, monkeypatch):
    held = []
    dns_server.zone["later.test", "A"] = ["192.0.2.9"]
    dns_server.odd["later.test"] = lambda query: held.append((dns_server.answer(query), dns_server.asked[-1][2])) or []
    asking = asyncio.get_running_loop().create_task(
        ask(transport, Query("127.0.0.1", dns_server.port, message("later.test")))
    )
    async with patience():
        while not held:  # noqa: ASYNC110 - bounded polling for what another task does
            await asyncio.sleep(0.005)
    monkeypatch.setattr(dns_transport, "RENEW_AFTER_SECONDS", -1.0)
    await ask(transport, Query("127.0.0.1", dns_server.port, QUESTION))
    dns_server._udp.sendto(*held[0])
    assert b"\xc0\x00\x02\x09" in (await asking).wire


async def test_closing_tells_who_still_waits(transport, dns_server):
    dns_server.odd["example.test"] = lambda _query: []
    asking = asyncio.get_running_loop().create_task(transport.ask(Query("127.0.0.1", dns_server.port, QUESTION)))
    await asyncio.sleep(0)
    await transport.close()
    with pytest.raises(ProbeFailed, match="closing its DNS socket"):
        await asking


# TCP


async def test_tcp_answers_in_full(transport, dns_server):
    dns_server.zone["example.test", "TXT"] = [f'"{"x" * 200}{n}"' for n in range(50)]
    reply = await transport.ask_over_tcp(Query("127.0.0.1", dns_server.port, message("example.test", 16)))
    assert len(reply.wire) > 10_000


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (lambda _query: [b"\x00\x20half"], "closed the TCP connection in the middle of its answer"),
        (lambda _query: [], "closed the TCP connection in the middle of its answer"),
        (lambda _query: [b"\x00\x0c" + b"SSH-2.0-Open"], "sent an answer with a wrong id over TCP"),
        (lambda _query: [b"\0\0"], "sent something too short for DNS over TCP"),
        (lambda query: [len(query).to_bytes(2, "big") + query], "sent a question, not an answer over TCP"),
    ],
    ids=["half", "nothing", "garbage", "empty", "echo"],
)
async def test_what_is_wrong_over_tcp_is_said(transport, dns_server, sent, words):
    dns_server.odd_tcp["example.test"] = sent
    with pytest.raises(ProbeFailed, match=words) as caught:
        await transport.ask_over_tcp(Query("127.0.0.1", dns_server.port, QUESTION))
    assert caught.value.kind is FailureKind.PROTOCOL


# Sending in bursts


@pytest.fixture
def virtual_time(monkeypatch):
    """Runs a test where the time is the loop's, which jumps: what is sent when depends on no other process."""
    monkeypatch.setattr(shared_socket, "SYSTEM_CLOCK", VirtualClock())
    return run_virtual


def now() -> float:
    return asyncio.get_running_loop().time()


def test_what_is_sent_at_once_is_at_most_a_burst_and_nothing_is_lost_or_reordered(virtual_time):
    async def main():
        sent: list[tuple[float, int]] = []
        pacer: Pacer[int] = Pacer(lambda n: sent.append((now(), n)) is None)
        for n in range(4 * BURST):
            pacer.put(n)
        assert len(sent) == BURST
        await asyncio.sleep(1)
        assert [n for _, n in sent] == list(range(4 * BURST))
        starts = [sent[BURST * k][0] for k in range(4)]
        apart = [late - early for early, late in itertools.pairwise(starts)]
        assert apart == pytest.approx([TICK_SECONDS] * 3, abs=0.002)

    virtual_time(main)


def test_a_long_queue_is_sent_faster_so_that_it_does_not_outgrow_the_checks(virtual_time):
    async def main():
        sent: list[int] = []
        pacer: Pacer[int] = Pacer(lambda n: sent.append(n) is None)
        for n in range(100 * BURST):
            pacer.put(n)
        await asyncio.sleep(100 * TICK_SECONDS / 2)
        assert sent == list(range(100 * BURST))

    virtual_time(main)


def test_what_cannot_be_sent_now_keeps_its_place(virtual_time):
    async def main():
        sent, refuse = [], [True, True]
        pacer: Pacer[str] = Pacer(lambda thing: not refuse.pop() if refuse else sent.append(thing) is None)
        pacer.put("first")
        pacer.put("second")
        await asyncio.sleep(1)
        assert sent == ["first", "second"]

    virtual_time(main)


def test_what_is_due_later_goes_out_together_at_the_next_tick(virtual_time):
    async def main():
        sent: list[tuple[float, int]] = []
        pacer: Pacer[int] = Pacer(lambda n: sent.append((now(), n)) is None)
        base = (now() // TICK_SECONDS + 3) * TICK_SECONDS
        for n, offset in enumerate((0.001, 0.010, 0.019)):
            pacer.put_at(n, base + offset)
        await asyncio.sleep(1)
        assert [when for when, _ in sent] == pytest.approx([base + TICK_SECONDS] * 3, abs=0.002)
        assert sent[0][0] == sent[2][0]

    virtual_time(main)


def test_a_closed_pacer_sends_nothing_more(virtual_time):
    async def main():
        sent: list[int] = []
        pacer: Pacer[int] = Pacer(lambda n: sent.append(n) is None)
        pacer.put_at(1, now() + 0.02)
        pacer.close()
        await asyncio.sleep(1)
        assert sent == []

    virtual_time(main)


def test_a_wall_clock_set_between_sending_and_arrival_does_not_show_in_the_time():
    monotonic, wall = SYSTEM_CLOCK.monotonic(), SYSTEM_CLOCK.wall()

    def stamped(moment):
        whole = int(moment)
        return [(socket.SOL_SOCKET, 35, struct.pack("@ll", whole, int((moment - whole) * 1e9)))]

    for jump in (-3600, 3600):
        assert 900 < elapsed_ms(wall - 1, monotonic - 1, stamped(wall + jump)) < 1500
    assert elapsed_ms(wall - 1, monotonic - 1, stamped(wall - 0.75)) == pytest.approx(250, abs=1)
    assert 900 < elapsed_ms(wall - 1, monotonic - 1, []) < 1500


async def test_a_full_send_buffer_is_tried_again(transport, dns_server, monkeypatch):
    await ask(transport, Query("127.0.0.1", dns_server.port, QUESTION))
    shared = transport._sockets[4]._shared
    real, refusals = shared._send, [OSError(errno.ENOBUFS, "No buffer space available")]

    def send(*arguments):
        if refusals:
            raise refusals.pop()
        real(*arguments)

    monkeypatch.setattr(shared, "_send", send)
    await ask(transport, Query("127.0.0.1", dns_server.port, QUESTION))
    assert refusals == []
