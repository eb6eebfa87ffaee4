"""What a channel owes, and how far each of its receivers is.

Those who get what they are sent share one lane: each message is one sending to them all. Who is put off while others
get it goes apart, on a lane of their own in the same order, until nothing waits on it nor on the common one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from servmon.alerts.alert import Notification
from servmon.alerts.channels.base import Channel

# So many of those who are behind are told at once: a server that hangs for one is not hung on by all.
BEHIND_AT_ONCE = 4


@dataclass(slots=True, eq=False)
class Lane:
    """The ids of what waits, in order, for a ``receiver`` who ``is_apart``, or without one for all who are not.

    ``failing_since`` is ``None`` while it gets through, ``problem`` what was said last; after so many ``tries`` in vain
    the next one comes after ``pause`` seconds.
    """

    receiver: str | None = None
    is_apart: bool = False
    waiting: dict[str, None] = field(default_factory=dict)
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    failing_since: datetime | None = None
    problem: str = ""
    tries: int = 0
    pause: float = 0.0


class Way:
    """One channel with its lanes and the messages on them."""

    def __init__(self, name: str, channel: Channel, fallback: str | None) -> None:
        self.name = name
        self.messages: dict[str, Notification] = {}
        self.slots = asyncio.Semaphore(BEHIND_AT_ONCE)
        self._main = Lane()
        self._own: dict[str, Lane] = {}
        self.use(channel, fallback)

    def use(self, channel: Channel, fallback: str | None) -> list[Notification]:
        """Go by these settings from now on; returns what nobody waits for any more, as its receivers have left."""
        self.channel, self.fallback = channel, fallback
        self.receivers = tuple(dict.fromkeys(channel.receivers))
        several = self.receivers if len(self.receivers) > 1 else ()
        messages = self.close()
        self._own = {receiver: self._own.get(receiver) or Lane(receiver) for receiver in several}
        gone = [message for message in messages if not self.put(message)]
        self._catch_up()
        return gone

    def close(self) -> list[Notification]:
        """Owe nothing any more; returns what was owed."""
        messages, self.messages = [*self.messages.values()], {}
        for lane in self.lanes:
            lane.waiting.clear()
            lane.is_apart = False
        return messages

    @property
    def lanes(self) -> Iterator[Lane]:
        """The common lane, and the one of each receiver for when they are behind."""
        yield self._main
        yield from self._own.values()

    def put(self, message: Notification) -> bool:
        """Take a message to those who have not got it; whether there is anybody."""
        owed = [receiver for receiver in self.receivers if receiver not in message.served]
        if not owed:
            return False
        self.messages[message.id] = message
        if len(owed) < len(self.receivers):
            lanes = self.part(owed)
        else:
            lanes = [lane for lane in self._own.values() if lane.is_apart]
            lanes += [self._main] if len(lanes) < len(self.receivers) else []
        for lane in lanes:
            lane.waiting[message.id] = None
            lane.filled.set()
        return True

    def holding(self, message_id: str) -> list[Lane]:
        """The lanes on which a message waits."""
        return [lane for lane in self.lanes if message_id in lane.waiting]

    def on(self, lane: Lane) -> list[Notification]:
        """What waits on a lane, in order."""
        return [self.messages[message_id] for message_id in lane.waiting]

    def first(self, lane: Lane) -> Notification:
        """The oldest of what waits on a lane."""
        return self.messages[next(iter(lane.waiting))]

    def receivers_on(self, lane: Lane, message: Notification) -> set[str]:
        """To whom a lane brings a message."""
        if lane.receiver is not None:
            return {lane.receiver}.difference(message.served)
        apart = {receiver for receiver, own in self._own.items() if own.is_apart}
        return {*self.receivers}.difference(apart, message.served)

    def part(self, receivers: Collection[str]) -> list[Lane]:
        """Let ``receivers`` go on lanes of their own, which are returned, with what waits on the common one."""
        lanes = [self._own[receiver] for receiver in receivers if receiver in self._own]
        for lane in lanes:
            if not lane.is_apart:
                lane.is_apart = True
                lane.waiting.update(self._main.waiting)
                lane.filled.set()
        return lanes

    def tried(self, message_id: str, problem: str) -> Notification:
        """Note a try of a message in vain; returns it with that."""
        message = self.messages[message_id]
        self.messages[message_id] = tried = replace(message, attempts=message.attempts + 1, last_error=problem)
        return tried

    def lost(self, message_id: str, why: str) -> Notification:
        """Note why some who need no further try with a message never get it; returns it with that."""
        self.messages[message_id] = lost = replace(self.messages[message_id], lost=why)
        return lost

    def settle(self, message_id: str, receivers: Collection[str]) -> bool:
        """Note that ``receivers`` need no further try with a message; whether nobody does."""
        message = self.messages[message_id]
        message = replace(message, served=tuple(sorted({*message.served, *receivers})))
        self.messages[message_id] = message
        for lane in self.holding(message_id):
            if not self.receivers_on(lane, message):
                del lane.waiting[message_id]
        self._catch_up()
        if self.holding(message_id):
            return False
        del self.messages[message_id]
        return True

    def _catch_up(self) -> None:
        """Bring those back to the common lane who are where it is: on both nothing waits."""
        for lane in self._own.values():
            lane.is_apart = lane.is_apart and bool(lane.waiting or self._main.waiting)

    def works_for(self, lane: Lane, receivers: Collection[str]) -> bool:
        """Note that a lane gets through to ``receivers``; whether it, or one of theirs, did not before."""
        well = [lane, *(own for receiver, own in self._own.items() if receiver in receivers)]
        failed = any(one.failing_since for one in well)
        for one in well:
            one.failing_since, one.tries = None, 0
        return failed

    @property
    def trouble(self) -> str | None:
        """What people have to know of it while some lane does not get through."""
        failing = [lane for lane in self.lanes if lane.failing_since is not None]
        if not failing:
            return None
        lane = failing[0]
        whom = "" if lane is self._main else f" to {len(failing)} of its {len(self.receivers)} receivers"
        return f"does not get through{whom} since {lane.failing_since:%H:%M:%S} UTC: {lane.problem}"
