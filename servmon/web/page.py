"""One page from its template, with the headers that keep it from doing anything else."""

from __future__ import annotations

import asyncio
import hashlib
import math
from base64 import b64encode
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from aiohttp import web

from servmon.alerts.lines import lasted
from servmon.api.auth import COOKIE, TOKEN
from servmon.api.health import VITALS
from servmon.api.requests import root
from servmon.clock import now
from servmon.model import Role

if TYPE_CHECKING:
    from jinja2 import Environment


def page(template: str, status: int = 200, *, referrer: str = "no-referrer", **values: Any) -> web.Response:
    """The page that ``template`` makes of ``values``.

    Browsers say of a form from whose page it is only where ``referrer`` lets them: ``same-origin``, unless the page's
    address is a key.
    """
    style, policy = _style()
    text = _environment().get_template(template).render(style=style, **values)
    headers = {
        "Content-Security-Policy": policy,
        "Referrer-Policy": referrer,
        "X-Frame-Options": "DENY",
        "X-Robots-Tag": "noindex, nofollow",
    }
    return web.Response(text=text, status=status, content_type="text/html", headers=headers)


def inner_page(request: web.Request, template: str, status: int = 200, **values: Any) -> web.Response:
    """A page of the house, with the way to the others: who looks, and whether Postgres is away, stand on each."""
    holder = request.get(TOKEN)
    shared = {
        "root": root(request),
        "now": now(),
        "who": holder,
        "may_act": holder is not None and holder.role.covers(Role.OPERATE),
        "signed_in": holder is not None and COOKIE in request.cookies,
        "away": request.app[VITALS].is_away(),
    }
    return page(template, status, referrer="same-origin", **(shared | values))


def lead(request: web.Request, path: str) -> web.Response:
    """An answer that sends the browser on to ``path``, one of ours."""
    return web.Response(status=303, headers={"Location": root(request) + path.removeprefix("/")})


async def be_ready() -> None:
    """Read the templates, where that was not done yet: for some tenths of a second, which no check has to wait for."""
    if not _read_templates.cache_info().currsize:
        await asyncio.to_thread(_read_templates)


@cache
def _read_templates() -> None:
    environment = _environment()
    for name in environment.list_templates(extensions=("html",)):
        environment.get_template(name)


@cache
def _style() -> tuple[str, str]:
    """The style of every page, and the policy that lets through that very style, a form, and nothing else."""
    style = files("servmon.web").joinpath("templates", "style.css").read_text(encoding="utf-8")
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return style, (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


@cache
def _environment() -> Environment:
    import jinja2  # noqa: PLC0415 - where a page is asked for

    made = jinja2.Environment(
        autoescape=True,
        loader=jinja2.PackageLoader("servmon.web"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["moment"] = _moment
    made.filters["lasted"] = lasted
    made.filters["milliseconds"] = _milliseconds
    made.filters["percent"] = _percent
    return made


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _milliseconds(value: float) -> str:
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def _percent(value: float) -> str:
    # Cut, not rounded: it is 100 only where nothing was missing.
    return f"{max(math.floor(value * 1000), 0) / 1000:.3f} %"
