"""Nobody gets in without a token, by any route."""

from __future__ import annotations

import asyncio

import pytest

from servmon.api.app import ROUTES
from servmon.api.auth import COOKIE
from servmon.web import PAGES
from tests.fix_api import TOKEN

# To sign in is to show a token in the body; a link in a message is signed.
OPEN = {("GET", "/healthz"), ("HEAD", "/healthz"), ("GET", "/readyz"), ("HEAD", "/readyz"), ("POST", "/session")}
OPEN |= {(method, path) for method in ("GET", "HEAD", "POST") for path in ("/ui/acknowledge/link", "/ui/login")}


@pytest.mark.parametrize("anonymous", [{"Authorization": ""}, {}, {"Cookie": f"{COOKIE}=of-nobody"}])
async def test_every_route_but_four_refuses_whoever_has_no_token(door, anonymous):
    got = {}
    for route in (*ROUTES, *PAGES.routes):
        for path in route.paths():
            filled = path.replace("{", "").replace("}", "")
            for method in route.methods():
                reply = await door.send(method, filled, headers=anonymous, skip_token=True)
                got[method, filled] = reply.status
                if reply.status == 401:
                    assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    let_in = {(method, path.rstrip("/")) for (method, path), status in got.items() if status != 401}
    assert {(method, path.removeprefix("/api/v1")) for method, path in let_in} == OPEN
    assert len(got) > 80


async def test_what_does_not_exist_is_not_told_to_strangers(door):
    for path in ("/nowhere", "/healthz/x", "/HEALTHZ", "/healthz%2f", "/healthz;x", "/ui/"):
        assert (await door.get(path, headers={"Authorization": ""})).status == 401, path


async def test_an_open_address_is_open_for_reading_only(door):
    for method in ("POST", "DELETE", "OPTIONS"):
        assert (await door.send(method, "/healthz", headers={"Authorization": ""})).status == 401, method


WRONG = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer x",
    f"Basic {TOKEN}",
    TOKEN,
    f"Bearer {TOKEN}x",
    f"Bearer {TOKEN[:-1]}",
    f"Bearer {TOKEN} {TOKEN}",
    f"Bearer {TOKEN.upper()}",
    "Bearer größe",
    "Bearer \U0001f511",
    "Bearer " + "x" * 7000,
]


async def test_a_wrong_token_of_any_shape_is_401(door):
    for value in WRONG:
        reply = await door.get("/services/", headers={"Authorization": value})
        assert reply.status == 401, value
        assert TOKEN not in reply.body.decode()


async def test_two_authorization_headers_are_none(door):
    lines = (
        f"GET /services/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Connection: close\r\n\r\n"
    )
    assert (await send_raw(door.port, lines.encode())).startswith((b"HTTP/1.1 401", b"HTTP/1.1 400"))


async def test_bytes_that_are_no_text_are_401(door):
    request = (
        b"GET /services/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\xed\xa0\x80\r\nConnection: close\r\n\r\n"
    )
    assert (await send_raw(door.port, request)).startswith((b"HTTP/1.1 401", b"HTTP/1.1 400"))


async def test_every_known_token_lets_in(door):
    for value in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN}", "Bearer another"):
        assert (await door.get("/metrics", headers={"Authorization": value})).status == 200, value


async def send_raw(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
