"""What probes share: one resolver and one ICMP engine per process, and what a single check may use of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from servmon.clock import SYSTEM_CLOCK, Clock
from servmon.model import FailureKind, Phases
from servmon.probes.addresses import is_address
from servmon.probes.base import ProbeFailed
from servmon.probes.canaries import Canaries
from servmon.probes.deadlines import Deadlines
from servmon.probes.dns_transport import DnsTransport
from servmon.probes.icmp_engine import IcmpEngine
from servmon.probes.pattern import Matcher
from servmon.probes.readiness import readiness
from servmon.probes.resolver import Evidence, Resolver
from servmon.probes.route import ANY_ROUTE, Route
from servmon.probes.slots import SLOTS_PER_ADDRESS, Slots
from servmon.probes.time_limit import TimeLimit

# How long a name may take; less where the attempt is short, so that the finding is the name and not silence.
LONGEST_LOOK_UP_SECONDS = 4.0
LOOK_UP_SHARE = 0.7


class Network:
    """One per process, and a fresh one for a second look. What is not used is never opened.

    ``nameservers`` replace the system's resolvers (``127.0.0.1:5300``). ``canary_names`` are known to resolve.
    """

    def __init__(
        self, clock: Clock = SYSTEM_CLOCK, *, nameservers: Sequence[str] = (), canary_names: Sequence[str] = ()
    ) -> None:
        self.clock = clock
        self.deadlines = Deadlines(clock)
        self.slots = Slots()
        self.matcher = Matcher()
        self.readiness = readiness()
        self._canaries = Canaries(canary_names, clock, nameservers)
        self._is_fresh = False
        self._nameservers = nameservers
        self._evidence = Evidence()
        self._resolver: Resolver | None = None
        self._icmp: IcmpEngine | None = None
        self._dns: DnsTransport | None = None

    def fresh(self) -> Network:
        """Another network for a second look, with a resolver and sockets of its own.

        It knows too what resolved lately, since a resolver that has never resolved anything can blame no name.
        """
        other = Network(self.clock, nameservers=self._nameservers)
        other._evidence = self._evidence
        other.deadlines = self.deadlines
        other.matcher = self.matcher
        other.readiness = self.readiness
        other._canaries = self._canaries
        other._is_fresh = True
        return other

    @property
    def resolver(self) -> Resolver:
        """Names to addresses."""
        if self._resolver is None:
            self._resolver = Resolver(self.clock, self._evidence, self._nameservers, self._canaries)
        return self._resolver

    @property
    def icmp(self) -> IcmpEngine:
        """Echo requests to everybody over one socket."""
        if self._icmp is None:
            self._icmp = IcmpEngine(deadlines=self.deadlines)
        return self._icmp

    @property
    def dns(self) -> DnsTransport:
        """DNS questions to any server, over one socket."""
        if self._dns is None:
            self._dns = DnsTransport(self.readiness)
        return self._dns

    async def close(self) -> None:
        """Close what was opened."""
        if not self._is_fresh:
            self.deadlines.close()
            self.readiness.close()
            await self.matcher.close()
            await self._canaries.close()
        for opened in (self._dns, self._icmp, self._resolver):
            if opened is not None:
                await opened.close()
        self._dns = self._icmp = self._resolver = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()


class ProbeContext:
    """What one check may use. All its attempts share it, so they go to one address after one look-up.

    ``doing`` says in words what is being done just now; ``dns_ms`` is the time of the check's look-ups; ``deadline``
    is monotonic. The runner sets ``attempt``, the time limit of the attempt under way, and its length in seconds.
    ``route`` is the way that the endpoint's options tell. ``so_far`` is the probe's: how it spent its time until it is
    cut off.
    """

    __slots__ = (
        "_addresses",
        "address",
        "attempt",
        "attempt_seconds",
        "deadline",
        "dns_ms",
        "doing",
        "network",
        "route",
        "so_far",
    )

    def __init__(self, network: Network, deadline: float, route: Route = ANY_ROUTE) -> None:
        self.network = network
        self.route = route
        self.so_far: Callable[[], Phases] | None = None
        self.deadline = deadline
        self.doing = ""
        self.dns_ms: float | None = None
        self.address: str | None = None
        self.attempt: TimeLimit | asyncio.Timeout | None = None
        self.attempt_seconds = max(deadline - network.clock.monotonic(), 0.0)
        self._addresses: dict[str, str] = {}

    async def resolve(self, host: str) -> str:
        """The address to ask for ``host``; an IP address is its own. Raises ``ProbeFailed`` (DNS or LOCAL)."""
        known = self.known_address(host)
        if known is None:
            self.doing = f"resolving {host}"
            monotonic = self.network.clock.monotonic
            started = monotonic()
            known = await self.network.resolver.look_up(host, self._patience(), self.route.ip_version)
            self._addresses[host] = known
            self.dns_ms = (self.dns_ms or 0.0) + (monotonic() - started) * 1000
            self.address = known
        return known

    def known_address(self, host: str) -> str | None:
        """The address to ask for ``host`` where no look-up is needed, or was made already."""
        known = host if is_address(host) else self._addresses.get(host)
        if known is not None:
            self.address = known
        return known

    async def resolve_all(self, host: str) -> list[str]:
        """Every address of ``host`` that may be asked, found by one look-up. Raises ``ProbeFailed``."""
        self.doing = f"resolving {host}"
        monotonic = self.network.clock.monotonic
        started = monotonic()
        found = await self.network.resolver.all_addresses(host, self._patience(), self.route.ip_version)
        self.dns_ms = (self.dns_ms or 0.0) + (monotonic() - started) * 1000
        return found

    def _patience(self) -> float:
        return min(LONGEST_LOOK_UP_SECONDS, LOOK_UP_SHARE * self.attempt_seconds)

    def pin(self, host: str, address: str) -> None:
        """Take ``address`` for ``host`` instead of asking for it."""
        self._addresses[host] = address

    def slot(self, address: str) -> Slot:
        """A place among those who are busy with ``address``; waiting for it is not the target's time.

        Raises ``ProbeFailed`` (LOCAL) where there is still none at the check's deadline.
        """
        return Slot(self, address)

    @contextmanager
    def our_time(self) -> Iterator[None]:
        """What is waited for in here is our own doing: the attempt gets the time back, up to the check's deadline."""
        loop, attempt = asyncio.get_running_loop(), self.attempt
        ends = attempt.when() if attempt is not None else None
        if attempt is None or ends is None:
            yield
            return
        left = ends - loop.time()
        attempt.reschedule(None)
        try:
            yield
        finally:
            until_deadline = self.deadline - self.network.clock.monotonic()
            attempt.reschedule(loop.time() + min(left, until_deadline))


class Slot:
    """One of 16 places at an address, as an async context manager."""

    __slots__ = ("_address", "_context")

    def __init__(self, context: ProbeContext, address: str) -> None:
        self._context = context
        self._address = address

    async def __aenter__(self) -> None:
        slots = self._context.network.slots
        if not slots.take(self._address):
            with self._context.our_time():
                await self._wait(slots)

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._context.network.slots.give_back(self._address)

    async def _wait(self, slots: Slots) -> None:
        context = self._context
        context.doing = f"waiting until fewer than {SLOTS_PER_ADDRESS} checks are busy with {self._address}"
        seconds = context.deadline - context.network.clock.monotonic()
        try:
            async with asyncio.timeout(seconds):
                await slots.wait(self._address)
        except TimeoutError:
            message = f"{SLOTS_PER_ADDRESS} other checks were busy with {self._address} until it was too late"
            raise ProbeFailed(FailureKind.LOCAL, message) from None
