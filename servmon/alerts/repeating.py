"""What stays true is said again: reminders, at growing distance, while nobody sees to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from servmon.alerts.alert import Alert, Member, MessageKind
from servmon.alerts.routing import Route
from servmon.alerts.telling import Round, Telling
from servmon.alerts.window_ends import WindowEnds

LONGEST_REMINDER = timedelta(days=1)


class Repeating:
    """Looks at the open alerts, round by round."""

    def __init__(self, telling: Telling, ends: WindowEnds) -> None:
        self._telling = telling
        self._ends = ends

    def remind(self, at: Round) -> None:
        """Say again what was told long ago, and lasts."""
        if not self._telling.settings.reminder_after:
            return
        for alert in self._telling.alerts:
            if at.now < alert.told_at + self._reminder_wait(alert) or self.is_muted(alert, at.route):
                continue
            reminded = replace(alert, told_at=at.now, reminders=alert.reminders + 1)
            self._telling.say(reminded, MessageKind.REMINDER, at, [])

    def _reminder_wait(self, alert: Alert) -> timedelta:
        doubled: int = self._telling.settings.reminder_after << min(alert.reminders, 10)
        return min(timedelta(seconds=doubled), LONGEST_REMINDER)

    def is_muted(self, alert: Alert, route: Route) -> bool:
        """Whether nobody needs to be reminded: all that is still down is planned, silenced, or somebody sees to it."""
        return all(self._is_seen_to(member, route) for member in alert.still_down)

    def _is_seen_to(self, member: Member, route: Route) -> bool:
        facts = self._telling.facts
        planned = facts.in_maintenance(member.endpoint_id) or self._ends.awaited(member.endpoint_id)
        if planned or member.outage_id in self._telling.acknowledged:
            return True
        endpoint = facts.endpoint(member.endpoint_id)
        return endpoint is not None and route.silenced(endpoint) is not None
