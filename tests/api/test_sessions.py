"""Sessions of browsers: a cookie in exchange for a token, for our own pages alone, gone with the token."""

from __future__ import annotations

from http.cookies import SimpleCookie

import pytest

from servmon.api.app import Entrance
from servmon.api.auth import COOKIE
from servmon.api.settings import ApiSection
from servmon.services.sessions import MOST_SESSIONS, Sessions
from servmon.services.tokens import AccessToken, TokenBook
from servmon.store.local import LocalFile
from servmon.store.notebook import Notebook
from tests.fix_api import NOTHING, OPERATE_TOKEN, READ_TOKEN, TOKEN, Reply, services_on, serving
from tests.fix_servers import patience


class SetClock:
    """A clock that shows what it is set to."""

    seconds = 1_700_000_000.0

    def wall(self) -> float:
        return self.seconds

    monotonic = wall


async def sign_in(api, token: str = TOKEN, **headers: str) -> Reply:
    return await api.send("POST", "/session", {"token": token}, headers={**headers}, skip_token=True)


def cookie_of(reply: Reply):
    return SimpleCookie(reply.headers["Set-Cookie"])[COOKIE]


async def signed_in(api, token: str = TOKEN) -> dict[str, str]:
    """The headers of a page of ours that signed in with ``token``."""
    secret = cookie_of(await sign_in(api, token)).value
    return {"Cookie": f"{COOKIE}={secret}", "Origin": f"http://127.0.0.1:{api.port}"}


async def as_page(api, method: str, path: str, page: dict[str, str], body=None) -> Reply:
    return await api.send(method, path, body, headers=page, skip_token=True)


async def test_a_token_is_exchanged_for_a_cookie_that_no_script_sees(door):
    reply = await sign_in(door, OPERATE_TOKEN)
    assert reply.status == 200
    assert (reply.json["name"], reply.json["role"]) == ("operator", "operate")
    cookie = cookie_of(reply)
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["secure"]) == (True, "Strict", "/", "")
    assert 0 < int(cookie["max-age"]) <= 12 * 3600
    assert OPERATE_TOKEN not in reply.headers["Set-Cookie"]
    page = {"Cookie": f"{COOKIE}={cookie.value}"}
    assert (await as_page(door, "GET", "/session", page)).json == reply.json


async def test_the_cookie_is_for_https_alone_where_the_browser_speaks_it():
    public = Entrance(public_url="https://servmon.isp.example/")
    async with serving(NOTHING, entrance=public) as api:
        assert cookie_of(await sign_in(api))["secure"] is True
    behind = Entrance(ApiSection(trusted_proxies=("127.0.0.1",)))
    async with serving(NOTHING, entrance=behind) as api:
        assert cookie_of(await sign_in(api, **{"X-Forwarded-Proto": "https"}))["secure"] is True
        assert not cookie_of(await sign_in(api))["secure"]
    async with serving(NOTHING) as api:
        assert not cookie_of(await sign_in(api, **{"X-Forwarded-Proto": "https"}))["secure"]


async def test_a_wrong_token_begins_no_session_and_is_counted(door):
    replies = [await sign_in(door, f"wrong{number}") for number in range(32)]
    assert [reply.status for reply in replies] == [401] * 30 + [429] * 2
    assert "Set-Cookie" not in replies[0].headers
    assert (await sign_in(door)).status == 200


async def test_a_change_needs_a_page_of_ours(connection):
    async with serving(services_on(connection)) as api:
        page = await signed_in(api)
        endpoint = {"id": "a", "url": "tcp://192.0.2.1:1"}
        for origin in ("https://evil.example", "null", "http://127.0.0.1", f"http://127.0.0.1:{api.port}.evil.example"):
            reply = await as_page(api, "POST", "/services/", {**page, "Origin": origin}, endpoint)
            assert reply.status == 403, origin
            assert "public_url" in reply.json["detail"]
        assert (await as_page(api, "POST", "/services/", {"Cookie": page["Cookie"]}, endpoint)).status == 403
        assert (await as_page(api, "POST", "/services/", page, endpoint)).status == 201
        assert (await as_page(api, "GET", "/services/a", {"Cookie": page["Cookie"]})).status == 200
        (change,) = (await api.get("/audit")).json["items"]
        assert (change["who"], change["address"]) == ("admin", "127.0.0.1")


async def test_a_page_at_the_public_address_is_ours_and_another_one_cannot_sign_anybody_in():
    async with serving(NOTHING, entrance=Entrance(public_url="https://servmon.isp.example")) as api:
        page = {**await signed_in(api), "Origin": "https://servmon.isp.example"}
        assert (await as_page(api, "DELETE", "/session", page)).status == 204
        assert (await sign_in(api, Origin="https://evil.example")).status == 403


async def test_signing_out_ends_it_and_takes_the_cookie_away(door):
    page = await signed_in(door)
    reply = await as_page(door, "DELETE", "/session", page)
    assert (reply.status, cookie_of(reply)["max-age"]) == (204, "0")
    reply = await as_page(door, "GET", "/session", page)
    assert (reply.status, reply.json["detail"]) == (401, "this session is over; sign in again")


async def test_a_session_ends_with_its_token_at_once(connection):
    async with serving(services_on(connection)) as api:
        made = (await api.post("/tokens/", {"name": "wallboard"})).json
        page = await signed_in(api, made["token"])
        assert (await as_page(api, "GET", "/services/", page)).status == 200
        headers = {"Cookie": page["Cookie"]}
        async with api.session.get("/events", headers=headers) as stream:
            await api.send("DELETE", f"/tokens/{made['id']}")
            assert (await as_page(api, "GET", "/services/", page)).status == 401
            async with patience():
                assert await stream.content.read() == b"retry: 3000\n\n"


async def test_a_stream_ends_when_its_browser_signs_out(door):
    page = await signed_in(door)
    async with door.session.get("/events", headers={"Cookie": page["Cookie"]}) as stream:
        await as_page(door, "DELETE", "/session", page)
        async with patience():  # a heartbeat would come later
            assert await stream.content.read() == b"retry: 3000\n\n"


async def test_a_header_counts_more_than_a_cookie_and_nonsense_is_nobody(door):
    page = await signed_in(door)
    reply = await door.get("/session", headers={"Cookie": page["Cookie"], "Authorization": f"Bearer {READ_TOKEN}"})
    assert (reply.json["name"], reply.json["expires_at"]) == ("reader", None)
    for secret in ("", "x", "é", '"', "\udcff", "x" * 4000):
        reply = await as_page(door, "GET", "/session", {"Cookie": f"{COOKIE}={secret}"})
        assert reply.status == 401, secret


@pytest.fixture
def book() -> TokenBook:
    return TokenBook([AccessToken.of("admin", TOKEN)])


async def test_a_session_ends_by_itself(book):
    clock = SetClock()
    sessions = Sessions(book, hours=12, clock=clock)
    secret, ends = await sessions.begin(book.find(TOKEN))
    assert sessions.seconds_until(ends) == 12 * 3600
    clock.seconds += 12 * 3600 - 1
    assert sessions.find(secret) is not None
    clock.seconds += 1
    assert sessions.find(secret) is None


async def test_sessions_outlive_a_restart_and_ended_ones_do_not(book, tmp_path):
    file = LocalFile(tmp_path)
    sessions = Sessions(book, Notebook(file))
    kept, ended = [(await sessions.begin(book.find(TOKEN)))[0] for _ in range(2)]
    await sessions.end(ended)
    after = Sessions(book, Notebook(file))
    await after.recall()
    assert after.find(kept).name == "admin"
    assert after.find(ended) is None
    await file.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert kept.encode() not in stored
    assert TOKEN.encode() not in stored


async def test_nobody_fills_the_memory_by_signing_in(book):
    sessions = Sessions(book)
    secrets = [(await sessions.begin(book.find(TOKEN)))[0] for _ in range(MOST_SESSIONS + 1)]
    assert sessions.find(secrets[0]) is None
    assert sessions.find(secrets[1]) is not None
    assert sessions.find(secrets[-1]) is not None
