"""What says the same again and again is written a few times and then counted: "… 57 more"."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from servmon.clock import SYSTEM_CLOCK, Clock

# So many lines of one kind in a window are written; a machine full of trouble stays readable, and its disk empty.
BURST = 50
WINDOW_SECONDS = 60.0

_Kind: TypeAlias = tuple[str, int, str]


@dataclass(slots=True)
class _Window:
    ends_at: float
    seen: int = 0


class Repeats:
    """Lets an event through, or counts it: one kind are those of a logger and level that say the same, with any fields.

    What is asked for at level debug is never held back.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._windows: dict[_Kind, _Window] = {}
        self._first_end = float("inf")

    def admits(self, logger: str, level: int, event: str) -> bool:
        """Whether an event is to be written."""
        if level <= logging.DEBUG:
            return True
        kind = logger, level, event
        window = self._windows.get(kind)
        if window is None:
            window = self._windows[kind] = _Window(self._clock.monotonic() + WINDOW_SECONDS)
            self._first_end = min(self._first_end, window.ends_at)
        window.seen += 1
        return window.seen <= BURST

    def ended(self, *, all_of_them: bool = False) -> Iterator[logging.LogRecord]:
        """What has to be said of kinds whose window is over, or of every kind: how many were held back."""
        present = self._clock.monotonic()
        if present < self._first_end and not all_of_them:
            return
        over = [kind for kind, window in self._windows.items() if all_of_them or window.ends_at <= present]
        windows = {kind: self._windows.pop(kind) for kind in over}
        self._first_end = min((window.ends_at for window in self._windows.values()), default=float("inf"))
        for (name, level, event), window in windows.items():
            if window.seen > BURST:
                text = f"… {window.seen - BURST} more: {event}"
                yield logging.LogRecord(name, level, "", 0, text, (), None)
