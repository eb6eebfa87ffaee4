"""The end of a maintenance window: what is still down is told in one message, once everything had time to come back.

Pure, as the dispatcher whose part this is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid5

from servmon.alerts.alert import RANK, Alert, Member, News
from servmon.alerts.lines import SUBJECT_LIMIT, one_line
from servmon.alerts.routing import Facts, Route, channels_of
from servmon.detection.maintenance import Covered
from servmon.model import Outage, Severity

# The rule under which what is still down after a window is told.
RULE = "maintenance"
_GROUP = "window "


@dataclass(frozen=True, slots=True)
class Ending:
    """A window that has ended; ``due_at`` is when it is told what did not come back."""

    id: str
    covered: Covered
    due_at: datetime

    @property
    def group(self) -> str:
        """Under which news waits for it."""
        return f"{_GROUP}{self.id}"

    def title(self, down: int) -> str:
        """How the alert of what is still down is called."""
        description = self.covered.window.description or "planned work"
        size = len(self.covered.endpoint_ids)
        return one_line(f"{description}: {down} of {size}", SUBJECT_LIMIT)

    @property
    def at(self) -> datetime:
        """When the window ended."""
        return self.covered.occurrence.end_time


@dataclass(slots=True)
class Part:
    """What one set of readers is told of a window's end: outages that are news to them, and those they know."""

    news: list[News] = field(default_factory=list)
    known: dict[str, Member] = field(default_factory=dict)
    severity: Severity = Severity.WARNING

    def add_known(self, alert: Alert, member: Member) -> None:
        """An outage that was told before the window began, and lasts."""
        self.known[member.outage_id] = member
        self.severity = min(self.severity, alert.severity, key=RANK.__getitem__)


def parts_of(
    news: Iterable[News], earlier: Iterable[tuple[Alert, Member]], route: Route
) -> Mapping[tuple[str, ...], Part]:
    """Who is told what: one message has one set of readers."""
    parts: dict[tuple[str, ...], Part] = {}
    for one in news:
        parts.setdefault(channels_of(one, route), Part()).news.append(one)
    for alert, member in earlier:
        parts.setdefault(alert.channels, Part()).add_known(alert, member)
    return parts


def is_group(key: str) -> bool:
    """Whether news that waits under ``key`` waits for a window's end."""
    return key.startswith(_GROUP)


def ending_id(covered: Covered) -> str:
    """One id for one end of one occurrence; an end that was moved is another one."""
    occurrence = covered.occurrence
    return str(uuid5(UUID(occurrence.window_id), f"{occurrence.key} {occurrence.end_time.isoformat()}"))


class WindowEnds:
    """The windows that ended lately. ``told`` holds for each that was settled whether anything was still down."""

    def __init__(self, facts: Facts) -> None:
        self.told: dict[str, bool] = {}
        self._facts = facts
        self._began_at: datetime | None = None
        self._waiting: dict[str, Ending] = {}

    def restore(self, told: Iterable[str]) -> None:
        """Take up which ends were told before a restart."""
        self.told.update(dict.fromkeys(told, True))

    def look(self, now: datetime, grace: timedelta) -> list[Ending]:
        """Note what has ended; gives the ends that are due."""
        self._began_at = self._began_at or now
        ended = {
            ending_id(one): one for one in self._facts.covered() if one.occurrence.end_time <= now and one.endpoint_ids
        }
        self.told = {known: down for known, down in self.told.items() if known in ended}
        self._waiting = {
            known: Ending(known, one, self._due(one.occurrence.end_time, grace))
            for known, one in ended.items()
            if known not in self.told
        }
        return [one for one in self._waiting.values() if one.due_at <= now]

    def settle(self, ending: Ending, *, down: bool) -> None:
        """An end was told, or there was nothing to tell."""
        self._waiting.pop(ending.id, None)
        self.told[ending.id] = down

    def awaited(self, endpoint_id: str) -> Ending | None:
        """The end in whose grace an endpoint is, if it is in any; the latest, where there are several."""
        over = [one for one in self._waiting.values() if endpoint_id in one.covered.endpoint_ids]
        return max(over, key=lambda one: one.due_at, default=None)

    def awaited_by(self, news: News) -> Ending | None:
        """The end that news of an outage waits for: one that began before the window ended."""
        looks = self._waiting and news.outage and not news.rule
        ending = self.awaited(news.endpoint_id or "") if looks else None
        return ending if ending and news.outage and news.outage.start_time < ending.at else None

    def still_down(self, ending: Ending) -> list[Outage]:
        """The outages of a window's endpoints that began before its end and last, but where another window is over."""
        return [
            outage
            for endpoint_id in ending.covered.endpoint_ids
            if (outage := self._facts.open_outage(endpoint_id)) is not None
            and outage.start_time < ending.at
            and not self._facts.in_maintenance(endpoint_id)
        ]

    def _due(self, ended_at: datetime, grace: timedelta) -> datetime:
        # Where servmon itself was away at the end, it has to find out first.
        began_at = self._began_at or ended_at
        return (began_at if began_at - ended_at > grace else ended_at) + grace
