"""What a start begins with: all that is watched, and what is recorded of each endpoint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from servmon.model import CheckResult, Endpoint, MaintenanceWindow, Outage, StateChange
from servmon.store import endpoints, maintenance, outages, state_changes, statuses
from servmon.store.pool import Executor


@dataclass(frozen=True, slots=True)
class Recollection:
    """Endpoints with the revision they lead to, windows, and by endpoint id what its state is rebuilt from.

    ``results`` are its last ones, oldest first; ``flapping`` the last notices of it with their times. ``failing_since``
    tells of endpoints in a window how long they have failed, which their last results need not show.
    """

    revision: int
    endpoints: Sequence[Endpoint]
    windows: Sequence[MaintenanceWindow]
    last_changes: Mapping[str, StateChange]
    flapping: Mapping[str, Sequence[tuple[datetime, bool]]]
    outages_ended: Mapping[str, datetime]
    open_outages: Mapping[str, Outage]
    results: Mapping[str, Sequence[CheckResult]]
    failing_since: Mapping[str, datetime] = field(default_factory=dict)


async def from_postgres(db: Executor, since: datetime, until: datetime) -> Recollection:
    """What is stored, with the windows that have to do with the time from ``since`` to ``until``."""
    changes = await endpoints.changed_since(db, 0)
    results: defaultdict[str, list[CheckResult]] = defaultdict(list)
    for result in await statuses.recent_results(db):
        results[result.endpoint_id].append(result)
    return Recollection(
        revision=changes.revision,
        endpoints=[one for one in changes.endpoints if one.is_active],
        windows=await maintenance.between(db, since, until),
        last_changes={change.endpoint_id: change for change in await state_changes.last_changes(db)},
        flapping=await state_changes.flapping(db),
        outages_ended=await state_changes.outages_ended(db),
        open_outages={outage.endpoint_id: outage for outage in await outages.open_outages(db)},
        results=results,
    )
