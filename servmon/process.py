"""What the system knows of this process, by the names that every Prometheus client uses."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from servmon.clock import SYSTEM_CLOCK
from servmon.metrics import Gauge

_STARTED_AT = SYSTEM_CLOCK.wall()
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds() -> float:
    """Processor time used so far, without that of children."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def gauges() -> Iterator[Gauge]:
    """Memory, descriptors and start; what a system does not tell is left out."""
    yield Gauge("process_start_time_seconds", "When the process started.", _STARTED_AT)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY:
        yield Gauge("process_max_fds", "How many descriptors may be open.", limit)
    # Linux only, and not where /proc is hidden.
    with suppress(OSError):
        yield Gauge("process_open_fds", "Open descriptors.", len(os.listdir("/proc/self/fd")))  # noqa: PTH208
    with suppress(OSError):
        resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
        yield Gauge("process_resident_memory_bytes", "Memory in use.", resident)
