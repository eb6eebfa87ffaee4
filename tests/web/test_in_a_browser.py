"""Signing in with a real browser: forms, cookies and the policy of a page count as the browser takes them."""

from __future__ import annotations

import pytest
from aiohttp import web

from tests.fix_api import OPERATE_TOKEN, services_on, serving
from tests.fix_browser import CHROMIUM, browsing

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
HERE = "location.pathname + location.search"


@pytest.fixture
async def kibana():
    """Another site, as browsers take it: a page with one link, ``http://localhost:PORT/?URL``."""

    async def show(request: web.Request) -> web.Response:
        return web.Response(text=f'<a href="{request.query_string}">outage</a>', content_type="text/html")

    app = web.Application()
    app.router.add_get("/", show)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "localhost", 0)
    await site.start()
    yield f"http://localhost:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def test_from_a_link_elsewhere_through_the_form_to_the_outage_and_out_again(
    connection, history, kibana, tmp_path
):
    async with serving(services_on(connection)) as api, browsing(tmp_path) as browser:
        await api.post("/services/", {"id": "edge-1", "name": "Edge <b>1</b>", "url": "tcp://127.0.0.1:1"})
        outage = await history.outage("edge-1")
        path = f"/ui/outages/{outage.id}"
        ours = f"http://127.0.0.1:{api.port}"

        # Not signed in: the form, a wrong token, the right one, and on to where the link led.
        await browser.open(f"{kibana}?{ours}{path}")
        await browser.click("a", pages=2)
        assert await browser.value(HERE) == f"/ui/login?again=1&next={path}"
        await browser.write("#token", "wrong")
        await browser.click("button")
        assert "This token is not known here" in await browser.value("document.body.innerText")
        await browser.write("#token", OPERATE_TOKEN)
        await browser.click("button")
        assert await browser.value(HERE) == path
        assert await browser.value("document.querySelector('h1').innerText.includes('Edge <b>1</b> is down for')")
        assert await browser.value("document.cookie") == ""

        # The button sends where it stands, and the policy lets it through.
        await browser.write("#note", "on my way")
        await browser.click("form.act button")
        assert await browser.value(HERE) == path
        assert "operator sees to it" in await browser.value("document.body.innerText")

        # Signed in, and from another site again: the cookie is kept back, and the page comes all the same.
        await browser.open(f"{kibana}?{ours}{path}")
        await browser.click("a", pages=2)
        assert await browser.value(HERE) == path

        await browser.click("header button")
        assert await browser.value("location.pathname") == "/ui/login"
        await browser.open(f"{ours}/docs")
        assert await browser.value(HERE) == "/ui/login?next=/docs"
