from __future__ import annotations

import asyncio
import json
import re
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from pydantic import ValidationError

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import InvalidInputError
from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed, Target
from servmon.probes.dns import DnsOptions, DnsProbe, _port
from servmon.probes.dns_message import Parsed, _remembered, parse_answer
from servmon.probes.network import Network, ProbeContext
from servmon.probes.shared_socket import Pacer
from tests.fix_dns import DnsServer
from tests.fix_servers import greets, server_tls


@pytest.fixture
async def network():
    async with Network() as network:
        yield network


@pytest.fixture
def check(network, dns_server):
    """One attempt against the server: ``check("/name?type=A", expected_response_pattern, seconds, **options)``."""

    async def check(path: str = "/example.test", pattern: str | None = None, seconds: float = 2, **options):
        compiled = re.compile(pattern) if pattern else None
        port = check.port or dns_server.port
        target = Target(f"dns://127.0.0.1{path}", "127.0.0.1", port, path, None, compiled)
        read = DnsOptions(**options)
        DnsProbe().validate(target, read)
        context = check.context = ProbeContext(network, SYSTEM_CLOCK.monotonic() + seconds)
        context.attempt_seconds = seconds
        async with asyncio.timeout(seconds):
            return await DnsProbe().check(target, read, context)

    check.port = None
    return check


@pytest.fixture
def failure(check):
    """The failure that a check with these arguments ends in, as (kind, message)."""

    async def failure(*arguments, **options):
        with pytest.raises(ProbeFailed) as caught:
            await check(*arguments, **options)
        return caught.value.kind, caught.value.message

    return failure


# Right answers


async def test_a_right_answer_is_up_with_its_records(check, dns_server):
    answer = await check()
    assert 0 < answer.response_ms < 500
    assert answer.details == {"server": f"127.0.0.1:{dns_server.port}", "rcode": "NOERROR", "answers": ["192.0.2.1"]}


async def test_every_check_reaches_the_server(check, dns_server):
    for _ in range(5):
        await check()
    assert [transport for transport, *_ in dns_server.asked] == ["udp"] * 5


async def test_a_change_on_the_server_is_seen_by_the_next_check(check, dns_server):
    await check(expected_answer="192.0.2.1")
    dns_server.zone["example.test", "A"] = ["192.0.2.2"]
    await check(expected_answer="192.0.2.2")


@pytest.mark.parametrize(
    ("kind", "records", "expected"),
    [
        ("A", ["192.0.2.7", "192.0.2.3"], "192.0.2.3"),
        ("AAAA", ["2001:db8::1"], "2001:0DB8:0:0::1"),
        ("MX", ["10 mail.example.test."], "10 MAIL.example.test"),
        ("TXT", ['"v=spf1 -all"'], '"v=spf1 -all"'),
        ("NS", ["ns.example.test."], "ns.example.test."),
        ("CNAME", ["other.test."], "other.test"),
        ("SOA", ["ns.test. admin.test. 7 3600 600 86400 60"], "ns.test. admin.test. 7 3600 600 86400 60"),
        ("SRV", ["1 2 5060 sip.test."], "1 2 5060 sip.test."),
        ("CAA", ['0 issue "ca.test"'], '0 issue "ca.test"'),
        ("PTR", ["host.test."], "host.test."),
    ],
)
async def test_each_type_of_record_is_compared_by_meaning(check, dns_server, kind, records, expected):
    dns_server.zone["typed.test", kind] = records
    answer = await check("/typed.test", query_type=kind, expected_answer=expected)
    assert len(answer.details["answers"]) == len(records)


async def test_one_of_several_expected_answers_suffices(check):
    await check(expected_answer=["192.0.2.200", "192.0.2.1"])


async def test_any_type_takes_what_there_is(check):
    assert (await check(query_type="ANY")).details["answers"] == ["192.0.2.1"]


async def test_the_question_comes_from_the_options_or_from_the_url(check, dns_server):
    dns_server.zone["other.test", "TXT"] = ['"x"']
    await check("/other.test?type=txt")
    await check("", query_name="other.test", query_type="txt")
    await check("/example.test?type=A", query_name="other.test", query_type="TXT")
    assert [name for _, name, _ in dns_server.asked] == ["other.test"] * 3


async def test_an_address_is_asked_for_its_name_in_reverse(check, dns_server):
    dns_server.zone["1.2.0.192.in-addr.arpa", "PTR"] = ["host.test."]
    await check("", query_name="192.0.2.1", query_type="PTR", expected_answer="host.test")


async def test_an_alias_is_followed_in_the_answer(check, dns_server):
    dns_server.zone["www.test", "CNAME"] = ["real.test."]
    dns_server.zone["www.test", "A"] = ["192.0.2.5"]
    await check("/www.test", expected_answer="192.0.2.5")


async def test_records_that_a_server_rotates_look_the_same(check, dns_server):
    dns_server.zone["example.test", "A"] = ["192.0.2.1", "192.0.2.2"]
    first = await check()
    dns_server.zone["example.test", "A"] = ["192.0.2.2", "192.0.2.1"]
    assert (await check()).details == first.details


async def test_a_pattern_is_searched_in_all_answers(check, failure, dns_server):
    dns_server.zone["example.test", "A"] = ["192.0.2.1", "198.51.100.4"]
    await check("/example.test", r"(?m)^198\.51")
    await check("/example.test", r"192.*\n198")
    assert await failure("/example.test", "203") == (
        FailureKind.PATTERN,
        "example.test A is 192.0.2.1, 198.51.100.4, which does not match '203'",
    )


async def test_a_truncated_answer_is_asked_for_again_over_tcp(check, dns_server):
    dns_server.large.add("example.test")
    await check(expected_answer="192.0.2.1")
    assert [transport for transport, *_ in dns_server.asked] == ["udp", "tcp"]


async def test_tcp_alone_can_be_wished_for(check, dns_server):
    await check(transport="tcp")
    assert [transport for transport, *_ in dns_server.asked] == ["tcp"]


# Wrong answers


@pytest.mark.parametrize(
    ("rcode", "words"),
    [
        ("NXDOMAIN", "the name does not exist"),
        ("SERVFAIL", "the server could not find out"),
        ("REFUSED", "the server does not answer this question for us"),
    ],
)
async def test_each_other_response_code_is_told_in_words(failure, dns_server, rcode, words):
    dns_server.rcodes["example.test"] = rcode
    assert await failure() == (
        FailureKind.STATUS,
        f"127.0.0.1:{dns_server.port} says {rcode} ({words}) to example.test A, expected NOERROR",
    )


async def test_another_response_code_can_be_what_is_expected(check, failure, dns_server):
    dns_server.rcodes["gone.test"] = "NXDOMAIN"
    await check("/gone.test", expected_rcode="nxdomain")
    kind, message = await failure("/example.test", expected_rcode="NXDOMAIN")
    assert kind is FailureKind.STATUS
    assert message.endswith("says NOERROR to example.test A, expected NXDOMAIN")


async def test_an_empty_answer_is_told_apart(failure, dns_server):
    assert await failure("/example.test?type=AAAA") == (
        FailureKind.CONTENT,
        "NOERROR but no AAAA record for example.test",
    )
    dns_server.zone["www.test", "CNAME"] = ["nowhere.test."]
    assert await failure("/www.test") == (
        FailureKind.CONTENT,
        "NOERROR but no A record for www.test, only an alias to nowhere.test.",
    )


async def test_a_wrong_answer_is_shown_beside_the_expected_one(failure):
    assert await failure(expected_answer=["192.0.2.9", "192.0.2.8"]) == (
        FailureKind.CONTENT,
        "example.test A is 192.0.2.1, expected 192.0.2.9 or 192.0.2.8",
    )


async def test_a_malformed_answer_is_a_protocol_failure(failure, dns_server):
    # The header announces a record; what follows is none.
    def cut(query):
        answer = dns_server.answer(query)
        return [answer[:-20]]

    dns_server.odd["example.test"] = cut
    kind, message = await failure()
    assert kind is FailureKind.PROTOCOL
    assert "sent a malformed answer" in message


async def test_records_with_control_characters_are_harmless_in_messages(failure, dns_server):
    dns_server.zone["evil.test", "TXT"] = ['"a\\027[31m\\010b"']
    _, message = await failure("/evil.test?type=TXT", expected_answer='"x"')
    assert message.isprintable()


async def test_a_server_that_sends_only_garbage_is_waited_for_and_the_reason_kept(check, dns_server):
    dns_server.odd["example.test"] = lambda query: [b"garbage garbage", dns_server.answer(b"\0\0" + query[2:])]
    with pytest.raises(TimeoutError):
        await check(seconds=0.5)
    server = f"127.0.0.1:{dns_server.port}"
    assert check.context.doing == f"waiting for an answer from {server} (ignored: an answer with a wrong id, 2 times)"


async def test_a_silent_server_says_what_was_being_done(check, dns_server):
    dns_server.odd["example.test"] = lambda _query: []
    with pytest.raises(TimeoutError):
        await check(seconds=0.3)
    assert check.context.doing == f"waiting for an answer from 127.0.0.1:{dns_server.port}"


async def test_a_truncated_answer_without_tcp_behind_it_fails(network, failure, dns_server):
    dns_server.large.add("example.test")
    dns_server.odd_tcp["example.test"] = lambda _query: [b"\0\x40cut"]
    kind, message = await failure()
    assert kind is FailureKind.PROTOCOL
    assert "closed the TCP connection in the middle of its answer" in message


async def test_a_question_that_this_machine_could_not_send_is_not_held_against_the_server(network, dns_server):
    network.dns._pacers[4] = Pacer(lambda _query: False)
    context = ProbeContext(network, SYSTEM_CLOCK.monotonic() + 0.1)
    target = Target("dns://127.0.0.1/example.test", "127.0.0.1", dns_server.port, "/example.test")
    with pytest.raises(ProbeFailed) as caught:
        async with asyncio.timeout(0.1) as context.attempt:
            await DnsProbe().check(target, DnsOptions(), context)
    assert caught.value.kind is FailureKind.LOCAL
    assert "too busy to send" in caught.value.message


# What is refused when the endpoint is loaded


@pytest.mark.parametrize(
    ("path", "options", "field"),
    [
        ("", {}, "query_name"),
        ("/", {}, "query_name"),
        ("/a..b", {}, "url"),
        ("/example.test?type=NOPE", {}, "url"),
        ("/example.test?kind=A", {}, "url"),
        ("/example.test", {"expected_answer": ["192.0.2.1", "not an address"]}, "expected_answer.1"),
        ("/example.test", {"expected_answer": "192.0.2.1", "expected_rcode": "NXDOMAIN"}, "expected_answer"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(path, options, field):
    with pytest.raises(InvalidInputError) as caught:
        DnsProbe().validate(Target("dns://192.0.2.1" + path, "192.0.2.1", 53, path), DnsOptions(**options))
    assert [problem.field for problem in caught.value.problems] == [field]


@pytest.mark.parametrize(
    "options",
    [{"query_type": "NOPE"}, {"query_type": "AXFR"}, {"query_name": "a..b"}, {"query_name": "x" * 64 + ".test"},
     {"query_name": ""}, {"query_name": "a b"},
     {"expected_rcode": "FINE"}, {"transport": "carrier pigeon"}, {"name": "example.test"}],
)  # fmt: skip
def test_impossible_options_are_refused_when_loaded(options):
    with pytest.raises(ValidationError):
        DnsOptions(**options)


def test_options_are_kept_in_their_usual_spelling():
    options = DnsOptions(query_type="mx", expected_rcode="servfail", expected_answer="10 a.test.")
    assert options.model_dump(mode="json", exclude_defaults=True) == {
        "query_type": "MX",
        "expected_rcode": "SERVFAIL",
        "expected_answer": ["10 a.test."],
    }


@pytest.mark.parametrize("given", ["192.0.2.1", ["192.0.2.1"]])
def test_one_expected_answer_may_stand_alone_in_strict_json_too(given):
    read = DnsOptions.model_validate_json(json.dumps({"expected_answer": given}), strict=True)
    assert read.expected_answer == ("192.0.2.1",)


def answered(query: bytes, *records: str) -> bytes:
    """An answer with these records, each written with its name and type: ``a.test A 192.0.2.1``."""
    response = dns.message.make_response(dns.message.from_wire(query))
    for record in records:
        name, kind, text = record.split(" ", 2)
        response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, text))
    return response.to_wire(max_size=65_535)


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (["evil.test. A 192.0.2.1"], "NOERROR but no A record for example.test, only of evil.test."),
        (
            ["example.test. CNAME b.test.", "x.test. A 192.0.2.1"],
            "NOERROR but no A record for example.test, only an alias to b.test., only of x.test.",
        ),
        (
            ["example.test. CNAME b.test.", "b.test. CNAME EXAMPLE.test.", "b.test. A 192.0.2.1"],
            "sent a malformed answer: its aliases lead in a circle",
        ),
    ],
)
async def test_records_of_names_for_which_nobody_asked_are_no_answer(failure, dns_server, records, words):
    dns_server.odd["example.test"] = lambda query: [answered(query, *records)]
    kind, message = await failure(expected_answer=["192.0.2.1"])
    assert kind in {FailureKind.CONTENT, FailureKind.PROTOCOL}
    assert words in message


async def test_a_long_way_of_aliases_in_any_order_and_case_is_gone(check, dns_server):
    records = ["c.test. A 192.0.2.1", "b.Test. CNAME C.test.", "Example.TEST. CNAME B.test."]
    dns_server.odd["example.test"] = lambda query: [answered(query, *records)]
    assert (await check()).details["answers"] == ["192.0.2.1"]


@pytest.mark.parametrize("rcode", ["FORMERR", "NOTIMP"])
async def test_a_server_that_knows_no_edns_is_asked_without_it(check, failure, dns_server, rcode):
    asked = []

    def answer(query: bytes) -> list[bytes]:
        message = dns.message.from_wire(query)
        asked.append(message.edns)
        if message.edns < 0:
            return [dns_server.answer(query)]
        return [query[:2] + bytes([0x81, dns.rcode.from_text(rcode)]) + bytes(8)]

    dns_server.odd["example.test"] = answer
    assert (await check()).details["answers"] == ["192.0.2.1"]
    assert asked == [0, -1]
    assert (await check(expected_rcode=rcode)).details["rcode"] == rcode
    assert (await failure(dnssec=True))[0] is FailureKind.STATUS
    assert asked == [0, -1, 0, 0]


async def test_thousands_of_records_are_read_beside_the_loop_and_not_remembered(check, dns_server, monkeypatch):
    records = [f"example.test. A 10.0.{number // 250}.{number % 250}" for number in range(3000)]

    def answer(query: bytes) -> list[bytes]:
        octets = answered(query, *records)
        return [len(octets).to_bytes(2, "big") + octets]

    dns_server.odd_tcp["example.test"] = answer
    threads, remembered = [], _remembered.cache_info().currsize

    def read(*what) -> Parsed:
        threads.append(threading.current_thread())
        return parse_answer(*what)

    monkeypatch.setattr("servmon.probes.dns.parse_answer", read)
    assert len((await check(transport="tcp", seconds=20, min_answers=1000)).details["answers"]) == 20
    assert threads != [threading.current_thread()]
    assert _remembered.cache_info().currsize == remembered
    await check()
    assert threads[1:] == [threading.current_thread()]


def test_the_same_bytes_are_read_only_once():
    wire = bytes.fromhex("818000010001000000000178047465737400000100010178047465737400000100010000003c0004c0000201")
    assert parse_answer(wire, 1) is parse_answer(wire, 1)
    assert parse_answer(wire, 1).texts == ["192.0.2.1"]


# What else can be expected of an answer


@pytest.mark.parametrize(
    ("match", "expected", "good"),
    [
        ("any", ["192.0.2.1", "192.0.2.77"], True),
        ("any", ["192.0.2.77"], False),
        ("all", ["192.0.2.1"], True),
        ("all", ["192.0.2.2", "192.0.2.1"], True),
        ("all", ["192.0.2.1", "192.0.2.77"], False),
        ("exact", ["192.0.2.2", "192.0.2.1"], True),
        ("exact", ["192.0.2.1"], False),
    ],
)
async def test_expected_answers_are_some_all_or_all_there_are(check, dns_server, match, expected, good):
    dns_server.zone["two.test", "A"] = ["192.0.2.1", "192.0.2.2"]
    if good:
        await check("/two.test", expected_answer=expected, answer_match=match)
        return
    with pytest.raises(ProbeFailed, match=r"two\.test A is 192\.0\.2\.1, 192\.0\.2\.2, expected ") as failed:
        await check("/two.test", expected_answer=expected, answer_match=match)
    assert failed.value.kind is FailureKind.CONTENT


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"min_answers": 2, "max_answers": 2}, None),
        ({"min_answers": 3}, "two.test A has 2 records, expected at least 3"),
        ({"max_answers": 1}, "two.test A has 2 records, expected at most 1"),
    ],
)
async def test_records_are_counted(check, failure, dns_server, options, complaint):
    dns_server.zone["two.test", "A"] = ["192.0.2.1", "192.0.2.2"]
    if complaint is None:
        await check("/two.test", **options)
    else:
        assert await failure("/two.test", **options) == (FailureKind.CONTENT, complaint)


async def test_an_empty_answer_can_be_what_is_expected(check, failure):
    answer = await check("/nothing.test", min_answers=0, max_answers=0)
    assert answer.details["answers"] == []
    assert (await failure("/example.test", min_answers=0, max_answers=0))[0] is FailureKind.CONTENT


@pytest.mark.parametrize(
    ("serial", "least", "good"),
    [
        (2026112401, 2026112401, True),
        (2026112402, 2026112401, True),
        (2026112400, 2026112401, False),
        (3, 4294967290, True),
        (4294967290, 3, False),
    ],
)
async def test_a_zone_must_have_reached_its_serial_which_goes_round(check, failure, dns_server, serial, least, good):
    dns_server.zone["zone.test", "SOA"] = [f"ns.zone.test. admin.zone.test. {serial} 3600 600 86400 60"]
    if good:
        await check("/zone.test?type=SOA", min_serial=least)
    else:
        words = f"zone.test has the serial {serial}, expected {least} or later"
        assert await failure("/zone.test?type=SOA", min_serial=least) == (FailureKind.CONTENT, words)


async def test_authority_can_be_demanded(check, failure, dns_server):
    kind, words = await failure(authoritative=True)
    assert kind is FailureKind.CONTENT
    assert "answers example.test A without authority (AA is not set)" in words
    dns_server.flags = dns.flags.AA
    await check(authoritative=True)


async def test_a_verified_answer_can_be_demanded_and_is_asked_for(check, failure, dns_server):
    asked = []
    dns_server.odd["example.test"] = lambda wire: [asked.append(wire) or dns_server.answer(wire)]
    kind, words = await failure(authenticated=True)
    assert kind is FailureKind.CONTENT
    assert "does not vouch for example.test A (AD is not set)" in words
    dns_server.flags = dns.flags.AD
    await check(authenticated=True, dnssec=True)
    first, second = (dns.message.from_wire(wire) for wire in asked)
    assert (bool(first.flags & dns.flags.AD), bool(first.ednsflags & dns.flags.DO)) == (True, False)
    assert bool(second.ednsflags & dns.flags.DO)


async def test_the_servers_name_for_itself_is_kept_when_asked_for(check, dns_server):
    dns_server.nsid = b"fra-3\x1b"
    assert "nsid" not in (await check()).details
    assert (await check(nsid=True)).details["nsid"] == "fra-3\\x1b"
    dns_server.nsid = b"\xff\x00"
    assert (await check(nsid=True)).details["nsid"] == "ff00"


@pytest.mark.parametrize(
    ("path", "options", "field"),
    [
        ("/a.test", {"min_serial": 1}, "min_serial"),
        ("/a.test", {"min_answers": 3, "max_answers": 2}, "max_answers"),
        ("/a.test", {"expected_rcode": "NXDOMAIN", "max_answers": 2}, "max_answers"),
        ("/a.test", {"tls_verify": False}, "tls_verify"),
        ("/a.test", {"answer_match": "all"}, "answer_match"),
        ("/a.test", {"expected_answer": ["192.0.2.1"], "min_answers": 0, "max_answers": 0}, "max_answers"),
        (
            "/a.test",
            {"expected_answer": ["192.0.2.1", "192.0.2.2"], "answer_match": "all", "max_answers": 1},
            "max_answers",
        ),
        ("/a.test", {"expected_answer": ["192.0.2.1"], "answer_match": "exact", "min_answers": 2}, "min_answers"),
        ("/a.test", {"transport": "tcp", "tls_server_name": "a.test"}, "tls_server_name"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(path, options, field):
    with pytest.raises(InvalidInputError) as refused:
        DnsProbe().validate(Target(path, "127.0.0.1", 53, path), DnsOptions(**options))
    assert [problem.field for problem in refused.value.problems] == [field]


# DNS over TLS


@pytest.fixture
async def tls_server(trusted):
    server = DnsServer()
    server.zone["example.test", "A"] = ["192.0.2.1"]
    await server.start("127.0.0.1", tls=server_tls(trusted, "dns.example.com"))
    yield server
    await server.stop()


async def test_over_tls_the_certificate_is_verified(check, failure, dns_server, tls_server):
    check.port = tls_server.port
    assert (await check(transport="tls", tls_server_name="dns.example.com")).details["answers"] == ["192.0.2.1"]
    kind, words = await failure(transport="tls")
    assert kind is FailureKind.TLS
    wrong = "its certificate is for another address than 127.0.0.1: it is for dns.example.com"
    assert words == f"127.0.0.1:{tls_server.port}: {wrong}"
    await check(transport="tls", tls_verify=False)
    assert {transport for transport, *_ in tls_server.asked} == {"tcp"}


async def test_a_server_without_tls_is_told_apart(failure, check, tcp_server):
    server = await tcp_server(greets(b"SSH-2.0-OpenSSH_9.2\r\n"))
    check.port = server.port
    kind, words = await failure(transport="tls")
    assert (kind, words) == (
        FailureKind.TLS,
        f"127.0.0.1:{server.port}: no TLS connection: it does not speak TLS on this port",
    )


def test_over_tls_the_usual_port_is_853():
    tls, plain = DnsOptions(transport="tls"), DnsOptions()
    assert [_port(Target("", "a", port), tls) for port in (None, 53, 8853)] == [853, 853, 8853]
    assert [_port(Target("", "a", port), plain) for port in (None, 53, 5353)] == [53, 53, 5353]
