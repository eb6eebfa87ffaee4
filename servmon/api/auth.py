"""Who may use the API: bearer tokens with roles, asked for on every route that is not marked open."""

from __future__ import annotations

import os
import re
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from servmon.api.problems import RequestError
from servmon.clock import SYSTEM_CLOCK, Clock
from servmon.errors import StartError
from servmon.model import Role
from servmon.services.tokens import AccessToken, TokenBook, new_token

_log = structlog.get_logger(__name__)

TOKEN_FILE = "admin.token"  # noqa: S105 - the file's name, not a token
ADMIN = "admin"
TOKEN = web.RequestKey("token", AccessToken)
TOKEN_NAME = web.RequestKey("token_name", str)
# So many wrong tokens from one address within so many seconds, and no more are looked at for a while.
MOST_WRONG = 30
WRONG_SECONDS = 60.0
MOST_ADDRESSES = 10_000
_CHALLENGE = 'Bearer realm="servmon"'
# RFC 6750 section 2.1: what can stand behind "Bearer" in a header.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass(frozen=True, slots=True)
class AdminToken:
    """The administrator's token in clear, and the file that holds it (``None``: it was configured)."""

    token: str = field(repr=False)
    path: Path | None = None


def authorisation(book: TokenBook, roles: Mapping[Handler, Role | None]) -> Middleware:
    """The one place that decides who gets in: middleware over the ``roles`` that handlers ask for.

    ``None`` there is open to everybody; what is not there (no such address, no such method) asks for any valid token.
    It has to stand behind the middleware that answers errors. ``request[TOKEN]`` is afterwards the token's entry.
    """
    wrong = WrongTokens()

    @web.middleware
    async def authorise(request: web.Request, handler: Handler) -> web.StreamResponse:
        # Decided by what matched, not by what the path looks like.
        needed = roles.get(request.match_info.handler, Role.READ)
        if needed is not None:
            entry = _let_in(request, book, wrong)
            if not entry.role.covers(needed):
                raise RequestError(403, f"this needs a token with the role {needed}; yours has {entry.role}")
            request[TOKEN] = entry
            request[TOKEN_NAME] = entry.name
        return await handler(request)

    return authorise


class WrongTokens:
    """Counts wrong tokens by address: whoever tries many is told to wait."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._tried: dict[str, deque[float]] = {}

    def note(self, address: str) -> None:
        """One more wrong token came from ``address``. Raises ``RequestError`` 429 where they are too many."""
        at = self._clock.monotonic()
        if len(self._tried) >= MOST_ADDRESSES:
            self._tried = {known: tries for known, tries in self._tried.items() if tries[-1] > at - WRONG_SECONDS}
        tries = self._tried.setdefault(address, deque(maxlen=MOST_WRONG))
        if len(tries) == MOST_WRONG and tries[0] > at - WRONG_SECONDS:
            wait = str(max(1, round(tries[0] + WRONG_SECONDS - at)))
            raise RequestError(
                429, f"more than {MOST_WRONG} wrong tokens in a minute from {address}", headers={"Retry-After": wait}
            )
        tries.append(at)


def _let_in(request: web.Request, book: TokenBook, wrong: WrongTokens) -> AccessToken:
    given = request.headers.getall("Authorization", [])
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer":
        raise RequestError(
            401, "this needs the header Authorization: Bearer TOKEN", headers={"WWW-Authenticate": _CHALLENGE}
        )
    entry = book.find(token.strip(" "))
    if entry is None:
        wrong.note(request.remote or "")
        challenge = f'{_CHALLENGE}, error="invalid_token"'
        raise RequestError(401, "this token is not known here", headers={"WWW-Authenticate": challenge})
    return entry


def load_or_create_token(data_dir: Path, configured: str | None) -> AdminToken:
    """The administrator's token: the ``configured`` one, else that in ``data_dir``, made there if there is none.

    The file is readable by its owner alone. Raises ``StartError`` where it cannot be read or written.
    """
    if configured is not None:
        return AdminToken(configured)
    path = data_dir / TOKEN_FILE
    try:
        token = _read(path)
        return AdminToken(token if token is not None else _create(path), path)
    except OSError as error:
        raise StartError(f"{path}: the API's token cannot be kept there: {error.strerror or error}") from None


def _read(path: Path) -> str | None:
    try:
        token = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    if not token:  # a crash, or a full disk, came between making the file and writing it
        path.unlink()
        return None
    if not _TOKEN.fullmatch(token):
        raise StartError(f"{path}: holds no token; delete the file and the next start makes a new one")
    if path.stat().st_mode & 0o077:
        _log.warning("the token's file could be read by others; now only by its owner", path=str(path))
        path.chmod(0o600)
    return token


def _create(path: Path) -> str:
    token = new_token()
    whole = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{token}\n")
        # A link appears whole or not at all, and never in the place of another start's token.
        path.hardlink_to(whole)
    except FileExistsError:
        return _read(path) or token
    finally:
        whole.unlink()
    return token
