"""Signing in and out by a form, who is led to it and where it leads, and what goes wrong as people see it."""

from __future__ import annotations

from io import BytesIO

from servmon.api.app import Entrance
from servmon.api.auth import COOKIE, MOST_WRONG
from tests.fix_api import NOTHING, OPERATE_TOKEN, TOKEN, services_on, serving
from tests.fix_pages import BROWSER, page_of, sign_in, text_of

LED = {
    "/": "./ui/login?next=/",
    "/ui": "./ui/login?next=/ui",
    "/ui/": "../ui/login?next=/ui/",
    "/docs": "./ui/login?next=/docs",
    "/ui/nowhere": "../ui/login?next=/ui/nowhere",
    "/ui/services/a?x=1&y=%2F": "../../ui/login?next=/ui/services/a%3Fx%3D1%26y%3D/",
}


async def test_a_browser_without_a_session_is_led_to_the_form_and_a_program_is_not(door):
    for wanted, form in LED.items():
        for headers in (BROWSER, {**BROWSER, "Cookie": f"{COOKIE}=of-nobody"}):
            reply = await door.get(wanted, headers=headers, skip_token=True)
            assert (reply.status, reply.headers["Location"]) == (303, form)
        for accepted in ({}, {"Accept": "application/json"}, {"Accept": "*/*"}):
            reply = await door.get(wanted, headers=accepted, skip_token=True)
            assert (reply.status, reply.headers["Content-Type"]) == (401, "application/problem+json; charset=utf-8")
            assert reply.headers["WWW-Authenticate"].startswith("Bearer")


async def test_what_is_no_page_tells_a_browser_what_it_tells_programs(door):
    for path in ("/services/", "/openapi.json", "/api/v1/", "/uix", "/metrics"):
        reply = await door.get(path, headers=BROWSER, skip_token=True)
        assert (reply.status, reply.json["status"]) == (401, 401), path


async def test_the_first_address_leads_a_browser_to_the_pages_and_tells_programs_the_routes(door):
    reply = await door.get("/", headers=BROWSER)
    assert (reply.status, reply.headers["Location"]) == (303, "./ui/")
    assert "routes" in (await door.get("/")).json
    assert "routes" in (await door.get("/api/v1/", headers=BROWSER)).json


async def test_a_token_is_exchanged_and_leads_back_to_where_one_wanted_to_go(door):
    reply = await sign_in(door, f"  {OPERATE_TOKEN}\r\n", to="/ui/outages/?state=open")
    assert (reply.status, reply.headers["Location"]) == (303, "../ui/outages/?state=open")
    cookie = reply.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert OPERATE_TOKEN not in cookie
    page = {"Cookie": cookie.partition(";")[0]}
    assert (await door.get("/session", headers=page, skip_token=True)).json["name"] == "operator"
    again = await door.get("/ui/login?next=/docs", headers={**BROWSER, **page}, skip_token=True)
    assert (again.status, again.headers["Location"]) == (303, "../docs")


ELSEWHERE = (
    "https://evil.example/", "//evil.example", "/\\evil.example", "/ui//evil.example", "/ui/..//evil.example",
    "\\/evil", "/services/", "/ui/../services/", "/ui/%2e%2e/services/", "/ui/%2F%2Fevil.example",
    "javascript:alert(1)", "/ui/\r\nSet-Cookie: a=b", "ui/", "", "/uix", "http:/ui/",
)  # fmt: skip


async def test_the_form_leads_to_pages_of_our_own_alone(door):
    for elsewhere in ELSEWHERE:
        reply = await sign_in(door, to=elsewhere)
        assert (reply.status, reply.headers["Location"]) == (303, "../ui/"), elsewhere
        assert len(reply.headers.getall("Set-Cookie")) == 1
    reply = await sign_in(door, to="/ui/%0d%0aSet-Cookie:a=b")
    assert reply.headers["Location"] == "../ui/%0d%0aSet-Cookie:a=b"
    assert len(reply.headers.getall("Set-Cookie")) == 1


async def test_a_wrong_token_is_one_sentence_and_too_many_are_not_looked_at(door):
    for wrong in ("wrong", "", "größe", "x" * 5000):
        reply = await sign_in(door, wrong, to="/docs")
        assert reply.status == 401
        assert text_of(reply).startswith("Sign in to servmon This token is not known here: it was revoked, has expired")
        assert "Set-Cookie" not in reply.headers
        assert wrong[:100] == "" or wrong[:100] not in reply.body.decode()
    for _ in range(MOST_WRONG - 4):
        assert (await sign_in(door, "wrong")).status == 401
    reply = await sign_in(door, "wrong")
    assert (reply.status, "Too many wrong tokens" in text_of(reply)) == (429, True)
    assert int(reply.headers["Retry-After"]) > 0
    # The programs' way in counts the same tries.
    assert (await door.post("/session", {"token": "wrong"}, skip_token=True)).status == 429
    assert (await sign_in(door)).status == 303


async def test_a_page_of_elsewhere_signs_nobody_in_or_out(door):
    page = await page_of(door)
    for origin in ("https://evil.example", "null"):
        reply = await sign_in(door, origin=origin)
        assert (reply.status, "Set-Cookie" in reply.headers) == (403, False)
        assert "behind a proxy set servmon.public_url" in text_of(reply)
        reply = await door.post("/ui/logout", headers={**page, "Origin": origin}, skip_token=True)
        assert reply.status == 403
    assert (await door.get("/session", headers=page, skip_token=True)).status == 200


async def test_behind_a_proxy_the_public_address_is_ours_and_the_cookie_for_https():
    async with serving(NOTHING, entrance=Entrance(public_url="https://servmon.isp.example/monitor/")) as api:
        reply = await sign_in(api, origin="https://servmon.isp.example")
        assert (reply.status, "Secure" in reply.headers["Set-Cookie"]) == (303, True)


async def test_where_the_browser_would_not_keep_the_cookie_it_is_told_where_to_sign_in():
    async with serving(NOTHING, entrance=Entrance(public_url="https://servmon.isp.example")) as api:
        reply = await sign_in(api, origin="http://monitor-1:8350", host="monitor-1:8350")
        assert (reply.status, "Set-Cookie" in reply.headers) == (403, False)
        assert "Sign in at https://servmon.isp.example: over plain http" in text_of(reply)
        assert (await sign_in(api)).status == 303


async def test_signing_out_ends_the_session_and_shows_the_form(door):
    page = await page_of(door)
    reply = await door.post("/ui/logout", headers=page, skip_token=True)
    assert (reply.status, reply.headers["Location"]) == (303, "../ui/login?again=1")
    assert "Max-Age=0" in reply.headers["Set-Cookie"]
    reply = await door.get("/ui/", headers=page, skip_token=True)
    assert (reply.status, reply.headers["Location"]) == (303, "../ui/login?next=/ui/")
    reply = await door.get("/ui/login?next=/ui/", headers=page, skip_token=True)
    assert "Your session is over. Sign in again." in text_of(reply)


async def test_whoever_presses_a_button_after_the_session_ended_comes_back_to_its_page(door):
    reply = await door.post("/ui/outages/x/acknowledge", headers=BROWSER, skip_token=True)
    assert (reply.status, reply.headers["Location"]) == (303, "../../../ui/login?next=/ui/outages/x")


async def test_on_the_way_from_another_site_the_browser_is_asked_once_more_for_its_cookie(door):
    """Kibana's links: a browser keeps a strict cookie back then, and brings it on the way from a page of ours."""
    knock = '<meta http-equiv="refresh" content="0;url=login?again=1&amp;next=/ui/outages/%3Fa%3Db">'
    where = "/ui/login?next=/ui/outages/%3Fa%3Db"
    for site in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        reply = await door.get(where, headers={**BROWSER, **site}, skip_token=True)
        assert knock in reply.body.decode()
    for way in ({"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-origin"}, {"Cookie": f"{COOKIE}=over"}):
        reply = await door.get(where, headers={**BROWSER, **way}, skip_token=True)
        assert b"http-equiv" not in reply.body
    reply = await door.get(f"{where}&again=1", headers={**BROWSER, "Sec-Fetch-Site": "cross-site"}, skip_token=True)
    assert b"http-equiv" not in reply.body
    hostile = await door.get('/ui/login?next="><script>', headers=BROWSER, skip_token=True)
    assert b"<script" not in hostile.body


async def test_the_form_lets_browsers_say_where_it_was_sent_from_and_takes_no_json(door):
    reply = await door.get("/ui/login", headers=BROWSER, skip_token=True)
    assert reply.headers["Referrer-Policy"] == "same-origin"
    assert "default-src 'none'; style-src 'sha256-" in reply.headers["Content-Security-Policy"]
    assert (await door.post("/ui/login", {"token": TOKEN}, skip_token=True)).status == 415
    for damaged, status in (("token=%ff", 400), ("token=a&token=b", 422), ("token=%00", 422), ("other=1", 422)):
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await door.send("POST", "/ui/login", data=damaged, headers=kind, skip_token=True)).status == status
    huge = await door.send("POST", "/ui/login", data=BytesIO(b"a=&" * 400_000), headers=kind, skip_token=True)
    assert huge.status == 413


async def test_what_goes_wrong_on_a_page_is_a_page_in_a_browser_alone(connection):
    async with serving(services_on(connection)) as api:
        for path, status in (
            ("/ui/nowhere", 404), ("/ui/services/nobody", 404), ("/ui/outages/x", 404), ("/ui/maintenance/x", 404),
            ("/ui/services/?status=BROKEN", 422), ("/ui/services/?q=%00", 422), ("/ui/services/?cursor=x", 422),
            ("/ui/logout", 405),
        ):  # fmt: skip
            reply = await api.get(path, headers=BROWSER)
            assert (reply.status, reply.headers["Content-Type"]) == (status, "text/html; charset=utf-8"), path
            assert "To the overview" in text_of(reply)
            assert (await api.get(path)).headers["Content-Type"].startswith("application/problem+json"), path
        assert (await api.get("/ui/logout", headers=BROWSER)).headers["Allow"] == "POST"
