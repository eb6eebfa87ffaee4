"""The dashboard and its eight visualisations: the source of ``servmon.ndjson``, which is shipped for imports by hand.

``make dashboards`` writes that file anew; a test compares the two. An id, once released, stays: an upgrade overwrites.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import quote

from servmon.elastic.kibana.lens import (
    Visualisation,
    average,
    count,
    last_value,
    latest_moment,
    over_time,
    term,
    top_values,
)
from servmon.elastic.kibana.saved_objects import (
    DataView,
    SavedObject,
    as_ndjson,
    data_view,
    from_ndjson,
    packed,
    reference,
    saved_object,
)
from servmon.elastic.mapping import MAINTENANCE_INDEX, OUTAGE_PREFIX, STATUS_PREFIX

FILE = "servmon.ndjson"
DASHBOARD = "servmon-overview"
TITLE = "Service availability"

STATUSES = DataView("servmon-status", "servmon: checks", f"{STATUS_PREFIX}*", "timestamp")
# By when an outage was last seen: one that has been open for days is in the last 15 minutes too.
OUTAGES = DataView("servmon-outage", "servmon: outages", f"{OUTAGE_PREFIX}*", "last_seen_at")
# Without a time: what is yet to come is shown as well.
WINDOWS = DataView("servmon-maintenance", "servmon: maintenance windows", MAINTENANCE_INDEX)
DATA_VIEWS = (STATUSES, OUTAGES, WINDOWS)

# A check made by hand counts for nothing, here as elsewhere.
SCHEDULED = (term("source", "schedule"),)
OPEN = (term("resolved", value=False),)
CHECKS = count("checks", "Checks")
OUTAGE_COUNT = count("outages", "Outages")
SERVICES_SHOWN = 10
ROWS_SHOWN = 20


def visualisations() -> list[SavedObject]:
    """The eight of them, in the order of the documentation."""
    return [
        Visualisation("servmon-status-overview", "Service Status Overview", STATUSES, SCHEDULED).pie(
            top_values("status", "Status", "status", by="checks", size=4), CHECKS
        ),
        Visualisation("servmon-active-outages", "Active Outages", OUTAGES, OPEN).metric(
            count("outages", "Outages open now")
        ),
        Visualisation("servmon-response-time", "Service Response Time", STATUSES, SCHEDULED).series(
            "line",
            x=over_time("time", "Time", "timestamp"),
            split=top_values("service", "Service", "endpoint_name", by="response-time", size=SERVICES_SHOWN),
            y=average("response-time", "Response time", "response_time", suffix=" ms"),
        ),
        Visualisation("servmon-status-history", "Service Status History", STATUSES, SCHEDULED).series(
            "area_stacked",
            x=over_time("time", "Time", "timestamp"),
            split=top_values("status", "Status", "status", by="checks", size=4),
            y=CHECKS,
        ),
        Visualisation("servmon-recent-outages", "Recent Outages", OUTAGES).table(
            top_values("outage", "Outage", "id", by="started", size=ROWS_SHOWN),
            [
                latest_moment("started", "Started", "start_time"),
                last_value("service", "Service", "endpoint_name", sort="last_seen_at"),
                last_value("severity", "Severity", "severity", sort="last_seen_at"),
                last_value("resolved", "Resolved", "resolved", sort="last_seen_at", data_type="boolean"),
                latest_moment("ended", "Resolved at", "resolved_at"),
                last_value("description", "Description", "description.keyword", sort="last_seen_at"),
            ],
        ),
        Visualisation("servmon-outages-by-service", "Outages by Service", OUTAGES).pie(
            top_values("service", "Service", "endpoint_name", by="outages", size=SERVICES_SHOWN, other=True),
            OUTAGE_COUNT,
        ),
        Visualisation("servmon-outages-by-severity", "Outages by Severity", OUTAGES).series(
            "bar_stacked",
            x=over_time("started", "Started", "start_time"),
            split=top_values("severity", "Severity", "severity", by="outages", size=4),
            y=OUTAGE_COUNT,
        ),
        Visualisation("servmon-maintenance-windows", "Maintenance Windows", WINDOWS).table(
            top_values("window", "Window", "id", by="begins", size=ROWS_SHOWN),
            [
                latest_moment("begins", "Begins", "start_time"),
                latest_moment("ends", "Ends", "end_time"),
                last_value("description", "Description", "description.keyword", sort="start_time"),
                last_value("mode", "Mode", "mode", sort="start_time"),
                last_value("recurs", "Recurs", "rrule", sort="start_time"),
                last_value("created_by", "Created by", "created_by", sort="start_time"),
            ],
        ),
    ]


class Place(NamedTuple):
    """Where a panel stands, on a grid that is 48 wide."""

    x: int
    y: int
    w: int
    h: int


LAYOUT: Mapping[str, Place] = {
    "servmon-status-overview": Place(0, 0, 12, 12),
    "servmon-active-outages": Place(12, 0, 8, 12),
    "servmon-response-time": Place(20, 0, 28, 12),
    "servmon-status-history": Place(0, 12, 30, 12),
    "servmon-outages-by-service": Place(30, 12, 18, 12),
    "servmon-recent-outages": Place(0, 24, 48, 14),
    "servmon-outages-by-severity": Place(0, 38, 24, 12),
    "servmon-maintenance-windows": Place(24, 38, 24, 12),
}


def overview() -> SavedObject:
    """The dashboard with a panel for each visualisation."""
    panels = list(enumerate(LAYOUT.items(), 1))
    attributes = {
        "title": TITLE,
        "description": "What servmon watches: checks, outages and maintenance windows.",
        "version": 1,
        "timeRestore": True,  # without it Kibana ignores the range
        "timeFrom": "now-24h",
        "timeTo": "now",
        "refreshInterval": {"pause": False, "value": 60_000},
        "kibanaSavedObjectMeta": {
            "searchSourceJSON": packed({"query": {"query": "", "language": "kuery"}, "filter": []})
        },
        "optionsJSON": packed({"useMargins": True, "syncColors": True, "syncCursor": True, "hidePanelTitles": False}),
        "panelsJSON": packed([_panel(f"p{number}", place) for number, (_, place) in panels]),
    }
    shown = [reference("lens", id_, f"p{number}:panel_p{number}") for number, (id_, _) in panels]
    return saved_object("dashboard", DASHBOARD, attributes, shown)


def _panel(name: str, place: Place) -> dict[str, Any]:
    return {
        "type": "lens",
        "panelIndex": name,
        "gridData": {**place._asdict(), "i": name},
        "version": "8.9.0",
        "embeddableConfig": {"enhancements": {}},
        "panelRefName": f"panel_{name}",
    }


def generate() -> str:
    """The whole of ``servmon.ndjson``."""
    return as_ndjson([*map(data_view, DATA_VIEWS), *visualisations(), overview()])


def shipped() -> list[SavedObject]:
    """The objects in the file that comes with the package."""
    return from_ndjson(resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8"))


def with_links(objects: Iterable[SavedObject], public_url: str) -> list[SavedObject]:
    """The objects with outages and services linked to servmon's own pages, wherever a table shows them."""
    formats = {
        name: _link(page_url(public_url, page)) for name, page in (("endpoint_id", "services"), ("id", "outages"))
    }
    linked = {
        STATUSES.id: {"endpoint_id": formats["endpoint_id"]},
        OUTAGES.id: formats,
        WINDOWS.id: {"id": _link(page_url(public_url, "maintenance"))},
    }
    return [_with_formats(one, linked[one["id"]]) if one["id"] in linked else one for one in objects]


def page_url(public_url: str, page: str) -> str:
    """The address of servmon's pages of one kind, to which the id is added."""
    return f"{public_url.rstrip('/')}/ui/{quote(page)}/"


def _link(base: str) -> dict[str, Any]:
    return {"id": "url", "params": {"type": "a", "urlTemplate": f"{base}{{{{value}}}}", "labelTemplate": "{{value}}"}}


def _with_formats(view: SavedObject, formats: Mapping[str, Any]) -> SavedObject:
    kept = json.loads(view["attributes"]["fieldFormatMap"])
    return view | {"attributes": view["attributes"] | {"fieldFormatMap": packed({**kept, **formats})}}
