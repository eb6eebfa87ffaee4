"""Servers of every kind, well and unwell, in a process of their own, and the endpoints that ask them.

What the tests of leaks count are the objects of this process, so the servers must not be in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from servmon.clock import SYSTEM_CLOCK
from servmon.model import FailureKind
from tests.fix_dns import DnsServer
from tests.fix_servers import (
    Behaviour,
    TcpServer,
    UdpServer,
    closes_at_once,
    free_port,
    greets,
    is_silent,
    resets,
    says,
    server_tls,
    time_server,
)

ROOT = Path(__file__).parents[1]
SLOW_SECONDS = 0.06
# So long something that flaps is there, and as long it is away.
FLAP_SECONDS = 7.0
OK = b"HTTP/1.1 200 OK\r\n"
PAGE = OK + b"Content-Length: 7\r\n\r\nwelcome"
ZIPPED = gzip.compress(b"welcome " * 200)
JSON = b'{"status": "UP", "nodes": [{"lag_seconds": 0}]}'


def by_path(pages: dict[bytes, bytes]) -> Behaviour:
    """Answers each path as ``pages`` say, all others with 404."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
        if path == b"/slow":
            await asyncio.sleep(SLOW_SECONDS)
        if path == b"/without-a-word":
            return
        writer.write(pages.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
        await writer.drain()

    return behave


def whole(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join((OK.rstrip(), b"Content-Length: %d" % len(body), *headers, b"", body))


WEB = by_path(
    {
        b"/": PAGE,
        b"/slow": PAGE,
        b"/json": whole(JSON, b"Content-Type: application/json"),
        b"/zipped": whole(ZIPPED, b"Content-Encoding: gzip"),
        b"/chunked": OK + b"Transfer-Encoding: chunked\r\n\r\n7\r\nwelcome\r\n0\r\n\r\n",
        b"/until-closed": OK + b"\r\nwelcome",
        b"/503": b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n",
        b"/moved": b"HTTP/1.1 302 Found\r\nLocation: /\r\nSet-Cookie: a=b\r\n\r\n",
        b"/loop": b"HTTP/1.1 302 Found\r\nLocation: /loop\r\n\r\n",
        b"/short": OK + b"Content-Length: 10\r\n\r\nshort",
        b"/bad-chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"/bad-zip": whole(b"no gzip at all", b"Content-Encoding: gzip"),
        b"/long-head": OK + b"X: " + b"x" * 300_000 + b"\r\n\r\n",
    }
)


def flaps() -> Behaviour:
    """A web server for some seconds, and for as many one that resets each connection."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_there = SYSTEM_CLOCK.monotonic() // FLAP_SECONDS % 2 == 0
        await (WEB if is_there else resets)(reader, writer)

    return behave


def mails(tls: Any) -> Behaviour:
    """An SMTP server as far as its greeting, STARTTLS and its good-bye."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.test\r\n")
        while word := (await reader.readline()).split(b" ")[0].strip():
            said = {
                b"EHLO": b"250-mail.test\r\n250 STARTTLS\r\n",
                b"STARTTLS": b"220 go on\r\n",
                b"QUIT": b"221 bye\r\n",
            }
            writer.write(said.get(word, b"500 what?\r\n"))
            await writer.drain()
            if word == b"STARTTLS":
                await writer.start_tls(tls)

    return behave


async def _serve(folder: Path) -> dict[str, int]:
    """Start all of them; their ports by name."""
    ours, stranger = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(folder / "ca.pem")
    yesterday = datetime.now(UTC) - timedelta(days=1)  # noqa: TID251 - a certificate's
    good = server_tls(ours, "127.0.0.1", "localhost", "web.test")
    plain: dict[str, Behaviour] = {
        "web": WEB,
        "flapping": flaps(),
        "resets": resets,
        "closes": closes_at_once,
        "silent": is_silent,
        "half": says(OK + b"Content-Length: 9\r\n\r\nx", then=is_silent),
        "ssh": greets(b"SSH-2.0-OpenSSH_9.6\r\n"),
        "mail": mails(good),
        "mail refuses": greets(b"421 too busy\r\n"),
    }
    over_tls = {
        "tls": good,
        "stranger": server_tls(stranger, "127.0.0.1"),
        "expired": server_tls(ours, "127.0.0.1", not_after=yesterday),
        "other name": server_tls(ours, "other.test"),
    }
    ports = {}
    for name, behaviour in plain.items():
        server = TcpServer(behaviour)
        await server.start("0.0.0.0")
        ports[name] = server.port
    for name, context in over_tls.items():
        server = TcpServer(WEB)
        await server.start("0.0.0.0", tls=context)
        ports[name] = server.port
    datagrams = {"echo": lambda it: it, "mute": lambda _: None, "time": time_server(), "kiss": time_server(stratum=0)}
    for name, answer in datagrams.items():
        udp = UdpServer()
        udp.answer = answer
        await udp.start()
        ports[name] = udp.port
    return ports | {"dns": (await _names(None)).port, "dns over tls": (await _names(good)).port}


async def _names(tls: Any) -> DnsServer:
    server = DnsServer()
    server.zone |= {
        ("web.test", "A"): ["127.0.0.1"],
        ("four.test", "A"): [f"127.0.0.{n}" for n in (1, 2, 3, 4)],
        ("large.test", "A"): ["192.0.2.1"],
    }
    server.large = {"large.test"}
    server.rcodes |= {"missing.test": "NXDOMAIN", "broken.test": "SERVFAIL"}
    server.odd |= {
        "silent.test": lambda _: [],
        "garbage.test": lambda _: [b"\xff" * 40, b""],
        "stranger.test": lambda query: [bytes([query[0] ^ 1]) + server.answer(query)[1:]],
    }
    server.odd_tcp["garbage.test"] = lambda _: [b"\xff\xff"]
    await server.start("127.0.0.1", tls=tls)
    return server


@dataclass(frozen=True)
class Targets:
    """The ports of the servers by name, and their authority's certificate."""

    ports: dict[str, int]
    ca_file: Path

    @property
    def nameserver(self) -> str:
        """Where names such as ``web.test`` resolve."""
        return f"127.0.0.1:{self.ports['dns']}"


@contextlib.contextmanager
def serving() -> Iterator[Targets]:
    """All of them, as long as this is entered."""
    with tempfile.TemporaryDirectory(prefix="servmon-targets-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "tests.fix_targets", name]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            yield Targets(json.loads(process.stdout.readline()), folder / "ca.pem")
            process.stdin.close()


@pytest.fixture(scope="session")
def targets() -> Iterator[Targets]:
    """Servers of every kind in another process."""
    with serving() as made:
        yield made


Case = tuple[str, dict[str, Any], FailureKind | None]


def cases(targets: Targets) -> dict[str, list[Case]]:
    """By protocol what can be asked of them: a name for the case, the endpoint's fields, and the failure it finds."""
    kind, at = FailureKind, {name: f"127.0.0.1:{port}" for name, port in targets.ports.items()}
    closed, closed_udp = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    web, tls, named = f"http://{at['web']}", f"https://{at['tls']}", f"http://web.test:{targets.ports['web']}"
    dns, dot = f"dns://{at['dns']}", f"dns://{at['dns over tls']}"
    return {
        "HTTP": [
            ("good", {"url": f"{web}/"}, None),
            ("slow", {"url": f"{web}/slow", "degraded_threshold_ms": 10}, None),
            ("JSON", {"url": f"{web}/json", "expected_json": {"status": "UP"}}, None),
            ("wrong JSON", {"url": f"{web}/json", "expected_json": {"status": "X"}}, kind.CONTENT),
            ("zipped", {"url": f"{web}/zipped", "expected_response_pattern": "welcome"}, None),
            ("wrong pattern", {"url": f"{web}/", "expected_response_pattern": "nothing"}, kind.PATTERN),
            ("chunked", {"url": f"{web}/chunked", "expected_response_pattern": "welcome"}, None),
            ("until closed", {"url": f"{web}/until-closed", "expected_response_pattern": "welcome"}, None),
            ("redirected", {"url": f"{web}/moved"}, None),
            ("503", {"url": f"{web}/503"}, kind.STATUS),
            ("redirect loop", {"url": f"{web}/loop"}, kind.PROTOCOL),
            ("cut short", {"url": f"{web}/short", "expected_response_pattern": "x"}, kind.PROTOCOL),
            ("bad chunk", {"url": f"{web}/bad-chunk", "expected_response_pattern": "x"}, kind.PROTOCOL),
            ("bad gzip", {"url": f"{web}/bad-zip", "expected_response_pattern": "x"}, kind.PROTOCOL),
            ("long head", {"url": f"{web}/long-head"}, kind.PROTOCOL),
            ("refused", {"url": f"http://{closed}/"}, kind.REFUSED),
            ("must be closed", {"url": f"http://{closed}/", "inverted": True}, None),
            ("reset", {"url": f"http://{at['resets']}/"}, kind.RESET),
            ("closed", {"url": f"{web}/without-a-word"}, kind.PROTOCOL),
            ("silent", {"url": f"http://{at['silent']}/"}, kind.TIMEOUT),
            ("half", {"url": f"http://{at['half']}/", "expected_response_pattern": "x{9}"}, kind.TIMEOUT),
            ("SSH", {"url": f"http://{at['ssh']}/"}, kind.PROTOCOL),
            ("no source", {"url": f"{web}/", "source_address": "192.0.2.77"}, kind.LOCAL),
            ("name", {"url": f"{named}/"}, None),
            ("no name", {"url": "http://missing.test/"}, kind.DNS),
            ("all addresses", {"url": f"http://four.test:{targets.ports['web']}/", "addresses": "all"}, None),
            ("all refuse", {"url": f"http://four.test:{closed[10:]}/", "addresses": "all"}, kind.REFUSED),
            ("all silent", {"url": f"http://four.test:{targets.ports['silent']}/", "addresses": "all"}, kind.TIMEOUT),
        ],
        "HTTPS": [
            ("good", {"url": f"{tls}/"}, None),
            ("pattern", {"url": f"{tls}/chunked", "expected_response_pattern": "welcome"}, None),
            ("name", {"url": f"https://web.test:{targets.ports['tls']}/"}, None),
            ("any certificate", {"url": f"https://{at['stranger']}/", "tls_verify": False}, None),
            ("stranger", {"url": f"https://{at['stranger']}/"}, kind.TLS),
            ("expired", {"url": f"https://{at['expired']}/"}, kind.TLS),
            ("other name", {"url": f"https://{at['other name']}/"}, kind.TLS),
            ("no TLS", {"url": f"https://{at['ssh']}/"}, kind.TLS),
            ("reset", {"url": f"https://{at['resets']}/"}, kind.RESET),
            ("closed", {"url": f"https://{at['closes']}/"}, kind.RESET),
            ("silent", {"url": f"https://{at['silent']}/"}, kind.TIMEOUT),
            ("refused", {"url": f"https://{closed}/"}, kind.REFUSED),
            ("all addresses", {"url": f"https://four.test:{targets.ports['stranger']}/", "addresses": "all"}, kind.TLS),
        ],
        "TCP": [
            ("good", {"url": f"tcp://{at['closes']}"}, None),
            ("refused", {"url": f"tcp://{closed}"}, kind.REFUSED),
            ("no source", {"url": f"tcp://{at['closes']}", "source_address": "192.0.2.77"}, kind.LOCAL),
            ("all addresses", {"url": f"tcp://four.test:{targets.ports['web']}", "addresses": "all"}, None),
            ("no name", {"url": "tcp://missing.test:1"}, kind.DNS),
            ("TLS", {"url": f"tcp://{at['tls']}", "tls": True}, None),
            ("stranger", {"url": f"tcp://{at['stranger']}", "tls": True}, kind.TLS),
            ("banner", {"url": f"tcp://{at['ssh']}", "preset": "ssh"}, None),
            ("no banner", {"url": f"tcp://{at['silent']}", "preset": "ssh"}, kind.TIMEOUT),
            ("other banner", {"url": f"tcp://{at['mail refuses']}", "preset": "smtp"}, kind.PROTOCOL),
            ("refused dialogue", {"url": f"tcp://{closed}", "preset": "smtp"}, kind.REFUSED),
            ("dialogue", {"url": f"tcp://{at['mail']}", "preset": "smtp"}, None),
            ("STARTTLS", {"url": f"tcp://{at['mail']}", "preset": "smtp", "starttls": True}, None),
            ("reset", {"url": f"tcp://{at['resets']}", "preset": "smtp"}, kind.RESET),
            ("closed", {"url": f"tcp://{at['closes']}", "preset": "smtp"}, kind.PROTOCOL),
        ],
        "UDP": [
            ("good", {"url": f"udp://{at['echo']}", "send": "x"}, None),
            ("expected", {"url": f"udp://{at['echo']}", "send": "x", "expect": "x"}, None),
            ("wrong", {"url": f"udp://{at['echo']}", "send": "x", "expect": "y"}, kind.PATTERN),
            ("silent", {"url": f"udp://{at['mute']}", "send": "x"}, kind.TIMEOUT),
            ("refused", {"url": f"udp://{closed_udp}", "send": "x"}, kind.REFUSED),
            ("no name", {"url": "udp://missing.test:1"}, kind.DNS),
            ("time", {"url": f"udp://{at['time']}", "preset": "ntp"}, None),
            ("kiss of death", {"url": f"udp://{at['kiss']}", "preset": "ntp"}, kind.CONTENT),
            ("no time", {"url": f"udp://{at['mute']}", "preset": "ntp"}, kind.TIMEOUT),
            ("no NTP", {"url": f"udp://{at['echo']}", "preset": "ntp"}, kind.TIMEOUT),
        ],
        "DNS": [
            ("good", {"url": f"{dns}/web.test"}, None),
            ("truncated", {"url": f"{dns}/large.test"}, None),
            ("over TCP", {"url": f"{dns}/web.test", "transport": "tcp"}, None),
            ("over TLS", {"url": f"{dot}/web.test", "transport": "tls", "tls_server_name": "web.test"}, None),
            ("wrong TLS", {"url": f"{dot}/web.test", "transport": "tls", "tls_server_name": "no.test"}, kind.TLS),
            ("no TLS", {"url": f"{dns}/web.test", "transport": "tls"}, kind.TIMEOUT),
            ("no such name", {"url": f"{dns}/missing.test"}, kind.STATUS),
            ("broken", {"url": f"{dns}/broken.test"}, kind.STATUS),
            ("wrong answer", {"url": f"{dns}/web.test", "expected_answer": ["192.0.2.9"]}, kind.CONTENT),
            ("silent", {"url": f"{dns}/silent.test"}, kind.TIMEOUT),
            ("stranger", {"url": f"{dns}/stranger.test"}, kind.TIMEOUT),
            ("garbage", {"url": f"{dns}/garbage.test"}, kind.TIMEOUT),
            ("garbage over TCP", {"url": f"{dns}/garbage.test", "transport": "tcp"}, kind.PROTOCOL),
            ("refused", {"url": f"dns://{closed_udp}/web.test"}, kind.REFUSED),
            ("refused over TCP", {"url": f"dns://{closed}/web.test", "transport": "tcp"}, kind.REFUSED),
        ],
        "ICMP": [
            ("good", {"url": "icmp://127.0.0.1", "packets": 2, "packet_interval_ms": 10}, None),
            ("name", {"url": "icmp://web.test", "packets": 1}, None),
            ("no name", {"url": "icmp://missing.test"}, kind.DNS),
            ("no source", {"url": "icmp://127.0.0.1", "source_address": "192.0.2.77"}, kind.LOCAL),
        ],
        "EXEC": [
            ("good", _plug_in("echo 'DB OK - fine | lag=0.5s'"), None),
            ("warning", _plug_in("echo 'DB WARNING - late'; exit 1"), None),
            ("critical", _plug_in("echo 'DB CRITICAL - gone'; exit 2"), kind.STATUS),
            ("killed", _plug_in("kill -9 $$"), kind.PROBE_ERROR),
            ("leaves a child", _plug_in("sleep 600 & echo fine"), None),
            ("hangs", _plug_in("sleep 600 & sleep 600"), kind.TIMEOUT),
            ("missing", {"url": "exec://db", "command": ["/nowhere/plug-in"]}, kind.LOCAL),
        ],
    }


def _plug_in(script: str) -> dict[str, Any]:
    return {"url": "exec://db", "command": ["/bin/sh", "-c", script]}


async def _main(folder: Path) -> None:
    print(json.dumps(await _serve(folder)), flush=True)  # noqa: T201 - whoever started us reads it
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
