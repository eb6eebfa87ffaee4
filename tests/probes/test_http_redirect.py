"""Redirects: where they lead, what goes along, and what is told where a server contradicts itself."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from servmon.model import FailureKind, Status
from servmon.probes.http_answer import HttpAnswer, Wanted
from servmon.probes.http_client import Place
from servmon.probes.http_cookies import Cookies
from servmon.probes.http_redirect import check_way
from servmon.probes.network import Network
from tests.fix_servers import Page, WebServer, check_once, is_silent, says, server_tls
from tests.probes.test_bad_weather import asked
from tests.probes.test_http import failure
from tests.probes.test_http_options import ask_from_file

HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
HOME = Place(True, "www.shop.test", 443, "/a/b?c")


def moved(*headers: bytes) -> bytes:
    return b"HTTP/1.1 302 Found\r\n" + b"".join(one + b"\r\n" for one in headers) + b"Content-Length: 0\r\n\r\n"


async def test_a_page_that_looks_for_its_cookie_finds_it(check, tcp_server):
    requests = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        known = b"cookie: mine=1; seen=yes\r\n" in requests[-1]
        writer.write(b"HTTP/1.1 204 OK\r\n\r\n" if known else moved(b"Location: /", b"Set-Cookie: seen=yes; HttpOnly"))

    server = await tcp_server(behave)
    answer = await check(f"http://127.0.0.1:{server.port}/", headers={"cookie": "mine=1"})
    assert answer.details["status_code"] == 204
    assert [request.lower().count(b"cookie:") for request in requests] == [1, 1]


async def test_cookies_go_to_who_set_them_and_the_endpoint_s_own_to_nobody_else(check, web_server):
    first, other = await web_server(), await web_server(host="127.0.0.2")
    first.pages["/"] = Page(302, headers={"Location": other.url, "Set-Cookie": "a=1"})
    other.pages["/"] = Page(302, headers={"Location": f"{first.url}/end", "Set-Cookie": "b=2"})
    first.pages["/end"] = Page()
    await check(first.url, headers={"Cookie": "secret=x"})
    assert [request.headers.get("Cookie") for request in first.requests] == ["secret=x", "a=1"]
    assert "Cookie" not in other.requests[0].headers


@pytest.mark.parametrize(
    ("cookie", "place", "told"),
    [
        (b"a=1", HOME, "a=1"),
        (b"a=1", HOME._replace(path="/a/x"), "a=1"),
        (b"a=1", HOME._replace(path="/ax"), ""),
        (b"a=1; Path=/", HOME._replace(path="/z", port=8443), "a=1"),
        (b"a=1; path=/a/b/", HOME, ""),
        (b"a=1; Path=/", HOME._replace(host="shop.test"), ""),
        (b"a=1; Path=/; Domain=.Shop.test", HOME._replace(host="shop.test"), "a=1"),
        (b"a=1; Path=/; Domain=shop.test", HOME._replace(host="pay.shop.test"), "a=1"),
        (b"a=1; Path=/; Domain=shop.test", HOME._replace(host="nshop.test"), ""),
        (b"a=1; Path=/; Domain=test", HOME, ""),
        (b"a=1; Domain=other.test", HOME._replace(host="other.test"), ""),
        (b"a=1; Secure", HOME._replace(secure=False), ""),
        (b"a=1; Max-Age=0", HOME, ""),
        (b"a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT", HOME, ""),
        (b"a=1; Expires=Thu, 01 Jan 2999 00:00:00 GMT", HOME, "a=1"),
        (b"a=1; Expires=soon", HOME, "a=1"),
        (b"a=", HOME, "a="),
        (b"=1", HOME, ""),
        (b"a", HOME, ""),
        (b"a=\xff", HOME, ""),
        (b"a=1\x0bX: y", HOME, ""),
        (b"a=" + b"x" * 5000, HOME, ""),
    ],
)
def test_a_cookie_is_kept_as_in_rfc_6265(cookie, place, told):
    cookies = Cookies()
    cookies.hear(HOME, [(b"set-cookie", cookie), (b"server", b"x")])
    assert cookies.line(place) == told


def test_cookies_are_replaced_taken_back_and_bounded():
    cookies = Cookies()
    cookies.hear(HOME, [(b"set-cookie", b"a=1; Path=/"), (b"set-cookie", b"a=2; Path=/"), (b"set-cookie", b"b=3")])
    assert cookies.line(HOME) == "b=3; a=2"
    cookies.hear(HOME, [(b"set-cookie", b"a=; Path=/; Max-Age=-1"), (b"set-cookie", b"b=; max-age=0")])
    assert cookies.line(HOME) == ""
    cookies.hear(HOME, [(b"set-cookie", b"c%d=x" % number) for number in range(1000)])
    assert cookies.line(HOME).count("=") == 50


async def test_cookies_of_an_address_are_its_own(check, web_server):
    first, other = await web_server(), await web_server(host="127.0.0.2")
    first.pages["/"] = Page(302, headers={"Location": other.url, "Set-Cookie": "a=1; Domain=0.0.1"})
    await check(first.url)
    assert "Cookie" not in other.requests[0].headers


async def test_a_client_certificate_is_shown_to_no_other_server(network, web_server, trusted, ca, tmp_path):
    def asks(*names: str) -> ssl.SSLContext:
        context = server_tls(trusted, *names)
        context.verify_mode = ssl.CERT_REQUIRED
        ca.configure_trust(context)
        return context

    ca.issue_cert("monitor.test").private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    first, other = await web_server(tls=asks("127.0.0.1")), await web_server(tls=asks("127.0.0.2"), host="127.0.0.2")
    first.pages["/same"] = Page(302, headers={"Location": "/"})
    first.pages["/other"] = Page(302, headers={"Location": other.url})
    mine = {"tls_certificate_file": str(tmp_path / "both.pem")}
    await ask_from_file(network, f"{first.url}/same", **mine)
    assert (await failure(ask_from_file(network, f"{first.url}/other", **mine))).kind in {
        FailureKind.TLS,
        FailureKind.RESET,
        FailureKind.PROTOCOL,
    }
    assert other.requests == []


def test_no_answer_from_outside_leads_to_what_only_this_machine_has(netns):
    """The API listens there, and in clouds so does what gives out their secrets."""

    async def main():
        outside, inside = WebServer(), WebServer()
        await outside.start("198.51.100.7")
        await inside.start("127.0.0.1")
        outside.pages["/"] = Page(302, headers={"Location": inside.url})
        inside.pages["/back"] = Page(302, headers={"Location": outside.url + "/end"})
        outside.pages["/end"] = Page()
        async with Network() as network:
            failed = await failure(check_once(network, outside.url, 5))
            await check_once(network, f"{inside.url}/back", 5)
        await outside.stop()
        await inside.stop()
        return failed, [request.path for request in inside.requests]

    netns.ip("addr add 198.51.100.7/32 dev lo")
    failed, requests = netns.run_async(main)
    assert failed.kind is FailureKind.PROTOCOL
    assert "127.0.0.1 is an address within this machine or its link" in failed.message
    assert requests == ["/back"]


@pytest.mark.parametrize(
    ("origin", "address", "allowed"),
    [
        ("192.0.2.1", "10.0.0.1", True),
        ("10.0.0.1", "192.0.2.1", True),
        ("127.0.0.1", "127.0.0.2", True),
        ("::1", "127.0.0.1", True),
        ("192.0.2.1", "169.254.169.254", False),
        ("10.0.0.1", "::ffff:127.0.0.1", False),
        ("2001:db8::1", "64:ff9b::a9fe:a9fe", False),
        ("2001:db8::1", "fe80::1%eth0", False),
        ("2001:db8::1", "::", False),
    ],
)
def test_which_way_a_redirect_may_lead(origin, address, allowed):
    if allowed:
        check_way(origin, address)
    else:
        with pytest.raises(ValueError, match="within this machine or its link"):
            check_way(origin, address)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([b"Location: "], "expected 200-299, got 302 Found"),
        ([b"Location: /a", b"Location: /b"], "redirected to several places at once: /a and /b"),
        (
            [b"Location: http://[fe80::1%25lo]/"],
            "redirected to 'http://[fe80::1%25lo]/': it names an interface of this",
        ),
        ([b"Location: http://127.0.0.1:0/"], "redirected to 'http://127.0.0.1:0/': nobody listens on port 0"),
        ([b"Location: http://\xe2\x98\x83..test/"], "redirected to 'http://☃..test/': its host is no name that DNS"),
        ([b"Location: ftp://joe:pass@h/"], "redirected to 'ftp://h/': ftp is not followed"),
        ([b"Location: http://joe:pass@127.0.0.1:%d/"], "gave up after 1 redirects, the next one to http://127.0.0.1:"),
        ([b"Location: /" + b"x" * 9000], "gave up after 1 redirects, the next one to /xx"),
    ],
)
async def test_what_is_no_sound_redirect_is_said_without_the_secrets_in_it(check, tcp_server, headers, message):
    server = await tcp_server(is_silent)
    answer = moved(*(one.replace(b"%d", str(server.port).encode()) for one in headers))
    server.behaviour = says(answer)
    failed = await failure(check(f"http://127.0.0.1:{server.port}/", follow_redirects=1))
    assert failed.kind in {FailureKind.PROTOCOL, FailureKind.STATUS}
    assert failed.message.startswith(message)
    assert "pass" not in failed.message
    assert len(failed.message) < 300


async def test_the_same_place_told_twice_is_followed(check, tcp_server):
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET / ")
        writer.write(moved(b"Location: /a", b"Location: /a") if first else b"HTTP/1.1 204 OK\r\n\r\n")

    server = await tcp_server(behave)
    assert (await check(f"http://127.0.0.1:{server.port}/")).details["status_code"] == 204


@pytest.mark.parametrize(
    ("heard", "words"),
    [
        (b"", None),
        (b"HTTP/1.1 200 OK\r\nX: ", "waiting for the end of the answer's head from a:80"),
        (HALF, "waiting for the end of the answer from a:80, which began with 200"),
    ],
)
async def test_how_far_an_answer_came_is_told(heard, words):
    answer = HttpAnswer("a:80", Wanted(((200, 299),), keep=True, limit=100), lambda _failure: None)
    if heard:
        answer.hear(heard)
    assert answer.awaited == words


@pytest.mark.parametrize("fields", [{}, {"expected_response_pattern": "whole"}])
async def test_an_answer_that_does_not_end_says_so_at_the_limit(network, tcp_server, fields):
    server = await tcp_server(says(HALF, then=is_silent))
    result = await asked(network, f"http://127.0.0.1:{server.port}/", retries=0, timeout=2, **fields)
    assert (result.status, result.failure_kind) == (Status.DOWN, FailureKind.TIMEOUT)
    assert result.error_message.endswith(f"end of the answer from 127.0.0.1:{server.port}, which began with 200")
