"""What a page shows while Postgres is away: all that servmon remembers, and nothing in the place of the rest."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from aiohttp import web

from servmon.api.health import VITALS
from servmon.api.routing import ALERTS, AVAILABILITY
from servmon.services.memory import PATIENCE_SECONDS
from servmon.store.pool import AWAY
from servmon.tasks import within

T = TypeVar("T")
# What services remember they tell after theirs, so a page waits a little longer.
_PATIENCE_SECONDS = PATIENCE_SECONDS + 1


class Reading:
    """Reads the parts of one page; ``away`` says whether some of them were left out."""

    def __init__(self, request: web.Request) -> None:
        self._app = request.app
        self.away = request.app[VITALS].is_away()

    async def known(self, asked: Coroutine[Any, Any, T]) -> T | None:
        """What a running daemon remembers by itself; ``None`` where it does not, and Postgres is away."""
        try:
            return await within(_PATIENCE_SECONDS, asked)
        except AWAY:
            self.away = True
            return None

    async def stored(self, ask: Any, *given: Any, **options: Any) -> Any:
        """What only Postgres knows; ``None`` while it is away, which is found out once for a page."""
        return None if self.away else await self.known(ask(*given, **options))

    async def names(self, endpoint_ids: Iterable[str]) -> dict[str, str]:
        """The names of endpoints by their ids, as far as they are known."""
        return await self.known(self._app[AVAILABILITY].get_names(endpoint_ids)) or {}

    async def seen_to(self, outage_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Who sees to each of the outages, as far as that is known."""
        found: dict[str, dict[str, Any]] | None = await self.stored(
            self._app[ALERTS].get_acknowledgements, tuple(outage_ids)
        )
        return found or {}
