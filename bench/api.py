"""`python -m bench.api`: how long reads over 10,000 endpoints take while 1,000 checks a second run.

Targets, the asking client and those that idle share one core, servmon and its Postgres have the other.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from http.client import HTTPConnection
from pathlib import Path

from bench.__main__ import targets
from bench.daemon import configuration, free_port, metrics, running, scratch
from bench.idlers import idling

BUDGET_MS = 50.0
STARTED = "servmon_check_lateness_seconds_count"
PAUSE_SECONDS = 0.02
# What people, dashboards and scripts read; e5000 is one endpoint among them.
READS = (
    "/services/",
    "/services/?limit=1000",
    "/services/?q=e77",
    "/services/?status=UP",
    "/services/?site=pop-7&sort=-id",
    "/services/e5000",
    "/services/e5000/status",
    "/services/e5000/history",
    "/services/e5000/state-changes",
    "/services/e5000/uptime",
    "/services/status/summary",
    "/tags",
    "/sites",
    "/outages/",
    "/outages/active",
    "/outages/summary",
    "/alerts/active",
    "/maintenance/active",
    "/audit",
    "/readyz",
)


def main() -> None:
    """Print a table, and one JSON line at the end."""
    asked = _arguments()
    with scratch() as folder:
        _measure(folder, asked)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", default="HTTP")
    parser.add_argument("--endpoints", type=int, default=10_000)
    parser.add_argument("--interval", type=int, default=10)
    parser.add_argument("--requests", type=int, default=150, help="how many of each kind")
    parser.add_argument("--only", nargs="+", default=READS, metavar="PATH", help="what to read; by default many kinds")
    parser.add_argument("--idle", type=int, default=0, help="so many connections that ask for nothing meanwhile")
    return parser.parse_args()


def _measure(folder: Path, asked: argparse.Namespace) -> None:
    port = free_port()
    targets_core, own_core = sorted(os.sched_getaffinity(0))[:2]
    with targets(targets_core) as ports:
        target = ports.get(asked.protocol, 0)
        file = configuration(folder, port, asked.protocol, target, asked.endpoints, asked.interval)
        with running(file, port, own_core):
            while metrics(port)["servmon_checks_total"] < 1.5 * asked.endpoints:
                time.sleep(1)
            rest = idling(port, asked.idle, targets_core) if asked.idle else nullcontext()
            with rest:
                before, began = metrics(port), time.monotonic()
                took = _ask_all(port, asked.only, asked.requests)
                elapsed, after = time.monotonic() - began, metrics(port)
    _show(took)
    told = {name: after[name] - before[name] for name in before}
    checks, late = told[STARTED], told[STARTED] - told["on_time"]
    skipped = told["servmon_checks_skipped_total"]
    print(
        f"\n{checks / elapsed:.0f} checks a second meanwhile, {late:.0f} of {checks:.0f} later than 100 ms,"
        f" {skipped:.0f} skipped"
    )
    every = sorted(one for times in took.values() for one in times)
    figures = {"p50_ms": _share(every, 0.5), "p99_ms": _share(every, 0.99), "late": late, "skipped": skipped}
    print(json.dumps({**figures, "worst_p99_ms": max(_share(sorted(times), 0.99) for times in took.values())}))


def _ask_all(port: int, paths: Sequence[str], requests: int) -> dict[str, list[float]]:
    """Milliseconds until the whole answer was there, by what was asked; in turns, so that all see the same load."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    took: dict[str, list[float]] = {path: [] for path in paths}
    for _ in range(requests):
        for path in paths:
            time.sleep(PAUSE_SECONDS)
            began = time.perf_counter()
            connection.request("GET", path, headers={"Authorization": "Bearer bench"})
            answer = connection.getresponse()
            answer.read()
            took[path].append((time.perf_counter() - began) * 1000)
            if answer.status != 200:
                raise SystemExit(f"{path}: {answer.status}")
    return took


def _show(took: dict[str, list[float]]) -> None:
    print(f"{'milliseconds':34}{'p50':>8}{'p99':>8}{'max':>8}")
    for path, times in took.items():
        ordered = sorted(times)
        p99 = _share(ordered, 0.99)
        over = "  above the budget" if p99 > BUDGET_MS else ""
        print(f"{path:34}{_share(ordered, 0.5):8.1f}{p99:8.1f}{ordered[-1]:8.1f}{over}")


def _share(ordered: list[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


if __name__ == "__main__":
    main()
