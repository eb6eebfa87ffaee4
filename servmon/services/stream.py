"""What happens, as it happens: state changes, outages and planned work, for whoever listens."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from servmon.model import Transition

# So many are remembered for listeners that come back, and as many wait for one that is slow.
REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened; ``id`` names its place in the stream, ``data`` is in the words of the API."""

    id: str
    kind: str
    data: Mapping[str, Any]


class TooSlowError(Exception):
    """A listener did not keep up; it has to come back and say what it saw last."""


class EndedError(Exception):
    """A listener is to hear nothing more."""


class Listener:
    """Takes what happens in order, one at a time."""

    def __init__(self, missed: Sequence[Happening], complete: bool) -> None:
        self.complete = complete
        self._waiting = deque(missed)
        self._news = asyncio.Event()
        self._fell_behind = False
        self._ended = False

    def end(self) -> None:
        """Hand out nothing more, not even what waits; whoever waits learns it at once."""
        self._ended = True
        self._news.set()

    def put(self, happening: Happening) -> None:
        """One more; never blocks."""
        if len(self._waiting) >= REMEMBERED:
            self._fell_behind = True
        else:
            self._waiting.append(happening)
        self._news.set()

    async def next(self) -> Happening:
        """The next one, as soon as there is one.

        Raises ``EndedError`` after ``end``, and ``TooSlowError`` after all that could be kept.
        """
        while not self._waiting or self._ended:
            if self._ended:
                raise EndedError
            if self._fell_behind:
                raise TooSlowError
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()


class Stream:
    """Hands what happens to every listener, and remembers the newest for those that come back."""

    def __init__(self) -> None:
        self._remembered: deque[Happening] = deque(maxlen=REMEMBERED)
        self._listeners: set[Listener] = set()
        # Places in the stream of another start mean nothing here.
        self._start = secrets.token_hex(4)
        self._number = 0

    def publish(self, kind: str, data: Mapping[str, Any]) -> None:
        """Tell everybody that something happened."""
        self._number += 1
        happening = Happening(f"{self._start}-{self._number}", kind, data)
        self._remembered.append(happening)
        for listener in self._listeners:
            listener.put(happening)

    def publish_transitions(self, transitions: Sequence[Transition]) -> None:
        """Tell of state changes, and of the outages they opened, changed or resolved."""
        for transition in transitions:
            change, outage = transition.change, transition.outage
            self.publish(
                "state_change",
                {
                    "endpoint_id": change.endpoint_id,
                    "old": change.old,
                    "new": change.new,
                    "reason": change.reason,
                    "at": change.at,
                    "outage_id": change.outage_id,
                },
            )
            if outage is not None:
                self.publish("outage", {"outage": outage})

    @contextmanager
    def listen(self, after: str | None = None) -> Iterator[Listener]:
        """A listener to what happens from now on, or ``after`` the place it names.

        Its ``complete`` is false where something in between is not remembered any more.
        """
        missed, complete = self._since(after)
        listener = Listener(missed, complete)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def _since(self, after: str | None) -> tuple[list[Happening], bool]:
        if after is None:
            return [], True
        start, _, number = after.rpartition("-")
        if start != self._start or not (number.isascii() and number.isdecimal()) or int(number) > self._number:
            return list(self._remembered), False
        missed = [one for one in self._remembered if int(one.id.rpartition("-")[2]) > int(number)]
        return missed, len(missed) == self._number - int(number)
