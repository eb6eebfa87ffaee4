"""What becomes of messages: who has them, who never will, and which go another way instead; each as a mark to store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from servmon.alerts.alert import Notification
from servmon.alerts.content import INSTEAD_OF
from servmon.alerts.lanes import Way
from servmon.alerts.late import copy_for
from servmon.clock import Clock, now

_log = structlog.get_logger(__name__)

FOR_SOME = "some of its receivers have it, others do not yet"


@dataclass(frozen=True, slots=True)
class Mark:
    """What became of a message: sent, given up, or neither so far, when some of its receivers may be ``served``.

    ``lost`` says why some of these never get it.
    """

    id: str
    attempts: int
    last_error: str | None = None
    sent_at: datetime | None = None
    given_up_at: datetime | None = None
    served: tuple[str, ...] = ()
    lost: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.sent_at is not None or self.given_up_at is not None


class Outcomes:
    """Settles messages on their way. ``marked`` hears what became of each, ``added`` of each copy for a fallback."""

    def __init__(self, marked: Callable[[Mark], None], added: Callable[[Notification], None], clock: Clock) -> None:
        self._marked = marked
        self._added = added
        self._clock = clock
        # Messages that have a copy on its way through a fallback.
        self._told_around: set[str] = set()

    def restore(self, told_around: Iterable[str]) -> None:
        """These have their copies already."""
        self._told_around.update(told_around)

    def serve(
        self, way: Way, told: Sequence[Notification], receivers: Collection[str], remark: str | None = None
    ) -> None:
        """Note that ``receivers`` need no further try with any of these, over a restart too."""
        for one in told:
            message = way.messages.get(one.id)
            if message is None:
                continue  # gone in a reload
            if way.settle(one.id, receivers):
                self.end(message, remark)
            else:
                self.note(way.messages[one.id])

    def end(self, message: Notification, remark: str | None = None) -> None:
        """Nobody waits for a message any more: it was sent, unless it was lost for somebody."""
        if message.lost is not None:
            self.give_up(message, message.lost)
            return
        self._told_around.discard(message.id)
        self._marked(Mark(message.id, message.attempts + 1, remark, sent_at=now(self._clock)))

    def lose(self, way: Way, message: Notification, receivers: Collection[str], why: str) -> None:
        """Give a message up for ``receivers``; others may still get it."""
        if way.settle(message.id, receivers):
            self.give_up(message, why)
            return
        _log.error("message not sent to all", channel=way.name, subject=message.subject, problem=why)
        self.note(way.lost(message.id, why))

    def note(self, message: Notification) -> None:
        """A message is still owed to some."""
        said = message.last_error or (FOR_SOME if message.served else None)
        self._marked(Mark(message.id, message.attempts, said, served=message.served, lost=message.lost))

    def give_up(self, message: Notification, why: str) -> None:
        """Nothing more is tried with a message."""
        _log.error("message not sent", channel=message.channel, subject=message.subject, problem=why)
        self._marked(Mark(message.id, message.attempts, why, given_up_at=now(self._clock)))

    def copy(self, channel: str, message: Notification, why: str) -> Notification | None:
        """What goes through another channel in place of a message: once, and no copy of a copy."""
        if INSTEAD_OF in message.content or message.id in self._told_around:
            return None
        self._told_around.add(message.id)
        copy = copy_for(channel, message, why)
        self._added(copy)
        return copy
