"""What a route is, who may use it, and where handlers find the services."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from servmon.api.typed import TypedHandler
from servmon.model import Role
from servmon.services.alert_rules import AlertRuleService
from servmon.services.alerts import AlertService
from servmon.services.availability import AvailabilityService
from servmon.services.connection import Connection
from servmon.services.outages import OutageManagementService
from servmon.services.tokens import TokenService

AVAILABILITY = web.AppKey("availability", AvailabilityService)
OUTAGES = web.AppKey("outages", OutageManagementService)
ALERTS = web.AppKey("alerts", AlertService)
RULES = web.AppKey("rules", AlertRuleService)
TOKENS = web.AppKey("tokens", TokenService)
CONNECTION = web.AppKey("connection", Connection)
API_PREFIX = "/api/v1"
# Longer than Postgres is given for one command, so that its own failure is told first.
LONGEST_REQUEST_SECONDS = 90.0
# Which words stand at a place: what is before it, how many parts are left.
Words = Mapping[tuple[str, int], set[str]]
# What a change is made to, as it was: a handler puts it here before it changes it, for the audit.
BEFORE = web.RequestKey("before", Mapping[str, Any])


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one address, for tokens of ``role`` and above; what says nothing is the administrators' alone.

    ``open_to_all`` ones need no token; ``prefixed`` ones also answer below /api/v1; what ``changes`` something is
    noted in the audit. A request may take ``seconds``; ``None``: as long as what it asks for.
    """

    method: str
    path: str
    handler: TypedHandler
    role: Role = Role.ADMIN
    open_to_all: bool = False
    prefixed: bool = True
    is_change: bool = True
    seconds: float | None = LONGEST_REQUEST_SECONDS

    @property
    def changes(self) -> bool:
        """Whether it changes what is stored."""
        return self.is_change and self.method != "GET"

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


@dataclass(frozen=True, slots=True)
class Pages:
    """What people see in a browser beside the API; ``in_a_browser`` tells there what went wrong, as pages do."""

    routes: Sequence[Route] = ()
    in_a_browser: Middleware | None = None


def fixed_words(routes: Iterable[Route]) -> Words:
    """The words that stand where other routes have a parameter, by what stands before them and how much behind."""
    words: dict[tuple[str, int], set[str]] = {}
    for path in (path for route in routes for path in route.paths()):
        parts = path.strip("/").split("/")
        for place, part in enumerate(parts):
            if not part.startswith("{"):
                words.setdefault(("/".join(parts[:place]), len(parts) - place), set()).add(part)
    return words


def matched(path: str, words: Words) -> str:
    """``path`` as the router takes it: a parameter is none of the fixed words that could stand in its place.

    Otherwise /services/bulk would take the methods of /services/{endpoint_id} beside its own.
    """
    parts = path.strip("/").split("/")
    for place, part in enumerate(parts):
        taken = words.get(("/".join(path.strip("/").split("/")[:place]), len(parts) - place))
        if part.startswith("{") and taken:
            parts[place] = f"{part[:-1]}:(?!(?:{'|'.join(sorted(taken))})(?:/|$))[^{{}}/]+}}"
    return f"/{'/'.join(parts)}{'/' if path.endswith('/') and path != '/' else ''}"
