"""How servmon itself is doing: ``/healthz`` and ``/readyz``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from aiohttp import web
from typing_extensions import TypedDict

from servmon.api.routing import Route
from servmon.metrics import Counters, Gauge, Histogram
from servmon.services.live import LiveView


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the daemon measures about itself; ``gauges`` are figures that are asked for when somebody wants to know.

    ``degraded`` names the parts that are away just now, in words anybody may read; ``is_away`` says that Postgres is.
    """

    counters: Counters = field(default_factory=Counters)
    lateness: Histogram = field(default_factory=Histogram)
    degraded: Callable[[], Sequence[str]] = tuple
    is_away: Callable[[], bool] = lambda: False
    gauges: Callable[[], Iterable[Gauge]] = tuple


VITALS = web.AppKey("vitals", Vitals)
LIVE: web.AppKey[LiveView | None] = web.AppKey("live")


class Health(TypedDict):
    """It says so, so it lives."""

    status: str


class Readiness(TypedDict):
    """Whether servmon does its work, and which of its parts are away, a sentence each."""

    ready: bool
    degraded: list[str]


async def healthz(_request: web.Request) -> Health:
    """Whether the process lives: it does if it answers."""
    return {"status": "ok"}


async def readyz(request: web.Request) -> Readiness:
    """Whether servmon does its work, and which of its parts are away."""
    return {"ready": True, "degraded": list(request.app[VITALS].degraded())}


ROUTES = (
    Route("GET", "/healthz", healthz, open_to_all=True, prefixed=False),
    Route("GET", "/readyz", readyz, open_to_all=True, prefixed=False),
)
