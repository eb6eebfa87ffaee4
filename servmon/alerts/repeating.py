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
            if at.now < alert.told_at + self._reminder_wait(alert) or self.mute(alert, at.route) is not None:
                continue
            reminded = replace(alert, told_at=at.now, reminders=alert.reminders + 1)
            self._telling.say(reminded, MessageKind.REMINDER, at, [])

    def _reminder_wait(self, alert: Alert) -> timedelta:
        doubled: int = self._telling.settings.reminder_after << min(alert.reminders, 10)
        return min(timedelta(seconds=doubled), LONGEST_REMINDER)

    def mute(self, alert: Alert, route: Route) -> tuple[str, str] | None:
        """Why nobody needs to be reminded, by stage: it is quiet, or all that is still down is planned or seen to."""
        if (end := route.settings.quiet_until(alert.severity, route.now)) is not None:
            return "when", f"quiet hours until {end:%H:%M} ({end.tzinfo})"
        why: tuple[str, str] | None = ("never told", "nothing of it is down")
        for member in alert.still_down:
            if (why := self._seen_to(member, route)) is None:
                return None
        return why

    def _seen_to(self, member: Member, route: Route) -> tuple[str, str] | None:
        facts = self._telling.facts
        if facts.in_maintenance(member.endpoint_id) or self._ends.awaited(member.endpoint_id):
            return "maintenance", "it is planned"
        if member.outage_id in self._telling.acknowledged:
            return "acknowledged", "somebody sees to it"
        endpoint = facts.endpoint(member.endpoint_id)
        silenced = endpoint is not None and route.silenced(endpoint) is not None
        return ("silence", "it is silenced") if silenced else None
