"""The real servmon with a meter beside it, for the tests of leaks: a thread that writes down what the process holds.

``python -m tests.metered METER NAMESERVER FAULT ARGUMENTS…``: FAULT is one that is put in by hand, to see that the
tests notice it, or "none".
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
from collections import Counter
from datetime import timedelta
from functools import partial
from pathlib import Path

import servmon.daemon
from servmon.__main__ import main
from servmon.alerts import ledger
from servmon.checks.runner import Runner
from servmon.probes.network import Network
from servmon.store import spool

METER_SECONDS = 5.0
KEPT_SECONDS = 20.0
# One in so many checks has the fault; each leaves a cycle of objects as one did that was found in a running daemon.
SELDOM = 500


def measure(meter: Path) -> None:
    """Write down for ever what is there, of which types, and what was there for the collector of garbage alone.

    It is switched off, so that what it would find is counted and mistaken for no growth.
    """
    gc.disable()
    found = Counter[str]()
    with meter.open("a", encoding="utf-8") as file:
        while True:
            found += collected()
            objects = gc.get_objects()
            types = by_type(objects)
            figures = {
                "objects": len(objects),
                "objects left to the collector": found.total(),
                "pieces of memory": sys.getallocatedblocks(),
            }
            del objects
            told = {"figures": figures, "types": dict(types.most_common(60)), "left": dict(found.most_common(30))}
            file.write(json.dumps(told) + "\n")
            file.flush()
            time.sleep(METER_SECONDS)


def collected() -> Counter[str]:
    """Collect; what was found, by type."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    types = by_type(gc.garbage)
    gc.set_debug(0)
    gc.garbage.clear()
    gc.collect()
    return types


def by_type(objects: list[object]) -> Counter[str]:
    return Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in objects)


class _Looped:
    def __init__(self, held: object) -> None:
        self.held = held
        self.itself = self


def shorten() -> None:
    """What is kept for minutes, should Postgres forget it, is kept for seconds here: the tests would take an hour."""
    spool.KEPT_SECONDS = KEPT_SECONDS
    ledger.KEPT = ledger.REMEMBERED = timedelta(seconds=KEPT_SECONDS)


def put_in(fault: str) -> None:
    """Have the runner leave something behind at the end of checks."""
    ends, seen = Runner._end, 0

    def end(self: Runner, check: object, result: object) -> None:
        nonlocal seen
        seen += 1
        ends(self, check, result)
        if fault == "cycle":
            _Looped(check)
        elif seen % SELDOM == 0:
            leave[fault]()

    leave = {
        "file": lambda: os.dup(0),
        "task": lambda: tasks.append(asyncio.get_running_loop().create_task(asyncio.Event().wait())),
    }
    tasks: list[asyncio.Task[object]] = []
    Runner._end = end


if __name__ == "__main__":
    _, meter_file, nameserver, wanted_fault, _, _, *arguments = sys.argv
    servmon.daemon.Network = partial(Network, nameservers=[nameserver])
    shorten()
    if wanted_fault != "none":
        put_in(wanted_fault)
    threading.Thread(target=measure, args=(Path(meter_file),), daemon=True, name="meter").start()
    sys.argv = ["servmon", *arguments]
    main()
