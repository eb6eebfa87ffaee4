"""How often somebody may do the same thing."""

from __future__ import annotations

from collections import deque

from servmon.clock import SYSTEM_CLOCK, Clock

# Of more than these, who came longest ago is forgotten.
MOST_KNOWN = 10_000


class Pace:
    """Lets ``most`` through within ``seconds``, for each who comes."""

    def __init__(self, most: int, seconds: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._came: dict[str, deque[float]] = {}

    def wait(self, who: str) -> float:
        """Note that ``who`` comes: 0 lets him through, else he has to wait for so many seconds, and is not noted."""
        at = self._clock.monotonic()
        times = self._came.pop(who, None) or deque(maxlen=self._most)
        self._came[who] = times  # the last one now
        if len(self._came) > MOST_KNOWN:
            del self._came[next(iter(self._came))]
        if len(times) == self._most and times[0] > at - self._seconds:
            return times[0] + self._seconds - at
        times.append(at)
        return 0.0
