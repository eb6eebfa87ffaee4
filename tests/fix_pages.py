"""What a browser sends, and what a person reads on a page."""

from __future__ import annotations

import html
import re
from urllib.parse import urlencode

from servmon.api.auth import COOKIE
from tests.fix_api import TOKEN, Client, Reply

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
_FORM = "application/x-www-form-urlencoded"


def text_of(reply: Reply) -> str:
    """What a person reads on the page."""
    body = reply.body.decode().partition("<body")[2].partition(">")[2]
    main = body.partition("<main>")[2] or body
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", main)).split())


async def sign_in(api: Client, token: str = TOKEN, *, origin: str = "", host: str = "", to: str | None = None) -> Reply:
    """Send the form to sign in."""
    host = host or f"127.0.0.1:{api.port}"
    headers = {**BROWSER, "Host": host, "Origin": origin or f"http://127.0.0.1:{api.port}", "Content-Type": _FORM}
    where = "/ui/login" if to is None else f"/ui/login?{urlencode({'next': to})}"
    return await api.send("POST", where, data=urlencode({"token": token}), headers=headers, skip_token=True)


async def page_of(api: Client, token: str = TOKEN) -> dict[str, str]:
    """The headers of one of our pages in the browser of somebody who signed in with ``token``."""
    cookie = (await sign_in(api, token)).headers["Set-Cookie"].partition(";")[0]
    assert cookie.startswith(f"{COOKIE}=")
    return {**BROWSER, "Cookie": cookie, "Origin": f"http://127.0.0.1:{api.port}"}


async def send_form(api: Client, path: str, page: dict[str, str], **fields: str) -> Reply:
    """Press the button of a form on ``page``."""
    headers = {**page, "Content-Type": _FORM}
    return await api.send("POST", path, data=urlencode(fields), headers=headers, skip_token=True)
