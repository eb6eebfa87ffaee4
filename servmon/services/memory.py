"""Reads while Postgres is away: what the running daemon remembers, where it does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from servmon.errors import StoreUnavailableError
from servmon.services.live import LiveView
from servmon.store.pool import AWAY
from servmon.tasks import within

T = TypeVar("T")

# A server that takes longer over a read counts as away, where there is something to say without it.
PATIENCE_SECONDS = 5.0
UNKNOWN = "Postgres is away just now, and servmon does not remember this; it goes on checking, ask again soon"


async def stored_or_remembered(
    live: LiveView | None, ask: Callable[[], Coroutine[Any, Any, T]], remember: Callable[[LiveView], T | None]
) -> T:
    """What Postgres says, or while it is away what ``live`` remembers. Raises ``StoreUnavailableError``."""
    if live is None:
        return await ask()
    if not live.is_away:
        try:
            return await within(PATIENCE_SECONDS, ask())
        except AWAY as error:
            if (found := remember(live)) is not None:
                return found
            raise StoreUnavailableError(f"{UNKNOWN} ({error})") from None
    if (found := remember(live)) is None:
        raise StoreUnavailableError(UNKNOWN)
    return found
