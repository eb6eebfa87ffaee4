"""``/ui/login`` and ``/ui/logout``: a token for a session by a form, and how whoever has none is led there."""

from __future__ import annotations

import re
from http import HTTPStatus
from urllib.parse import quote, unquote

from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from servmon.api import sessions
from servmon.api.auth import ACCESS, COOKIE
from servmon.api.problems import ProblemResponse, RequestError
from servmon.api.routing import Route
from servmon.api.typed import Form, NoQuery
from servmon.model import Role
from servmon.web.page import be_ready, inner_page, lead
from servmon.web.queries import AnyQuery

HOME = "/ui/"
_PAGE = "login.html"
# What a browser may be led back to: our pages, by the characters that yarl leaves as they are.
_OUR_PAGES = re.compile(r"/(?:ui(?:/[A-Za-z0-9._~:@!$&'()*+,;=%/-]*)?|docs/?)?(?:\?[A-Za-z0-9._~:@!$&'()*+,;=%/?-]*)?")
# What browsers say of how they came: from one of our own pages, or by an address that a person typed.
_WITH_COOKIES = ("same-origin", "none")
_SAFE = ("GET", "HEAD")


class LoginQuery(AnyQuery):
    """Where the visitor wanted to go; ``again`` where the browser came from this page itself."""

    next: str = HOME
    again: str = ""


class TokenForm(Form):
    """What the form sends."""

    token: str = ""


async def ask_for_token(request: web.Request, query: LoginQuery) -> web.Response:
    """Show the form, or lead on whoever is signed in already."""
    secret = request.cookies.get(COOKIE)
    if secret is not None and request.app[ACCESS].sessions.find(secret) is not None:
        return lead(request, _own(query.next))
    said = "" if secret is None else "Your session is over. Sign in again."
    return _form(request, query, said, status=200)


async def take_token(request: web.Request, query: LoginQuery, body: TokenForm) -> web.Response:
    """Exchange a token for a session, and lead on to where the visitor wanted to go."""
    if elsewhere := _where_the_cookie_is_kept(request):
        said = f"Sign in at {elsewhere}: over plain http your browser would not keep the cookie."
        return _form(request, query, said, status=HTTPStatus.FORBIDDEN)
    try:
        begun = await sessions.sign_in(request, body.token.strip())
    except RequestError as error:
        if error.status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS):
            raise
        answer = _form(request, query, _refusal(error), status=error.status)
        answer.headers.update(error.headers or {})
        return answer
    answer = lead(request, _own(query.next))
    answer.headers["Set-Cookie"] = begun.cookie
    return answer


async def leave(request: web.Request, query: NoQuery) -> web.Response:
    """End the session."""
    del query
    answer = lead(request, "/ui/login?again=1")
    answer.headers["Set-Cookie"] = await sessions.sign_out(request)
    return answer


@web.middleware
async def in_a_browser(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Middleware: what a person sees who opens a page without a session, or where something goes wrong.

    Programs are told what they always are: this is for those who ask for HTML, at the addresses of pages alone.
    """
    if request.path.startswith(HOME):
        await be_ready()
    answer = await handler(request)
    if not _OUR_PAGES.fullmatch(request.rel_url.raw_path) or "text/html" not in request.headers.get("Accept", ""):
        return answer
    if request.path == "/" and answer.status == HTTPStatus.OK:
        return lead(request, HOME)
    if not isinstance(answer, ProblemResponse):
        return answer
    if answer.status == HTTPStatus.UNAUTHORIZED:
        return lead(request, f"/ui/login?next={quote(_wanted(request), safe='/')}")
    return _problem(request, answer)


def _where_the_cookie_is_kept(request: web.Request) -> str | None:
    """The public address, where only https goes, and the browser says that it does not speak it."""
    public = request.app[ACCESS].public_origin or ""
    own = f"http://{request.host}"
    on_this_machine = URL(own).host in ("localhost", "127.0.0.1", "::1")
    return (
        public if public.startswith("https:") and request.headers.get("Origin") == own and not on_this_machine else None
    )


def _refusal(error: RequestError) -> str:
    if error.status == HTTPStatus.UNAUTHORIZED:
        return "This token is not known here: it was revoked, has expired, or was not copied whole."
    wait = (error.headers or {}).get("Retry-After", "60")
    return f"Too many wrong tokens came from your address. Try again in {wait} s."


def _form(request: web.Request, query: LoginQuery, said: str, *, status: int) -> web.Response:
    # On the way from another site, such as Kibana, browsers keep the cookie back. From this page they bring it.
    knocks = not (
        request.method not in _SAFE
        or query.again
        or COOKIE in request.cookies
        or request.headers.get("Sec-Fetch-Site") in _WITH_COOKIES
    )
    again = f"login?again=1&next={quote(_own(query.next), safe='/')}" if knocks else None
    return inner_page(request, _PAGE, status, said=said, again=again)


def _own(wanted: str) -> str:
    """``wanted`` where it is a page of ours, else the first page."""
    inside = _OUR_PAGES.fullmatch(wanted) and not re.search(r"//|/\.", unquote(wanted.partition("?")[0]))
    return wanted if inside else HOME


def _wanted(request: web.Request) -> str:
    """Where to go on after signing in: a change is not made then, its page is shown."""
    if request.method in _SAFE:
        return request.rel_url.raw_path_qs
    return request.rel_url.raw_path.rpartition("/")[0] or HOME


def _problem(request: web.Request, answer: ProblemResponse) -> web.Response:
    status = HTTPStatus(answer.status)
    headings = {
        HTTPStatus.NOT_FOUND: "There is no such page",
        HTTPStatus.FORBIDDEN: "Not for you",
        HTTPStatus.SERVICE_UNAVAILABLE: "Not just now",
    }
    # It shows nothing of what is remembered, so it does not say so.
    shown = inner_page(
        request, "said.html", status, heading=headings.get(status, status.phrase), lines=answer.sentences, away=False
    )
    kept = ("Allow", "Retry-After")
    shown.headers.update({name: answer.headers[name] for name in kept if name in answer.headers})
    return shown


ROUTES = (
    Route("GET", "/ui/login", ask_for_token, open_to_all=True, prefixed=False),
    Route("POST", "/ui/login", take_token, open_to_all=True, prefixed=False, is_change=False),
    Route("POST", "/ui/logout", leave, Role.READ, prefixed=False, is_change=False),
)
