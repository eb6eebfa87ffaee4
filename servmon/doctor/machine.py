"""What the machine itself allows: pings, descriptors, time, names, room on disk, the service, proxies."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from servmon.checking import check_once, endpoint_of
from servmon.checks.lanes import RESERVED_DESCRIPTORS
from servmon.doctor.finding import Finding, Level
from servmon.model import Endpoint, Status
from servmon.probes.base import ProbeFailed
from servmon.probes.network import Network
from servmon.settings import Settings
from servmon.store.space import BYTES_A_RESULT, in_words

# A name that is there as long as the DNS is (RFC 8806 and every resolver's priming query rely on it).
CANARY = "a.root-servers.net"
PATIENCE_SECONDS = 3.0
_MIB = 1024 * 1024
_ADJTIMEX_BYTES = 256  # the kernel's struct timex is shorter everywhere
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
UNIT = Path("/etc/systemd/system/servmon.service")
# There while systemd is what started this machine: sd_booted(3).
_BOOTED = Path("/run/systemd/system")


async def icmp() -> Finding:
    """Whether this account may ping."""
    result = await check_once(endpoint_of("icmp://127.0.0.1", None, ["packets=1", "retries=0", "timeout=1"]))
    if result.status is Status.UP:
        return Finding(Level.OK, "ICMP", "this account may ping")
    said = result.error_message or "the loopback address does not answer"
    return Finding(Level.ERROR, "ICMP", said, "until then ICMP endpoints are UNKNOWN")


def descriptors(wanted: int) -> Finding:
    """Whether as many sockets can be open as are wanted."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= wanted + RESERVED_DESCRIPTORS:
        return Finding(Level.OK, "descriptors", f"{wanted} sockets at once are possible")
    possible = max(0, hard - RESERVED_DESCRIPTORS)
    sentence = f"RLIMIT_NOFILE is {hard}, so {possible} sockets at once are possible, not {wanted}"
    remedy = f"raise it to {wanted + RESERVED_DESCRIPTORS} (systemd: LimitNOFILE=), or lower [service] max_sockets"
    return Finding(Level.WARNING, "descriptors", sentence, remedy)


def clock() -> Finding:
    """Whether the clock can be trusted."""
    if sys.platform != "linux":
        return Finding(Level.OK, "clock", "whether it is synchronised is not known on this system")
    # With no mode set, adjtimex(2) only reads.
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_ADJTIMEX_BYTES))
    if state not in (-1, _TIME_ERROR):
        return Finding(Level.OK, "clock", "is synchronised")
    sentence = "is not synchronised: outages would bear wrong times"
    return Finding(Level.WARNING, "clock", sentence, "run chrony, ntpd or systemd-timesyncd")


async def resolver() -> Finding:
    """Whether names resolve."""
    async with Network() as network:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                address = await network.resolver.look_up(CANARY, PATIENCE_SECONDS)
        except (ProbeFailed, TimeoutError) as error:
            sentence = f"{CANARY} does not resolve: {str(error) or 'no answer'}"
            remedy = "name a resolver that answers in /etc/resolv.conf; endpoints given by address work all the same"
            return Finding(Level.WARNING, "resolver", sentence, remedy)
    return Finding(Level.OK, "resolver", f"{CANARY} is {address}")


def disk(settings: Settings, endpoints: tuple[Endpoint, ...]) -> Iterator[Finding]:
    """Whether there is room for the results to come, and for those that wait while Postgres is away."""
    data_dir = settings.servmon.data_dir
    existing = next(folder for folder in (data_dir, *data_dir.absolute().parents) if os.access(folder, os.F_OK))
    if not os.access(existing, os.W_OK | os.X_OK):
        sentence = f"{data_dir}: this account may not write in {existing}"
        yield Finding(Level.WARNING, "data folder", sentence, "run servmon, and this command, as the folder's owner")
    free = shutil.disk_usage(existing).free
    checks_a_day = sum(86_400 / endpoint.check_interval for endpoint in endpoints if endpoint.is_active)
    needed = checks_a_day * BYTES_A_RESULT * settings.cleanup.retention_days
    forecast = (
        f"{len(endpoints)} endpoints of the file make {checks_a_day:,.0f} results a day, {in_words(needed)} in"
        f" {settings.cleanup.retention_days} days; {in_words(free)} are free at {existing}"
    )
    too_much = settings.database.url is None and needed > free
    remedy = "keep fewer days, check less often, or give it more room" if too_much else ""
    yield Finding(Level.WARNING if too_much else Level.OK, "disk", forecast, remedy)
    spool = settings.database.spool_max_mb * _MIB
    if spool > free:
        sentence = (
            f"the spool may grow to {in_words(spool)} while Postgres is away; {in_words(free)} are free at {existing}"
        )
        yield Finding(Level.WARNING, "spool", sentence, "lower [database] spool_max_mb, or give it more room")


def service(endpoints: tuple[Endpoint, ...]) -> Iterator[Finding]:
    """Whether systemd starts servmon, and whether what it starts is there."""
    if not UNIT.exists():
        yield Finding(Level.OK, "systemd", "no unit is installed", "servmon service install would put one in place")
        return
    command = _started_by(UNIT.read_text(encoding="utf-8", errors="replace"))
    if command is None or not command.exists():
        sentence = f"{UNIT} starts {command or 'nothing'}, which is not there"
        yield Finding(
            Level.ERROR, "systemd", sentence, "run servmon service install by the servmon that is to be started"
        )
    elif not _BOOTED.exists():
        yield Finding(Level.OK, "systemd", f"{UNIT} is in place, but this machine runs without systemd")
    else:
        yield Finding(Level.OK, "systemd", f"{UNIT} is in place and starts {command}")
    yield from _setuid_plugins(endpoints)


def _started_by(unit: str) -> Path | None:
    commands = (line.removeprefix("ExecStart=").split() for line in unit.splitlines() if line.startswith("ExecStart="))
    return next((Path(words[0]) for words in commands if words), None)


def _setuid_plugins(endpoints: tuple[Endpoint, ...]) -> Iterator[Finding]:
    """The unit forbids what such programs rely on, and they would be UNKNOWN at every check."""
    programs = {str(one.options["command"][0]) for one in endpoints if one.options.get("command")}
    for program in sorted(programs):
        found = shutil.which(program)
        if found and Path(found).stat().st_mode & (stat.S_ISUID | stat.S_ISGID):
            sentence = f"{found} is setuid, and the unit's NoNewPrivileges leaves it without its rights"
            remedy = (
                "use ICMP of servmon's own, or set NoNewPrivileges=no and RestrictSUIDSGID=no (systemctl edit servmon)"
            )
            yield Finding(Level.WARNING, "plug-ins", sentence, remedy)


def proxies(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Variables that other programs obey."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        if environ.get(name):
            yield Finding(Level.OK, "proxies", f"{name} is set and not used: servmon asks targets directly")
