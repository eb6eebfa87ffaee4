"""`servmon doctor`: what on this machine stands in the way of good monitoring, each with what to do about it."""

from __future__ import annotations

import asyncio
import ctypes
import resource
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from servmon.checking import check_once, endpoint_of
from servmon.checks.lanes import RESERVED_DESCRIPTORS
from servmon.errors import ServmonError
from servmon.model import Endpoint, Status
from servmon.probes.base import ProbeFailed
from servmon.probes.network import Network
from servmon.settings import Loaded, Settings
from servmon.store.pool import place_of, rights
from servmon.store.space import BYTES_A_RESULT, in_words

# A name that is there as long as the DNS is (RFC 8806 and every resolver's priming query rely on it).
CANARY = "a.root-servers.net"
PATIENCE_SECONDS = 3.0
OLDEST_POSTGRES = 14
_ADJTIMEX_BYTES = 256  # the kernel's struct timex is shorter everywhere
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_UNIT = Path("/etc/systemd/system/servmon.service")


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, and what to do about it (``""`` where nothing has to be done)."""

    level: Level
    subject: str
    sentence: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.level:8}{self.subject}: {self.sentence}"
        return f"{line}\n{'':8}-> {self.remedy}" if self.remedy else line


async def examine(loaded: Loaded, environ: Mapping[str, str]) -> AsyncIterator[Finding]:
    """Every finding, the good ones too. Asks only this machine and what the configuration names."""
    settings = loaded.settings
    for warning in loaded.warnings:
        yield Finding(Level.WARNING, "configuration", warning)
    yield await _icmp()
    yield _descriptors(settings.service.max_sockets)
    yield _clock()
    yield await _resolver()
    yield await _postgres(settings)
    yield _disk(settings, loaded.endpoints)
    for host in settings.elasticsearch.hosts:
        yield await _elasticsearch(host)
    for finding in (_channels(settings), *_proxies(environ), _systemd()):
        yield finding


async def _icmp() -> Finding:
    result = await check_once(endpoint_of("icmp://127.0.0.1", None, ["packets=1", "retries=0", "timeout=1"]))
    if result.status is Status.UP:
        return Finding(Level.OK, "ICMP", "this account may ping")
    said = result.error_message or "the loopback address does not answer"
    return Finding(Level.ERROR, "ICMP", said, "until then ICMP endpoints are UNKNOWN")


def _descriptors(wanted: int) -> Finding:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= wanted + RESERVED_DESCRIPTORS:
        return Finding(Level.OK, "descriptors", f"{wanted} sockets at once are possible")
    possible = max(0, hard - RESERVED_DESCRIPTORS)
    sentence = f"RLIMIT_NOFILE is {hard}, so {possible} sockets at once are possible, not {wanted}"
    remedy = f"raise it to {wanted + RESERVED_DESCRIPTORS} (systemd: LimitNOFILE=), or lower [service] max_sockets"
    return Finding(Level.WARNING, "descriptors", sentence, remedy)


def _clock() -> Finding:
    if sys.platform != "linux":
        return Finding(Level.OK, "clock", "whether it is synchronised is not known on this system")
    # With no mode set, adjtimex(2) only reads.
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_ADJTIMEX_BYTES))
    if state not in (-1, _TIME_ERROR):
        return Finding(Level.OK, "clock", "is synchronised")
    sentence = "is not synchronised: outages would bear wrong times"
    return Finding(Level.WARNING, "clock", sentence, "run chrony, ntpd or systemd-timesyncd")


async def _resolver() -> Finding:
    async with Network() as network:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                address = await network.resolver.look_up(CANARY, PATIENCE_SECONDS)
        except (ProbeFailed, TimeoutError) as error:
            sentence = f"{CANARY} does not resolve: {str(error) or 'no answer'}"
            remedy = "name a resolver that answers in /etc/resolv.conf; endpoints given by address work all the same"
            return Finding(Level.WARNING, "resolver", sentence, remedy)
    return Finding(Level.OK, "resolver", f"{CANARY} is {address}")


async def _postgres(settings: Settings) -> Finding:
    if settings.database.url is None:
        return Finding(Level.OK, "Postgres", f"a private one in {settings.servmon.data_dir}")
    dsn = settings.database.url.get_secret_value()
    try:
        version, may_create = await rights(dsn)
    except ServmonError as error:
        return Finding(Level.ERROR, "Postgres", str(error), "servmon does not start without its database")
    where = place_of(dsn)
    if version < OLDEST_POSTGRES:
        remedy = f"{OLDEST_POSTGRES} or newer is needed"
        return Finding(Level.ERROR, "Postgres", f"{where} is version {version}", remedy)
    if not may_create:
        remedy = "grant create on its schema to this user, or the tables cannot be made"
        return Finding(Level.ERROR, "Postgres", f"this user may not create tables in {where}", remedy)
    return Finding(Level.OK, "Postgres", f"{where}, version {version}")


def _disk(settings: Settings, endpoints: tuple[Endpoint, ...]) -> Finding:
    data_dir = settings.servmon.data_dir
    existing = next(folder for folder in (data_dir, *data_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    checks_a_day = sum(86_400 / endpoint.check_interval for endpoint in endpoints if endpoint.is_active)
    needed = checks_a_day * BYTES_A_RESULT * settings.cleanup.retention_days
    forecast = (
        f"{len(endpoints)} endpoints of the file make {checks_a_day:,.0f} results a day, {in_words(needed)} in"
        f" {settings.cleanup.retention_days} days; {in_words(free)} are free at {existing}"
    )
    if settings.database.url is None and needed > free:
        return Finding(Level.WARNING, "disk", forecast, "keep fewer days, check less often, or give it more room")
    return Finding(Level.OK, "disk", forecast)


async def _elasticsearch(host: str) -> Finding:
    parts = urlsplit(host)
    place = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    result = await check_once(endpoint_of(f"tcp://{place}", None, ["retries=0", f"timeout={PATIENCE_SECONDS:g}"]))
    if result.status is Status.UP:
        return Finding(Level.OK, "Elasticsearch", f"{place} accepts connections")
    remedy = "servmon works without it and catches up later"
    return Finding(Level.WARNING, "Elasticsearch", f"{place}: {result.error_message}", remedy)


def _channels(settings: Settings) -> Finding:
    if settings.channels:
        return Finding(Level.OK, "channels", ", ".join(sorted(settings.channels)))
    return Finding(Level.WARNING, "channels", "none: nobody is told of outages", "add a table [channels.NAME]")


def _proxies(environ: Mapping[str, str]) -> Iterator[Finding]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        if environ.get(name):
            yield Finding(Level.OK, "proxies", f"{name} is set and not used: servmon asks targets directly")


def _systemd() -> Finding:
    if _UNIT.exists():
        return Finding(Level.OK, "systemd", f"{_UNIT} is in place")
    return Finding(Level.OK, "systemd", "no unit is installed; systemd/servmon.service is one")
