"""``/ui/``: what is down now, what is being worked on, and how servmon itself is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from servmon.api.health import VITALS
from servmon.api.routing import AVAILABILITY, OUTAGES, Route
from servmon.api.window_shapes import window_shape
from servmon.model import Outage, Role
from servmon.web.page import inner_page
from servmon.web.queries import AnyQuery
from servmon.web.reading import Reading

# The list of outages has the others; what is read on a phone at night is short.
SHOWN = 50
NAMED = 20
SUSPECTS_SHOWN = 20


@dataclass(slots=True)
class Trouble:
    """An outage with those that it causes, newest first."""

    outage: Outage
    causes: list[Outage] = field(default_factory=list)


async def show_overview(request: web.Request, query: AnyQuery) -> web.Response:
    """Show how things are, anew every half minute."""
    del query
    reading = Reading(request)
    summary = await reading.known(request.app[AVAILABILITY].get_status_summary())
    down = await reading.known(request.app[OUTAGES].get_open_outages()) or []
    suspects = await reading.known(request.app[AVAILABILITY].get_suspects(limit=SUSPECTS_SHOWN))
    troubles = by_cause(down)
    shown = troubles[:SHOWN]
    named = [one.endpoint_id for trouble in shown for one in (trouble.outage, *trouble.causes[:NAMED])]
    named += [one.endpoint_id for one in suspects.shown] if suspects else []
    windows = await reading.stored(request.app[OUTAGES].get_active_maintenance_windows)
    return inner_page(
        request,
        "overview.html",
        summary=summary,
        troubles=shown,
        suspects=suspects,
        number=len(down),
        more=len(troubles) - len(shown),
        named=NAMED,
        names=await reading.names(named),
        seen_to=await reading.seen_to(trouble.outage.id for trouble in shown),
        windows=None if windows is None else [window_shape(one) for one in windows],
        degraded=request.app[VITALS].degraded(),
        away=reading.away,
    )


def by_cause(outages: Sequence[Outage]) -> list[Trouble]:
    """Each outage that is no other's doing, newest first, with those that are its own."""
    open_at = {one.endpoint_id: one for one in outages}
    troubles: dict[str, Trouble] = {}
    for one in outages:
        root = _root(one, open_at)
        trouble = troubles.setdefault(root.id, Trouble(root))
        if root is not one:
            trouble.causes.append(one)
    return sorted(troubles.values(), key=lambda trouble: trouble.outage.start_time, reverse=True)


def _root(outage: Outage, open_at: Mapping[str, Outage]) -> Outage:
    seen = {outage.endpoint_id}
    while (cause := open_at.get(outage.caused_by or "")) and cause.endpoint_id not in seen:
        outage = cause
        seen.add(outage.endpoint_id)
    return outage


ROUTES = (Route("GET", "/ui", show_overview, Role.READ, prefixed=False),)
