"""Who may use the API: bearer tokens, kept as digests, asked for on every route that is not marked open."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from servmon.api.problems import RequestError
from servmon.errors import StartError

_log = structlog.get_logger(__name__)

TOKEN_FILE = "admin.token"  # noqa: S105 - the file's name, not a token
ADMIN = "admin"
TOKEN_NAME = web.RequestKey("token_name", str)
_CHALLENGE = 'Bearer realm="servmon"'
# RFC 6750 section 2.1: what can stand behind "Bearer" in a header.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass(frozen=True, slots=True)
class AccessToken:
    """Somebody who may use the API: a name to write down, and the SHA-256 digest of the token."""

    name: str
    digest: bytes

    @classmethod
    def of(cls, name: str, token: str) -> AccessToken:
        """The entry for ``token``, which itself is not kept."""
        return cls(name, _digest(token))


@dataclass(frozen=True, slots=True)
class AdminToken:
    """The administrator's token in clear, and the file that holds it (``None``: it was configured)."""

    token: str = field(repr=False)
    path: Path | None = None


def authorisation(tokens: Iterable[AccessToken], open_to_all: Iterable[Handler]) -> Middleware:
    """The middleware that lets only known tokens in, but for the handlers that are ``open_to_all``.

    It has to stand behind the one that answers errors. ``request[TOKEN_NAME]`` is afterwards the token's name.
    """
    known = tuple(tokens)
    free = frozenset(open_to_all)

    @web.middleware
    async def authorise(request: web.Request, handler: Handler) -> web.StreamResponse:
        # Decided by what matched, not by what the path looks like: an unknown route or method is nobody's.
        if request.match_info.handler not in free:
            request[TOKEN_NAME] = _bearer(request, known).name
        return await handler(request)

    return authorise


def _bearer(request: web.Request, known: Iterable[AccessToken]) -> AccessToken:
    given = request.headers.getall("Authorization", [])
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer":
        raise RequestError(
            401, "this needs the header Authorization: Bearer TOKEN", headers={"WWW-Authenticate": _CHALLENGE}
        )
    digest = _digest(token.strip(" "))
    # Every entry is compared, so that the time taken tells nothing about which one fits.
    fitting = [entry for entry in known if hmac.compare_digest(entry.digest, digest)]
    if not fitting:
        challenge = f'{_CHALLENGE}, error="invalid_token"'
        raise RequestError(401, "this token is not known here", headers={"WWW-Authenticate": challenge})
    return fitting[0]


def _digest(token: str) -> bytes:
    # Bytes that are no UTF-8 come out of a header as lone surrogates.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


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
    token = f"svm_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
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
