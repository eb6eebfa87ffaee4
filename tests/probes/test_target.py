"""The grammar of urls: what points where, and what is refused in which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from servmon.errors import InvalidInputError
from servmon.probes import PROBES, find_probe
from servmon.probes.dns_message import question_of
from servmon.probes.target import _requested, parse_target


@pytest.mark.parametrize(
    ("url", "protocol", "host", "port"),
    [
        ("tcp://mail.example:25", None, "mail.example", 25),
        ("TCP://mail.example:25/", None, "mail.example", 25),
        ("mail.example:25", "tcp", "mail.example", 25),
        ("udp://192.0.2.1:53", "UDP", "192.0.2.1", 53),
        ("[2001:DB8:0::1]:443", "TCP", "2001:db8::1", 443),
        ("tcp://[fe80::1%eth0]:80", None, "fe80::1%eth0", 80),
        ("tcp://[fe80::1%25eth0]:80", None, "fe80::1%eth0", 80),
        ("dns://9.9.9.9", None, "9.9.9.9", 53),
        ("dns://[2620:fe::fe]:5300", None, "2620:fe::fe", 5300),
        ("ns1.example", "DNS", "ns1.example", 53),
        ("icmp://host_1.example.", None, "host_1.example.", None),
        ("192.0.2.7", "ICMP", "192.0.2.7", None),
        ("2001:db8::7", "ICMP", "2001:db8::7", None),
        ("http://EXAMPLE.test", None, "example.test", 80),
        ("example.test:8080", "HTTP", "example.test", 8080),
        ("https://bücher.example", None, "xn--bcher-kva.example", 443),
    ],
)
def test_hosts_and_ports(url, protocol, host, port):
    _, target = parse_target(url, protocol)
    assert (target.host, target.port) == (host, port)


@pytest.mark.parametrize(
    ("url", "protocol", "told"),
    [
        ("http://a.test", None, "HTTP"),
        ("https://a.test", "https", "HTTPS"),
        ("a.test:1", "Tcp", "TCP"),
        ("udp://a.test:1", None, "UDP"),
        ("dns://a.test", None, "DNS"),
        ("icmp://a.test", "ICMP", "ICMP"),
    ],
)
def test_a_scheme_may_stand_for_the_protocol(url, protocol, told):
    assert parse_target(url, protocol)[0] == told


@pytest.mark.parametrize(
    ("url", "whole", "path"),
    [
        ("http://a.test", "http://a.test/", "/"),
        ("http://a.test:80/x?y=1#z", "http://a.test/x?y=1", "/x?y=1"),
        ("https://a.test:8443?q", "https://a.test:8443/?q", "/?q"),
        ("http://[::1]/x", "http://[::1]/x", "/x"),
        ("http://[::1]:8080/%20", "http://[::1]:8080/%20", "/%20"),
    ],
)
def test_the_url_of_a_web_target_is_whole_and_without_its_fragment(url, whole, path):
    target = parse_target(url, None)[1]
    assert (target.url, target.path) == (whole, path)


@pytest.mark.parametrize(
    ("name", "ascii_name"),
    [("Bücher.test", "xn--bcher-kva.test"), ("straße.test", "xn--strae-oqa.test"), ("💩.test", "xn--ls8h.test")],
)
def test_names_are_written_as_browsers_write_them(name, ascii_name):
    assert parse_target(f"https://{name}/", None)[1].host == ascii_name
    assert question_of(f"/{name}", None, None).wire == question_of(f"/{ascii_name}", None, None).wire


def test_a_dns_url_keeps_its_question():
    assert parse_target("dns://9.9.9.9/example.test?type=MX", None)[1].path == "/example.test?type=MX"


@pytest.mark.parametrize(
    ("url", "protocol", "sentence"),
    [
        ("", "TCP", "url: must be 1 to 2048 characters"),
        ("tcp://a b:1", None, "url: must be 1 to 2048 characters without spaces"),
        ("http://a.test\\@b.test/", None, "url: must be 1 to 2048 characters without spaces or backslashes"),
        ("http://a.test/" + "x" * 2048, None, "url: must be 1 to 2048 characters"),
        ("a.test", None, "protocol: is missing, and the url does not tell it: one of HTTP, HTTPS, TCP, UDP, DNS, ICMP"),
        ("a.test", "FTP", "protocol: 'FTP' is not known; one of HTTP, HTTPS, TCP, UDP, DNS, ICMP, EXEC would be right"),
        ("ftp://a.test", None, "url: ftp:// is not known here; one of HTTP, "),
        ("file:///etc/passwd", None, "url: file:// is not known here"),
        ("https://a.test", "HTTP", "protocol: HTTP contradicts the url, which says https://"),
        ("tcp://a.test", None, "url: TCP needs a port, as in tcp://a.test:7"),
        ("udp://[::1]", None, "url: UDP needs a port, as in udp://[::1]:7"),
        ("tcp://a.test:0", None, "url: '0' is not a port; a number from 1 to 65535 would be"),
        ("tcp://a.test:65536", None, "url: '65536' is not a port"),
        ("tcp://a.test:", None, "url: '' is not a port"),
        ("tcp://a.test:٣", None, "url: '٣' is not a port"),
        ("tcp://:5", None, "url: names no host"),
        ("http://user:secret@a.test/", None, "url: must not hold a user name or password"),
        ("icmp://a.test:7", None, "url: ICMP knows no ports; a.test alone would be right"),
        ("tcp://a.test:5/x", None, "url: '/x' means nothing to TCP; a.test:5 alone would be right"),
        ("icmp://a.test?x", None, "url: '?x' means nothing to ICMP; a.test alone would be right"),
        ("tcp://[::1:5", None, "url: '[::1:5' is not an IPv6 address in brackets"),
        ("tcp://[::g]:5", None, "url: '::g' is not an IPv6 address; 2001:db8::1 would be"),
        ("tcp://[127.0.0.1]:5", None, "url: '[127.0.0.1]:5' is not an IPv6 address in brackets"),
        ("tcp://[::1%é]:5", None, "url: 'é' is not the name of a network interface"),
        ("tcp://256.0.0.1:5", None, "url: '256.0.0.1' is not an IPv4 address"),
        ("tcp://127.1:5", None, "url: '127.1' is not an IPv4 address"),
        ("tcp://0x7f.1:5", None, "url: '0x7f.1' is not an IPv4 address"),
        ("tcp://010.0.0.1:5", None, "url: '010.0.0.1' is not an IPv4 address"),
        ("tcp://a..b:5", None, "url: 'a..b' is not a host name"),
        ("tcp://-a.test:5", None, "url: '-a.test' is not a host name"),
        ("tcp://" + "a" * 64 + ".test:5", None, "url: 'aaaa"),
        ("tcp://" + "a." * 130 + "test:5", None, "url: 'a.a."),
        ("tcp://a;b:5", None, "url: 'a;b' is not a host name"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(url, protocol, sentence):
    with pytest.raises(InvalidInputError) as wrong:
        parse_target(url, protocol)
    assert str(wrong.value).startswith(sentence)


def test_secrets_in_a_url_are_not_repeated():
    with pytest.raises(InvalidInputError) as wrong:
        parse_target("http://user:hunter2@a.test/", None)
    assert "hunter2" not in str(wrong.value)


@given(st.text(max_size=60), st.sampled_from([None, *(probe.protocol for probe in PROBES)]))
def test_any_text_is_a_target_or_a_sentence(url, protocol):
    fields: set[str] = set()
    try:
        told, target = parse_target(url, protocol)
    except InvalidInputError as wrong:
        fields = {problem.field for problem in wrong.problems}
    else:
        assert target.host
        assert find_probe(told)
    assert fields <= {"url", "protocol"}


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_address_is_a_target(address, port):
    shown = f"[{address}]" if address.version == 6 else str(address)
    target = parse_target(f"tcp://{shown}:{port}", None)[1]
    assert (target.host, target.port) == (str(address), port)


@given(st.text("aZ09_~/-?=&.% ü", max_size=12))
def test_a_path_is_sent_as_a_url_library_would_write_it(rest):
    """Most paths need no library to see that; what is taken as it stands must be what it would have made of it."""
    path = f"/{rest}"
    assert _requested(path) == URL(f"http://h{path}").raw_path_qs
