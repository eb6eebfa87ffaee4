"""What a route is, and where handlers find the services."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from servmon.services.alerts import AlertService
from servmon.services.availability import AvailabilityService
from servmon.services.outages import OutageManagementService

AVAILABILITY = web.AppKey("availability", AvailabilityService)
OUTAGES = web.AppKey("outages", OutageManagementService)
ALERTS = web.AppKey("alerts", AlertService)
API_PREFIX = "/api/v1"


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one address. ``open_to_all`` ones need no token; ``prefixed`` ones also answer below /api/v1."""

    method: str
    path: str
    handler: Handler
    open_to_all: bool = False
    prefixed: bool = True

    def methods(self) -> tuple[str, ...]:
        """Whatever can be read can be asked for its headers alone."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)

    def paths(self) -> Iterator[str]:
        """Every address it answers at: with and without a slash at the end."""
        for prefix in ("", API_PREFIX) if self.prefixed else ("",):
            bare = f"{prefix}{self.path}".rstrip("/")
            if bare:
                yield bare
            yield f"{bare}/"
