"""Which endpoints fail and have no outage yet: what is down next, unless it answers again."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from heapq import nsmallest
from typing import NamedTuple, TypeVar

from servmon.clock import now
from servmon.model import CurrentStatus, Endpoint, State, StateChange, Status, Suspect
from servmon.services import windows
from servmon.services.connection import Connection
from servmon.services.live import LiveView
from servmon.services.stored import stored_statuses
from servmon.store import endpoints, outages, state_changes, statuses
from servmon.tasks import in_turns

T = TypeVar("T")
# Since when an endpoint fails, and its id.
Place = tuple[datetime, str]


class Suspects(NamedTuple):
    """Some of the suspects, those that fail longest first, and how many there are in all."""

    total: int
    shown: list[Suspect]


async def find(connection: Connection, live: LiveView | None, *, limit: int, after: Place | None) -> Suspects:
    """At most ``limit`` of them, from the first one behind the place ``after``."""
    if live is None:
        return await _stored(connection, limit, after)
    known = [(one.since, one.endpoint_id, one) async for one in in_turns(live.suspects())]
    return Suspects(len(known), [one for *_, one in _part(known, limit, after)])


async def _stored(connection: Connection, limit: int, after: Place | None) -> Suspects:
    """By the rows: whose last check failed, but for those that an outage is open of or a window is over."""
    db = connection.pool
    last = await statuses.last_statuses(db)
    failing = {endpoint_id for endpoint_id, status in last.items() if status is Status.DOWN}
    failing -= {one.endpoint_id for one in await outages.open_outages(db)}
    failing -= await windows.in_maintenance(db, now(connection.clock), failing)
    changes = await state_changes.last_of(db, list(failing))
    part = _part([(one.at, endpoint_id, one) for endpoint_id, one in changes.items()], limit, after)
    asked = await endpoints.get_some(db, [endpoint_id for _, endpoint_id, _ in part])
    known = await stored_statuses(connection, asked)
    shown = (_suspect(one, known[one.id], changes[one.id], connection.detection_threshold) for one in asked)
    return Suspects(len(changes), sorted(shown, key=lambda one: (one.since, one.endpoint_id)))


def _part(known: Iterable[tuple[datetime, str, T]], limit: int, after: Place | None) -> list[tuple[datetime, str, T]]:
    return nsmallest(limit, (one for one in known if after is None or one[:2] > after))


def _suspect(endpoint: Endpoint, current: CurrentStatus, change: StateChange, threshold: int) -> Suspect:
    """What a daemon that does not check knows: not whether the second look is under way, nor what a window saw."""
    failures = current.consecutive_failures
    counts = change.new is State.SUSPECTED and endpoint.detection_window is None
    needed = max((endpoint.detection_threshold or threshold) - failures, 0) if counts else None
    return Suspect(
        endpoint.id, change.at, failures, needed, failure_kind=current.failure_kind, error_message=current.error_message
    )
