"""How many checks may hold a socket at once, so that the dead never make the living wait.

All checks that open a socket share one cap. Endpoints that are not UP may take at most half of it: thousands of
silent targets, each holding a socket until its timeout, then leave the other half to those that answer.
"""

from __future__ import annotations

import resource
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

# Descriptors kept for Postgres, log files, the loop itself and the API's clients (256 of them, api/server.py).
RESERVED_DESCRIPTORS = 400
SMALLEST_CAP = 16

# Called when a place is free; answers whether it is taken (a check may have given up waiting).
Wake = Callable[[], bool]


def socket_cap(wanted: int) -> int:
    """How many sockets checks may hold: ``wanted``, or what RLIMIT_NOFILE leaves.

    Raises the process's soft limit to its hard limit first.
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = wanted + RESERVED_DESCRIPTORS
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, _hard_limit()))
    return max(SMALLEST_CAP, min(wanted, hard - RESERVED_DESCRIPTORS))


def _hard_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@dataclass(slots=True, eq=False)
class Lane:
    """One share of the cap: how much may be taken, how much is, and who waits, in order."""

    limit: int
    taken: int = 0
    waiting: deque[Wake] = field(default_factory=deque)


class Lanes:
    """Two lanes, healthy and ailing, under one cap; a place that becomes free goes to healthy endpoints first."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.healthy = Lane(cap)
        self.ailing = Lane(max(1, cap // 2))

    @property
    def taken(self) -> int:
        """Places taken in both lanes."""
        return self.healthy.taken + self.ailing.taken

    @property
    def waiting(self) -> int:
        """Checks that wait for a place."""
        return len(self.healthy.waiting) + len(self.ailing.waiting)

    def enter(self, lane: Lane, wake: Wake) -> bool:
        """Take a place now, or queue ``wake`` and answer False."""
        if lane.waiting or not self._has_room(lane):
            lane.waiting.append(wake)
            return False
        lane.taken += 1
        return True

    def leave(self, lane: Lane) -> None:
        """Give a place back; whoever waits longest takes it."""
        lane.taken -= 1
        for candidate in (self.healthy, self.ailing):
            while candidate.waiting and self._has_room(candidate):
                candidate.taken += candidate.waiting.popleft()()

    def _has_room(self, lane: Lane) -> bool:
        return lane.taken < lane.limit and self.taken < self.cap
