"""`python -m bench.api`: how long reads over 10,000 endpoints take while 1,000 checks a second run.

Targets and the asking client share one core, servmon and its Postgres have the other.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path

from bench.__main__ import targets
from bench.daemon import configuration, free_port, metrics, running

BUDGET_MS = 50.0
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
    folder = Path(tempfile.mkdtemp(prefix="servmon-bench-"))
    folder.chmod(0o711)  # started by root, PostgreSQL runs under another account
    try:
        _measure(folder, asked)
    finally:
        shutil.rmtree(folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", default="HTTP")
    parser.add_argument("--endpoints", type=int, default=10_000)
    parser.add_argument("--interval", type=int, default=10)
    parser.add_argument("--requests", type=int, default=150, help="how many of each kind")
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
            before, began = metrics(port), time.monotonic()
            took = _ask_all(port, asked.requests)
            elapsed, after = time.monotonic() - began, metrics(port)
    _show(took)
    checks = (after["servmon_checks_total"] - before["servmon_checks_total"]) / elapsed
    skipped = after["servmon_checks_skipped_total"] - before["servmon_checks_skipped_total"]
    every = sorted(one for times in took.values() for one in times)
    print(f"\n{checks:.0f} checks a second meanwhile, {skipped:.0f} skipped")
    figures = {"checks_a_second": round(checks), "p50_ms": _share(every, 0.5), "p99_ms": _share(every, 0.99)}
    print(json.dumps({**figures, "worst_p99_ms": max(_share(sorted(times), 0.99) for times in took.values())}))


def _ask_all(port: int, requests: int) -> dict[str, list[float]]:
    """Milliseconds until the whole answer was there, by what was asked; in turns, so that all see the same load."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    took: dict[str, list[float]] = {path: [] for path in READS}
    for _ in range(requests):
        for path in READS:
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
