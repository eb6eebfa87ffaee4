"""The second look before an outage is declared: the endpoint's own question once more, by a fresh path.

Fresh means a new resolver, new sockets and so new source ports: what was wrong with our own shared ones, or with
one remembered address, cannot fail it twice. Only this question may refute an outage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from servmon.checks.attempts import Plan, ask
from servmon.clock import SYSTEM_CLOCK, Clock
from servmon.metrics import Counters
from servmon.model import CheckResult
from servmon.probes.network import Network

AT_ONCE = 20
EXTRA_SECONDS = 5.0


class Verifier:
    """Makes second looks, at most 20 at once, each within the endpoint's timeout + 5 s."""

    def __init__(
        self, *, counters: Counters, clock: Clock = SYSTEM_CLOCK, fresh_network: Callable[[], Network] = Network
    ) -> None:
        self._places = asyncio.Semaphore(AT_ONCE)
        self._counters = counters
        self._clock = clock
        self._fresh_network = fresh_network

    async def look_again(self, plan: Plan) -> CheckResult:
        """Ask ``plan``'s endpoint once over a network of its own."""
        async with self._places, self._fresh_network() as network:
            self._counters.verifications += 1
            deadline = self._clock.monotonic() + plan.endpoint.timeout + EXTRA_SECONDS
            return await ask(plan, network, deadline=deadline, retries=0, clock=self._clock)
