"""``/metrics``: what servmon measures about itself, and the last check of every endpoint.

The endpoints' series bear the names of blackbox_exporter, so dashboards and rules made for it show them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import NamedTuple

from aiohttp import web

from servmon.api.health import LIVE, VITALS, Vitals
from servmon.api.requests import only_query
from servmon.api.routing import Route
from servmon.metrics import Exposition, labels
from servmon.model import AVAILABLE, CheckResult, Endpoint, Status
from servmon.services.live import LiveView, live_summary

# Rendered between two turns of the loop, so that a scrape of thousands of endpoints delays no check.
ENDPOINTS_A_TURN = 250
_HTTP_PHASES = (
    ("resolve", "dns_ms"),
    ("connect", "connect_ms"),
    ("tls", "tls_ms"),
    ("processing", "first_byte_ms"),
    ("transfer", "transfer_ms"),
)


class _Last(NamedTuple):
    """An endpoint's last check beside its labels, without the closing brace: more may follow."""

    labels: str
    endpoint: Endpoint
    result: CheckResult


async def metrics(request: web.Request) -> web.Response:
    """Everything servmon counts and knows, in the Prometheus text format, or as OpenMetrics where that is asked for."""
    only_query(request)
    live = request.app[LIVE]
    exposition = Exposition(openmetrics="application/openmetrics-text" in request.headers.get("Accept", ""))
    _add_vitals(exposition, request.app[VITALS])
    if live is not None:
        _add_summary(exposition, live)
        await _add_endpoints(exposition, [last async for last in _in_turns(live.last_results())])
    return web.Response(body=exposition.text().encode(), headers={"Content-Type": exposition.content_type})


def _add_vitals(exposition: Exposition, vitals: Vitals) -> None:
    exposition.counters(vitals.counters)
    exposition.histogram(
        "servmon_check_lateness_seconds", "How late checks started after their due time.", vitals.lateness
    )
    exposition.gauge("servmon_loop_lag_seconds", "How late the event loop turned last.", vitals.loop_lag())
    exposition.gauge("servmon_writer_queue", "Results that wait for Postgres.", vitals.writer_queue())
    exposition.gauge("servmon_tasks", "Tasks of the event loop.", len(asyncio.all_tasks()))
    exposition.gauge("servmon_troubles", "Parts that are away, as /readyz names them.", len(vitals.degraded()))
    for gauge in vitals.gauges():
        exposition.gauge(*gauge)


def _add_summary(exposition: Exposition, live: LiveView) -> None:
    counted = live_summary(live)
    by_status = [(labels({"status": status.lower()}), counted[status.lower()]) for status in Status]
    exposition.gauges("servmon_endpoints", "Active endpoints by the status of their last check.", by_status)
    exposition.gauge("servmon_outages_open", "Open outages.", counted["active_outages"])
    exposition.gauge("servmon_endpoints_in_maintenance", "Active endpoints in a window.", counted["in_maintenance"])


async def _in_turns(checked: Iterable[tuple[Endpoint, CheckResult]]) -> AsyncIterator[_Last]:
    for number, (endpoint, result) in enumerate(list(checked), 1):
        named = {
            "endpoint": endpoint.id,
            "target": endpoint.url,
            "protocol": endpoint.protocol,
            "site": endpoint.site,
        }
        yield _Last(labels(named)[:-1], endpoint, result)
        if number % ENDPOINTS_A_TURN == 0:
            await asyncio.sleep(0)


async def _add_endpoints(exposition: Exposition, checked: Sequence[_Last]) -> None:
    for name, meaning, samples in (
        ("probe_success", "Whether the last check was good; absent where it could not be asked.", _successes),
        ("probe_duration_seconds", "How long the last answer took.", _durations),
        ("probe_dns_lookup_time_seconds", "How long the name took to resolve.", _look_ups),
        ("probe_http_status_code", "The status code of the last answer.", _status_codes),
        ("probe_http_duration_seconds", "The phases of the last answer.", _http_phases),
    ):
        exposition.gauges(name, meaning, samples(checked))
        await asyncio.sleep(0)


def _successes(checked: Sequence[_Last]) -> Iterator[tuple[str, float]]:
    for last in checked:
        if last.result.status is not Status.UNKNOWN:
            yield last.labels + "}", float(last.result.status in AVAILABLE)


def _durations(checked: Sequence[_Last]) -> Iterator[tuple[str, float]]:
    for last in checked:
        if last.result.response_time is not None:
            yield last.labels + "}", last.result.response_time / 1000


def _look_ups(checked: Sequence[_Last]) -> Iterator[tuple[str, float]]:
    for last in checked:
        if last.result.phases.dns_ms is not None:
            yield last.labels + "}", last.result.phases.dns_ms / 1000


def _status_codes(checked: Sequence[_Last]) -> Iterator[tuple[str, float]]:
    for last in checked:
        if (code := (last.result.details or {}).get("status_code")) is not None:
            yield last.labels + "}", code


def _http_phases(checked: Sequence[_Last]) -> Iterator[tuple[str, float]]:
    for last in checked:
        if last.endpoint.protocol not in ("HTTP", "HTTPS"):
            continue
        for phase, field in _HTTP_PHASES:
            if (milliseconds := getattr(last.result.phases, field)) is not None:
                yield f'{last.labels},phase="{phase}"}}', milliseconds / 1000


ROUTES = (Route("GET", "/metrics", metrics, prefixed=False),)
