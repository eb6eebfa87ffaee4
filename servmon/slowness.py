"""Brings the response times of the last checks to the rules that look at them; nothing is done where there is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from servmon.alerts.response_times import LOOK_SECONDS, ResponseTimes
from servmon.alerts.settings import AlertSection, RuleKind
from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.monitor import Monitor
from servmon.tasks import in_turns


class Slowness:
    """Follows what the last checks took. It reads what the monitor holds anyway, so that no check pays for it."""

    def __init__(
        self,
        monitor: Monitor,
        times: ResponseTimes,
        settings: Callable[[], AlertSection],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._monitor = monitor
        self._times = times
        self._settings = settings
        self._clock = clock

    async def follow(self) -> None:
        """Look every few seconds, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Take every endpoint's last check."""
        settings = self._settings()
        rules = settings.rules_of(RuleKind.RESPONSE_TIME)
        self._times.default_ms = settings.response_time_ms
        self._times.keep(rules, self._monitor.watched)
        if not rules:
            return
        present = now(self._clock)
        async for watched in in_turns(list(self._monitor.watched.values())):
            self._times.take(watched.plan.endpoint, watched.state.last, rules, present)
