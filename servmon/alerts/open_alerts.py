"""The alerts that are not over, found by their id, by an outage, or by the rule they stand under."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from servmon.alerts.alert import Alert


class OpenAlerts:
    """Each open alert once; an outage is in one of them at most."""

    def __init__(self) -> None:
        self._by_id: dict[str, Alert] = {}
        self._ids: dict[str, str] = {}
        # Alerts without an outage, by the rule that they stand for until it is over: isolation, each flapping endpoint.
        self._standing: dict[str, Alert] = {}
        # Those that several outages may still join, by their rule.
        self._of_rule: defaultdict[str, dict[str, Alert]] = defaultdict(dict)

    def __contains__(self, alert_id: str) -> bool:
        return alert_id in self._by_id

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Alert]:
        return iter(tuple(self._by_id.values()))

    def get(self, alert_id: str) -> Alert | None:
        """The alert with this id, if it is open."""
        return self._by_id.get(alert_id)

    def of_outage(self, outage_id: str | None) -> Alert | None:
        """The alert that an outage was told in."""
        return self._by_id.get(self._ids.get(outage_id or "", ""))

    def of_rule(self, rule: str) -> tuple[Alert, ...]:
        """The alerts of a rule, oldest first."""
        return tuple(self._of_rule.get(rule, {}).values())

    def standing(self, rule: str) -> Alert | None:
        """The alert without outages that stands under ``rule``."""
        return self._standing.get(rule)

    @property
    def standing_rules(self) -> AbstractSet[str]:
        """The rules under which one stands."""
        return self._standing.keys()

    def keep(self, alert: Alert) -> None:
        """Take an alert as it has become; one that is over is forgotten."""
        over = alert.closed_at is not None
        if over:
            self._by_id.pop(alert.id, None)
            self._of_rule[alert.rule].pop(alert.id, None)
            if not self._of_rule[alert.rule]:
                del self._of_rule[alert.rule]
        else:
            self._by_id[alert.id] = alert
            self._of_rule[alert.rule][alert.id] = alert
        for outage_id in alert.members:
            if over:
                self._ids.pop(outage_id, None)
            else:
                self._ids[outage_id] = alert.id
        if not alert.members:
            if over:
                self._standing.pop(alert.rule, None)
            else:
                self._standing[alert.rule] = alert
