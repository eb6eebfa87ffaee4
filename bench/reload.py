"""`python -m bench.reload`: what a reload of 12,000 endpoints costs the checks that are due meanwhile."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from bench.daemon import configuration, free_port, metrics, running, scratch

# A change is asked about within 5 s; all of that belongs to the reload.
AFTER_SECONDS = 7.0
INTERVAL = 60
SOME = 500


def main() -> None:
    """Print a table: how long each reload took, and how many checks started late meanwhile."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--endpoints", type=int, default=12_000)
    total = arguments.parse_args().endpoints
    with scratch() as folder:
        _measure(folder, total)


def _measure(folder: Path, total: int) -> None:
    port = free_port()
    file = configuration(folder, port, "ICMP", 0, total, INTERVAL)
    text = file.read_text(encoding="utf-8")
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "servmon", "config", "check", "--config", str(file)], check=True)
    print(f"config check: {time.monotonic() - began:.2f} s")
    with running(file, port, core=0):
        _wait_for(lambda: metrics(port)["servmon_checks_total"] >= total)
        time.sleep(INTERVAL)  # until the checks are spread over the whole interval
        print(f"{'':24}{'seconds':>10}{'checks':>10}{'> 100 ms':>10}{'skipped':>10}")
        _row("nothing", port, lambda: time.sleep(2))
        for changed in (0, 1, min(SOME, total), total):
            file.write_text(text.replace("timeout = 0.8", "timeout = 0.7", changed), encoding="utf-8")
            _row(f"reload, {changed} changed", port, lambda: _reload(port))


def _row(what: str, port: int, work: Callable[[], None]) -> None:
    before, began = metrics(port), time.monotonic()
    work()
    took = time.monotonic() - began
    time.sleep(AFTER_SECONDS)
    after = metrics(port)
    name = "servmon_check_lateness_seconds_count"
    checks = after[name] - before[name]
    late = checks - (after["on_time"] - before["on_time"])
    skipped = after["servmon_checks_skipped_total"] - before["servmon_checks_skipped_total"]
    print(f"{what:24}{took:10.2f}{checks:10.0f}{late:10.0f}{skipped:10.0f}", flush=True)


def _reload(port: int) -> None:
    headers = {"Authorization": "Bearer bench", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/config/reload", b"{}", headers, method="POST")
    urllib.request.urlopen(request, timeout=60).close()


def _wait_for(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(1)


if __name__ == "__main__":
    main()
