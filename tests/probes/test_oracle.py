"""Verdicts beside those of Prometheus' blackbox_exporter 0.23 (Debian's package), on what both can express.

Where they differ, ``DIFFERENCES`` says why. Without the program these tests do not run, and say so.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import pytest
import trustme

from servmon.checks.attempts import ask
from servmon.checks.plan import Plan
from servmon.clock import SYSTEM_CLOCK
from servmon.model import Status
from servmon.probes.network import Network
from servmon.probes.specification import EndpointDefaults, parse_endpoint
from tests.fix_servers import (
    Page,
    closes_at_once,
    free_port,
    greets,
    is_endless,
    is_silent,
    resets,
    says,
    server_tls,
)
from tests.probes.test_http_differential import ANSWERS

PROGRAM = "prometheus-blackbox-exporter"
SECONDS = 1.5
pytestmark = pytest.mark.skipif(
    shutil.which(PROGRAM) is None,
    reason=f"did not run: {PROGRAM} is not installed (Debian: apt-get install {PROGRAM})",
)

HTTP = {"preferred_ip_protocol": "ip4", "valid_http_versions": []}
MODULES = {
    "http": {"prober": "http", "http": HTTP},
    "http_pattern": {"prober": "http", "http": HTTP | {"fail_if_body_not_matches_regexp": ["welcome"]}},
    "http_forbidden": {"prober": "http", "http": HTTP | {"fail_if_body_matches_regexp": ["welcome"]}},
    "http_404": {"prober": "http", "http": HTTP | {"valid_status_codes": [404]}},
    "http_still": {"prober": "http", "http": HTTP | {"follow_redirects": False}},
    "http_head": {"prober": "http", "http": HTTP | {"method": "HEAD"}},
    "http_header": {
        "prober": "http",
        "http": HTTP | {"fail_if_header_not_matches": [{"header": "Content-Length", "regexp": "^7$"}]},
    },
    "https_any": {"prober": "http", "http": HTTP | {"tls_config": {"insecure_skip_verify": True}}},
    "tcp": {"prober": "tcp", "tcp": {"preferred_ip_protocol": "ip4"}},
    "tcp_tls": {
        "prober": "tcp",
        "tcp": {"preferred_ip_protocol": "ip4", "tls": True, "tls_config": {"insecure_skip_verify": True}},
    },
    "tcp_banner": {
        "prober": "tcp",
        "tcp": {"preferred_ip_protocol": "ip4", "query_response": [{"expect": "^SSH-2.0-"}]},
    },
    "icmp": {"prober": "icmp", "icmp": {"preferred_ip_protocol": "ip4"}},
    "icmp6": {"prober": "icmp", "icmp": {"preferred_ip_protocol": "ip6"}},
} | {
    f"dns_{name}": {
        "prober": "dns",
        "dns": {"preferred_ip_protocol": "ip4", "query_name": f"{owner}.test", "query_type": kind} | more,
    }
    for name, owner, kind, more in (
        ("a", "a", "A", {}),
        ("tcp", "a", "A", {"transport_protocol": "tcp"}),
        ("missing", "missing", "A", {}),
        ("missing_wanted", "missing", "A", {"valid_rcodes": ["NXDOMAIN"]}),
        ("broken", "broken", "A", {}),
        ("empty", "a", "MX", {}),
        ("large", "large", "A", {}),
        ("wrong_id", "wrong", "A", {}),
        ("garbage", "garbage", "A", {}),
        ("silent", "silent", "A", {}),
        ("no_edns", "plain", "A", {}),
        ("match", "a", "A", {"validate_answer_rrs": {"fail_if_not_matches_regexp": [".*192\\.0\\.2\\.1$"]}}),
        ("mismatch", "a", "A", {"validate_answer_rrs": {"fail_if_not_matches_regexp": [".*192\\.0\\.2\\.9$"]}}),
    )
}

# Case by case, why our verdict is another one.
DIFFERENCES = {
    "an empty line first": "up here: browsers pass over it (RFC 9112, 2.2)",
    "the same length twice": "down here: a head that contradicts itself or nearly so is refused, as aiohttp does",
    "length and chunks": "down here: two ways to tell the end are how requests are smuggled (RFC 9112, 6.1)",
    "space before the colon": "down here: no header may be written so (RFC 9112, 5.1)",
    "2 MB header": "down here: no more than 64 KiB of head are read, theirs is bounded by its 10 MB",
    "gzip": "up here: the pattern is searched in what a reader sees, theirs in the compressed bytes",
    "gzip and more": "up here: as gzip",
    "deflate": "up here: as gzip",
    "deflate without its head": "up here: as gzip",
    "no gzip after all": "down here where its text is wanted: a browser shows nothing of it",
    "HTTP/1.2": "down here: nobody defined it",
    "HTTP/3.0 in words": "down here: nobody defined it, version 3 is not written so (RFC 9114)",
    "a length of nothing": "down here: no number is no length (RFC 9110, 8.6)",
    "twenty interim answers": "up here: there may be any number of them (RFC 9110, 15.2), theirs ends after five",
    "gzip, then chunks": "up here: what stands in the chunks is taken as it is, theirs refuses the coding",
    "gzip in two members": "up here: as gzip",
    "DNS empty": "down here: NOERROR without a record is no answer (min_answers = 0 takes it)",
}


class Oracle:
    """A running exporter. ``verdict`` is what it says of a target."""

    def __init__(self, folder, start=subprocess.Popen) -> None:
        file = folder / "blackbox.yml"
        file.write_text(json.dumps({"modules": {name: {"timeout": "1500ms"} | one for name, one in MODULES.items()}}))
        self.port = free_port()
        self._log = (folder / "blackbox.log").open("wb")
        self._process = start(
            [shutil.which(PROGRAM), f"--config.file={file}", f"--web.listen-address=127.0.0.1:{self.port}"],
            stdout=self._log,
            stderr=self._log,
        )

    async def verdict(self, module: str, target: str) -> bool:
        query = urllib.parse.urlencode({"module": module, "target": target})
        return await asyncio.to_thread(self.ask, f"/probe?{query}")

    def ask(self, path: str) -> bool:
        for _ in range(200):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                    return b"\nprobe_success 1\n" in answer.read()
            except urllib.error.URLError:
                if self._process.poll() is not None:
                    raise AssertionError("the exporter ended by itself") from None
                self._process_wait()
        raise AssertionError("the exporter does not listen")

    def _process_wait(self) -> None:
        try:
            self._process.wait(0.05)
        except subprocess.TimeoutExpired:
            return

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    started = Oracle(tmp_path_factory.mktemp("oracle"))
    yield started
    started.stop()


async def our_verdict(url: str, **fields) -> bool:
    plan = Plan.of(parse_endpoint({"url": url, "timeout": SECONDS, **fields}, EndpointDefaults()))
    async with Network() as network:
        result = await ask(plan, network, deadline=SYSTEM_CLOCK.monotonic() + 10, retries=0)
    assert result.status is not Status.UNKNOWN, result.error_message
    return result.status is not Status.DOWN


def compare(case: str, ours: object, theirs: object) -> None:
    if case in DIFFERENCES:
        assert ours != theirs, f"no difference any more: {DIFFERENCES[case]}"
    else:
        assert ours == theirs, (case, ours, theirs)


# Beside those that are compared with aiohttp too.
ODD_ANSWERS = {
    "HTTP/3.0 in words": b"HTTP/3.0 200 OK\r\nContent-Length: 7\r\n\r\nwelcome",
    "a length of nothing": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nwelcome",
    "twenty interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20
    + b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nwelcome",
    "chunks of HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nwelcome\r\n0\r\n\r\n",
    "gzip, then chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n7\r\nwelcome\r\n0\r\n\r\n",
    "gzip in two members": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
    + gzip.compress(b"wel")
    + gzip.compress(b"come"),
}


@pytest.mark.parametrize("case", ANSWERS | ODD_ANSWERS)
async def test_http_answers(oracle, tcp_server, case):
    server = await tcp_server(says((ANSWERS | ODD_ANSWERS)[case]))
    url = f"http://127.0.0.1:{server.port}/"
    ours = [await our_verdict(url), await our_verdict(url, expected_response_pattern="welcome")]
    compare(case, ours, [await oracle.verdict("http", url), await oracle.verdict("http_pattern", url)])


BEHAVIOURS = {
    "silent": is_silent,
    "closes at once": closes_at_once,
    "resets": resets,
    "SSH": greets(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "says nothing of HTTP for ever": is_endless,
}


@pytest.mark.parametrize("case", BEHAVIOURS)
async def test_misbehaving_servers(oracle, tcp_server, case):
    server = await tcp_server(BEHAVIOURS[case])
    place = f"127.0.0.1:{server.port}"
    asked = (
        ("http", f"http://{place}/", {}),
        ("https_any", f"https://{place}/", {"tls_verify": False}),
        # Whether a connection that is reset at once stood for a moment is chance, for either of us.
        *([] if case == "resets" else [("tcp", f"tcp://{place}", {})]),
        ("tcp_tls", f"tcp://{place}", {"tls": True, "tls_verify": False}),
        ("tcp_banner", f"tcp://{place}", {"steps": [{"expect": "^SSH-2.0-"}]}),
    )
    ours = await asyncio.gather(*(our_verdict(url, **fields) for _, url, fields in asked))
    theirs = await asyncio.gather(
        *(oracle.verdict(module, url if module.startswith("http") else place) for module, url, _ in asked)
    )
    assert ours == theirs


@pytest.mark.parametrize(
    ("module", "fields"),
    [
        ("http_404", {"expected_status_code": 404}),
        ("http_forbidden", {"forbidden_response_pattern": "welcome"}),
        ("http_head", {"method": "HEAD"}),
        ("http_still", {"follow_redirects": 0}),
        ("http_header", {"expected_headers": {"Content-Length": "^7$"}}),
    ],
)
async def test_http_options(oracle, web_server, module, fields):
    server, other = await web_server(), await web_server(host="127.0.0.2")
    server.pages |= {
        "/moved": Page(302, headers={"Location": f"{other.url}/"}),
        "/loop": Page(302, headers={"Location": "/loop"}),
        "/file": Page(302, headers={"Location": "file:///etc/passwd"}),
        "/long": Page(body="farewell to all"),
    }
    for path in ("/", "/missing", "/moved", "/loop", "/file", "/long"):
        url = server.url + path
        assert await our_verdict(url, **fields) == await oracle.verdict(module, url), path


async def test_a_page_that_looks_for_its_cookie(oracle, tcp_server):
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        known = b"\r\nCookie: seen=yes\r\n" in await reader.readuntil(b"\r\n\r\n")
        head = b"200 OK" if known else b"302 Found\r\nLocation: /\r\nSet-Cookie: seen=yes"
        writer.write(b"HTTP/1.1 " + head + b"\r\nContent-Length: 0\r\n\r\n")

    url = f"http://127.0.0.1:{(await tcp_server(behave)).port}/"
    assert await our_verdict(url)
    assert await oracle.verdict("http", url)


async def test_tls(oracle, web_server):
    for tls in (server_tls(trustme.CA(), "127.0.0.1"), server_tls(trustme.CA(), "other.test")):
        server = await web_server(tls=tls)
        assert not await our_verdict(server.url)
        assert not await oracle.verdict("http", server.url)
        assert await our_verdict(server.url, tls_verify=False)
        assert await oracle.verdict("https_any", server.url)
    plain = await web_server()
    url = plain.url.replace("http:", "https:")
    assert [await our_verdict(url), await oracle.verdict("http", url)] == [False, False]


async def test_closed_ports(oracle):
    place = f"127.0.0.1:{free_port()}"
    assert not await our_verdict(f"tcp://{place}")
    assert not await oracle.verdict("tcp", place)
    assert not await our_verdict(f"http://{place}/")
    assert not await oracle.verdict("http", f"http://{place}/")


DNS = {
    "a": ("a", {}),
    "tcp": ("a", {"transport": "tcp"}),
    "missing": ("missing", {}),
    "missing_wanted": ("missing", {"expected_rcode": "NXDOMAIN"}),
    "broken": ("broken", {}),
    "empty": ("a", {"query_type": "MX"}),
    "large": ("large", {}),
    "wrong_id": ("wrong", {}),
    "garbage": ("garbage", {}),
    "silent": ("silent", {}),
    "no_edns": ("plain", {}),
    "match": ("a", {"expected_answer": ["192.0.2.1"]}),
    "mismatch": ("a", {"expected_answer": ["192.0.2.9"]}),
}


@pytest.mark.parametrize("case", DNS)
async def test_dns(oracle, dns_server, case):
    dns_server.zone |= {("a.test", "A"): ["192.0.2.1"], ("large.test", "A"): ["192.0.2.1"]}
    dns_server.zone["plain.test", "A"] = ["192.0.2.1"]
    dns_server.rcodes |= {"missing.test": "NXDOMAIN", "broken.test": "SERVFAIL"}
    dns_server.large.add("large.test")
    dns_server.odd |= {
        "wrong.test": lambda query: [bytes([query[0] ^ 1]) + dns_server.answer(query)[1:]],
        "garbage.test": lambda _query: [b"\xff" * 40],
        "silent.test": lambda _query: [],
        # It knows no EDNS, and refuses what has an additional record.
        "plain.test": lambda query: [query[:2] + b"\x81\x81" + bytes(8) if query[11] else dns_server.answer(query)],
    }
    owner, fields = DNS[case]
    place = f"127.0.0.1:{dns_server.port}"
    asking = our_verdict(f"dns://{place}", query_name=f"{owner}.test", **fields)
    compare(f"DNS {case}", *await asyncio.gather(asking, oracle.verdict(f"dns_{case}", place)))


def test_icmp(netns, tmp_path):
    """Inside a namespace where 127.0.0.0/8 and ::1 answer and others are silent or have no route."""
    targets = {"127.0.0.1": True, "10.7.0.9": False, "192.0.2.1": False, "::1": True, "fd07::9": False}

    async def main():
        return {address: await our_verdict(f"icmp://{address}", packets=1) for address in targets}

    started = Oracle(tmp_path, lambda *how, **more: netns.run(lambda: subprocess.Popen(*how, **more)))
    try:
        theirs = {
            address: netns.run(started.ask, f"/probe?module={'icmp6' if ':' in address else 'icmp'}&target={address}")
            for address in targets
        }
        assert netns.run_async(main) == theirs == targets
    finally:
        started.stop()
