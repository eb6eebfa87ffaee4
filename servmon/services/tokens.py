"""Tokens of the API: who holds which, what it allows, until when."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.errors import InvalidInputError, Problem, StoreUnavailableError
from servmon.model import Role
from servmon.services.connection import Connection
from servmon.services.identity import known_uuid
from servmon.services.moments import read_moment
from servmon.store import rows, tokens
from servmon.store.notebook import Notebook
from servmon.store.plain import dump, load
from servmon.store.pool import AWAY

NOTED = "token"
FOLLOW_SECONDS = 0.5
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,99}")
_SHOWN = ("id", "name", "prefix", "role", "created_at", "created_by", "expires_at", "revoked_at")


@dataclass(frozen=True, slots=True)
class AccessToken:
    """Somebody who may use the API: a name to write down, the SHA-256 digest of the token, and what it allows.

    ``prefix`` is the part of the token that may be shown.
    """

    name: str
    digest: bytes
    role: Role = Role.ADMIN
    prefix: str = ""
    expires_at: datetime | None = None

    @classmethod
    def of(cls, name: str, token: str, role: Role = Role.ADMIN) -> AccessToken:
        """The entry for ``token``, which itself is not kept."""
        return cls(name, digest_of(token), role, prefix_of(token))


def digest_of(token: str) -> bytes:
    """What is compared and stored in a token's place."""
    # Bytes that are no UTF-8 come out of a header as lone surrogates.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def prefix_of(token: str) -> str:
    """The part of ``svm_<prefix>_<secret>`` that may be shown; nothing of a token of another form."""
    parts = token.split("_", 2)
    return parts[1] if len(parts) == 3 and parts[0] == "svm" else ""


def new_token() -> str:
    """A token nobody can guess: ``svm_<prefix>_<secret>``."""
    return f"svm_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"


class TokenBook:
    """The tokens that count now: those of the configuration, and those in Postgres as of the last ``refresh``."""

    def __init__(self, configured: Iterable[AccessToken], clock: Clock = SYSTEM_CLOCK) -> None:
        self._configured = tuple(configured)
        self._stored: tuple[AccessToken, ...] = ()
        self._clock = clock
        self._watchers: set[Callable[[], None]] = set()

    @contextmanager
    def watched(self, watcher: Callable[[], None]) -> Iterator[None]:
        """Meanwhile ``watcher`` is called whenever somebody who was let in may have to go."""
        self._watchers.add(watcher)
        try:
            yield
        finally:
            self._watchers.discard(watcher)

    def tell_watchers(self) -> None:
        """Let whoever keeps something open ask whether it may stay so."""
        for watcher in tuple(self._watchers):
            watcher()

    def find(self, token: str) -> AccessToken | None:
        """Whose ``token`` this is, if it counts."""
        digest = digest_of(token)
        # Every entry is compared, so that the time taken tells nothing about which one fits.
        fitting = [one for one in (*self._configured, *self._stored) if hmac.compare_digest(one.digest, digest)]
        return next((one for one in fitting if self._counts(one)), None)

    def of_digest(self, digest: bytes) -> AccessToken | None:
        """The entry with this ``digest``, if it counts."""
        known = (one for one in (*self._configured, *self._stored) if one.digest == digest)
        return next((one for one in known if self._counts(one)), None)

    def still_counts(self, entry: AccessToken) -> bool:
        """Whether what was let in with ``entry`` may stay."""
        return entry in (*self._configured, *self._stored) and self._counts(entry)

    def take(self, stored: Iterable[AccessToken]) -> bool:
        """Let exactly these count beside the configured ones; whether that is news."""
        before, self._stored = self._stored, tuple(stored)
        if before == self._stored:
            return False
        self.tell_watchers()
        return True

    def _counts(self, entry: AccessToken) -> bool:
        return entry.expires_at is None or now(self._clock) < entry.expires_at


class TokenService:
    """Makes, lists and revokes tokens. All methods raise ``StoreUnavailableError`` where Postgres is away."""

    def __init__(self, connection: Connection, book: TokenBook, notebook: Notebook | None = None) -> None:
        self._db = connection.pool
        self._clock = connection.clock
        self._book = book
        self._notebook = notebook

    async def refresh(self) -> None:
        """Read which tokens count, after anybody changed them, and note it for a start without Postgres."""
        stored = await tokens.get_all(self._db)
        entries = [_entry(row) for row in stored if row["revoked_at"] is None]
        if self._book.take(entries) and self._notebook is not None:
            noted = {
                one.digest.hex(): dump([one.name, one.role, one.prefix, one.expires_at])  # never a token itself
                for one in entries
            }
            with suppress(StoreUnavailableError):
                await self._notebook.replace({NOTED: noted})

    async def recall(self) -> None:
        """Read which tokens count, at a start; while Postgres is away those that counted last."""
        try:
            await self.refresh()
        except AWAY:
            if self._notebook is not None:
                with suppress(StoreUnavailableError):
                    pages = (await self._notebook.read(NOTED))[NOTED]
                    self._book.take([_noted(digest, body) for digest, body in pages.items()])

    async def follow(self) -> None:
        """Read it again and again, for ever: for a daemon that hears of no changes."""
        while True:
            await self.refresh()
            await asyncio.sleep(FOLLOW_SECONDS)

    async def list_tokens(self) -> list[dict[str, Any]]:
        """Every token there was, revoked and expired ones too; never a token itself."""
        return [_shown(row) for row in await tokens.get_all(self._db)]

    async def create_token(
        self, name: str, role: Role, *, created_by: str, expires_at: datetime | str | None = None
    ) -> dict[str, Any]:
        """Make a token; ``token`` in what is returned is shown this once. ``expires_at`` ``None``: it stays valid.

        Raises ``InvalidInputError`` and, where a valid token bears the name, ``ConflictError``.
        """
        present = now(self._clock)
        expiry = _checked(name, expires_at, present)
        token = new_token()
        new = tokens.NewToken(str(uuid4()), name, prefix_of(token), digest_of(token), role, present, created_by, expiry)
        row = await tokens.insert(self._db, new)
        await self.refresh()
        return {**_shown(row), "token": token}

    async def revoke_token(self, token_id: str) -> dict[str, Any]:
        """Let a token count no longer, at once. Raises ``NotFoundError``."""
        row = await tokens.revoke(self._db, known_uuid(token_id, "token"), now(self._clock))
        await self.refresh()
        return _shown(row)


def _checked(name: str, expires_at: datetime | str | None, present: datetime) -> datetime | None:
    problems = []
    expiry: datetime | None = None
    if not _NAME.fullmatch(name):
        problems.append(
            Problem("name", "must be 1 to 100 letters, digits, spaces or . _ @ -, the first a letter or digit")
        )
    try:
        expiry = None if expires_at is None else read_moment(expires_at)
    except ValueError as error:
        problems.append(Problem("expires_at", str(error)))
    if expiry is not None and expiry <= present:
        problems.append(Problem("expires_at", "must be later than now"))
    if problems:
        raise InvalidInputError(problems)
    return expiry


def _entry(row: rows.Row) -> AccessToken:
    return AccessToken(row["name"], row["digest"], Role(row["role"]), row["prefix"], row["expires_at"])


def _noted(digest: str, body: str) -> AccessToken:
    name, role, prefix, expires_at = load(tuple[str, Role, str, datetime | None], body)
    return AccessToken(name, bytes.fromhex(digest), role, prefix, expires_at)


def _shown(row: rows.Row) -> dict[str, Any]:
    return {name: str(row[name]) if name == "id" else row[name] for name in _SHOWN}
