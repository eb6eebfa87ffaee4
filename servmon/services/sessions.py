"""Sessions: what a browser holds in a token's place, so that the token itself is typed once and kept nowhere."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.errors import StoreUnavailableError
from servmon.services.tokens import AccessToken, TokenBook
from servmon.store.notebook import Notebook
from servmon.store.plain import dump, load

NOTED = "session"
DEFAULT_HOURS = 12
# The oldest gives way: nobody fills the disk by signing in.
MOST_SESSIONS = 1000


@dataclass(frozen=True, slots=True)
class Session:
    """One that was begun with the token of this digest."""

    token_digest: bytes
    expires_at: datetime


class Sessions:
    """Sessions by the digest of what the browser holds. They outlive a restart in ``notebook``, where there is one.

    A session counts as long as its token does: one that is revoked or expires takes its sessions with it.
    """

    def __init__(
        self,
        book: TokenBook,
        notebook: Notebook | None = None,
        hours: float = DEFAULT_HOURS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._book = book
        self._notebook = notebook
        self._lasts = timedelta(hours=hours)
        self._clock = clock
        self._open: dict[str, Session] = {}

    async def recall(self) -> None:
        """Go on with those of before a restart."""
        if self._notebook is not None:
            with suppress(StoreUnavailableError):
                pages = (await self._notebook.read(NOTED))[NOTED]
                self._open = {digest: _noted(body) for digest, body in pages.items()}

    async def begin(self, entry: AccessToken) -> tuple[str, datetime]:
        """Begin a session for the holder of a token: the secret to hold in its place, and when it ends."""
        at = now(self._clock)
        ends = min(at + self._lasts, entry.expires_at or datetime.max.replace(tzinfo=at.tzinfo))
        secret = secrets.token_urlsafe(32)
        self._open = {digest: one for digest, one in self._open.items() if one.expires_at > at}
        while len(self._open) >= MOST_SESSIONS:
            self._close(next(iter(self._open)))
        self._open[_digest(secret)] = Session(entry.digest, ends)
        await self._note()
        return secret, ends

    def find(self, secret: str) -> AccessToken | None:
        """Whose token the session stands for, if it and the token still count."""
        session = self._open.get(_digest(secret))
        if session is None or session.expires_at <= now(self._clock):
            return None
        return self._book.of_digest(session.token_digest)

    def ends_at(self, secret: str) -> datetime | None:
        """When the session ends by itself."""
        session = self._open.get(_digest(secret))
        return session.expires_at if session else None

    def seconds_until(self, ends: datetime) -> int:
        """How long it is until then."""
        return max(0, int((ends - now(self._clock)).total_seconds()))

    async def end(self, secret: str) -> None:
        """End a session, if there is such a one."""
        if (digest := _digest(secret)) in self._open:
            self._close(digest)
            await self._note()

    def _close(self, digest: str) -> None:
        del self._open[digest]
        self._book.tell_watchers()

    async def _note(self) -> None:
        if self._notebook is not None:
            noted = {digest: dump([one.token_digest.hex(), one.expires_at]) for digest, one in self._open.items()}
            with suppress(StoreUnavailableError):
                await self._notebook.replace({NOTED: noted})


def _digest(secret: str) -> str:
    # The secret has 256 bits of chance, so looking its digest up in a dict tells nobody anything.
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _noted(body: str) -> Session:
    digest, expires_at = load(tuple[str, datetime], body)
    return Session(bytes.fromhex(digest), expires_at)
