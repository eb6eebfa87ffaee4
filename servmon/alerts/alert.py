"""The words of this room: news that people may be owed, alerts, and messages. Frozen values, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from servmon.alerts.rule_settings import RuleKind, RuleSection
from servmon.model import EMPTY, Endpoint, Event, Outage, Severity, State, StateChange

# Worst first, as the enum lists them.
RANK: Mapping[Severity, int] = {severity: rank for rank, severity in enumerate(Severity)}


class NewsKind(StrEnum):
    """What happened, as far as anybody may want to hear of it."""

    DOWN = "down"
    RECOVERED = "recovered"
    FLAPPING = "flapping"
    STEADY = "steady"
    EVENT = "event"
    LONG = "long outage"
    RULE = "rule"
    RULE_OVER = "rule over"
    STEP = "step"


@dataclass(frozen=True, slots=True)
class News:
    """A recorded state change with its outage, or an event: what people may be owed.

    ``id`` is the change's or the event's. ``outage`` is as it stood when this was read; where a ``rule`` of response
    times found it, it is the time in which answers are slow. ``lines`` say more.
    """

    id: str
    kind: NewsKind
    at: datetime
    severity: Severity
    reason: str
    endpoint: Endpoint | None = None
    outage: Outage | None = None
    event: Event | None = None
    rule: RuleSection | None = None
    lines: tuple[str, ...] = ()

    @property
    def endpoint_id(self) -> str | None:
        """Whose news this is; ``None`` for an event."""
        return self.endpoint.id if self.endpoint else None

    @property
    def outage_id(self) -> str | None:
        """The outage this is about, if it is about one."""
        return self.outage.id if self.outage else None


@dataclass(frozen=True, slots=True)
class Member:
    """One outage of an alert; ``resolved_at`` is its end as far as the alert knows.

    ``takes_down`` are the ids of what its endpoint cuts off, where that was known when it was told.
    """

    outage_id: str
    endpoint_id: str
    name: str
    start_time: datetime
    description: str = ""
    resolved_at: datetime | None = None
    takes_down: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule that fired and was told: of one outage, of several together, or of an event (no members).

    ``kind`` is the rule's, or says what sort of event; ``reason`` says why it fired, by what values. ``said`` are the
    names of what was told of it once, and is not told again: rules of long outages, steps.
    ``members`` is the dispatcher's own, by outage: at a site of thousands a copy for each recovery would be dear.
    """

    id: str
    rule: str
    title: str
    severity: Severity
    opened_at: datetime
    told_at: datetime
    channels: tuple[str, ...]
    members: dict[str, Member] = field(default_factory=dict)
    reminders: int = 0
    closed_at: datetime | None = None
    kind: str = RuleKind.SERVICE_DOWN.value
    reason: str = ""
    said: tuple[str, ...] = ()

    @property
    def still_down(self) -> tuple[Member, ...]:
        """The members that are not over."""
        return tuple(member for member in self.members.values() if member.resolved_at is None)


class MessageKind(StrEnum):
    """What a message says of its alert."""

    DOWN = "down"
    RAISED = "raised"
    REMINDER = "reminder"
    RECOVERED = "recovered"
    PARTLY = "partly recovered"
    BRIEF = "was down"
    FLAPPING = "flapping"
    STEADY = "steady"
    EVENT = "event"
    EVENT_OVER = "event over"
    LONG = "long outage"
    RULE = "rule fires"
    RULE_OVER = "rule over"
    ESCALATED = "escalated"
    WINDOW_OVER = "maintenance over"
    PLANNED = "planned"
    PLAN_CHANGED = "plan changed"
    PLAN_CANCELLED = "plan cancelled"
    WINDOW_BEGINS = "maintenance begins"
    WINDOW_ENDS_SOON = "maintenance ends soon"
    WINDOW_WENT_WELL = "maintenance went well"
    SUMMARY = "summary"
    TEST = "test"


ENDS = frozenset(
    {MessageKind.RECOVERED, MessageKind.BRIEF, MessageKind.STEADY, MessageKind.EVENT_OVER, MessageKind.RULE_OVER}
)
# Of planned work: nothing is wrong, so nobody is to be called.
NOTICES = frozenset(
    {
        MessageKind.PLANNED,
        MessageKind.PLAN_CHANGED,
        MessageKind.PLAN_CANCELLED,
        MessageKind.WINDOW_BEGINS,
        MessageKind.WINDOW_ENDS_SOON,
        MessageKind.WINDOW_WENT_WELL,
    }
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a piece of news: the stage that decided, and why."""

    news_id: str
    kind: NewsKind
    stage: str
    reason: str
    at: datetime
    outage_id: str | None = None
    endpoint_id: str | None = None
    alert_id: str | None = None


@dataclass(frozen=True, slots=True)
class Notification:
    """One message through one channel, owed until it is sent.

    ``content`` holds what machines read of it; ``id`` is the key by which a receiver knows a repetition. ``html`` are a
    channel's own words, made while it is sent. ``served`` are those of its receivers who need no further try, each by a
    name that its channel gave: they have it, or never will, and then ``lost`` says why.
    """

    id: str
    alert_id: str
    channel: str
    kind: MessageKind
    severity: Severity
    subject: str
    body: str
    created_at: datetime
    content: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    attempts: int = 0
    last_error: str | None = None
    html: str | None = None
    served: tuple[str, ...] = ()
    lost: str | None = None


@dataclass(slots=True)
class Told:
    """What one round decided: to be stored in one transaction, then sent."""

    decisions: list[Decision] = field(default_factory=list)
    alerts: dict[str, Alert] = field(default_factory=dict)
    notifications: list[Notification] = field(default_factory=list)
    # Recoveries by the alert they belong to, within the round.
    ended: dict[str, list[News]] = field(default_factory=dict)
    defects: list[Exception] = field(default_factory=list)
    # The ids of outages that were raised: whoever sees to one has to look again.
    worse: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.decisions or self.alerts or self.notifications)


def news_of(change: StateChange, outage: Outage | None, endpoint: Endpoint) -> News | None:
    """What a recorded change may be to people; ``None`` where it is a step on the way to something else."""
    if "flapping" in change.evidence:
        kind = NewsKind.FLAPPING if change.evidence["flapping"] else NewsKind.STEADY
        return News(change.id, kind, change.at, endpoint.severity, change.reason, endpoint, outage)
    if outage is None:
        return None
    if change.new is State.DOWN or (change.new is State.DEGRADED and not outage.resolved):
        kind = NewsKind.DOWN
    elif outage.resolved:
        kind = NewsKind.RECOVERED
    else:
        return None
    return News(change.id, kind, change.at, outage.severity, change.reason, endpoint, outage)


def news_of_event(event: Event) -> News:
    """An event is always news."""
    return News(event.id, NewsKind.EVENT, event.at, event.severity, event.message, event=event)
