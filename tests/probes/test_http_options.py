"""HTTP's options beyond the request line: what the answer must hold, who asks, and whom to trust."""

from __future__ import annotations

import base64
import datetime as dt
import os
import socket
import ssl
import threading
from contextlib import suppress

import pytest
import trustme
from cryptography import x509

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import InvalidInputError
from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed
from servmon.probes.certificate import read_certificate
from servmon.probes.json_path import is_same, parse_path
from servmon.probes.masking import keep_secrets
from servmon.probes.network import ProbeContext
from servmon.probes.specification import (
    FROM_FILE,
    EndpointDefaults,
    describe_endpoint,
    parse_endpoint,
    prepare,
)
from tests.fix_servers import Page, server_tls

SOURCE = f"{FROM_FILE}main"


async def failure(asked) -> ProbeFailed:
    with pytest.raises(ProbeFailed) as failed:
        await asked
    return failed.value


async def test_what_must_not_be_found(check, web_server):
    server = await web_server()
    server.pages["/"] = Page(body="all well\nDatabase Error in line 5")
    await check(server.url, forbidden_response_pattern="meltdown")
    failed = await failure(check(server.url, forbidden_response_pattern="(?im)^database error"))
    assert failed.kind is FailureKind.PATTERN
    assert failed.message == "the answer matches '(?im)^database error', which it must not"


async def test_headers_that_the_answer_must_have(check, web_server):
    server = await web_server()
    server.pages["/"] = Page(headers={"X-Cache": "HIT from edge-3", "Content-Type": "application/json"})
    await check(server.url, expected_headers={"x-cache": "^HIT", "content-type": "json$"})
    failed = await failure(check(server.url, expected_headers={"X-Cache": "^MISS"}))
    assert failed.kind is FailureKind.CONTENT
    assert failed.message == "the header X-Cache is 'HIT from edge-3', expected '^MISS'"
    failed = await failure(check(server.url, expected_headers={"X-Other": "."}))
    assert failed.message == "the answer has no header X-Other, expected '.'"


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"status": "UP", "nodes[1].lag": 0.5, "nodes.0.name": "a", "$['odd name']": None}, None),
        ({"nodes": [{"name": "a"}, {"lag": 0.5}]}, None),
        ({"status": "DOWN"}, "status is 'UP', expected 'DOWN'"),
        ({"ok": 1}, "ok is True, expected 1"),
        ({"nodes[7].lag": 0}, "the answer has no nodes[7].lag"),
        ({"status.deeper": 0}, "the answer has no status.deeper"),
    ],
)
async def test_values_in_a_json_answer(check, web_server, expected, message):
    server = await web_server()
    body = '{"status": "UP", "ok": true, "nodes": [{"name": "a"}, {"lag": 0.5}], "odd name": null}'
    server.pages["/"] = Page(body=body)
    if message is None:
        await check(server.url, expected_json=expected)
        return
    failed = await failure(check(server.url, expected_json=expected))
    assert (failed.kind, failed.message) == (FailureKind.CONTENT, message)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<html>", "is not JSON: Expecting value"),
        ("", "is not JSON: Expecting value"),
        ("[" * 100_000, "is not JSON that could be read: nested too deep"),
        ('{"a": ' + "1" * 9000 + "}", "is not JSON that could be read: a number has thousands of digits"),
    ],
    ids=["html", "empty", "deep", "long"],
)
async def test_what_is_no_json_is_said_so(check, web_server, body, words):
    server = await web_server()
    server.pages["/"] = Page(body=body)
    failed = await failure(check(server.url, expected_json={"a": 1}))
    assert failed.kind is FailureKind.CONTENT
    assert failed.message.startswith(f"the answer {words}")


@pytest.mark.parametrize("path", ["", "$", "a..b", "a[", "a[x]", "a b]", "[1", "'a'"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(ValueError, match="is not a path"):
        parse_path(path)


def test_json_knows_true_from_one():
    assert is_same(1, 1.0)
    assert not is_same(True, 1)
    assert not is_same([0], [False])
    assert is_same({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]})
    assert not is_same({"a": 1}, {"a": 1, "b": 2})


async def test_no_more_is_read_than_the_limit(check, web_server):
    server = await web_server()
    server.pages["/"] = Page(body=b"a" * 5000 + b"end")
    await check(server.url, expected_response_pattern="end")
    failed = await failure(check(server.url, expected_response_pattern="end", answer_limit=4096))
    assert failed.kind is FailureKind.PATTERN


# Who asks


def from_file(url: str, **fields):
    return prepare(parse_endpoint({"url": url, **fields}, EndpointDefaults(), source=SOURCE))


async def test_a_password_is_sent_and_goes_to_no_other_server(check, web_server):
    server, other = await web_server(), await web_server(host="127.0.0.2")
    server.pages["/"] = Page(302, headers={"Location": other.url})
    await check(server.url, username="noc", password="grün:1")
    expected = "Basic " + base64.b64encode("noc:grün:1".encode()).decode()
    assert server.requests[0].headers["Authorization"] == expected
    assert "Authorization" not in other.requests[0].headers


async def test_a_token_is_sent(check, web_server):
    server = await web_server()
    await check(server.url, bearer_token="abc.def")
    assert server.requests[0].headers["Authorization"] == "Bearer abc.def"


def test_secrets_come_from_files_and_the_environment_as_they_are_now(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("one\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("SHOP_TOKEN", "two")
    password = from_file("http://a.test/", username="noc", password_file="secret").options
    token = from_file("http://a.test/", bearer_token_env="SHOP_TOKEN").options
    assert base64.b64encode(b"noc:one").decode() in password.fields
    assert "Authorization: Bearer two\r\n" in token.fields
    (tmp_path / "secret").write_text("three")
    os.utime(tmp_path / "secret", ns=(1, 1))
    monkeypatch.setenv("SHOP_TOKEN", "four")
    assert base64.b64encode(b"noc:three").decode() in password.fields
    assert "Authorization: Bearer four\r\n" in token.fields


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"password": "x"}, "password: means nothing without username"),
        ({"username": "a", "bearer_token": "x"}, "bearer_token: excludes username"),
        ({"username": "a", "password": "x", "password_env": "HOME"}, "password_env: excludes password"),
        ({"username": "a", "password_env": "NO_SUCH_X"}, "password_env: the environment has no variable NO_SUCH_X"),
        ({"bearer_token_file": "/no/such"}, "bearer_token_file: cannot be read: No such file or directory"),
        ({"bearer_token": "a\nb"}, "bearer_token: must be one line of 1 to 8000 visible ASCII characters"),
        ({"bearer_token": "a" * 5000 + "\r\nX: y"}, "bearer_token: must be one line"),
        ({"bearer_token": " "}, "bearer_token: must be one line"),
        ({"username": "a:b"}, "username: must be 1 to 200 characters, no colon and no control character among them"),
        ({"username": "a", "headers": {"authorization": "x"}}, "username: excludes the header Authorization"),
        ({"bearer_token": "a", "headers": {"Authorization": "x"}}, "bearer_token: excludes the header Authorization"),
        ({"tls_ca_file": "/no/such"}, "tls_ca_file: /no/such cannot be read: No such file"),
        ({"tls_ca_file": "/etc/passwd"}, "tls_ca_file: holds nothing that could be used"),
        ({"tls_certificate_file": "/etc/passwd"}, "tls_certificate_file: holds nothing that could be used"),
        ({"tls_key_file": "/etc/passwd"}, "tls_key_file: means nothing without tls_certificate_file"),
        ({"tls_ca_file": "/etc/passwd", "tls_verify": False}, "tls_ca_file: means nothing with tls_verify = false"),
        ({"tls_min_version": "1.1"}, "tls_min_version: must be '1.2' or '1.3'"),
        ({"expected_json": {"a..b": 1}}, "expected_json: 'a..b' is not a path"),
        ({"expected_headers": {"a b": "x"}}, "expected_headers: 'a b' cannot be the name of a header"),
        ({"expected_headers": {"a": "("}}, "expected_headers.a: is not a regular expression"),
        ({"forbidden_response_pattern": "("}, "forbidden_response_pattern: is not a regular expression"),
        ({"method": "HEAD", "expected_json": {"a": 1}}, "expected_json: cannot be found in the answer to HEAD"),
        ({"answer_limit": 5}, "answer_limit: must be at least 1024, not 5"),
    ],
)
def test_bad_options_are_refused_when_the_endpoint_is_made(fields, sentence):
    with pytest.raises(InvalidInputError) as wrong:
        from_file("https://example.test/", **fields)
    assert str(wrong.value).startswith(sentence)


def test_a_name_for_tls_means_nothing_where_there_is_none():
    with pytest.raises(InvalidInputError, match=r"^tls_server_name: means nothing to http"):
        from_file("http://example.test/", tls_server_name="a.test")


@pytest.mark.parametrize("name", ["password_file", "password_env", "bearer_token_env", "tls_ca_file", "tls_key_file"])
def test_what_names_files_or_variables_is_accepted_from_the_configuration_file_alone(name):
    with pytest.raises(InvalidInputError, match=f"{name}: is accepted only from the configuration file"):
        parse_endpoint({"url": "https://a.test/", name: "/etc/passwd"}, EndpointDefaults())


def test_secrets_are_masked_and_the_mask_or_nothing_keeps_them():
    before = parse_endpoint({"url": "http://a.test/", "username": "u", "password": "p4ss"}, EndpointDefaults())
    shown = describe_endpoint(before)
    assert shown["password"] == "***"
    assert "p4ss" not in repr(prepare(before).options)
    assert keep_secrets(before, {"url": "http://a.test/", "username": "u", "password": "***"})["password"] == "p4ss"
    assert keep_secrets(before, {"url": "http://a.test/", "username": "u"})["password"] == "p4ss"
    assert keep_secrets(before, {"url": "http://a.test/", "username": "u", "password": None})["password"] is None
    assert keep_secrets(before, {"url": "http://a.test/", "username": "u", "password": "new"})["password"] == "new"
    assert "password" not in keep_secrets(before, {"url": "http://a.test/"})
    assert "password" not in keep_secrets(before, {"url": "tcp://a.test:1", "protocol": "TCP", "username": "u"})


def test_headers_that_let_somebody_in_are_masked_and_kept_one_by_one():
    headers = {"Authorization": "Basic c2VjcmV0", "Accept": "text/html", "X-Api-Key": "k1", "Cookie": "sid=1"}
    before = parse_endpoint({"url": "http://a.test/", "headers": headers}, EndpointDefaults())
    shown = describe_endpoint(before)["headers"]
    assert shown == {"Authorization": "***", "Accept": "text/html", "X-Api-Key": "***", "Cookie": "***"}
    sent = {"Authorization": "***", "Accept": "***", "X-Api-Key": "k2", "X-Auth-New": "***"}
    kept = keep_secrets(before, {"url": "http://a.test/", "headers": sent})["headers"]
    assert kept == {
        "Authorization": "Basic c2VjcmV0",
        "Accept": "text/html",
        "X-Api-Key": "k2",
        "X-Auth-New": "***",
    }
    with pytest.raises(InvalidInputError) as wrong:
        parse_endpoint({"url": "http://a.test/", "headers": {"X-Token": "p4ss\x00"}}, EndpointDefaults())
    assert "p4ss" not in str(wrong.value)


# Whom to trust


async def ask_from_file(network, url: str, **fields):
    prepared = from_file(url, **fields)
    return await prepared.probe.check(
        prepared.target, prepared.options, ProbeContext(network, SYSTEM_CLOCK.monotonic() + 5)
    )


async def test_a_ca_of_our_own_a_name_of_our_own_and_the_certificate_s_facts(network, web_server, ca, tmp_path):
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    server = await web_server(tls=server_tls(ca, "shop.test", common_name="shop.test"))
    assert (await failure(ask_from_file(network, server.url))).kind is FailureKind.TLS
    failed = await failure(ask_from_file(network, server.url, tls_ca_file=str(path)))
    assert "for another address" in failed.message
    answer = await ask_from_file(network, server.url, tls_ca_file=str(path), tls_server_name="shop.test")
    certificate = answer.details["certificate"]
    assert "CN=shop.test" in certificate["subject"]
    assert certificate["issuer"].startswith("O=trustme")
    assert certificate["not_after"].endswith("Z")


async def test_the_facts_are_told_even_where_nobody_verifies(check, web_server):
    ends = dt.datetime.now(dt.UTC) + dt.timedelta(days=10, hours=1)  # noqa: TID251 - certificates read the wall
    server = await web_server(tls=server_tls(trustme.CA(), "other.test", not_after=ends))
    assert (await check(server.url, tls_verify=False)).details["certificate"]["days_left"] == 10


@pytest.fixture
def alerting_server():
    """Serves each connection as OpenSSL itself does, which tells by an alert why it will not; asyncio's just closes."""
    threads = []

    def start(tls: ssl.SSLContext) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        threads.append((threading.Thread(target=_serve, args=(listening, tls)), listening))
        threads[-1][0].start()
        return f"https://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    for thread, listening in threads:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def _serve(listening: socket.socket, tls: ssl.SSLContext) -> None:
    while True:
        try:
            sock, _ = listening.accept()
        except OSError:
            return
        with suppress(OSError), sock, tls.wrap_socket(sock, server_side=True) as secure:
            secure.recv(65_536)
            secure.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            secure.recv(1)


async def test_a_server_that_is_too_old_is_down(check, alerting_server, trusted):
    old = server_tls(trusted, "127.0.0.1")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    url = alerting_server(old)
    await check(url, tls_min_version="1.2")
    failed = await failure(check(url, tls_min_version="1.3"))
    assert failed.kind is FailureKind.TLS
    assert "TLS versions" in failed.message


async def test_a_client_certificate_is_shown_and_its_absence_told(network, alerting_server, trusted, ca, tmp_path):
    asks = server_tls(trusted, "127.0.0.1")
    asks.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(asks)
    url = alerting_server(asks)
    mine = ca.issue_cert("monitor.test")
    mine.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    await ask_from_file(network, url, tls_certificate_file=str(tmp_path / "both.pem"))
    failed = await failure(ask_from_file(network, url))
    assert failed.kind is FailureKind.TLS
    assert "it wants a client certificate" in failed.message


async def test_a_file_that_goes_missing_later_is_our_own_failure(network, web_server, ca, tmp_path):
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    server = await web_server(tls=server_tls(ca, "127.0.0.1"))
    prepared = from_file(server.url, tls_ca_file=str(path))
    path.unlink()
    context = ProbeContext(network, SYSTEM_CLOCK.monotonic() + 5)
    failed = await failure(prepared.probe.check(prepared.target, prepared.options, context))
    assert failed.kind is FailureKind.LOCAL
    assert "cannot be used" in failed.message


def test_a_certificate_is_read_as_cryptography_reads_it():
    ends = dt.datetime(2061, 1, 2, 3, 4, 5, tzinfo=dt.UTC)  # beyond what UTCTime can tell
    for name, after in (("a.test", None), ("b.test", ends)):
        issued = trustme.CA(organization_name="Ümläut AG").issue_cert(name, common_name=name, not_after=after)
        pem = issued.cert_chain_pems[0].bytes()
        read = read_certificate(ssl.PEM_cert_to_DER_cert(pem.decode()))
        theirs = x509.load_pem_x509_certificate(pem)
        assert read.not_after == theirs.not_valid_after_utc
        assert f"CN={theirs.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value}" in read.subject
        assert "O=Ümläut AG" in read.issuer


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x82\xff\xff", bytes(100), b"\x30\x80" + b"\x30" * 50])
def test_no_garbage_is_taken_for_a_certificate(der):
    assert read_certificate(der) is None
