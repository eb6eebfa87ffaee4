"""HTTP and HTTPS: every option, every kind of failure, and servers that are odd."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import tracemalloc
import zlib

import pytest
import trustme
import uvloop

from servmon.errors import InvalidInputError
from servmon.model import FailureKind
from servmon.probes import pattern
from servmon.probes.base import ProbeFailed
from servmon.probes.http_body import Body
from servmon.probes.network import Network
from servmon.probes.specification import EndpointDefaults, parse_endpoint
from tests.fix_servers import (
    Page,
    TcpServer,
    check_once,
    closes_at_once,
    free_port,
    greets,
    is_endless,
    is_silent,
    open_files,
    patience,
    resets,
    says,
    server_tls,
    settled,
    trickles,
)

OK = b"HTTP/1.1 200 OK\r\n"


async def failure(asked) -> ProbeFailed:
    with pytest.raises(ProbeFailed) as failed:
        await asked
    return failed.value


async def test_a_good_answer_is_told_with_its_phases(check, web_server):
    server = await web_server()
    answer = await check(server.url)
    assert answer.details == {"status_code": 200, "address": "127.0.0.1"}
    phases = answer.phases
    assert phases.dns_ms is None
    assert phases.tls_ms is None
    assert answer.response_ms == pytest.approx(phases.connect_ms + phases.first_byte_ms + phases.transfer_ms)
    assert server.requests[0].headers["User-Agent"].startswith("servmon/")
    assert server.requests[0].headers["Host"] == f"127.0.0.1:{server.port}"


async def test_names_are_resolved_by_ours_and_the_host_header_keeps_them(check, web_server):
    server = await web_server()
    answer = await check(f"http://localhost:{server.port}/?a=b%20c#part")
    assert answer.details["address"] == "127.0.0.1"
    assert answer.phases.dns_ms > 0
    assert server.requests[0].headers["Host"] == f"localhost:{server.port}"
    assert server.requests[0].path == "/?a=b%20c"


async def test_ipv6(check, web_server):
    server = await web_server(host="::1")
    assert (await check(server.url)).details["address"] == "::1"
    assert server.requests[0].headers["Host"] == f"[::1]:{server.port}"


async def test_every_check_has_a_connection_of_its_own(check, tcp_server):
    server = await tcp_server(says(OK + b"Content-Length: 0\r\n\r\n", then=is_silent))
    for _ in range(3):
        await check(f"http://127.0.0.1:{server.port}")
    assert server.accepted == 3


@pytest.mark.parametrize("method", ["GET", "head", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_the_method_is_as_asked(check, web_server, method):
    server = await web_server()
    await check(server.url, method=method)
    assert server.requests[0].method == method.upper()


async def test_headers_and_body_are_sent(check, web_server):
    server = await web_server()
    headers = {"X-Token": "a b", "Host": "www.example", "user-agent": "curl"}
    await check(server.url, method="POST", headers=headers, body="grüße")
    request = server.requests[0]
    assert request.body == "grüße".encode()
    received = {name.lower(): text for name, text in request.headers.items()}
    assert (received["x-token"], received["host"], received["user-agent"]) == ("a b", "www.example", "curl")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 204),
        ({"expected_status_code": 404}, 404),
        ({"expected_status_code": 302}, 302),
        ({"expected_status": "200-299, 401"}, 401),
        ({"expected_status": 503}, 503),
    ],
)
async def test_an_expected_status_is_up(check, web_server, fields, status):
    server = await web_server()
    server.pages["/"] = Page(status, "", {"Location": "/elsewhere"})
    assert (await check(server.url, **fields)).details["status_code"] == status
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({}, 503, "expected 200-299, got 503 Service Unavailable"),
        ({"expected_status_code": 200}, 201, "expected 200, got 201 Created"),
        ({"expected_status": "200,301-302"}, 404, "expected 200,301-302, got 404 Not Found"),
        ({"follow_redirects": 0}, 301, "expected 200-299, got 301 Moved Permanently"),
    ],
)
async def test_another_status_is_a_failure_that_has_a_response_time(check, web_server, fields, status, message):
    server = await web_server()
    server.pages["/"] = Page(status, "", {"Location": "/"})
    failed = await failure(check(server.url, **fields))
    assert failed.kind is FailureKind.STATUS
    assert failed.message == message
    assert failed.response_ms > 0
    assert failed.phases.first_byte_ms > 0
    assert failed.details == {"status_code": status, "address": "127.0.0.1"}


async def test_the_pattern_is_searched_in_the_body(check, web_server):
    server = await web_server()
    server.pages["/"] = Page(body='{"status": "UP"}')
    await check(server.url, expected_response_pattern=r'"status":\s*"UP"')
    failed = await failure(check(server.url, expected_response_pattern="DOWN$"))
    assert failed.kind is FailureKind.PATTERN
    assert failed.message == "the answer does not match 'DOWN$'"
    assert failed.response_ms > 0


@pytest.mark.parametrize(
    "charset",
    ["utf-8", "latin-1", "no-such-charset", "punycode", "-punycode", "-idna", "raw-unicode-escape", "unicode:escape"],
)
async def test_the_body_is_read_in_its_charset(check, web_server, charset):
    server = await web_server()
    body = "grüße".encode("latin-1" if charset == "latin-1" else "utf-8")
    server.pages["/"] = Page(body=body, headers={"Content-Type": f"text/plain; charset={charset}"})
    await check(server.url, expected_response_pattern="^grüße$")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
async def test_a_mark_of_the_encoding_counts_for_more_than_the_head_and_is_no_text(check, web_server, encoding):
    server = await web_server()
    server.pages["/"] = Page(
        body='{"up": "grün"}'.encode(encoding), headers={"Content-Type": "text/plain; charset=latin1"}
    )
    await check(server.url, expected_response_pattern='^."up": "grün"}$', expected_json={"up": "grün"})


@pytest.mark.parametrize("charset", ["-punycode", "-idna", "raw:unicode:escape", "x--unicode--escape", "punycode"])
def test_no_codec_is_used_that_no_page_is_written_in(charset):
    body = Body("", 100)
    body.add(b"wel\\u0063ome-9ab", "a.test")
    assert body.text(f"text/html; charset={charset}") == "wel\\u0063ome-9ab"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"welcome", mtime=0)),
        ("deflate", zlib.compress(b"welcome")),
        ("Deflate", zlib.compress(b"welcome")[2:-4]),
        ("identity", b"welcome"),
        ("gzip", gzip.compress(b"wel", mtime=0) + gzip.compress(b"come", mtime=0)),
        # What browsers show all the same: something behind the end, and words that are no encoding.
        ("gzip", gzip.compress(b"welcome", mtime=0) + b"\0" * 16),
        ("gzip", gzip.compress(b"welcome", mtime=0) + b"\n"),
        ("deflate", zlib.compress(b"welcome") + b"\x1f\x8b"),
        ("utf-8", b"welcome"),
        ("none", b"welcome"),
    ],
)
async def test_a_compressed_body_is_searched_as_it_reads(check, tcp_server, encoding, body):
    head = f"Content-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    server = await tcp_server(says(OK + head + body))
    await check(f"http://127.0.0.1:{server.port}", expected_response_pattern="^welcome$")


@pytest.mark.parametrize("rest", [b"\n" * 9, gzip.compress(b"!", mtime=0)])
def test_what_comes_behind_a_compressed_body_may_come_byte_by_byte(rest):
    body = Body("gzip", 100)
    for octet in gzip.compress(b"welcome", mtime=0) + rest:
        body.add(bytes([octet]), "a.test")
    assert body.decoded == (b"welcome" if rest.isspace() else b"welcome!")
    assert not body.is_cut_off


@pytest.mark.parametrize(
    ("encoding", "words"),
    [("gzip", "not gzip, as its head says"), ("br", "encoded as br"), ("gzip, br", "encoded as gzip, br")],
)
async def test_a_body_that_cannot_be_decoded_matters_only_to_a_pattern(check, tcp_server, encoding, words):
    server = await tcp_server(says(OK + f"Content-Encoding: {encoding}\r\nContent-Length: 4\r\n\r\noops".encode()))
    await check(f"http://127.0.0.1:{server.port}")
    failed = await failure(check(f"http://127.0.0.1:{server.port}", expected_response_pattern="x"))
    assert failed.kind is FailureKind.PROTOCOL
    assert words in failed.message


async def test_no_more_than_a_mebibyte_is_read_and_searched(check, web_server):
    server = await web_server()
    server.pages["/"] = Page(body=b"a" * (1 << 20) + b"end")
    await check(server.url)
    await check(server.url, expected_response_pattern="^aaa")
    assert (await failure(check(server.url, expected_response_pattern="end"))).kind is FailureKind.PATTERN


async def test_a_catastrophic_pattern_stops_nothing_and_is_our_own_failure(check, web_server, monkeypatch):
    monkeypatch.setattr(pattern, "SEARCH_SECONDS", 0.9)
    server = await web_server()
    server.pages["/"] = Page(body="a" * 5000)
    longest, last = 0.0, asyncio.get_running_loop().time()
    asked = asyncio.gather(check(server.url, timeout=0.6, expected_response_pattern="(a+)+b"), return_exceptions=True)
    while not asked.done():
        await asyncio.sleep(0.01)
        now = asyncio.get_running_loop().time()
        longest, last = max(longest, now - last), now
    (failed,) = asked.result()
    assert failed.kind is FailureKind.LOCAL
    assert failed.message.startswith("the pattern '(a+)+b' takes too long to search")
    assert longest < pattern.SEARCH_SECONDS
    await check(server.url, expected_response_pattern="(a+)+$")


# Redirects


async def test_redirects_are_followed_and_told(check, web_server):
    server, other = await web_server(), await web_server(host="127.0.0.2")
    server.pages["/"] = Page(301, headers={"Location": "/next"})
    server.pages["/next"] = Page(307, headers={"Location": f"{other.url}/end"})
    other.pages["/end"] = Page(body="there")
    answer = await check(server.url, expected_response_pattern="there")
    assert answer.details == {
        "status_code": 200,
        "address": "127.0.0.2",
        "redirects": [f"{server.url}/next", f"{other.url}/end"],
    }


@pytest.mark.parametrize(("limit", "asked"), [(None, 6), (2, 3)])
async def test_a_loop_ends_at_the_limit(check, web_server, limit, asked):
    server = await web_server()
    server.pages["/"] = Page(302, headers={"Location": "/"})
    failed = await failure(check(server.url, follow_redirects=limit))
    assert failed.kind is FailureKind.PROTOCOL
    assert failed.message == f"gave up after {asked - 1} redirects, the next one to /"
    assert len(server.requests) == asked


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "javascript:alert(1)",
        "gopher://x/",
        "http://0x7f.1/",
        "http://[::1/",
        "http://127.0.0.1:99999/",
        "data:,x",
        "http://a b/",
    ],
)
async def test_only_http_is_followed_and_only_to_sound_places(check, web_server, location):
    server = await web_server()
    server.pages["/"] = Page(302, headers={"Location": location})
    failed = await failure(check(server.url))
    assert failed.kind is FailureKind.PROTOCOL
    assert failed.message.startswith(f"redirected to {location!r}: ")


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [(301, "POST", "GET"), (303, "PUT", "GET"), (303, "HEAD", "HEAD"), (307, "POST", "POST"), (308, "PUT", "PUT")],
)
async def test_the_method_after_a_redirect_is_as_in_rfc_9110(check, web_server, status, method, then):
    server = await web_server()
    server.pages |= {"/": Page(status, headers={"Location": "/next"}), "/next": Page()}
    await check(server.url, method=method, **({} if method == "HEAD" else {"body": "x"}))
    assert (server.requests[1].method, server.requests[1].body) == (then, b"x" if then in {"POST", "PUT"} else b"")


async def test_headers_go_to_no_other_server(check, web_server):
    server, other = await web_server(), await web_server(host="127.0.0.2")
    server.pages |= {"/": Page(302, headers={"Location": "/same"}), "/same": Page(302, headers={"Location": other.url})}
    await check(server.url, headers={"Authorization": "Bearer secret"})
    assert [request.headers.get("Authorization") for request in server.requests] == ["Bearer secret"] * 2
    assert "Authorization" not in other.requests[0].headers


async def test_a_redirect_without_a_place_is_judged_by_its_status(check, web_server):
    server = await web_server()
    server.pages["/"] = Page(302, "")
    assert (await failure(check(server.url))).message == "expected 200-299, got 302 Found"


# TLS


async def test_a_trusted_certificate_is_up_with_the_time_of_its_handshake(check, web_server, trusted):
    server = await web_server(tls=server_tls(trusted, "localhost"))
    answer = await check(f"https://localhost:{server.port}")
    assert answer.phases.tls_ms > 0
    assert answer.response_ms > answer.phases.tls_ms


async def test_an_address_can_have_a_certificate_too(check, web_server, trusted):
    server = await web_server(tls=server_tls(trusted, "127.0.0.1"))
    await check(server.url)


async def test_a_redirect_from_http_to_https_is_verified(check, web_server, trusted):
    plain, secure = await web_server(), await web_server(tls=server_tls(trusted, "localhost"))
    plain.pages["/"] = Page(301, headers={"Location": f"https://localhost:{secure.port}/"})
    answer = await check(plain.url)
    assert answer.phases.tls_ms > 0
    plain.pages["/"] = Page(301, headers={"Location": secure.url})
    assert (await failure(check(plain.url))).kind is FailureKind.TLS


YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)  # noqa: TID251 - certificates read the wall


@pytest.mark.parametrize(
    ("certificate", "message"),
    [
        (lambda _ca: server_tls(trustme.CA(), "localhost"), "its certificate is not trusted: "),
        (lambda ca: server_tls(ca, "localhost", not_after=YESTERDAY), "its certificate has expired"),
        (lambda ca: server_tls(ca, "elsewhere.test"), "its certificate is for another name than localhost"),
    ],
    ids=["untrusted", "expired", "another name"],
)
async def test_a_bad_certificate_is_a_failure_in_words_unless_nobody_asks(
    check, web_server, trusted, certificate, message
):
    server = await web_server(tls=certificate(trusted))
    url = f"https://localhost:{server.port}"
    failed = await failure(check(url))
    assert failed.kind is FailureKind.TLS
    assert failed.message.startswith(f"127.0.0.1:{server.port}: {message}")
    await check(url, tls_verify=False)


async def test_tls_with_a_port_that_speaks_none(check, tcp_server):
    server = await tcp_server(greets(b"SSH-2.0-OpenSSH_9.6\r\n"))
    failed = await failure(check(f"https://127.0.0.1:{server.port}"))
    assert failed.kind is FailureKind.TLS
    assert failed.message == f"127.0.0.1:{server.port}: no TLS connection: it does not speak TLS on this port"


@pytest.mark.parametrize(
    ("alert", "words"),
    [
        (70, "it does not accept our TLS versions"),
        (112, "it does not know this name"),
        (40, "no cipher in common, or it wants a client certificate"),
    ],
)
async def test_a_server_that_declines_tls_is_told_in_words(check, tcp_server, alert, words):
    server = await tcp_server(greets(b"\x15\x03\x01\0\2\2" + bytes([alert])))
    failed = await failure(check(f"https://localhost:{server.port}"))
    assert failed.kind is FailureKind.TLS
    assert words in failed.message


@pytest.mark.parametrize("behaviour", [closes_at_once, resets])
async def test_a_connection_broken_off_during_the_handshake(check, tcp_server, behaviour):
    server = await tcp_server(behaviour)
    failed = await failure(check(f"https://127.0.0.1:{server.port}"))
    assert failed.kind is FailureKind.RESET
    assert failed.message == f"127.0.0.1:{server.port} broke off the connection during the TLS handshake"


async def test_a_silent_handshake_ends_at_the_limit(check, tcp_server):
    server = await tcp_server(is_silent)
    with pytest.raises(TimeoutError):
        await check(f"https://127.0.0.1:{server.port}", timeout=0.2)


async def test_a_server_that_says_no_good_bye_keeps_nothing_open(check, tcp_server, trusted, network):
    answer = OK + b"Content-Length: 2\r\n\r\nok"
    server = await tcp_server(says(answer, then=is_silent), tls=server_tls(trusted, "127.0.0.1"))
    before = open_files()
    await check(f"https://127.0.0.1:{server.port}")
    await settled(lambda: open_files() == before and server.accepted == 1)


# Odd servers


async def test_a_closed_port_refuses(check):
    port = free_port()
    failed = await failure(check(f"http://127.0.0.1:{port}"))
    assert (failed.kind, failed.message) == (FailureKind.REFUSED, f"127.0.0.1:{port} refused the connection")


async def test_a_name_that_does_not_exist_is_said_so(network, dns_server):
    dns_server.rcodes["missing.test"] = "NXDOMAIN"
    async with Network(nameservers=[f"127.0.0.1:{dns_server.port}"]) as asking:
        failed = await failure(check_once(asking, "http://missing.test/", 2))
    assert (failed.kind, failed.message) == (FailureKind.DNS, "name does not exist: NXDOMAIN for missing.test")


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        (says(b""), FailureKind.PROTOCOL, "closed the connection without an answer"),
        (resets, FailureKind.RESET, "reset the connection before it had answered"),
        (greets(b"SSH-2.0-OpenSSH_9.6\r\n"), FailureKind.PROTOCOL, "did not answer in HTTP"),
        (greets(b"220 mail.example ESMTP\r\n\r\n"), FailureKind.PROTOCOL, "did not answer in HTTP"),
        (greets(b"\x15\x03\x03\0\2\2\x28"), FailureKind.PROTOCOL, "it speaks TLS on this port"),
        (says(OK + b"X: " + b"x" * 2_000_000 + b"\r\n\r\n"), FailureKind.PROTOCOL, "did not answer in HTTP"),
        (says(OK + b"Content-Length: 10\r\n\r\nshort"), FailureKind.PROTOCOL, "less came than its head announced"),
        (says(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nwelcome"), FailureKind.PROTOCOL, "did not answer in HTTP"),
        (
            says(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nwelco\r\n"),
            FailureKind.PROTOCOL,
            "its last chunk did not come",
        ),
        (says(b"HTTP/1.1 abc\r\n\r\n"), FailureKind.PROTOCOL, "did not answer in HTTP"),
        (says(OK + b"Content-Length: -5\r\n\r\n"), FailureKind.PROTOCOL, "did not answer in HTTP"),
        (says(OK + b"Content-Length: 50\r\n\r\nx", then=resets), FailureKind.PROTOCOL, "broke off in the middle"),
    ],
    ids=[
        "closes",
        "resets",
        "ssh",
        "smtp",
        "TLS",
        "2 MB header",
        "truncated length",
        "bad chunk",
        "truncated chunks",
        "bad status",
        "negative length",
        "reset in the body",
    ],
)
async def test_what_is_no_sound_http_is_a_failure_in_words(check, tcp_server, behaviour, kind, words):
    server = await tcp_server(behaviour)
    failed = await failure(check(f"http://127.0.0.1:{server.port}"))
    assert failed.kind is kind
    assert failed.message.startswith(f"127.0.0.1:{server.port} ")
    assert words in failed.message
    assert "\n" not in failed.message


async def test_https_on_a_plain_request_is_said_so(check, tcp_server, trusted):
    server = await tcp_server(is_silent, tls=server_tls(trusted, "localhost"))
    failed = await failure(check(f"http://127.0.0.1:{server.port}"))
    assert failed.kind in {FailureKind.PROTOCOL, FailureKind.RESET}


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n\r\nwelcome",
        OK + b"Connection: close\r\n\r\nwelcome",
        OK + b"Transfer-Encoding: chunked\r\n\r\n7\r\nwelcome\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 7\r\n\r\nwelcome",
        b"HTTP/1.1 200\r\nContent-Length: 7\r\n\r\nwelcome",
    ],
    ids=["1.0", "until closed", "chunked", "100 before", "no reason"],
)
async def test_every_sound_way_to_send_a_body(check, tcp_server, answer):
    server = await tcp_server(says(answer))
    await check(f"http://127.0.0.1:{server.port}", expected_response_pattern="^welcome$")


@pytest.mark.parametrize("behaviour", [is_silent, says(OK, then=trickles), says(OK + b"\r\n", then=trickles)])
async def test_silence_and_trickling_end_at_the_limit(check, tcp_server, behaviour):
    server = await tcp_server(behaviour)
    async with patience():
        with pytest.raises(TimeoutError):
            await check(f"http://127.0.0.1:{server.port}", timeout=0.3)


async def test_an_endless_body_costs_little_memory(check, tcp_server):
    server = await tcp_server(says(OK + b"\r\n", then=is_endless))
    await check(f"http://127.0.0.1:{server.port}")
    tracemalloc.start()
    await check(f"http://127.0.0.1:{server.port}", expected_response_pattern="^x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


async def test_a_bomb_costs_little_memory(check, tcp_server):
    bomb = gzip.compress(b"\0" * 100_000_000)
    answer = OK + b"Content-Encoding: gzip\r\nContent-Length: " + str(len(bomb)).encode() + b"\r\n\r\n" + bomb
    server = await tcp_server(says(answer))
    tracemalloc.start()
    await check(f"http://127.0.0.1:{server.port}", expected_response_pattern=r"^\0")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


# Options


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"expected_status": "200", "expected_status_code": 200}, "expected_status: excludes expected_status_code"),
        ({"expected_status": "299-200"}, "expected_status: '299-200' is no range of status codes"),
        ({"expected_status": "20x"}, "expected_status: '20x' is no range of status codes; 200-299,301 would be right"),
        ({"expected_status": ""}, "expected_status: '' is no range"),
        ({"expected_status": True}, "expected_status: must be text, not true"),
        ({"method": "BREW"}, "method: must be 'GET', 'HEAD', "),
        ({"headers": {"a b": "x"}}, "headers: 'a b' cannot be the name of a header"),
        ({"headers": {"a": "x\r\ny: z"}}, "headers: the value of a must be one line"),
        ({"headers": {"Content-Length": "5"}}, "headers: Content-Length is set by servmon itself"),
        ({"headers": {"a": 5}}, "headers.a: must be text"),
        ({"headers": "a: b"}, "headers: must be a table of names and values"),
        ({"body": "x" * 65_537}, "body: is 65537 bytes; at most 65536 are sent"),
        ({"tls_verify": "yes"}, "tls_verify: must be true or false, not 'yes'"),
        ({"tls_verify": 1}, "tls_verify: must be true or false, not 1"),
        ({"follow_redirects": 21}, "follow_redirects: must be at most 20, not 21"),
        ({"follow_redirects": True}, "follow_redirects: must be a whole number, not true"),
        ({"follow_redirects": "5"}, "follow_redirects: must be a whole number, not '5'"),
        ({"method": "HEAD", "expected_response_pattern": "x"}, "expected_response_pattern: cannot be found"),
        ({"method": "HEAD", "body": "x"}, 'body: means nothing with method = "HEAD"'),
        ({"expected_status": "100,103-150"}, "expected_status: can never be met: what begins with 1 (but 101)"),
        ({"expected_status_code": 102}, "expected_status_code: can never be met"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "headers: holds the same header twice"),
        ({"headers": {"host": "a b"}}, "headers: the value of Host must be a host"),
        (
            {"inverted": True, "forbidden_response_pattern": "x"},
            "forbidden_response_pattern: means nothing with inverted",
        ),
        ({"inverted": True, "expected_status_code": 200}, "expected_status_code: means nothing with inverted = true"),
        ({"runbook_url": "ftp://x"}, "runbook_url: must be a URL that a browser can open"),
        ({"owner": "a\nb"}, "owner: must hold a visible character, and no control characters"),
        ({"contact": " "}, "contact: must hold a visible character"),
    ],
)
def test_bad_options_are_refused_when_the_endpoint_is_made(fields, sentence):
    with pytest.raises(InvalidInputError) as wrong:
        parse_endpoint({"url": "https://example.test/", **fields}, EndpointDefaults())
    assert str(wrong.value).startswith(sentence)
    assert len(wrong.value.problems) == 1


def test_what_means_something_is_taken():
    for fields in (
        {"expected_status": "101"},
        {"expected_status": "100-199"},
        {"inverted": True},
        {"inverted": False, "expected_status_code": 204},
        {"method": "HEAD", "expected_headers": {"Server": "x"}},
        {"headers": {"Host": "shop.example:8080"}},
    ):
        assert parse_endpoint({"url": "https://example.test/", **fields}, EndpointDefaults())


# Nothing stays behind


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_five_hundred_checks_cut_off_leave_nothing_behind(new_loop, scheme):
    async def main():
        server = TcpServer(is_silent)
        await server.start("0.0.0.0")
        async with Network() as network:
            await asyncio.gather(
                check_once(network, f"{scheme}://127.0.0.1:{server.port}", 0.1), return_exceptions=True
            )
            await settled(lambda: len(asyncio.all_tasks()) == 1)
            before = open_files()
            for _ in range(2):
                checks = (check_once(network, f"{scheme}://127.0.1.{n}:{server.port}", 0.5) for n in range(250))
                found = await asyncio.gather(*checks, return_exceptions=True)
                assert {type(error) for error in found} == {TimeoutError}
            await settled(lambda: open_files() <= before and len(asyncio.all_tasks()) == 1)
        await server.stop()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_good_and_failing_exchanges_leave_nothing_behind(new_loop, trusted):
    async def main():
        good = TcpServer(says(OK + b"Content-Length: 2\r\n\r\nok", then=is_silent))
        broken = TcpServer(says(OK + b"Content-Length: 9\r\n\r\nok"))
        secure = TcpServer(good.behaviour)
        await good.start("0.0.0.0")
        await broken.start("0.0.0.0")
        await secure.start("0.0.0.0", tls=server_tls(trusted, "localhost"))
        urls = [f"http://127.0.2.9:{good.port}", f"http://127.0.2.9:{broken.port}", f"https://127.0.2.9:{secure.port}"]
        async with Network() as network:
            before = None
            for _ in range(4):
                checks = (check_once(network, urls[n % 3], 5, tls_verify=n % 2 == 0) for n in range(60))
                await asyncio.gather(*checks, return_exceptions=True)
                await settled(lambda: len(asyncio.all_tasks()) == 1)
                before = before or open_files()
            await settled(lambda: open_files() <= before)
            assert network.slots.busy("127.0.2.9") == 0
        for server in (good, broken, secure):
            await server.stop()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
