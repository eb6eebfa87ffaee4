"""Where requests come from: trusted proxies say it, others only claim it; sockets, and pages of other origins."""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request
from pydantic import ValidationError

from servmon.api.app import Entrance, build_app
from servmon.api.auth import WrongTokens
from servmon.api.problems import RequestError
from servmon.api.proxies import TrustedProxies
from servmon.api.server import serve
from servmon.api.settings import ApiSection, origin_of
from servmon.api.unix_socket import UnixPlace
from servmon.errors import StartError
from servmon.services.tokens import AccessToken, TokenBook
from tests.fix_api import NOTHING, TOKEN, services_on, serving

PROXIES = TrustedProxies.of(["10.0.0.0/8", "2001:db8::1", "unix"])


def came_from(peer: str | None, *way: str, proxies: TrustedProxies = PROXIES) -> str:
    request = make_mocked_request("GET", "/", headers=[("X-Forwarded-For", line) for line in way])
    return proxies.address_of(request.clone(remote=peer) if peer else request.clone(remote=""))


@pytest.mark.parametrize(
    ("peer", "way", "found"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["1.2.3.4"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("2001:db8::1", ["2001:db8::7"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["6.6.6.6, <script>"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        (None, ["198.51.100.7"], "198.51.100.7"),
    ],
)
def test_the_last_address_that_no_trusted_proxy_has_is_the_clients(peer, way, found):
    assert came_from(peer, *way) == found


def test_without_trusted_proxies_nobody_says_who_he_is():
    nobody = TrustedProxies()
    assert came_from("127.0.0.1", "6.6.6.6", proxies=nobody) == "127.0.0.1"
    assert came_from(None, "6.6.6.6", proxies=nobody) == "unix"


async def test_the_audit_and_the_limit_of_wrong_tokens_know_the_client_behind_the_proxy(connection):
    behind = Entrance(ApiSection(trusted_proxies=("127.0.0.1",)))
    async with serving(services_on(connection), entrance=behind) as api:
        await api.post("/services/", {"url": "tcp://192.0.2.1:1"}, headers={"X-Forwarded-For": "198.51.100.7"})
        (change,) = (await api.get("/audit")).json["items"]
        assert change["address"] == "198.51.100.7"
        for number in range(31):
            wrong = {"Authorization": f"Bearer wrong{number}", "X-Forwarded-For": "198.51.100.8"}
            reply = await api.get("/services/", headers=wrong)
        assert reply.status == 429
        assert "198.51.100.8" in reply.json["detail"]
        wrong["X-Forwarded-For"] = "198.51.100.9"
        assert (await api.get("/services/", headers=wrong)).status == 401


def test_one_network_of_ipv6_is_one_who_tries():
    wrong = WrongTokens()
    for number in range(30):
        wrong.note(f"2001:db8:0:7::{number:x}")
    with pytest.raises(RequestError, match="more than 30"):
        wrong.note("2001:db8:0:7:ffff::1")
    wrong.note("2001:db8:0:8::1")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"trusted_proxies": ["0.0.0.0/0"]}, "would let everybody say who they are"),
        ({"trusted_proxies": ["proxy.isp.example"]}, "is no address, no network such as 10.0.0.0/8"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "is no address, no network such as 10.0.0.0/8"),
        ({"cors_origins": ["*"]}, "is no origin such as https://noc.isp.example"),
        ({"cors_origins": ["https://noc.isp.example/"]}, "is no origin"),
        ({"cors_origins": ["null"]}, "is no origin"),
        ({"socket": "api.sock"}, "must be an absolute path of at most 107 bytes"),
        ({"socket": "/" + "x" * 107}, "must be an absolute path of at most 107 bytes"),
        ({"socket": "/run/x", "socket_mode": "rw-"}, 'must be permissions in octal digits such as "0660"'),
        ({"socket_group": "noc"}, "socket_group says something of a socket, and api.socket is not set"),
        ({"session_hours": 0}, "greater than 0"),
        ({"token": "two words"}, "a token is letters"),
    ],
)
def test_half_or_wrong_settings_of_who_gets_in_stop_the_start(given, sentence):
    with pytest.raises(ValidationError, match="(?s)" + sentence.replace("(", r"\(")):
        ApiSection(**given)


def test_a_socket_stands_in_a_ports_place_unless_both_are_wanted():
    assert ApiSection().wants_port
    assert not ApiSection(socket="/run/x").wants_port
    assert ApiSection(socket="/run/x", port=8350).wants_port


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Servmon.example/ui/", "https://servmon.example"),
        ("https://servmon.example:443", "https://servmon.example"),
        ("http://[2001:db8::1]:8350/", "http://[2001:db8::1]:8350"),
        ("ftp://servmon.example", None),
        ("https://servmon.example:port", None),
        (None, None),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(url, origin):
    assert origin_of(url) == origin


async def test_a_page_of_another_origin_gets_in_only_where_it_is_configured():
    page = {"Origin": "https://noc.isp.example"}
    asks = {**page, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization"}
    async with serving(NOTHING) as api:
        assert (await api.send("OPTIONS", "/services/a", headers=asks, skip_token=True)).status == 401
        assert "Access-Control-Allow-Origin" not in (await api.get("/", headers=page)).headers
    section = ApiSection(cors_origins=("https://noc.isp.example",))
    async with serving(NOTHING, entrance=Entrance(section)) as api:
        reply = await api.send("OPTIONS", "/services/a", headers=asks, skip_token=True)
        assert reply.status == 204
        assert "PUT" in reply.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in reply.headers["Access-Control-Allow-Headers"]
        refused = await api.get("/", headers=page, skip_token=True)
        for each in (reply, await api.get("/", headers=page), refused):
            assert each.headers["Access-Control-Allow-Origin"] == "https://noc.isp.example"
            assert "Access-Control-Allow-Credentials" not in each.headers
            assert each.headers["Vary"] == "Origin"
        for other in ("https://evil.example", "https://noc.isp.example.evil.example", "null"):
            reply = await api.get("/", headers={"Origin": other})
            assert "Access-Control-Allow-Origin" not in reply.headers
            assert (await api.send("OPTIONS", "/", headers={**asks, "Origin": other}, skip_token=True)).status == 401


async def asked(path: Path) -> int:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://localhost/", headers={"Authorization": f"Bearer {TOKEN}"}) as answer,
    ):
        return answer.status


def app():
    return build_app(NOTHING, book=TokenBook([AccessToken.of("admin", TOKEN)]))


async def test_a_unix_socket_answers_whom_its_permissions_let_in_and_is_gone_afterwards(tmp_path):
    path = tmp_path / "api.sock"
    own_group = grp.getgrgid(os.getgid()).gr_name
    server = await serve(app(), None, 0, UnixPlace(path, 0o640, own_group))
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (0o640, os.getgid())
    assert await asked(path) == 200
    await server.stop()
    assert not path.exists()


async def test_what_a_crash_left_is_taken_away_and_nothing_else_is(tmp_path):
    path = tmp_path / "api.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    server = await serve(app(), None, 0, UnixPlace(path, 0o600))
    assert await asked(path) == 200
    with pytest.raises(StartError, match="another program listens on"):
        await serve(app(), None, 0, UnixPlace(path, 0o600))
    await server.stop()
    path.write_text("a diary", encoding="ascii")
    with pytest.raises(StartError, match=r"is no socket; move it away"):
        await serve(app(), None, 0, UnixPlace(path, 0o600))
    assert path.read_text(encoding="ascii") == "a diary"


async def test_a_place_that_cannot_be_and_a_group_that_is_not_are_told(tmp_path):
    with pytest.raises(StartError, match=r"api\.socket: cannot listen on .*No such file or directory"):
        await serve(app(), None, 0, UnixPlace(tmp_path / "nowhere" / "api.sock", 0o600))
    with pytest.raises(StartError, match=r"api\.socket_group: this machine knows no group no-such-group"):
        await serve(app(), None, 0, UnixPlace(tmp_path / "api.sock", 0o600, "no-such-group"))
