"""What is watched and how it stands, as the notebook holds it for a start without Postgres."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

from servmon.model import (
    CheckResult,
    CheckSource,
    Endpoint,
    MaintenanceWindow,
    Outage,
    State,
    StateChange,
    Transition,
)
from servmon.store.entries import Entry, results_in
from servmon.store.notebook import Pages
from servmon.store.plain import dump, load
from servmon.store.recollection import Recollection

# The subjects of the pages; but for windows, which are by their own id, each has one page an endpoint.
ENDPOINT, WINDOW, CHANGE, FLAPPING, OUTAGE, ENDED = "endpoint", "window", "change", "flapping", "outage", "ended"
SUBJECTS = (ENDPOINT, WINDOW, CHANGE, FLAPPING, OUTAGE, ENDED)


def pages_of(transitions: Iterable[Transition]) -> Pages:
    """What is noted of ``transitions``: of each endpoint the last one, and its outage while that is open."""
    pages: defaultdict[str, dict[str, str | None]] = defaultdict(dict)
    for transition in transitions:
        change, outage = transition.change, transition.outage
        if "flapping" in change.evidence:
            pages[FLAPPING][change.endpoint_id] = dump([change.at, change.evidence["flapping"]])
        else:
            pages[CHANGE][change.endpoint_id] = dump(change)
        if change.old is State.DOWN and change.new is not State.DOWN:
            pages[ENDED][change.endpoint_id] = dump(change.at)
        if outage is not None:
            pages[OUTAGE][change.endpoint_id] = None if outage.resolved else dump(outage)
    return pages


def endpoint_body(endpoint: Endpoint) -> str | None:
    """What is noted of ``endpoint``; nothing where it is not watched."""
    return dump(endpoint) if endpoint.is_active and endpoint.archived_at is None else None


def window_bodies(windows: Iterable[MaintenanceWindow]) -> dict[str, str]:
    """What is noted of ``windows``, by their ids."""
    return {one.id: dump(one) for one in windows}


def pages_of_all(known: Recollection) -> Pages:
    """Everything that is noted, to replace what was noted before."""
    return {
        ENDPOINT: {one.id: endpoint_body(one) for one in known.endpoints},
        WINDOW: window_bodies(known.windows),
        CHANGE: {endpoint_id: dump(change) for endpoint_id, change in known.last_changes.items()},
        FLAPPING: {endpoint_id: dump(notices[-1]) for endpoint_id, notices in known.flapping.items() if notices},
        OUTAGE: {endpoint_id: dump(outage) for endpoint_id, outage in known.open_outages.items()},
        ENDED: {endpoint_id: dump(at) for endpoint_id, at in known.outages_ended.items()},
    }


def recollected(pages: dict[str, dict[str, str]], newest: Sequence[Entry]) -> Recollection:
    """What a start without Postgres knows, from the pages on ``SUBJECTS`` and the newest entries of the spool."""
    results: defaultdict[str, list[CheckResult]] = defaultdict(list)
    for result in sorted(results_in(newest), key=lambda one: one.timestamp):
        if result.source is CheckSource.SCHEDULE:
            results[result.endpoint_id].append(result)
    return Recollection(
        revision=0,
        endpoints=[load(Endpoint, body) for body in pages[ENDPOINT].values()],
        windows=[load(MaintenanceWindow, body) for body in pages[WINDOW].values()],
        last_changes={key: load(StateChange, body) for key, body in pages[CHANGE].items()},
        flapping={key: [load(tuple[datetime, bool], body)] for key, body in pages[FLAPPING].items()},
        outages_ended={key: load(datetime, body) for key, body in pages[ENDED].items()},
        open_outages={key: load(Outage, body) for key, body in pages[OUTAGE].items()},
        results=results,
    )
