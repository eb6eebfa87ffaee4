"""How many services are down at once: the rules about several services, and about outages at all.

Whoever hears of the outages themselves reads it as one more line of that message; others get a message of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from servmon.alerts import messages
from servmon.alerts.alert import RANK, Alert, MessageKind, News, NewsKind
from servmon.alerts.gathering import Gathering
from servmon.alerts.lines import SUBJECT_LIMIT, one_line
from servmon.alerts.routing import rule_selects
from servmon.alerts.settings import RuleKind, RuleSection
from servmon.alerts.telling import Round, Telling
from servmon.alerts.window_ends import WindowEnds
from servmon.model import Endpoint, Outage, Severity

KINDS = (RuleKind.MULTIPLE_SERVICES_DOWN, RuleKind.ACTIVE_OUTAGES)
LOOK_EVERY = timedelta(seconds=5)
# An outage counts once it was decided whether it is told; one of which that is not known, after so long.
DECIDED_AFTER = timedelta(seconds=5)
NAMED = 10

Down = Sequence[tuple[Endpoint, Outage]]


@dataclass(frozen=True, slots=True)
class Tally:
    """One count: what a rule finds down within one of its scopes, from how many on it fires."""

    rule: RuleSection
    scope: str
    down: Down
    size: int | None
    threshold: int

    @property
    def key(self) -> str:
        """The name under which it stands."""
        return f"{self.rule.name}: {self.scope}" if self.scope else self.rule.name

    @property
    def severity(self) -> Severity:
        """The rule's, or the worst of what is down."""
        return self.rule.severity or min((one.severity for _, one in self.down), key=RANK.__getitem__)

    @property
    def fires(self) -> bool:
        """Whether so many are down."""
        return len(self.down) >= self.threshold

    def __str__(self) -> str:
        number = len(self.down)
        of = f" of {self.size}" if self.size else ""
        many = f"{number}{of} services are down" if number > 1 or of else "1 service is down"
        names = ", ".join(endpoint.name for endpoint, _ in self.down[:NAMED])
        more = f" and {number - NAMED} more" if number > NAMED else ""
        where = f" ({self.scope})" if self.scope else ""
        return one_line(f"{many}{where}: {names}{more}, threshold {self.threshold}")


class Tallies:
    """Counts the outages that are told, or are nobody's doing. What fires stands in an alert without outages."""

    def __init__(self, telling: Telling, gathering: Gathering, ends: WindowEnds) -> None:
        self._telling = telling
        self._gathering = gathering
        self._ends = ends
        self._look_at: datetime | None = None
        self._below_since: dict[str, datetime] = {}
        self._decided: dict[str, tuple[str, str]] = {}

    def look(self, at: Round) -> None:
        """Every few seconds, and whenever something was decided: what fires now, and what does no longer."""
        if not at.told and self._look_at is not None and at.now < self._look_at:
            return
        self._look_at = at.now + LOOK_EVERY
        rules = [rule for kind in KINDS for rule in self._telling.settings.rules_of(kind)]
        down = [one for one in self._telling.open_outages() if self._counts(*one, at)] if rules else []
        firing = {tally.key: tally for rule in rules for tally in self._tallies(rule, down) if tally.fires}
        self._decided = {key: decided for key, decided in self._decided.items() if key in firing}
        for key, tally in firing.items():
            self._below_since.pop(key, None)
            if self._telling.alerts.standing(key) is None:
                self._begin(tally, at)
        self._end_others(firing, at)

    def _counts(self, endpoint: Endpoint, outage: Outage, at: Round) -> bool:
        """Whether an outage is its endpoint's own, unplanned, and settled as far as telling goes."""
        if outage.caused_by or self._telling.facts.in_maintenance(endpoint.id) or self._ends.awaited(endpoint.id):
            return False
        if at.route.silenced(endpoint):
            return False
        if self._telling.alerts.of_outage(outage.id) is not None:
            return True
        waits = self._gathering.waiting.of_outage(outage.id) is not None
        return not waits and at.now - outage.declared_at >= self._telling.wait + DECIDED_AFTER

    def _tallies(self, rule: RuleSection, down: Iterable[tuple[Endpoint, Outage]]) -> Iterator[Tally]:
        found: dict[str, list[tuple[Endpoint, Outage]]] = {}
        for endpoint, outage in down:
            known = not rule.is_unwritten or self._telling.alerts.of_outage(outage.id) is not None
            if known and rule_selects(rule, endpoint, outage.severity):
                for scope in _scopes(rule, endpoint):
                    found.setdefault(scope, []).append((endpoint, outage))
        sizes = self._sizes(rule) if rule.share is not None and found else {}
        for scope, there in found.items():
            size = sizes.get(scope)
            yield Tally(rule, scope, there, size, self._threshold(rule, size or 0))

    def _threshold(self, rule: RuleSection, size: int) -> int:
        if rule.share is not None:
            return max(-int(-rule.share * size // 100), 2)  # a share of a few is not several
        several = rule.kind is RuleKind.MULTIPLE_SERVICES_DOWN
        return rule.count or (self._telling.settings.multiple_services if several else 1)

    def _sizes(self, rule: RuleSection) -> Mapping[str, int]:
        sizes: dict[str, int] = {}
        for endpoint in self._telling.facts.endpoints():
            if rule_selects(rule, endpoint, endpoint.severity):
                for scope in _scopes(rule, endpoint):
                    sizes[scope] = sizes.get(scope, 0) + 1
        return sizes

    def _begin(self, tally: Tally, at: Round) -> None:
        lines = tuple(f"- {endpoint.name}: {outage.description}" for endpoint, outage in tally.down)
        news = News(
            self._telling.ids(), NewsKind.RULE, at.now, tally.severity, str(tally), rule=tally.rule, lines=lines
        )
        stage, reason = self._stopped(tally, at)
        if stage:
            if self._decided.get(tally.key) != (stage, reason):
                at.decide(news, stage, f"{reason}; {tally}")
            self._decided[tally.key] = stage, reason
            return
        heard = {channel: self._heard(channel, tally, at) for channel in self._readers(tally)}
        alert = self._alert(news, tally, tuple(channel for channel, how in heard.items() if how is None))
        self._telling.say(alert, MessageKind.RULE, at, [news])
        told = [f"to {channel}" if how is None else f"{how} to {channel}" for channel, how in heard.items()]
        at.decide(news, "sent", f"{', '.join(told)}: {tally}", alert.id)

    def _readers(self, tally: Tally) -> tuple[str, ...]:
        """Whom the rule names; where nobody wrote it, those who hear of so many of the outages."""
        chosen: Iterable[str] = self._telling.settings.notification_channels
        if tally.rule.is_unwritten:
            alerts = [self._telling.alerts.of_outage(outage.id) for _, outage in tally.down]
            times = Counter(channel for alert in alerts if alert for channel in alert.channels)
            chosen = [channel for channel, number in times.items() if number >= tally.threshold]
        elif tally.rule.channels is not None:
            chosen = tally.rule.channels
        return tuple(name for name in chosen if name in self._telling.channel_names)

    def _stopped(self, tally: Tally, at: Round) -> tuple[str, str]:
        if all(outage.id in at.route.acknowledged for _, outage in tally.down):
            return "acknowledged", "somebody sees to each of them"
        if not self._readers(tally):
            return "whom", "nobody hears of so many of them"
        if (end := at.route.settings.quiet_until(tally.severity, at.now)) is not None:
            return "when", f"quiet hours until {end:%H:%M} ({end.tzinfo})"
        return "", ""

    def _alert(self, news: News, tally: Tally, channels: tuple[str, ...]) -> Alert:
        return Alert(
            id=self._telling.ids(),
            rule=tally.key,
            title=one_line(str(tally), SUBJECT_LIMIT),
            severity=news.severity,
            opened_at=news.at,
            told_at=news.at,
            channels=channels,
            kind=tally.rule.kind.value,
            reason=str(tally),
        )

    def _heard(self, channel: str, tally: Tally, at: Round) -> str | None:
        """How a channel hears of it by the messages on the outages; ``None`` where it does not."""
        alerts: dict[str, int] = {}
        for _, outage in tally.down:
            alert = self._telling.alerts.of_outage(outage.id)
            if alert is not None and channel in alert.channels:
                alerts[alert.id] = alerts.get(alert.id, 0) + 1
        for place, message in enumerate(at.told.notifications):
            if message.channel == channel and message.alert_id in alerts:
                at.told.notifications[place] = messages.with_line(message, str(tally), tally.rule.name)
                return "with the message on the outage"
        if any(number >= tally.threshold for number in alerts.values()):
            return "in one message with all of them"
        return None

    def _end_others(self, firing: Mapping[str, Tally], at: Round) -> None:
        for alert in self._telling.alerts:
            if alert.kind not in KINDS or alert.members or alert.rule in firing:
                continue
            since = self._below_since.setdefault(alert.rule, at.now)
            if at.now - since >= self._telling.wait:  # a count around the threshold is no news every minute
                del self._below_since[alert.rule]
                self._end(alert, at)

    def _end(self, alert: Alert, at: Round) -> None:
        reason = "fewer services are down than its threshold"
        news = News(self._telling.ids(), NewsKind.RULE_OVER, at.now, alert.severity, reason)
        told = self._telling.say(replace(alert, closed_at=at.now, told_at=at.now), MessageKind.RULE_OVER, at, [news])
        if alert.channels:
            at.sent(news, alert, told, f": {reason}")
        else:
            at.decide(news, "already told", f"its readers hear of each outage's end: {reason}", alert.id)


def _scopes(rule: RuleSection, endpoint: Endpoint) -> Sequence[str]:
    """The scopes that an endpoint counts in."""
    if rule.per == "site":
        return (f"site {endpoint.site}",) if endpoint.site else ()
    if rule.per == "tag":
        return [f"tag {tag}" for tag in endpoint.tags if not rule.tags or tag in rule.tags]
    return ("",)
