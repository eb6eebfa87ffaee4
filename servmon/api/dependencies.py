"""What depends on what, what a failure takes down, and how each endpoint's state changed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from aiohttp import web
from typing_extensions import TypedDict

from servmon.api.requests import read_cursor, read_older_than, write_cursor
from servmon.api.routing import AVAILABILITY, Route
from servmon.api.shapes import Page, page
from servmon.api.typed import PageQuery
from servmon.clock import rfc3339
from servmon.model import Role, State, StateChange
from servmon.services.dependencies import Dependency


class StateChangeShape(TypedDict):
    """One recorded change of an endpoint's state, and what it rests on."""

    id: str
    endpoint_id: str
    old: State
    new: State
    reason: str
    at: datetime
    outage_id: str | None
    evidence: dict[str, Any]


class ImpactShape(TypedDict):
    """What an endpoint's failure means for others as things stand, nearest first; ``caused_by`` cuts it off now."""

    endpoint_id: str
    depends_on: list[list[str]]
    caused_by: str | None
    takes_down: list[str]
    loses_redundancy: list[str]


class DependencyShape(TypedDict):
    """What one endpoint depends on: of each group one has to be up. Rules of the configuration file are in it."""

    endpoint_id: str
    depends_on: list[list[str]]


async def list_state_changes(request: web.Request, query: PageQuery) -> Page[StateChangeShape]:
    """List the recorded changes of a service endpoint's state, newest first, each with its reason and evidence."""
    rows = await request.app[AVAILABILITY].get_state_changes(
        request.match_info["endpoint_id"], limit=query.limit + 1, before=read_older_than(query.cursor)
    )
    return await page(rows, query.limit, shape=_change_shape, cursor=lambda row: write_cursor(rfc3339(row.at), row.id))


async def get_impact(request: web.Request) -> ImpactShape:
    """Get what the failure of a service endpoint takes down, and what loses one of several ways."""
    impact = await request.app[AVAILABILITY].get_impact(request.match_info["endpoint_id"])
    return {
        "endpoint_id": impact.endpoint_id,
        "depends_on": [list(group) for group in impact.depends_on],
        "caused_by": impact.caused_by,
        "takes_down": list(impact.takes_down),
        "loses_redundancy": list(impact.loses_redundancy),
    }


async def list_dependencies(request: web.Request, query: PageQuery) -> Page[DependencyShape]:
    """List the service endpoints that depend on others, by id."""
    cursor = read_cursor(query.cursor, 1)
    rows = await request.app[AVAILABILITY].list_dependencies(limit=query.limit + 1, after=cursor[0] if cursor else None)
    return await page(rows, query.limit, shape=_dependency_shape, cursor=lambda row: write_cursor(row.endpoint_id))


def _change_shape(change: StateChange) -> StateChangeShape:
    return {
        "id": change.id,
        "endpoint_id": change.endpoint_id,
        "old": change.old,
        "new": change.new,
        "reason": change.reason,
        "at": change.at,
        "outage_id": change.outage_id,
        "evidence": dict(change.evidence),
    }


def _dependency_shape(dependency: Dependency) -> DependencyShape:
    return {
        "endpoint_id": dependency.endpoint_id,
        "depends_on": [list(group) for group in dependency.depends_on],
    }


# Before /services/{endpoint_id}, which would take the word for an id.
LIST = Route("GET", "/services/dependencies", list_dependencies, Role.READ)
ROUTES = (
    Route("GET", "/services/{endpoint_id}/state-changes", list_state_changes, Role.READ),
    Route("GET", "/services/{endpoint_id}/impact", get_impact, Role.READ),
)
