"""At most so many connections at once to one address, so that a check is never an attack."""

from __future__ import annotations

import asyncio
from collections import deque

SLOTS_PER_ADDRESS = 16


class Slots:
    """Counts who is busy with each address; who comes too many waits in line."""

    def __init__(self, each: int = SLOTS_PER_ADDRESS) -> None:
        self._each = each
        self._taken: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def busy(self, address: str) -> int:
        """How many slots of an address are taken."""
        return self._taken.get(address, 0)

    def take(self, address: str) -> bool:
        """Take a slot if one is free."""
        taken = self._taken.get(address, 0)
        if taken >= self._each:
            return False
        self._taken[address] = taken + 1
        return True

    async def wait(self, address: str) -> None:
        """Wait for a slot that somebody gives back; it is then taken."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line = self._waiting.setdefault(address, deque())
        line.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self.give_back(address)
            raise

    def give_back(self, address: str) -> None:
        """Free a slot, or hand it to the first in line."""
        line = self._waiting.get(address)
        while line:
            first = line.popleft()
            if not first.done():
                first.set_result(None)
                return
        self._waiting.pop(address, None)
        left = self._taken[address] - 1
        if left:
            self._taken[address] = left
        else:
            del self._taken[address]
