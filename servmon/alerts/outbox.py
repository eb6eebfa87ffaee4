"""Brings messages to their receivers: at least once each, in their order, whatever the receivers do.

One worker a channel, so that one that hangs delays no other. What does not get through is tried again for a day,
and meanwhile told over the channel's fallback.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID, uuid5

import structlog

from servmon.alerts.alert import NOTICES, MessageKind, Notification
from servmon.alerts.channels.base import DEADLINE_SECONDS, Channel, ChannelError
from servmon.alerts.content import DELAYED, REMARKS
from servmon.alerts.lines import lasted, late_subject, one_line
from servmon.clock import SYSTEM_CLOCK, Clock, now

_log = structlog.get_logger(__name__)

RETRY_SECONDS = (10.0, 30.0, 120.0, 600.0)
GIVE_UP_AFTER = timedelta(days=1)
# A channel that has failed for so long is told around.
FALLBACK_AFTER = timedelta(seconds=60)
# A message that arrives later says so.
LATE_AFTER = timedelta(minutes=5)
# When a channel is back after so many messages of at least such an age, one summary replaces them.
SUMMARY_ABOVE = 3
OLD = timedelta(minutes=10)
# A copy names the message it stands for.
INSTEAD_OF = "instead_of"
SUMMARISED = "its channel was away; it stands in a summary"


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


@dataclass(slots=True)
class Lane:
    """One channel's messages, and how it is doing. ``failing_since`` is ``None`` while it gets through."""

    channel: Channel
    fallback: str | None
    waiting: deque[Notification] = field(default_factory=deque)
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    failing_since: datetime | None = None


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
        self._lanes: dict[str, Lane] = {}
        self._changed = asyncio.Event()
        # Messages that have a copy on its way through a fallback.
        self._told_around: set[str] = set()

    def restore(self, notifications: Iterable[Notification], told_around: Iterable[str]) -> None:
        """Take up what was owed when servmon stopped; ``told_around`` has its copies already."""
        self._told_around.update(told_around)
        self.put(notifications)

    def open(self, channels: Mapping[str, tuple[Channel, str | None]]) -> None:
        """Use these ways out from now on, each with the name of its fallback; what waits stays, where its way does."""
        lanes: dict[str, Lane] = {}
        for name, (channel, fallback) in channels.items():
            lanes[name] = lane = self._lanes.get(name) or Lane(channel, fallback)
            lane.channel, lane.fallback = channel, fallback
        for name in self._lanes.keys() - lanes.keys():
            for notification in self._lanes[name].waiting:
                self._give_up(notification, f"there is no channel {name!r} any more")
            self._troubles.pop(_trouble(name), None)
        self._lanes = lanes
        self._changed.set()

    @property
    def waiting(self) -> int:
        """How many messages are owed."""
        return sum(len(lane.waiting) for lane in self._lanes.values())

    def put(self, notifications: Iterable[Notification]) -> None:
        """Take messages to be sent; those for a channel that does not exist are given up."""
        for notification in notifications:
            lane = self._lanes.get(notification.channel)
            if lane is None:
                self._give_up(notification, f"there is no channel {notification.channel!r}")
                continue
            lane.waiting.append(notification)
            lane.filled.set()
            if self._is_broken(lane):
                self._tell_around(notification.channel, lane)

    async def run(self) -> None:
        """Send what is there, for ever."""
        while True:
            self._changed.clear()
            async with asyncio.TaskGroup() as group:
                workers = [
                    group.create_task(self._work(name, lane), name=f"channel {name}")
                    for name, lane in self._lanes.items()
                ]
                await self._changed.wait()
                for worker in workers:
                    worker.cancel()

    async def _work(self, name: str, lane: Lane) -> None:
        task = asyncio.current_task()
        # A library that ends its conversation in good order may swallow the cancellation meant for us.
        while task is not None and not task.cancelling():
            while not lane.waiting:
                lane.filled.clear()
                await lane.filled.wait()
            wait = await self._try(name, lane)
            if wait and not task.cancelling():
                await asyncio.sleep(wait)

    async def _try(self, name: str, lane: Lane) -> float:
        """Send the oldest message, or a summary of all; seconds to wait before the next try."""
        first = lane.waiting[0]
        if self._dry_run():
            lane.waiting.popleft()
            self._give_up(first, "dry run: decided, not sent")
            return 0
        present = now(self._clock)
        old = [one for one in lane.waiting if present - one.created_at >= OLD]
        summary = len(old) > SUMMARY_ABOVE and lane.failing_since is not None
        told = old if summary else [first]
        message = _summary(old, present) if summary else self._as_of(first, present)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS + 5):
                await lane.channel.send(message)
        except ChannelError as error:
            self._serve(lane, told, error.served)
            return self._failed(name, lane, error, present)
        except TimeoutError:
            return self._failed(name, lane, ChannelError(f"no end within {DEADLINE_SECONDS:.0f} s"), present)
        except Exception as error:  # noqa: BLE001 - one of the five places that may
            _log.exception("channel failed", channel=name)
            return self._failed(name, lane, ChannelError(f"{type(error).__name__} in the channel"), present)
        self._got_through(name, lane, told, present, summary=summary)
        return 0

    def _got_through(
        self, name: str, lane: Lane, sent: list[Notification], present: datetime, *, summary: bool
    ) -> None:
        if lane.failing_since is not None:
            _log.info("channel works again", channel=name)
        lane.failing_since = None
        self._troubles.pop(_trouble(name), None)
        for notification in sent:
            lane.waiting.remove(notification)
            self._told_around.discard(notification.id)
            error = SUMMARISED if summary else None
            self._marked(Mark(notification.id, notification.attempts + 1, error, sent_at=present))

    def _serve(self, lane: Lane, told: list[Notification], receivers: Sequence[str]) -> None:
        """Note that ``receivers`` need no further try with any of these, over a restart too."""
        owed = {one.id for one in told if not {*receivers} <= {*one.served}}
        for place, one in enumerate(lane.waiting if owed else ()):
            if one.id in owed:
                lane.waiting[place] = noted = replace(one, served=tuple(sorted({*one.served, *receivers})))
                self._marked(Mark(one.id, one.attempts, one.last_error, served=noted.served))

    def _failed(self, name: str, lane: Lane, error: ChannelError, began_at: datetime) -> float:
        first = lane.waiting[0]
        said = one_line(str(error), 300)
        tried = replace(first, attempts=first.attempts + 1, last_error=said)
        lane.waiting[0] = tried
        self._marked(Mark(tried.id, tried.attempts, said, served=tried.served))
        if error.permanent or began_at - tried.created_at >= GIVE_UP_AFTER:
            lane.waiting.popleft()
            self._copy_to_fallback(tried, lane, said)
            self._give_up(tried, said)
            return 0
        if lane.failing_since is None:
            lane.failing_since = began_at
            _log.warning("channel failed, trying again", channel=name, problem=said)
        self._troubles[_trouble(name)] = f"does not get through since {lane.failing_since:%H:%M:%S} UTC: {said}"
        wait = max(RETRY_SECONDS[min(tried.attempts, len(RETRY_SECONDS)) - 1], error.retry_after or 0.0)
        if self._is_broken(lane) or wait >= FALLBACK_AFTER.total_seconds():
            self._tell_around(name, lane)
        return wait

    def _is_broken(self, lane: Lane) -> bool:
        return lane.failing_since is not None and now(self._clock) - lane.failing_since >= FALLBACK_AFTER

    def _tell_around(self, name: str, lane: Lane) -> None:
        """Give what waits for a channel that does not get through to its fallback, each message once."""
        if lane.fallback is None:
            return
        trouble = self._troubles.get(_trouble(name), "")
        for notification in lane.waiting:
            self._copy_to_fallback(notification, lane, f"{name} {trouble}")

    def _copy_to_fallback(self, notification: Notification, lane: Lane, why: str) -> None:
        name = lane.fallback or ""
        is_copy = INSTEAD_OF in notification.content
        if name not in self._lanes or is_copy or notification.id in self._told_around:
            return
        self._told_around.add(notification.id)
        remark = f"Sent here in place of {notification.channel}: {one_line(why)}"
        copy = replace(
            notification,
            # The same copy after a restart in between, so that its receiver knows it.
            id=str(uuid5(UUID(notification.id), name)),
            channel=name,
            body=f"{notification.body}\n{remark}\n",
            content={**notification.content, INSTEAD_OF: notification.id, REMARKS: [remark]},
            attempts=0,
            last_error=None,
            served=(),
        )
        self._added(copy)
        self.put([copy])

    def _as_of(self, notification: Notification, present: datetime) -> Notification:
        """The message as it has to read now: late ones say how late, and what is true by now."""
        late = present - notification.created_at
        if late < LATE_AFTER:
            return notification
        said_once = notification.kind is MessageKind.EVENT or notification.kind in NOTICES
        is_over = not said_once and self._over(notification.alert_id)
        state = "It is over by now." if is_over else "As far as is known it is still so."
        remark = f"This message is delayed: it is from {notification.created_at:%Y-%m-%d %H:%M:%S} UTC. {state}"
        remarks = [remark, *notification.content.get(REMARKS, ())]
        return replace(
            notification,
            subject=late_subject(notification.subject, lasted(late)),
            body=f"{remark}\n\n{notification.body}",
            content={**notification.content, DELAYED: lasted(late), REMARKS: remarks},
        )

    def _give_up(self, notification: Notification, why: str) -> None:
        _log.error("message not sent", channel=notification.channel, subject=notification.subject, problem=why)
        self._marked(Mark(notification.id, notification.attempts, why, given_up_at=now(self._clock)))


def _trouble(name: str) -> str:
    return f"channel {name}"


def _summary(old: list[Notification], present: datetime) -> Notification:
    """One message in place of many that come too late to be read one by one."""
    first = old[0]
    lines = [f"- {one.created_at:%Y-%m-%d %H:%M:%S} UTC  {one_line(one.subject)}" for one in old]
    waited = lasted(present - first.created_at)
    return replace(
        first,
        # Its receiver may know the first message already, and has to take this one all the same.
        id=str(uuid5(UUID(first.id), old[-1].id)),
        kind=MessageKind.SUMMARY,
        severity=min((one.severity for one in old), key=list(type(first.severity)).index),
        subject=f"servmon: {len(old)} messages of the last {waited} that did not get through",
        body="This channel did not take messages for a while. Meanwhile:\n" + "\n".join(lines) + "\n",
        content={"kind": MessageKind.SUMMARY.value, "subjects": [one.subject for one in old]},
        served=tuple(sorted(set.intersection(*({*one.served} for one in old)))),
    )
