"""How servmon itself is doing: ``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from servmon.api.requests import only_query
from servmon.api.routing import Route
from servmon.api.shapes import json_answer
from servmon.metrics import Counters, Histogram, render, render_counters
from servmon.model import AVAILABLE, CurrentStatus, Status
from servmon.services.live import LiveView

# Rendered between two turns of the loop, so that a scrape of thousands of endpoints delays no check.
ENDPOINTS_A_TURN = 500


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the daemon measures about itself. Durations are seconds.

    ``degraded`` names the parts that are away just now, in words anybody may read.
    """

    counters: Counters = field(default_factory=Counters)
    lateness: Histogram = field(default_factory=Histogram)
    loop_lag: Callable[[], float] = lambda: 0.0
    writer_queue: Callable[[], int] = lambda: 0
    degraded: Callable[[], Sequence[str]] = tuple


VITALS = web.AppKey("vitals", Vitals)
LIVE: web.AppKey[LiveView | None] = web.AppKey("live")


async def healthz(_request: web.Request) -> web.Response:
    """Whether the process lives: it does if it answers."""
    return json_answer({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Whether servmon does its work, and which of its parts are away."""
    return json_answer({"ready": True, "degraded": list(request.app[VITALS].degraded())})


async def metrics(request: web.Request) -> web.Response:
    """Everything servmon counts, and the last check of every endpoint, in the Prometheus text format."""
    only_query(request)
    vitals, live = request.app[VITALS], request.app[LIVE]
    lines = [
        *render_counters(vitals.counters),
        *vitals.lateness.render("servmon_check_lateness_seconds"),
        *render("servmon_loop_lag_seconds", "gauge", [({}, vitals.loop_lag())]),
        *render("servmon_writer_queue", "gauge", [({}, vitals.writer_queue())]),
        *render("servmon_tasks", "gauge", [({}, len(asyncio.all_tasks()))]),
    ]
    current = list(live.statuses()) if live is not None else []
    await _append(lines, "probe_success", _successes(current))
    await _append(lines, "probe_duration_seconds", _durations(current))
    return web.Response(
        body=("\n".join(lines) + "\n").encode(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


Sample = tuple[dict[str, str], float]


async def _append(lines: list[str], name: str, samples: Iterator[Sample]) -> None:
    for number, line in enumerate(render(name, "gauge", samples)):
        lines.append(line)
        if number % ENDPOINTS_A_TURN == 0:
            await asyncio.sleep(0)


def _successes(current: Sequence[CurrentStatus]) -> Iterator[Sample]:
    # UNKNOWN is neither: we could not ask.
    for one in current:
        if one.status is not Status.UNKNOWN:
            yield {"endpoint": one.endpoint_id}, float(one.status in AVAILABLE)


def _durations(current: Sequence[CurrentStatus]) -> Iterator[Sample]:
    for one in current:
        if one.response_time is not None:
            yield {"endpoint": one.endpoint_id}, one.response_time / 1000


ROUTES = (
    Route("GET", "/healthz", healthz, open_to_all=True, prefixed=False),
    Route("GET", "/readyz", readyz, open_to_all=True, prefixed=False),
    Route("GET", "/metrics", metrics, prefixed=False),
)
