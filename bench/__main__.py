"""`make bench`: the median cost of one stored check for each protocol, beside its floor in the same run.

Targets run on one core, servmon on the other. Absolute figures drift between machines; compare the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

from bench import daemon
from bench.floors import FLOORS

# CPU milliseconds of daemon and Postgres for a stored check at 1,000 a second.
BUDGET_MS = {"HTTP": 0.20, "TCP": 0.13, "UDP": 0.13, "DNS": 0.15, "ICMP": 0.08}
HTTPS_SHARE = 1.5


class Run(NamedTuple):
    """One measurement: the floor flat out and paced, in microseconds, and what servmon needs."""

    floor_us: float
    paced_us: float
    cost: daemon.Cost


def main() -> None:
    """Measure, print a table, and one JSON line at the end."""
    asked = _arguments()
    targets_core, own_core = sorted(os.sched_getaffinity(0))[:2]
    runs: dict[str, list[Run]] = {protocol: [] for protocol in asked.protocols}
    with targets(targets_core) as ports:
        for _ in range(asked.repetitions):
            for protocol in asked.protocols:
                floors = _floors(protocol, ports.get(protocol, 0), own_core)
                cost = _load(protocol, ports.get(protocol, 0), own_core, asked)
                runs[protocol].append(Run(*floors, cost))
    _show(runs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("protocols", nargs="*", default=list(FLOORS), help="any of HTTP HTTPS TCP UDP DNS ICMP")
    parser.add_argument("--endpoints", type=int, default=1000)
    parser.add_argument("--interval", type=int, default=1, help="seconds between the checks of an endpoint")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of one measurement")
    parser.add_argument("--repetitions", type=int, default=3)
    return parser.parse_args()


@contextmanager
def targets(core: int) -> Iterator[dict[str, int]]:
    """Servers to be asked, in a process on this core; gives their ports by protocol."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.targets"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield dict(
            zip(("HTTP", "HTTPS", "TCP", "UDP", "DNS"), map(int, process.stdout.readline().split()), strict=True)
        )
    finally:
        process.stdin.close()
        process.wait(timeout=10)
        process.stdout.close()


def _floors(protocol: str, port: int, core: int) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.floors", protocol, str(port)],
        check=True,
        capture_output=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    return [float(figure) for figure in done.stdout.split()]


def _load(protocol: str, target_port: int, core: int, asked: argparse.Namespace) -> daemon.Cost:
    with daemon.scratch() as folder:
        port = daemon.free_port()
        file = daemon.configuration(folder, port, protocol, target_port, asked.endpoints, asked.interval)
        with daemon.running(file, port, core) as pid:
            return daemon.measure(pid, port, asked.seconds)


def _budget_us(protocol: str, floor: float) -> float:
    """HTTPS is measured by its floor: a handshake alone costs more than all other checks."""
    return HTTPS_SHARE * floor if protocol == "HTTPS" else BUDGET_MS[protocol] * 1000


def _show(runs: dict[str, list[Run]]) -> None:
    print(
        f"{'':6}{'floor':>8}{'paced':>8}{'daemon':>8}{'Postgres':>10}{'sum':>8}{'budget':>8}{'x floor':>9}"
        "  microseconds a check"
    )
    found = {}
    for protocol, measured in runs.items():
        floor = median(run.floor_us for run in measured)
        paced = median(run.paced_us for run in measured)
        own = median(run.cost.daemon_us for run in measured)
        postgres = median(run.cost.postgres_us for run in measured)
        worst = max((run.cost for run in measured), key=lambda cost: cost.skipped)
        print(
            f"{protocol:6}{floor:8.0f}{paced:8.0f}{own:8.0f}{postgres:10.0f}{own + postgres:8.0f}"
            f"{_budget_us(protocol, floor):8.0f}{(own + postgres) / floor:9.1f}"
            f"  {worst.checks_a_second:.0f}/s, {worst.skipped} skipped, {worst.late_share:.1%} later than 0.1 s,"
            f" {worst.daemon_mib:.0f} MiB"
        )
        found[protocol] = {
            "floor_us": floor,
            "paced_floor_us": paced,
            "daemon_us": own,
            "postgres_us": postgres,
            "skipped": worst.skipped,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
