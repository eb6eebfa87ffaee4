"""One page from its template, with the headers that keep it from doing anything else."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from aiohttp import web

from servmon.alerts.lines import lasted

if TYPE_CHECKING:
    from jinja2 import Environment


def page(template: str, status: int = 200, **values: Any) -> web.Response:
    """The page that ``template`` makes of ``values``."""
    style, policy = _style()
    text = _environment().get_template(template).render(style=style, **values)
    headers = {
        "Content-Security-Policy": policy,
        # The address is a key.
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
        "X-Robots-Tag": "noindex, nofollow",
    }
    return web.Response(text=text, status=status, content_type="text/html", headers=headers)


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
    return made


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
