"""Which endpoints there are, by id and in parts, chosen by what they are and by how they are now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from heapq import nlargest, nsmallest

from servmon.clock import now
from servmon.model import Endpoint, State, StatusFilter
from servmon.services import windows
from servmon.services.connection import Connection
from servmon.services.live import LiveView
from servmon.services.memory import stored_or_remembered
from servmon.store import endpoints, state_changes, statuses
from servmon.store.endpoints import EVERYTHING, Part
from servmon.store.pool import Executor

ANYHOW = StatusFilter()


async def find(connection: Connection, live: LiveView | None, part: Part, how: StatusFilter = ANYHOW) -> list[Endpoint]:
    """The endpoints of one ``part`` that are as ``how`` says; what is not active is in no way."""
    wanted = part.wanted
    if how != ANYHOW:
        ids = await _stored_ids(connection, how) if live is None else live.ids_with(how)
        # With nothing else to choose by, Postgres need not hear of ten thousand ids for a page of a hundred.
        few = next_ids(ids, part.after, part.limit, part.backwards) if wanted == EVERYTHING else ids
        wanted = replace(wanted, ids=few)
        part = replace(part, wanted=wanted)
    is_remembered = not part.backwards and wanted.is_active is not False
    return await stored_or_remembered(
        live,
        lambda: read_part(connection.pool, part, live),
        lambda view: _page(wanted.among(view.endpoints()), part.after, part.limit) if is_remembered else None,
    )


async def _stored_ids(connection: Connection, how: StatusFilter) -> list[str]:
    """The ids of the active endpoints that are so, by the rows."""
    db = connection.pool
    found = [one for one, status in (await statuses.last_statuses(db)).items() if how.status in (None, status)]
    if how.state is not None:
        changes = await state_changes.last_of(db, found)
        found = [one for one in found if (changes[one].new if one in changes else State.UNKNOWN) is how.state]
    if how.in_maintenance is not None:
        covered = await windows.in_maintenance(db, now(connection.clock), found)
        found = [one for one in found if (one in covered) is how.in_maintenance]
    return found


async def read_part(db: Executor, part: Part, live: LiveView | None) -> list[Endpoint]:
    """The endpoints of one ``part``, as stored.

    Which they are says Postgres; one that ``live`` holds at the same revision need not be sent and decoded once more.
    """
    if live is None:
        return await endpoints.get_page(db, part)
    revisions = await endpoints.get_revisions(db, part)
    known = {one: remembered for one, revision in revisions if (remembered := _remembered(live, one, revision))}
    if other := [one for one, _ in revisions if one not in known]:
        known |= {one.id: one for one in await endpoints.get_some(db, other)}
    if len(known) < len(revisions):  # one of them was deleted meanwhile
        return await endpoints.get_page(db, part)
    return [known[one] for one, _ in revisions]


def _remembered(live: LiveView, endpoint_id: str, revision: int) -> Endpoint | None:
    known = live.endpoint(endpoint_id)
    return known if known is not None and known.revision == revision else None


# So many may be deleted in the moment between memory and Postgres, and the page is full all the same.
_SLACK = 100


def next_ids(ids: list[str], after: str | None, limit: int, backwards: bool) -> list[str]:
    """The first ``limit`` of ``ids`` behind the id ``after``, and some more."""
    behind = (one for one in ids if after is None or (one < after if backwards else one > after))
    most = limit + _SLACK
    return nlargest(most, behind) if backwards else nsmallest(most, behind)


def _page(known: Iterable[Endpoint], after: str | None, limit: int) -> list[Endpoint]:
    return sorted((one for one in known if one.id > (after or "")), key=lambda one: one.id)[:limit]
