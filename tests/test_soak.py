"""A daemon under everything at once for minutes: nothing that it holds grows.

Some 400 checks a second of every protocol and every end, while the configuration is edited, the API is read and
streamed, tokens come and go, outages are told to a web hook, a mail server and one that hangs, and Postgres is
restarted and stalled. What is disturbed in the warm-up is disturbed once more in the middle, so that high-water marks
are reached before the first window and only what is left over each time is seen.

``SOAK_SECONDS`` makes it longer. What grows is told by the slope over the medians of windows before and after the
middle (Theil and Sen), and has to be seen after the middle alone as well: one step is no leak.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import statistics
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, count
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from servmon.clock import SYSTEM_CLOCK
from servmon.tasks import cancel, spawn
from tests.alerts.test_beside_trouble import hook_to
from tests.alerts.test_telling import mail_to
from tests.elastic.test_backlog import figures
from tests.fix_daemon import RunningServmon
from tests.fix_servers import settled
from tests.fix_targets import Targets, cases

# Less is no measurement: after a disturbance it takes half a minute until all is as before.
SECONDS = max(240.0, float(os.environ.get("SOAK_SECONDS", "360")))  # noqa: TID251 - chosen by who runs it
FAULT_SECONDS = 100.0
SAMPLE_SECONDS = 2.0
WINDOW_SAMPLES = 6
STALL_SECONDS = 6.0
# Checks a second of endpoints that are well, by protocol; to these come those of every other kind.
WELL = {"HTTP": 120, "HTTPS": 15, "TCP": 80, "UDP": 40, "DNS": 40, "ICMP": 40}
FLAPPING = 6
KB = 1024
# What may grow by so much a second, at 400 checks a second: a twentieth of an object for each check that stays, one for
# each that only the collector finds (the mails and the API's errors of this test leave half of that), 40 bytes for each
# check, a file or a task in 5,000 of them.
LIMITS = {
    "objects": 20.0,
    "objects left to the collector": 400.0,
    "pieces of memory": 60.0,
    "resident bytes": 16.0 * KB,
    "tasks": 0.08,
    "threads": 0.02,
    "children": 0.02,
    "zombies": 0.02,
    "Postgres connections": 0.03,
    "queue": 2.0,
    "owed": 0.05,
    "bytes in the data folder": 10.0 * KB,
}
FILES_LIMIT = 0.08

pytestmark = [pytest.mark.deep, pytest.mark.timeout(SECONDS * 3 + 300)]


def toml(value: Any) -> str:
    """A value as a configuration file writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


def endpoint(endpoint_id: str, fields: dict[str, Any]) -> str:
    table = {"id": endpoint_id, "check_interval": 1, "timeout": 0.5, "retries": 0, **fields}
    return "[[endpoints]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in table.items())


def configuration(targets: Targets, hook: int, mail: int, edition: int) -> str:
    """What servmon watches; each edition has another endpoint, and another name for one."""
    head = (
        '[service]\nretry_interval = 1\n[outage]\nwitnesses = ["127.0.0.1"]\ndetection_threshold = 2\n'
        'recovery_threshold = 1\n[log]\nlevel = "warning"\n'
        '[alert]\nnotification_channels = ["email", "hook"]\ngroup_wait = 1\nreminder_after = 0\n'
        '[[alert.rules]]\nname = "one"\nids = ["HTTP-9"]\nchannels = ["hanging"]\n[[alert.rules]]\nname = "all"\n'
    )
    lines = [head, mail_to(mail), hook_to(hook, "hook"), hook_to(targets.ports["silent"], "hanging")]
    for protocol, found in cases(targets).items():
        for number, (name, fields, _) in enumerate(found):
            slower = {"check_interval": 3, "timeout": 1.0} if protocol == "EXEC" else {}
            lines.append(endpoint(f"{protocol}-{number}", {"name": f"{protocol} {name}", **slower, **fields}))
        lines += [endpoint(f"well-{protocol}-{n}", found[0][1]) for n in range(WELL.get(protocol, 0))]
    flapping = {"url": f"http://127.0.0.1:{targets.ports['flapping']}/"}
    lines += [endpoint(f"flapping-{n}", flapping) for n in range(FLAPPING)]
    lines.append(endpoint(f"edition-{edition % 3}", {"url": f"tcp://127.0.0.1:{targets.ports['closes']}"}))
    lines.append(endpoint("renamed", {"name": f"edition {edition}", "url": "icmp://127.0.0.1", "packets": 1}))
    return "".join(lines)


@dataclass
class Soaked:
    """A daemon under load, and what it was seen to hold, by the name of the figure."""

    daemon: RunningServmon
    edit: Callable[[int], None]
    meter: Path
    seen: dict[str, list[float]] = field(default_factory=dict)
    moments: list[float] = field(default_factory=list)
    types: list[Counter[str]] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=lambda: {"figures": {}, "types": {}, "left": {}})

    @property
    def pid(self) -> int:
        return self.daemon.process.pid

    async def sample(self) -> None:
        """Look at everything once."""
        line = self.meter.read_text(encoding="utf-8").rstrip().rpartition("\n")[2]
        measured = json.loads(line) if line.endswith("}}") else self.measured
        self.measured = measured
        now = measured["figures"] | held_by(self.pid) | await self._told()
        now["bytes in the data folder"] = folder_size(self.daemon.data_dir)
        now["Postgres connections"] = self._backends()
        self.moments.append(SYSTEM_CLOCK.monotonic())
        for name, value in now.items():
            self.seen.setdefault(name, []).append(float(value))
        self.types.append(Counter(measured["types"]) + Counter({f"left: {k}": n for k, n in measured["left"].items()}))

    async def _told(self) -> dict[str, float]:
        told = await figures(self.daemon)
        return {
            "tasks": told["servmon_tasks"],
            "queue": told["servmon_writer_queue"],
            "owed": told["servmon_notifications_owed"],
            "checks": told["servmon_checks_total"],
        }

    def _backends(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            pids = children(self.daemon.postgres_pid())
            titles = (Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)
            return sum(b"postgres: servmon" in title for title in titles)
        return 0


def children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (thread / "children").read_text(encoding="ascii").split())
    return found


def held_by(pid: int) -> dict[str, float]:
    """What the kernel knows of a process: memory, open files by kind, threads, children, zombies."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    kinds = Counter(_kind(link) for link in Path(f"/proc/{pid}/fd").iterdir())
    states = [_state(child) for child in children(pid)]
    return {
        "resident bytes": float(status["VmRSS"].split()[0]) * KB,
        "threads": float(status["Threads"]),
        "children": len(states),
        "zombies": states.count("Z"),
        **{f"open: {kind}": kinds[kind] for kind in ("socket", "pipe", "file", "anon_inode")},
    }


def _kind(link: Path) -> str:
    try:
        leads_to = os.readlink(link)  # noqa: PTH115 - it names no file
    except OSError:
        return "gone"
    return leads_to.partition(":")[0] if ":" in leads_to else "file"


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


def folder_size(folder: Path) -> int:
    """All of it but Postgres, whose tables are to grow."""
    size = 0
    for path in folder.rglob("*"):
        if "postgres" not in path.relative_to(folder).parts:
            with contextlib.suppress(OSError):
                size += path.lstat().st_size
    return size


# What goes on beside the checks.


async def read_everything(daemon: RunningServmon) -> None:
    paths = ("/services/?limit=50", "/services/status/summary", "/outages/?limit=50", "/readyz", "/alerts/?limit=20")
    while True:
        for path in (*paths, "/services/flapping-0/history?limit=50", "/ui/", "/nowhere"):
            await daemon.answer("GET", path)
            await asyncio.sleep(0.1)


async def listen(daemon: RunningServmon, token: str) -> None:
    """Streams of events that end in the middle of everything."""
    while True:
        with contextlib.suppress(aiohttp.ClientError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(4), daemon.events(token) as stream:
                while await stream.readline():
                    pass


async def change_tokens(daemon: RunningServmon) -> None:
    while True:
        with contextlib.suppress(AssertionError):  # Postgres may be away
            made = await daemon.send("POST", "/tokens/", {"name": "wallboard", "role": "read"})
            await asyncio.sleep(1)
            await daemon.answer("DELETE", f"/tokens/{made['id']}")
        await asyncio.sleep(1)


async def edit_again_and_again(soaked: Soaked) -> None:
    for edition in count(1):
        await asyncio.sleep(10)
        soaked.edit(edition)


async def disturb_postgres(daemon: RunningServmon) -> None:
    """It stalls, and is ended as if by its operator; servmon starts it again."""
    await asyncio.sleep(2)
    with daemon.hanging_postgres():
        await asyncio.sleep(STALL_SECONDS)
    await asyncio.sleep(6)
    os.kill(daemon.postgres_pid(), signal.SIGINT)


@contextlib.asynccontextmanager
async def under_load(
    make: Callable[[str], RunningServmon], targets: Targets, hook: int, mail: int, fault: str
) -> AsyncIterator[Soaked]:
    daemon = make(configuration(targets, hook, mail, 0))
    meter = daemon.folder / "meter.jsonl"
    daemon.prefix = (sys.executable, "-m", "tests.metered", str(meter), targets.nameserver, fault)
    daemon.environment["SSL_CERT_FILE"] = str(targets.ca_file)
    soaked = Soaked(daemon, lambda edition: daemon.configure(configuration(targets, hook, mail, edition)), meter)
    await daemon.start()
    await settled(lambda: meter.exists() and meter.stat().st_size > 0)
    token = (daemon.data_dir / "admin.token").read_text(encoding="utf-8").strip()
    beside = [
        read_everything(daemon),
        listen(daemon, token),
        listen(daemon, token),
        change_tokens(daemon),
        edit_again_and_again(soaked),
    ]
    tasks = [spawn(one, name=one.__name__) for one in beside]
    try:
        yield soaked
        assert not [task for task in tasks if task.done()], [task for task in tasks if task.done()]
    finally:
        await cancel(*tasks)


async def watch(soaked: Soaked, seconds: float) -> slice:
    """Sample for so long; where in all samples these stand."""
    end, first = SYSTEM_CLOCK.monotonic() + seconds, len(soaked.types)
    while SYSTEM_CLOCK.monotonic() < end:
        await soaked.sample()
        await asyncio.sleep(SAMPLE_SECONDS)
    return slice(first, len(soaked.types))


# What grows.


def slope(points: list[tuple[float, float]]) -> float:
    """By how much the second grows for each of the first: the median over all pairs (Theil and Sen)."""
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2))


def windows(soaked: Soaked, name: str, part: slice) -> Iterator[tuple[float, float]]:
    """The moments of windows, in seconds, and the medians of a figure in them."""
    for first in range(part.start, part.stop - WINDOW_SAMPLES + 1, WINDOW_SAMPLES):
        window = slice(first, first + WINDOW_SAMPLES)
        yield statistics.median(soaked.moments[window]), statistics.median(soaked.seen[name][window])


def growth(soaked: Soaked, name: str, before: slice, after: slice) -> float:
    """By how much a second a figure grows over all windows, as far as a third of it is seen in the last ones alone."""
    late = list(windows(soaked, name, after))
    return max(0.0, min(slope([*windows(soaked, name, before), *late]), 3 * slope(late)))


def report(soaked: Soaked, before: slice, after: slice) -> dict[str, float]:
    """What grows faster than it may, and a line about each figure."""
    too_fast = {}
    for name, values in soaked.seen.items():
        limit = FILES_LIMIT if name.startswith("open: ") else LIMITS.get(name)
        if limit is None:
            continue
        grows = growth(soaked, name, before, after)
        first, last = (statistics.median(values[part]) for part in (before, after))
        print(f"{name:26} {first:14.1f} then {last:14.1f}, grows by {grows:9.3f}/s, may by {limit:9.3f}")  # noqa: T201
        if grows > limit:
            too_fast[name] = grows
    return too_fast


def grown_types(soaked: Soaked, before: slice, after: slice) -> list[tuple[str, int]]:
    early, late = soaked.types[before][-1], soaked.types[after][-1]
    return (late - early).most_common(10)


async def soak(soaked: Soaked, seconds: float, *, disturbed: bool) -> tuple[slice, slice]:
    """Sample for so long, and give the parts before and after the middle."""
    parts = []
    for _ in range(2):
        disturbing = spawn(disturb_postgres(soaked.daemon), name="disturbances") if disturbed else None
        await watch(soaked, seconds * 0.2)
        if disturbing is not None:
            await disturbing
        parts.append(await watch(soaked, seconds * 0.3))
    return parts[0], parts[1]


async def test_nothing_grows(servmon_daemon, targets, mail_server, web_server):
    mail, hook = await mail_server(), await web_server()
    async with under_load(servmon_daemon, targets, hook.port, mail.port, "none") as soaked:
        parts = await soak(soaked, SECONDS, disturbed=True)
        assert report(soaked, *parts) == {}, grown_types(soaked, *parts)
        checks = soaked.seen["checks"]
        assert (checks[-1] - checks[0]) / SECONDS > 200
        assert mail.mails
        assert hook.requests
    assert await soaked.daemon.stop() == 0


@pytest.mark.parametrize(
    ("fault", "figure"),
    [("cycle", "objects left to the collector"), ("file", "open: file"), ("task", "tasks")],
    ids=lambda value: value,
)
async def test_a_fault_that_was_put_in_is_seen_to_grow(servmon_daemon, targets, mail_server, web_server, fault, figure):
    mail, hook = await mail_server(), await web_server()
    async with under_load(servmon_daemon, targets, hook.port, mail.port, fault) as soaked:
        parts = await soak(soaked, FAULT_SECONDS, disturbed=False)
        assert figure in report(soaked, *parts)
