"""Brings messages to their receivers: at least once each, in their order, whatever the receivers do.

One worker a lane, so that one that hangs delays no other. What does not get through is tried again for a day,
and meanwhile told over the channel's fallback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from servmon.alerts.alert import Notification
from servmon.alerts.channels.base import DEADLINE_SECONDS, Channel, ChannelError
from servmon.alerts.lanes import Lane, Way
from servmon.alerts.late import as_of, old_ones, summary
from servmon.alerts.lines import one_line
from servmon.alerts.outcomes import Mark, Outcomes
from servmon.clock import SYSTEM_CLOCK, Clock, now

_log = structlog.get_logger(__name__)

RETRY_SECONDS = (10.0, 30.0, 120.0, 600.0)
GIVE_UP_AFTER = timedelta(days=1)
# A channel that has failed for so long is told around.
FALLBACK_AFTER = timedelta(seconds=60)
DRY_RUN = "dry run: decided, not sent"
SUMMARISED = "its channel was away; it stands in a summary"
SUMMARISED_FOR_SOME = "some of its receivers were behind and have it in a summary"


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
        self._outcomes = Outcomes(marked, added, clock)
        self._over = over
        self._troubles = troubles
        self._dry_run = dry_run
        self._clock = clock
        self._ways: dict[str, Way] = {}
        self._changed = asyncio.Event()

    def restore(self, notifications: Iterable[Notification], told_around: Iterable[str]) -> None:
        """Take up what was owed when servmon stopped; ``told_around`` has its copies already."""
        self._outcomes.restore(told_around)
        self.put(notifications)

    def open(self, channels: Mapping[str, tuple[Channel, str | None]]) -> None:
        """Use these ways out from now on, each with the name of its fallback; what waits stays, where its way does."""
        ways: dict[str, Way] = {}
        for name, (channel, fallback) in channels.items():
            ways[name] = way = self._ways.get(name) or Way(name, channel, fallback)
            for message in way.use(channel, fallback):
                self._outcomes.end(message)
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
            self._outcomes.give_up(message, why)
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
                self._outcomes.give_up(message, f"there is no channel {message.channel!r}")
            elif not way.put(message):
                self._outcomes.end(message)
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
            self._outcomes.lose(way, first, owed, DRY_RUN)
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
        self._outcomes.serve(way, told, receivers, in_summary if len(told) > 1 else None)

    def _works(self, way: Way, lane: Lane, receivers: Collection[str]) -> None:
        if way.works_for(lane, receivers):
            _log.info("channel works again", channel=way.name)

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
            self._outcomes.serve(way, told, error.served)
        said = one_line(str(error), 300)
        lanes = [one for one in lanes if one.waiting]  # a reload may have emptied them meanwhile
        for message_id in {way.first(one).id for one in lanes}:
            self._outcomes.note(way.tried(message_id, said))
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
            self._outcomes.lose(way, first, way.receivers_on(lane, first), said)
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

    def _copy_to_fallback(self, way: Way, message: Notification, why: str) -> None:
        name = way.fallback or ""
        if name in self._ways and (copy := self._outcomes.copy(name, message, why)):
            self.put([copy])


def _trouble(name: str) -> str:
    return f"channel {name}"
