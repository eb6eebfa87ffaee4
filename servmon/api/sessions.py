"""``/session``: a cookie for a browser in exchange for a token."""

from __future__ import annotations

from datetime import datetime
from http.cookies import SimpleCookie
from typing import NamedTuple

import structlog
from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from servmon.api.auth import ACCESS, COOKIE, TOKEN
from servmon.api.proxies import ADDRESS
from servmon.api.routing import Route
from servmon.api.typed import Answer, Body, NoContent
from servmon.model import Role
from servmon.services.tokens import AccessToken

_log = structlog.get_logger(__name__)


class SignIn(Body):
    """The token that the session stands for."""

    token: str = Field(description="It is compared and forgotten.", min_length=1, max_length=500)


class SessionShape(TypedDict):
    """Who asks, and until when the cookie counts; null where it was a token that let in."""

    name: str
    role: Role
    expires_at: datetime | None


class Begun(NamedTuple):
    """A new session: whose, until when, and the ``Set-Cookie`` that gives it to the browser."""

    holder: AccessToken
    ends: datetime
    cookie: str


async def begin_session(request: web.Request, body: SignIn) -> Answer[SessionShape]:
    """Get a cookie for a browser in exchange for a token; it ends with the token, or after ``[api] session_hours``."""
    begun = await sign_in(request, body.token)
    return Answer(_shape(begun.holder, begun.ends), headers={"Set-Cookie": begun.cookie})


async def get_session(request: web.Request) -> SessionShape:
    """Get who asks, with which role."""
    secret = request.cookies.get(COOKIE)
    by_cookie = secret is not None and "Authorization" not in request.headers
    return _shape(request[TOKEN], request.app[ACCESS].sessions.ends_at(secret or "") if by_cookie else None)


async def end_session(request: web.Request) -> NoContent:
    """Sign out: the cookie counts no longer, and what it holds open is closed."""
    return NoContent(headers={"Set-Cookie": await sign_out(request)})


async def sign_in(request: web.Request, token: str) -> Begun:
    """Begin a session for the holder of ``token``, whoever asks for it in whatever form.

    Raises ``RequestError``: 401 for an unknown token, 429 where too many were wrong, 403 for a page of elsewhere.
    """
    access = request.app[ACCESS]
    if "Origin" in request.headers:
        access.refuse_strangers_pages(request)
    holder = access.token_holder(request, token)
    secret, ends = await access.sessions.begin(holder)
    _log.info("a session began", who=holder.name, address=request[ADDRESS])
    cookie = _cookie(secret, access.sessions.seconds_until(ends), is_secure=access.is_secure(request))
    return Begun(holder, ends, cookie)


async def sign_out(request: web.Request) -> str:
    """End the session of ``request``; the ``Set-Cookie`` that takes the cookie away."""
    access = request.app[ACCESS]
    await access.sessions.end(request.cookies.get(COOKIE, ""))
    return _cookie("", 0, is_secure=access.is_secure(request))


def _shape(entry: AccessToken, ends: datetime | None) -> SessionShape:
    return {"name": entry.name, "role": entry.role, "expires_at": ends}


def _cookie(secret: str, seconds: int, *, is_secure: bool) -> str:
    """What the browser is told: no script sees it, no other site's page makes it travel."""
    cookie: SimpleCookie = SimpleCookie({COOKIE: secret})
    told = {"path": "/", "max-age": seconds, "httponly": True, "samesite": "Strict", "secure": is_secure}
    for name, value in told.items():
        cookie[COOKIE][name] = value
    return cookie[COOKIE].OutputString()


ROUTES = (
    Route("POST", "/session", begin_session, open_to_all=True, is_change=False),
    Route("GET", "/session", get_session, Role.READ),
    Route("DELETE", "/session", end_session, Role.READ, is_change=False),
)
