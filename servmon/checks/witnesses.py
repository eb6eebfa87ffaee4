"""Asks the witnesses: reference addresses that show whether we are connected at all."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import dns.message
import structlog

from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.detection.connectivity import NOBODY_HEARD, Reach, after_round, family_of, gateways
from servmon.probes.base import ProbeFailed
from servmon.probes.dns_transport import Query
from servmon.probes.network import Network
from servmon.tasks import cancel, spawn

PERIOD = timedelta(seconds=5)
# One lost packet is no isolation.
TRIES = 4
TRY_SECONDS = 0.5

FAMILIES = (4, 6)

_log = structlog.get_logger(__name__)


class Witnesses:
    """Asks all witnesses every 5 s, and at once where a verdict depends on it.

    ``find`` names them, each round anew; ``answers`` asks one. ``changed`` is told of a family's isolation and of its
    return, after the round that showed it.
    """

    def __init__(
        self,
        find: Callable[[], Iterable[str]],
        answers: Callable[[str], Awaitable[bool]],
        *,
        changed: Callable[[Mapping[int, Reach]], None] = lambda _changed: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.reach: dict[int, Reach] = dict.fromkeys(FAMILIES, NOBODY_HEARD)
        self._find = find
        self._answers = answers
        self._changed = changed
        self._clock = clock
        self._round: asyncio.Task[None] | None = None
        self._returned_at = -math.inf

    @property
    def any_isolated(self) -> bool:
        """Whether one address family or both are cut off."""
        return any(reach.isolated for reach in self.reach.values())

    def isolated(self, host: str) -> bool:
        """Whether a failure of ``host`` may be ours. A name counts as cut off where every family that works is."""
        family = family_of(host)
        if family is not None:
            return self.reach[family].isolated
        used = [reach for reach in self.reach.values() if reach.known]
        return bool(used) and all(reach.isolated for reach in used)

    def returned_since(self, started_at: float) -> bool:
        """Whether some isolation ended after ``started_at`` (monotonic seconds): what failed since began in it."""
        return self._returned_at >= started_at

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await self.confirm()
            await asyncio.sleep(PERIOD.total_seconds())

    async def confirm(self) -> None:
        """Ask everybody in a round that begins now; who wants the same meanwhile shares it."""
        if self._round is not None and not self._round.done():
            await asyncio.shield(self._round)
        if self._round is None or self._round.done():
            self._round = spawn(self._ask_all(), name="witnesses")
        await asyncio.shield(self._round)

    async def stop(self) -> None:
        """Give up a round under way."""
        if self._round is not None:
            await cancel(self._round)

    async def _ask_all(self) -> None:
        began_at = now(self._clock)
        found = list(dict.fromkeys([*self._find(), *(one for reach in self.reach.values() for one in reach.known)]))
        heard = await asyncio.gather(*map(self._answers, found))
        changed: dict[int, Reach] = {}
        for family in FAMILIES:
            answered = [one for one, here in zip(found, heard, strict=True) if here and family_of(one) == family]
            before = self.reach[family]
            after = self.reach[family] = after_round(before, answered, began_at)
            if after.isolated is not before.isolated:
                changed[family] = after
        if any(not reach.isolated for reach in changed.values()):
            self._returned_at = self._clock.monotonic()
        if changed:
            self._changed(changed)


class Asker:
    """Asks one witness over the network: a few pings, and a DNS question as well, as resolvers may not answer pings."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def __call__(self, address: str) -> bool:
        """Whether ``address`` answers anything within 2 s."""
        asked = [spawn(self._pings(address), name=f"ping {address}"), spawn(self._dns(address), name=f"dns {address}")]
        try:
            for first in asyncio.as_completed(asked):
                if await first:
                    return True
            return False
        finally:
            await cancel(*asked)

    async def _pings(self, address: str) -> bool:
        for _ in range(TRIES):
            started = asyncio.get_running_loop().time()
            with suppress(TimeoutError, ProbeFailed, OSError):
                async with asyncio.timeout(TRY_SECONDS):
                    await self._network.icmp.ping(address)
                return True
            await asyncio.sleep(TRY_SECONDS - (asyncio.get_running_loop().time() - started))
        return False

    async def _dns(self, address: str) -> bool:
        wire = dns.message.make_query(".", "NS").to_wire()
        with suppress(TimeoutError, ProbeFailed, OSError):
            async with asyncio.timeout(TRIES * TRY_SECONDS):
                await self._network.dns.ask(Query(address, 53, wire))
            return True
        return False


def system_witnesses(
    route: Path = Path("/proc/net/route"),
    ipv6_route: Path = Path("/proc/net/ipv6_route"),
    resolv_conf: Path = Path("/etc/resolv.conf"),
) -> list[str]:
    """The default gateway of each address family, and the system's resolvers that are not this machine itself."""
    found = gateways(_text(route), _text(ipv6_route))
    for line in _text(resolv_conf).splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and not _is_loopback(words[1]):
            found.append(words[1])
    return found


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return True  # no address: nobody can be asked there


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # another system, or no such address family
