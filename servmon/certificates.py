"""Says in time that certificates expire: some days before, each once, in one message for all that reach that day."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from servmon.clock import SYSTEM_CLOCK, Clock, now
from servmon.detection.state import new_id
from servmon.model import Event, EventKind, Severity
from servmon.monitor import Monitor

_log = structlog.get_logger(__name__)

LOOK_SECONDS = 60.0
LONGEST_BEFORE = timedelta(days=366)
# From so few days on it is said at any hour; before, when people are at work.
URGENT_DAYS = 3
OFFICE_HOURS = range(8, 18)
WEEKEND = (5, 6)

# An endpoint and the end of its certificate, as they stand in the events.
Mark = tuple[str, str]


class Certificates:
    """Follows what the last checks saw. ``days`` are those before the end at which it is told, none: never.

    ``read_told`` gives the details of the events since a time, so that a restart repeats none; ``tell`` takes new ones.
    """

    def __init__(
        self,
        monitor: Monitor,
        days: Callable[[], Sequence[int]],
        *,
        tell: Callable[[Event], None],
        read_told: Callable[[datetime], Awaitable[Iterable[Mapping[str, Any]]]],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._monitor = monitor
        self._days = days
        self._tell = tell
        self._read_told = read_told
        self._clock = clock
        # The fewest days before the end at which that of an endpoint was told.
        self._told: dict[Mark, int] = {}

    async def follow(self) -> None:
        """Look once a minute, for ever; begins once Postgres has said what was told before."""
        for details in await self._read_told(now(self._clock) - LONGEST_BEFORE):
            self._note(details["days"], map(_read, details["expires"]))
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Tell of every certificate that came nearer to its end than was told."""
        present = now(self._clock)
        reached: dict[int, list[tuple[Mark, int]]] = {}
        for mark, left in self._seen():
            step = min((days for days in self._days() if left <= days), default=None)
            if step is not None and left >= 0 and step < self._told.get(mark, step + 1) and _is_time(step, present):
                reached.setdefault(step, []).append((mark, left))
        for step, found in sorted(reached.items()):
            self._say(step, sorted(found, key=lambda one: one[0][1]), present)

    def _seen(self) -> Iterator[tuple[Mark, int]]:
        for endpoint_id, watched in self._monitor.watched.items():
            last = watched.state.last
            certificate = last.details.get("certificate") if last and last.details else None
            if certificate is not None:
                yield (endpoint_id, certificate["not_after"]), certificate["days_left"]

    def _say(self, step: int, found: Sequence[tuple[Mark, int]], present: datetime) -> None:
        marks = [mark for mark, _ in found]
        (first, not_after), left = found[0]
        one = f"the certificate of {first} expires {_in_words(left)}, on {not_after[:10]}"
        several = f"{len(marks)} certificates expire within {_days(step)}, first that of {first}, on {not_after[:10]}"
        message = one if len(marks) == 1 else several
        details = {"days": step, "expires": [f"{endpoint_id} {end}" for endpoint_id, end in marks]}
        severity = Severity.MAJOR if step <= URGENT_DAYS else Severity.WARNING
        self._note(step, marks)
        _log.warning(message, event_kind=EventKind.CERTIFICATE_EXPIRES.value)
        self._tell(Event(new_id(), EventKind.CERTIFICATE_EXPIRES, severity, message, present, details))

    def _note(self, step: int, marks: Iterable[Mark]) -> None:
        for mark in marks:
            self._told[mark] = min(step, self._told.get(mark, step))


def _read(expires: str) -> Mark:
    endpoint_id, _, not_after = expires.rpartition(" ")
    return endpoint_id, not_after


def _in_words(left: int) -> str:
    return f"in {_days(left)}" if left else "within a day"


def _days(number: int) -> str:
    return "1 day" if number == 1 else f"{number} days"


def _is_time(step: int, present: datetime) -> bool:
    local = present.astimezone()  # where this machine stands, people work
    return step <= URGENT_DAYS or (local.weekday() not in WEEKEND and local.hour in OFFICE_HOURS)
