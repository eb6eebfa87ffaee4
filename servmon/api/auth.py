"""Who may use the API: tokens with roles and sessions that stand for them, asked for on each route not marked open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address, ip_address

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from servmon.api.problems import RequestError
from servmon.api.proxies import ADDRESS, TrustedProxies, is_secure
from servmon.clock import SYSTEM_CLOCK, Clock
from servmon.model import Role
from servmon.services.pace import Pace
from servmon.services.sessions import Sessions
from servmon.services.tokens import AccessToken, TokenBook

ADMIN = "admin"
COOKIE = "servmon_session"
TOKEN = web.RequestKey("token", AccessToken)
TOKEN_NAME = web.RequestKey("token_name", str)
STAY: web.RequestKey[Stay] = web.RequestKey("stay")
ACCESS: web.AppKey[Access] = web.AppKey("access")
# So many wrong tokens from one address within so many seconds, and no more are looked at for a while.
MOST_WRONG = 30
WRONG_SECONDS = 60.0
_CHALLENGE = 'Bearer realm="servmon"'
_SAFE = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Stay:
    """For how long what was let in may stay: asked by what lasts. ``ends_at`` is when it ends by itself."""

    holds: Callable[[], bool]
    ends_at: datetime | None


class WrongTokens:
    """Counts wrong tokens by address: whoever tries many is told to wait."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._pace = Pace(MOST_WRONG, WRONG_SECONDS, clock)

    def note(self, address: str) -> None:
        """One more wrong token came from ``address``. Raises ``RequestError`` 429 where they are too many."""
        if wait := self._pace.wait(_household(address)):
            said = f"more than {MOST_WRONG} wrong tokens in a minute from {address}"
            raise RequestError(429, said, headers={"Retry-After": str(max(1, round(wait)))})


@dataclass(frozen=True, slots=True)
class Access:
    """Who is let in: holders of what ``book`` knows, and of ``sessions`` in their place.

    ``public_origin`` is where browsers find this API when not at the address they name themselves.
    """

    book: TokenBook
    sessions: Sessions
    proxies: TrustedProxies
    public_origin: str | None
    wrong: WrongTokens

    def token_holder(self, request: web.Request, token: str) -> AccessToken:
        """Whose ``token`` this is. Raises ``RequestError`` 401, or 429 where too many were wrong."""
        entry = self.book.find(token)
        if entry is None:
            self.wrong.note(request[ADDRESS])
            challenge = f'{_CHALLENGE}, error="invalid_token"'
            raise RequestError(401, "this token is not known here", headers={"WWW-Authenticate": challenge})
        return entry

    def refuse_strangers_pages(self, request: web.Request) -> None:
        """Raises ``RequestError`` 403 where a page of another origin makes the browser ask for a change."""
        origin = request.headers.get("Origin")
        own = {f"http://{request.host}", f"https://{request.host}", self.public_origin}
        if origin is None or origin not in own:
            said = f"from {origin}" if origin else "without an Origin header"
            raise RequestError(
                403,
                f"a change with a cookie has to come from a page of this servmon, not {said};"
                " behind a proxy set servmon.public_url, or send a token",
            )

    def is_secure(self, request: web.Request) -> bool:
        """Whether the browser speaks https, so that its cookie is for https alone."""
        return is_secure(request, self.proxies) or (self.public_origin or "").startswith("https:")


def authorisation(access: Access, roles: Mapping[Handler, Role | None]) -> Middleware:
    """The one place that decides who gets in: middleware over the ``roles`` that handlers ask for.

    ``None`` there is open to everybody; what is not there (no such address, no such method) asks for any valid token.
    It has to stand behind the middleware that answers errors. ``request[TOKEN]`` is afterwards the token's entry.
    """

    @web.middleware
    async def authorise(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[ADDRESS] = access.proxies.address_of(request)
        # Decided by what matched, not by what the path looks like.
        needed = roles.get(request.match_info.handler, Role.READ)
        if needed is not None:
            entry = _let_in(request, access)
            if not entry.role.covers(needed):
                raise RequestError(403, f"this needs a token with the role {needed}; yours has {entry.role}")
            request[TOKEN] = entry
            request[TOKEN_NAME] = entry.name
        return await handler(request)

    return authorise


def _let_in(request: web.Request, access: Access) -> AccessToken:
    given = request.headers.getall("Authorization", [])
    secret = request.cookies.get(COOKIE)
    if secret is not None and not given:
        return _by_session(request, access, secret)
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer":
        raise RequestError(
            401, "this needs the header Authorization: Bearer TOKEN", headers={"WWW-Authenticate": _CHALLENGE}
        )
    entry = access.token_holder(request, token.strip(" "))
    request[STAY] = Stay(lambda: access.book.still_counts(entry), entry.expires_at)
    return entry


def _by_session(request: web.Request, access: Access, secret: str) -> AccessToken:
    entry = access.sessions.find(secret)
    if entry is None:
        raise RequestError(401, "this session is over; sign in again", headers={"WWW-Authenticate": _CHALLENGE})
    if request.method not in _SAFE:
        access.refuse_strangers_pages(request)
    request[STAY] = Stay(lambda: access.sessions.find(secret) is not None, access.sessions.ends_at(secret))
    return entry


def _household(address: str) -> str:
    """Whom tries are counted for: one who has an IPv6 address has 2^64 of them."""
    try:
        known = ip_address(address)
    except ValueError:
        return address
    return known.exploded[:19] if isinstance(known, IPv6Address) else address
