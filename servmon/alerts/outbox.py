"""Brings messages to their receivers: at least once each, in their order, whatever the receivers do.

One worker a lane, so that one that hangs delays no other. What does not get through is tried again for a day,
and meanwhile told over the channel's fallback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from servmon.alerts.alert import Notification
from servmon.alerts.channels.base import DEADLINE_SECONDS, Channel, ChannelError
from servmon.alerts.content import INSTEAD_OF
from servmon.alerts.lanes import Lane, Way
from servmon.alerts.late import as_of, copy_for, old_ones, summary
from servmon.alerts.lines import one_line
from servmon.clock import SYSTEM_CLOCK, Clock, now

_log = structlog.get_logger(__name__)

RETRY_SECONDS = (10.0, 30.0, 120.0, 600.0)
GIVE_UP_AFTER = timedelta(days=1)
# A channel that has failed for so long is told around.
FALLBACK_AFTER = timedelta(seconds=60)
FOR_SOME = "some of its receivers have it, others do not yet"
DRY_RUN = "dry run: decided, not sent"
SUMMARISED = "its channel was away; it stands in a summary"
SUMMARISED_FOR_SOME = "some of its receivers were behind and have it in a summary"


@dataclass(frozen=True, slots=True)
class Mark:
    """What became of a message: sent, given up, or neither so far, when some of its receivers may be ``served``."""

    id: str
    attempts: int
    last_error: str | None = None
    sent_at: datetime | None = None
    given_up_at: datetime | None = None
    served: tuple[str, ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.sent_at is not None or self.given_up_at is not None


class Outbox:
    """Takes messages at any time.

    ``marked`` hears what became of each, ``added`` of each that goes through a fallback. ``over`` tells whether an
    alert is over by now.
    """

    def __init__(
        self,
        *,
        marked: Callable[[Mark], None],
        added: Callable[[Notification], None],
        over: Callable[[str], bool],
        troubles: dict[str, str],
        dry_run: Callable[[], bool],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._marked = marked
        self._added = added
        self._over = over
        self._troubles = troubles
        self._dry_run = dry_run
        self._clock = clock
        self._ways: dict[str, Way] = {}
        self._changed = asyncio.Event()
        # Messages that have a copy on its way through a fallback.
        self._told_around: set[str] = set()

    def restore(self, notifications: Iterable[Notification], told_around: Iterable[str]) -> None:
        """Take up what was owed when servmon stopped; ``told_around`` has its copies already."""
        self._told_around.update(told_around)
        self.put(notifications)

    def open(self, channels: Mapping[str, tuple[Channel, str | None]]) -> None:
        """Use these ways out from now on, each with the name of its fallback; what waits stays, where its way does."""
        ways: dict[str, Way] = {}
        for name, (channel, fallback) in channels.items():
            ways[name] = way = self._ways.get(name) or Way(name, channel, fallback)
            for message in way.use(channel, fallback):
                self._ended(way, message)
            self._report(way)
        gone = [way for name, way in self._ways.items() if name not in ways]
        self._ways = ways
        for way in gone:
            self._forget(way)
        self._changed.set()

    def _forget(self, way: Way) -> None:
        """What is owed by a channel that is no more is told over its fallback, if that is still there."""
        why = f"there is no channel {way.name!r} any more"
        for message in way.close():
            self._copy_to_fallback(way, message, why)
            self._give_up(message, why)
        self._troubles.pop(_trouble(way.name), None)

    @property
    def waiting(self) -> int:
        """How many messages are owed."""
        return sum(len(way.messages) for way in self._ways.values())

    def put(self, notifications: Iterable[Notification]) -> None:
        """Take messages to be sent; those for a channel that does not exist are given up."""
        for message in notifications:
            way = self._ways.get(message.channel)
            if way is None:
                self._give_up(message, f"there is no channel {message.channel!r}")
            elif not way.put(message):
                self._ended(way, message)
            elif any(self._is_broken(lane) for lane in way.holding(message.id)):
                self._tell_around(way, [message])

    async def run(self) -> None:
        """Send what is there, for ever."""
        while True:
            self._changed.clear()
            async with asyncio.TaskGroup() as group:
                workers = [
                    group.create_task(self._work(way, lane), name=f"channel {name}")
                    for name, way in self._ways.items()
                    for lane in way.lanes
                ]
                await self._changed.wait()
                for worker in workers:
                    worker.cancel()

    async def _work(self, way: Way, lane: Lane) -> None:
        task = asyncio.current_task()
        # A library that ends its conversation in good order may swallow the cancellation meant for us.
        while task is not None and not task.cancelling():
            while not lane.waiting:
                lane.filled.clear()
                await lane.filled.wait()
            if lane.pause:
                pause, lane.pause = lane.pause, 0.0
                await asyncio.sleep(pause)
                continue  # others may have seen to it meanwhile
            async with way.slots if lane.receiver is not None else nullcontext():
                await self._try(way, lane)

    async def _try(self, way: Way, lane: Lane) -> None:
        """Send the oldest message of a lane, or a summary of all that are old."""
        first, present = way.first(lane), now(self._clock)
        owed = way.receivers_on(lane, first)
        if self._dry_run():
            self._lose(way, first, owed, DRY_RUN)
            return
        old = old_ones(way.on(lane), present) if lane.failing_since is not None else []
        told = old or [first]
        message = summary(old, present) if old else as_of(first, present, self._over)
        served = {*message.served, *way.receivers} - owed
        error = await self._send(way, replace(message, served=tuple(sorted(served))))
        if error is None or owed <= {*error.served}:
            self._got_through(way, lane, told, owed)
        else:
            self._failed(way, lane, told, owed, error, present)
        self._report(way)

    async def _send(self, way: Way, message: Notification) -> ChannelError | None:
        """Send to those who have not got it; what went wrong, if anything did."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS + 5):
                await way.channel.send(message)
        except ChannelError as error:
            return error
        except TimeoutError:
            return ChannelError(f"no end within {DEADLINE_SECONDS:.0f} s")
        except Exception as error:  # noqa: BLE001 - one of the five places that may
            _log.exception("channel failed", channel=way.name)
            return ChannelError(f"{type(error).__name__} in the channel")
        return None

    def _got_through(self, way: Way, lane: Lane, told: Sequence[Notification], receivers: Collection[str]) -> None:
        self._works(way, lane, receivers)
        in_summary = SUMMARISED if lane.receiver is None else SUMMARISED_FOR_SOME
        self._serve(way, told, receivers, in_summary if len(told) > 1 else None)

    def _works(self, way: Way, lane: Lane, receivers: Collection[str]) -> None:
        if way.works_for(lane, receivers):
            _log.info("channel works again", channel=way.name)

    def _serve(
        self, way: Way, told: Sequence[Notification], receivers: Collection[str], remark: str | None = None
    ) -> None:
        """Note that ``receivers`` need no further try with any of these, over a restart too."""
        for one in told:
            message = way.messages.get(one.id)
            if message is None:
                continue  # gone in a reload
            if way.settle(one.id, receivers):
                self._ended(way, message, remark)
            else:
                self._note(way.messages[one.id])

    def _ended(self, way: Way, message: Notification, remark: str | None = None) -> None:
        """Nobody waits for a message any more: it was sent, unless it was lost for somebody."""
        if why := way.lost.pop(message.id, None):
            self._give_up(message, why)
            return
        self._told_around.discard(message.id)
        self._marked(Mark(message.id, message.attempts + 1, remark, sent_at=now(self._clock)))

    def _lose(self, way: Way, message: Notification, receivers: Collection[str], why: str) -> None:
        """Give a message up for ``receivers``; others may still get it."""
        if way.settle(message.id, receivers):
            way.lost.pop(message.id, None)
            self._give_up(message, why)
        else:
            way.lost[message.id] = why
            _log.error("message not sent to all", channel=way.name, subject=message.subject, problem=why)
            self._note(way.messages[message.id])

    def _note(self, message: Notification) -> None:
        said = message.last_error or (FOR_SOME if message.served else None)
        self._marked(Mark(message.id, message.attempts, said, served=message.served))

    def _failed(
        self,
        way: Way,
        lane: Lane,
        told: Sequence[Notification],
        owed: set[str],
        error: ChannelError,
        present: datetime,
    ) -> None:
        """Try again later; where some have it, the others fall behind them."""
        lanes = [lane]
        if served := owed & {*error.served}:
            self._works(way, lane, served)
            lanes = way.part(owed.difference(error.served))
        if error.served:
            self._serve(way, told, error.served)
        said = one_line(str(error), 300)
        lanes = [one for one in lanes if one.waiting]  # a reload may have emptied them meanwhile
        for message_id in {way.first(one).id for one in lanes}:
            self._note(way.tried(message_id, said))
        for one in lanes:
            self._stumble(way, one, error, said, present)

    def _stumble(self, way: Way, lane: Lane, error: ChannelError, said: str, began_at: datetime) -> None:
        first = way.first(lane)
        lane.problem = said
        if lane.failing_since is None:
            lane.failing_since = began_at
            _log.warning("channel failed", channel=way.name, problem=said)
        if error.permanent or began_at - first.created_at >= GIVE_UP_AFTER:
            self._copy_to_fallback(way, first, said)
            lane.tries = 0
            self._lose(way, first, way.receivers_on(lane, first), said)
            return
        lane.pause = max(RETRY_SECONDS[min(lane.tries, len(RETRY_SECONDS) - 1)], error.retry_after or 0.0)
        lane.tries += 1
        if self._is_broken(lane) or lane.pause >= FALLBACK_AFTER.total_seconds():
            self._tell_around(way, way.on(lane))

    def _report(self, way: Way) -> None:
        if way.trouble is None:
            self._troubles.pop(_trouble(way.name), None)
        else:
            self._troubles[_trouble(way.name)] = way.trouble

    def _is_broken(self, lane: Lane) -> bool:
        # What was refused for good is not tried again, and says nothing of the next message.
        tried = lane.failing_since if lane.tries else None
        return tried is not None and now(self._clock) - tried >= FALLBACK_AFTER

    def _tell_around(self, way: Way, messages: Iterable[Notification]) -> None:
        """Give what waits for a channel that does not get through to its fallback, each message once."""
        for message in messages:
            self._copy_to_fallback(way, message, f"{way.name} {way.trouble or ''}")

    def _copy_to_fallback(self, way: Way, notification: Notification, why: str) -> None:
        name = way.fallback or ""
        is_copy = INSTEAD_OF in notification.content
        if name not in self._ways or is_copy or notification.id in self._told_around:
            return
        self._told_around.add(notification.id)
        copy = copy_for(name, notification, why)
        self._added(copy)
        self.put([copy])

    def _give_up(self, notification: Notification, why: str) -> None:
        _log.error("message not sent", channel=notification.channel, subject=notification.subject, problem=why)
        self._marked(Mark(notification.id, notification.attempts, why, given_up_at=now(self._clock)))


def _trouble(name: str) -> str:
    return f"channel {name}"
