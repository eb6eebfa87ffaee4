"""The only place that reads the time, so that tests can bring their own."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

# Timers count in whole milliseconds on uvloop and may ring half a one too early.
TIMER_SLACK_SECONDS = 0.001
# What is due within one tick happens together, because each wake-up of the process costs more than a check.
TICK_SECONDS = 0.025


class Clock(Protocol):
    """Wall time to write down, monotonic time to measure with."""

    def wall(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never jumps."""
        ...


class SystemClock:
    """The machine's own clocks."""

    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


SYSTEM_CLOCK = SystemClock()


def utc(seconds: float) -> datetime:
    """The aware UTC datetime of an epoch time in seconds."""
    return datetime.fromtimestamp(seconds, UTC)


def now(clock: Clock = SYSTEM_CLOCK) -> datetime:
    """The present as an aware UTC datetime."""
    return utc(clock.wall())


def rfc3339(moment: datetime) -> str:
    """A UTC time as people and programs read it: ``2026-11-23T15:43:49.123456Z`` (RFC 3339)."""
    # An eighth of what strftime takes, and years below 1000 have their four digits.
    in_utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return f"{in_utc.isoformat(timespec='microseconds')[:-6]}Z"
