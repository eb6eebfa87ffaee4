"""TLS: what is wrong with a certificate, told with the certificate itself, and servers that begin a handshake anew."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import shutil
import ssl
from collections.abc import Sequence

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from servmon.errors import InvalidInputError
from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed
from servmon.probes.certificate import names_of
from servmon.probes.network import Network
from servmon.probes.specification import EndpointDefaults, parse_endpoint
from servmon.probes.tls_words import tls_failure
from tests.fix_servers import PATIENCE_SECONDS, TcpServer, check_once, is_silent

NOW = dt.datetime.now(dt.UTC)  # noqa: TID251 - certificates read the wall
DAY = dt.timedelta(days=1)
LOCALHOST = [x509.DNSName("localhost")]


class Party:
    """A name with its key and certificate, signed by another party, or by itself."""

    def __init__(self, name: str, by: Party | None = None, **how) -> None:
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.by = by or self
        self.certificate = self.signed(**how)

    def signed(
        self,
        *,
        authority: bool = True,
        names: Sequence[x509.GeneralName] = (),
        begins: dt.datetime = NOW - 9 * DAY,
        ends: dt.datetime = NOW + 9 * DAY,
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(self.by.name, self.name, self.key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(begins).not_valid_after(ends)
        builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.by.key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def root() -> Party:
    return Party("Root")


@pytest.fixture
def trusting(root, tmp_path, monkeypatch):
    """Trusts the root and another one that is too old, and makes contexts of servers."""
    too_old = Party("Old root", ends=NOW - DAY)
    (tmp_path / "roots.pem").write_bytes(root.pem + too_old.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "roots.pem"))

    def context(*chain: Party) -> ssl.SSLContext:
        key = chain[0].key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (tmp_path / "server.pem").write_bytes(b"".join(one.pem for one in chain) + key)
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(tmp_path / "server.pem")
        return made

    context.too_old = too_old
    context.file = tmp_path / "server.pem"
    return context


def chains(root: Party, too_old: Party) -> dict[str, tuple[Party, ...]]:
    middle, aged = Party("Middle", root), Party("Aged", root, ends=NOW - DAY)
    many = [x509.DNSName(f"{letter}.test") for letter in "abcde"] + [x509.IPAddress(ipaddress.ip_address("::1"))]
    return {
        "its certificate has expired on": (
            Party("x", middle, authority=False, names=LOCALHOST, ends=NOW - DAY),
            middle,
        ),
        "its certificate is not valid before": (
            Party("x", middle, authority=False, names=LOCALHOST, begins=NOW + DAY),
            middle,
        ),
        "the certificate of CN=Aged, who vouches for it, has expired on": (
            Party("x", aged, authority=False, names=LOCALHOST),
            aged,
        ),
        "the certificate of CN=Old root, who vouches for its own, is out of date": (
            Party("x", too_old, authority=False, names=LOCALHOST),
        ),
        "its certificate is for another name than localhost: it is for a.test, b.test, c.test and 3 more": (
            Party("x", middle, authority=False, names=many),
            middle,
        ),
        "its certificate is not trusted: the issuer is not known here": (
            Party("x", middle, authority=False, names=LOCALHOST),
        ),
    }


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_certificate_that_is_not_accepted_is_told_with_itself(trusting, root, new_loop):
    async def ask(url: str, **fields) -> ProbeFailed:
        async with Network() as network:
            with pytest.raises(ProbeFailed) as failed:
                await check_once(network, url, 5, **fields)
        return failed.value

    async def main():
        for message, chain in chains(root, trusting.too_old).items():
            server = TcpServer(is_silent)
            await server.start(tls=trusting(*chain))
            secure = await ask(f"https://localhost:{server.port}/")
            talking = await ask(f"tcp://localhost:{server.port}", tls=True)
            named = await ask(f"dns://localhost:{server.port}/a.test", transport="tls")
            for failed in (secure, talking, named):
                assert failed.kind is FailureKind.TLS
                assert failed.message.startswith(f"127.0.0.1:{server.port}: {message}")
            for failed in (secure, talking):
                shown = failed.details["certificate"]
                assert (shown["subject"], shown["issuer"]) == ("CN=x", f"CN={_name_of(chain[0].by)}")
                assert shown["not_after"][:10] == f"{chain[0].certificate.not_valid_after_utc:%Y-%m-%d}"
            await server.stop()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def _name_of(party: Party) -> str:
    return party.name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value


def test_names_are_read_as_cryptography_reads_them(root):
    given = [*LOCALHOST, x509.RFC822Name("a@b.test"), x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]
    der = Party("x", root, names=given).certificate.public_bytes(serialization.Encoding.DER)
    assert names_of(der) == ["localhost", "192.0.2.1"]
    assert names_of(root.certificate.public_bytes(serialization.Encoding.DER)) == []
    for end in range(0, len(der), 7):
        names_of(der[:end])


def test_an_error_without_a_name_is_told_without_python_s_own_numbers():
    for error, words in (
        (ssl.SSLError(1, "[SSL] tlsv1 alert no application protocol (_ssl.c:1006)"), "it speaks nothing that we offer"),
        (ssl.SSLError(1, "[SSL] unknown error (_ssl.c:1006)"), "it closed the connection in the middle of the hand"),
        (ssl.SSLError(1, "[SSL: SOMETHING_NEW] something new (_ssl.c:1)"), "something new"),
    ):
        assert tls_failure(error, "a:1", "a").message.startswith(f"a:1: no TLS connection: {words}")


@pytest.mark.parametrize(
    "name", ["a..b", ".a.test", "a b", "x" * 64, "a\nb", " ", "https://a", "a:80", "fe80::1%lo", ""]
)
def test_a_name_that_no_certificate_can_be_for_is_refused_when_the_endpoint_is_made(name):
    with pytest.raises(InvalidInputError, match=r"^tls_server_name: "):
        parse_endpoint({"url": "https://a.test/", "tls_server_name": name}, EndpointDefaults())


@pytest.mark.skipif(
    shutil.which("openssl") is None, reason="did not run: openssl is not installed (apt-get install openssl)"
)
async def test_a_server_may_begin_the_handshake_anew_before_it_answers(network, root, trusting):
    """As servers do that ask for a client certificate only for some of their pages (TLS 1.2)."""
    trusting(Party("x", root, authority=False, names=LOCALHOST))
    server = await asyncio.create_subprocess_exec(
        "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", trusting.file, "-tls1_2", "-state", "-naccept", "1",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip

    async def answer() -> None:
        heard = b""
        while b"GET / HTTP/1.1" not in heard:
            heard += await server.stdout.read(1000)
        server.stdin.write(b"R\n")
        while b"read client hello" not in heard.partition(b"GET / HTTP/1.1")[2]:
            heard += await server.stdout.read(1000)
        server.stdin.write(b"HTTP/1.1 204 OK\r\n\r\n\n")
        await server.stdout.read()

    while not (listening := await server.stdout.readline()).startswith(b"ACCEPT "):
        assert listening, "openssl ended by itself"
    port = int(listening.rpartition(b":")[2])
    answering = asyncio.create_task(answer())  # noqa: TID251 - awaited below
    try:
        found = await check_once(network, f"https://localhost:{port}/", PATIENCE_SECONDS)
        assert found.details["status_code"] == 204
    finally:
        answering.cancel()
        server.kill()
        await server.wait()
