"""Are we in time ourselves? A stalled loop, a stopped process or a jumping clock makes results look like failures."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import structlog

from servmon.clock import SYSTEM_CLOCK, Clock
from servmon.metrics import Counters

BEAT_SECONDS = 0.5
# A loop that is later than this, or a wall clock that jumps by more, makes failures in flight worthless.
TOLERATED_SECONDS = 2.0
# Falters closer together than this are one long lag.
ONE_LAG_SECONDS = 10.0

_log = structlog.get_logger(__name__)


class Pulse:
    """Beats twice a second and notices when it could not.

    ``set_back`` is told when the wall clock jumped backwards.
    """

    def __init__(
        self, *, counters: Counters, clock: Clock = SYSTEM_CLOCK, set_back: Callable[[], None] = lambda: None
    ) -> None:
        self._counters = counters
        self._clock = clock
        self._set_back = set_back
        self._expected_at = math.inf
        self._offset = 0.0
        self._faltered_at = -math.inf
        self._lagging_from = -math.inf

    def faltered_since(self, started_at: float) -> bool:
        """Whether we were late, or the wall clock jumped, at any time since ``started_at`` (monotonic seconds)."""
        self._look()
        return self._faltered_at >= started_at

    def lagging_seconds(self) -> float:
        """For how long we have been late again and again; 0 where we are not."""
        now = self._clock.monotonic()
        return now - self._lagging_from if now - self._faltered_at <= ONE_LAG_SECONDS else 0.0

    async def run(self) -> None:
        """Beat for ever."""
        self._offset = self._clock.wall() - self._clock.monotonic()
        try:
            while True:
                self._expected_at = self._clock.monotonic() + BEAT_SECONDS
                await asyncio.sleep(BEAT_SECONDS)
                self._look()
        finally:
            self._expected_at = math.inf  # nobody beats any more, so nothing is late

    def _look(self) -> None:
        """Also called before a verdict: after a stall, results may be judged before the next beat."""
        if self._expected_at == math.inf:
            return
        now = self._clock.monotonic()
        offset = self._clock.wall() - now
        late, jump = now - self._expected_at, offset - self._offset
        self._offset = offset
        if late <= TOLERATED_SECONDS and abs(jump) <= TOLERATED_SECONDS:
            return
        self._expected_at = now + BEAT_SECONDS
        if now - self._faltered_at > ONE_LAG_SECONDS:
            self._lagging_from = now
            _log.warning("we are late, or the clock jumped", late_seconds=round(late, 1), jump_seconds=round(jump, 1))
        self._faltered_at = now
        self._counters.falters += 1
        if jump < -TOLERATED_SECONDS:
            self._set_back()
