"""``/metrics``: what servmon measures about itself, and the last check of every endpoint."""

from __future__ import annotations

from itertools import chain

from aiohttp import web

import servmon
from servmon import process
from servmon.api.endpoint_series import add_endpoints
from servmon.api.health import LIVE, VITALS, Vitals
from servmon.api.routing import Route
from servmon.metrics import Exposition, Gauge, labels
from servmon.model import Role, Status
from servmon.services.live import LiveView, live_summary


async def metrics(request: web.Request) -> web.Response:
    """Everything servmon counts and knows, in the Prometheus text format, or as OpenMetrics where that is asked for."""
    live = request.app[LIVE]
    exposition = Exposition(openmetrics="application/openmetrics-text" in request.headers.get("Accept", ""))
    _add_vitals(exposition, request.app[VITALS])
    if live is not None:
        _add_summary(exposition, live)
        await add_endpoints(exposition, live)
    return web.Response(body=exposition.text().encode(), headers={"Content-Type": exposition.content_type})


def _add_vitals(exposition: Exposition, vitals: Vitals) -> None:
    version = [(labels({"version": servmon.__version__}), 1.0)]
    exposition.gauges("servmon_build_info", "The version that runs.", version)
    exposition.counters(vitals.counters)
    exposition.counter("process_cpu_seconds_total", "Processor time used.", process.cpu_seconds())
    exposition.histogram(
        "servmon_check_lateness_seconds", "How late checks started after their due time.", vitals.lateness
    )
    for gauge in chain(vitals.gauges(), process.gauges()):
        exposition.gauge(gauge)


def _add_summary(exposition: Exposition, live: LiveView) -> None:
    counted = live_summary(live)
    by_status = [(labels({"status": status.lower()}), counted[status.lower()]) for status in Status]
    exposition.gauges("servmon_endpoints", "Active endpoints by the status of their last check.", by_status)
    exposition.gauge(Gauge("servmon_outages_open", "Open outages.", counted["active_outages"]))
    exposition.gauge(
        Gauge("servmon_endpoints_in_maintenance", "Active endpoints in a window.", counted["in_maintenance"])
    )


ROUTES = (Route("GET", "/metrics", metrics, Role.READ, prefixed=False),)
