"""The second look before an outage is declared: the endpoint's own question once more, by a fresh path.

Fresh means a new resolver, new sockets and so new source ports: what was wrong with our own shared ones, or with
one remembered address, cannot fail it twice. Only this question may refute an outage; pings and connections beside it
explain one.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from servmon.checks.attempts import ask
from servmon.checks.plan import Plan
from servmon.checks.second_ping import ping_again
from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.detection.verdict import Method, SecondLook
from servmon.metrics import Counters
from servmon.model import CheckResult, FailureKind, Status
from servmon.probes.addresses import is_address
from servmon.probes.base import Answer, ProbeFailed, Target
from servmon.probes.dns import DnsOptions
from servmon.probes.icmp import IcmpOptions, IcmpProbe
from servmon.probes.network import Network, ProbeContext
from servmon.probes.route import ConnectingOptions

AT_ONCE = 20
EXTRA_SECONDS = 5.0
# With more than this waiting, each site is judged by a few of its endpoints.
SAMPLE_ABOVE = 50
SAMPLE_SIZE = 3
MOST_ADDRESSES = 8
EXPLAIN_SECONDS = 2.0

# These say by themselves that the host is there.
_ANSWERED = frozenset({FailureKind.STATUS, FailureKind.PATTERN, FailureKind.CONTENT, FailureKind.PROTOCOL})


class Verifier:
    """Makes second looks, at most 20 at once, each within the endpoint's timeout + 5 s.

    ``dependents`` says how many endpoints depend on one: who has most is looked at first.
    """

    def __init__(
        self,
        *,
        counters: Counters,
        clock: Clock = SYSTEM_CLOCK,
        fresh_network: Callable[[], Network] = Network,
        dependents: Callable[[str], int] = lambda _endpoint_id: 0,
    ) -> None:
        self._counters = counters
        self._clock = clock
        self._fresh_network = fresh_network
        self._dependents = dependents
        self._free = AT_ONCE
        self._arrivals = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._samples: defaultdict[str | None, list[asyncio.Future[Status]]] = defaultdict(list)

    async def look_again(self, plan: Plan) -> SecondLook:
        """Ask ``plan``'s endpoint once over a network of its own; in a crowd, a sample of its site answers for it."""
        site = plan.endpoint.site
        sample = self._samples[site]
        if len(self._waiting) >= SAMPLE_ABOVE and len(sample) >= SAMPLE_SIZE:
            found = await asyncio.gather(*(asyncio.shield(one) for one in sample[:SAMPLE_SIZE]))
            if all(status is Status.DOWN for status in found):
                return SecondLook(self._by_sample(plan), (), Method.SAMPLE)
        outcome: asyncio.Future[Status] = asyncio.get_running_loop().create_future()
        sample.append(outcome)
        try:
            look = await self._look_in_turn(plan)
            outcome.set_result(look.result.status)
            return look
        finally:
            if not outcome.done():
                outcome.set_result(Status.UNKNOWN)
            sample.remove(outcome)
            if not sample:
                self._samples.pop(site, None)

    async def _look_in_turn(self, plan: Plan) -> SecondLook:
        await self._take_place(plan.endpoint.id)
        try:
            self._counters.verifications += 1
            async with self._fresh_network() as network:
                return await Look(plan, network, self._clock).make()
        finally:
            self._give_place()

    async def _take_place(self, endpoint_id: str) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrivals += 1
        heapq.heappush(self._waiting, (-self._dependents(endpoint_id), self._arrivals, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_place()
            raise

    def _give_place(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _by_sample(self, plan: Plan) -> CheckResult:
        return CheckResult(plan.endpoint.id, plan.endpoint.key, Status.DOWN, now(self._clock), attempts=0)


class Look:
    """One second look: the question, the name's other addresses where it fails, and what explains a failure."""

    def __init__(self, plan: Plan, network: Network, clock: Clock) -> None:
        self._plan = _as_second(plan)
        self._network = network
        self._clock = clock
        self._deadline = clock.monotonic() + plan.endpoint.timeout + EXTRA_SECONDS

    async def make(self) -> SecondLook:
        """Ask; never raises."""
        result = await ask(self._plan, self._network, deadline=self._deadline, retries=0, clock=self._clock)
        if result.status is not Status.DOWN:
            return SecondLook(result)
        others, explanations = await asyncio.gather(self._other_addresses(result), self._explain(result))
        return SecondLook(others or result, explanations)

    async def _other_addresses(self, failed: CheckResult) -> CheckResult | None:
        """A DEGRADED result where another address of the name answers."""
        host = self._plan.prepared.target.host
        if is_address(host) or failed.failure_kind is FailureKind.DNS:
            return None
        addresses = await self._addresses(host)
        if len(addresses) < 2:
            return None
        asked = await asyncio.gather(*map(self._ask_address, addresses))
        alive = [address for address, result in zip(addresses, asked, strict=True) if result.status is not Status.DOWN]
        if not alive or len(alive) == len(addresses):
            return replace(asked[0], status=Status.UP, failure_kind=None) if alive else None
        words = f"{len(alive)} of {len(addresses)} addresses answer; dead: "
        words += ", ".join(address for address in addresses if address not in alive)
        found = {address: address in alive for address in addresses}
        return replace(
            failed, status=Status.DEGRADED, failure_kind=None, error_message=words, details={"addresses": found}
        )

    async def _addresses(self, host: str) -> list[str]:
        left = self._deadline - self._clock.monotonic()
        options = self._plan.prepared.options
        version = options.route.ip_version if isinstance(options, ConnectingOptions) else 0
        with suppress(ProbeFailed):
            return (await self._network.resolver.all_addresses(host, min(left, EXPLAIN_SECONDS), version))[
                :MOST_ADDRESSES
            ]
        return []

    async def _ask_address(self, address: str) -> CheckResult:
        plan = replace(self._plan, address=address)
        return await ask(plan, self._network, deadline=self._deadline, retries=0, clock=self._clock)

    async def _explain(self, failed: CheckResult) -> tuple[str, ...]:
        if failed.failure_kind is FailureKind.DNS:
            return ()
        found = await asyncio.gather(self._ping(failed), self._connect(failed), self._over_tcp())
        return tuple(sentence for sentence in found if sentence)

    async def _ping(self, failed: CheckResult) -> str | None:
        if isinstance(self._plan.prepared.options, IcmpOptions) or failed.failure_kind in _ANSWERED:
            return None
        context = ProbeContext(self._network, self._deadline)
        with suppress(OSError):
            try:
                async with asyncio.timeout(self._patience()):
                    reply = await self._network.icmp.ping(await context.resolve(self._plan.prepared.target.host))
            except TimeoutError:
                return "host does not answer ping"
            except ProbeFailed as error:
                return None if error.kind is FailureKind.LOCAL else "host does not answer ping"
            return f"host answers ping ({reply.rtt_ms:.3g} ms)"
        return None

    async def _connect(self, failed: CheckResult) -> str | None:
        """Whether a port that gives no answer at least takes connections."""
        target = self._plan.prepared.target
        if not self._plan.prepared.probe.takes_socket or target.port is None:
            return None
        if failed.failure_kind is FailureKind.REFUSED:
            return f"port {target.port} refuses"
        if failed.failure_kind is not FailureKind.TIMEOUT or self._plan.prepared.probe.protocol in ("TCP", "UDP"):
            return None
        context = ProbeContext(self._network, self._deadline)
        try:
            async with asyncio.timeout(self._patience()):
                _, writer = await asyncio.open_connection(await context.resolve(target.host), target.port)
        except (OSError, TimeoutError, ProbeFailed):
            return f"port {target.port} takes no connection"
        writer.transport.abort()
        return f"port {target.port} takes connections"

    async def _over_tcp(self) -> str | None:
        """A DNS server that is silent over UDP may answer over TCP."""
        prepared = self._plan.prepared
        if not isinstance(prepared.options, DnsOptions) or prepared.options.transport == "tcp":
            return None
        over_tcp = replace(prepared, options=prepared.options.model_copy(update={"transport": "tcp"}))
        plan = replace(self._plan, prepared=over_tcp)
        result = await ask(plan, self._network, deadline=self._deadline, retries=0, clock=self._clock)
        return "answers over TCP" if result.status is not Status.DOWN else "fails over TCP too"

    def _patience(self) -> float:
        return max(min(EXPLAIN_SECONDS, self._deadline - self._clock.monotonic()), 0.0)


class _SecondPing(IcmpProbe):
    """The ICMP probe with another way of sending."""

    async def check(self, target: Target, options: IcmpOptions, context: ProbeContext) -> Answer:
        return await ping_again(target.host, options, context)


def _as_second(plan: Plan) -> Plan:
    """``plan`` as it is asked again: pings go another way, and take the time that five of them need."""
    if not isinstance(plan.prepared.options, IcmpOptions):
        return plan
    endpoint = replace(plan.endpoint, timeout=plan.endpoint.timeout + EXTRA_SECONDS)
    return replace(plan, endpoint=endpoint, prepared=replace(plan.prepared, probe=_SecondPing()))
