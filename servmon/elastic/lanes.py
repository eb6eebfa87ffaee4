"""What is done when: each kind of work in a lane of its own, so that one that fails holds up no other."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


class Pause:
    """The pause after a failure: twice as long each time, up to a minute, and never the same for two that wait."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        self._seconds = min(max(2 * self._seconds, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        return self._seconds * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing

    def reset(self) -> None:
        """It went well."""
        self._seconds = 0.0


@dataclass
class Lane:
    """One kind of work, done every ``interval()`` seconds; at once again while ``work`` returns that there is more."""

    name: str
    work: Callable[[], Awaitable[bool]]
    interval: Callable[[], float]
    due_at: float = 0.0
    trouble: str | None = None

    def __post_init__(self) -> None:
        self._pause = Pause()

    def went_well(self, started_at: float, *, more: bool) -> None:
        """The work was done; it began at ``started_at``."""
        self._pause.reset()
        self.trouble = None
        self.due_at = started_at if more else started_at + self.interval()

    def failed(self, at: float, trouble: str) -> None:
        """The work was not done, and why."""
        self.trouble = trouble
        self.due_at = at + self._pause.next()
