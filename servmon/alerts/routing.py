"""The ordered stages that every piece of news passes. Each may keep it back, and says why; pure, no I/O, no clock.

A new reason not to tell is one more stage here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from servmon.alerts.alert import News, NewsKind
from servmon.alerts.settings import AlertSection, RuleKind, RuleSection
from servmon.detection.maintenance import Covered
from servmon.model import Endpoint, EventKind, Outage, Severity

# These concern all of servmon, so everybody hears of them.
CONNECTION_EVENTS = frozenset({EventKind.ISOLATED, EventKind.CONNECTED})
# News that something is wrong with an endpoint, and lasts.
LASTING = frozenset({NewsKind.DOWN, NewsKind.LONG})


@dataclass(frozen=True, slots=True)
class Silence:
    """An ad hoc mute with an end: what all of its matchers select is not told."""

    id: str
    matchers: Mapping[str, Sequence[str]]
    reason: str
    starts_at: datetime
    ends_at: datetime
    created_by: str = ""

    def mutes(self, endpoint: Endpoint, at: datetime) -> bool:
        """Whether it covers ``endpoint`` at that time."""
        return self.starts_at <= at < self.ends_at and selects(self.matchers, endpoint)


def selects(matchers: Mapping[str, Sequence[str]], endpoint: Endpoint) -> bool:
    """Whether every matcher that is given (``ids``, ``tags``, ``sites``) names ``endpoint``."""
    ids, tags, sites = (matchers.get(key, ()) for key in ("ids", "tags", "sites"))
    return (
        (not ids or endpoint.id in ids)
        and (not tags or not set(tags).isdisjoint(endpoint.tags))
        and (not sites or endpoint.site in sites)
    )


class Facts(Protocol):
    """What the stages may ask of the present."""

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint as it is watched, or ``None``."""
        ...

    def endpoints(self) -> Iterable[Endpoint]:
        """Every endpoint under watch."""
        ...

    def open_outages(self) -> Iterable[tuple[Endpoint, Outage]]:
        """Every open outage, with its endpoint."""
        ...

    def in_maintenance(self, endpoint_id: str) -> bool:
        """Whether a window is over the endpoint now."""
        ...

    def covered(self) -> Sequence[Covered]:
        """The occurrences of windows that are near, with those that ended within the last hour."""
        ...

    def open_outage(self, endpoint_id: str) -> Outage | None:
        """The open outage of an endpoint, if it has one."""
        ...

    def does_not_answer(self, endpoint_id: str) -> bool:
        """Whether an endpoint's last check failed, whatever is made of that."""
        ...

    def neighbour_suspected(self, endpoint: Endpoint) -> bool:
        """Whether another endpoint of the same site is suspected just now."""
        ...

    def takes_down(self, endpoint_id: str) -> tuple[str, ...]:
        """The ids of what an endpoint's failure cuts off, nearest first."""
        ...

    def site_size(self, site: str) -> int:
        """How many endpoints are watched at a site."""
        ...

    def failing_at(self, site: str, around: datetime, within: timedelta) -> int:
        """How many endpoints of a site fail, suspected ones included, and began to at that time."""
        ...

    def unsteady_parent(self, endpoint: Endpoint) -> str | None:
        """The name of what makes an endpoint go up and down, where that is something it depends on."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """What the stages know: settings, silences in force, what stands (flapping, isolation), and the present."""

    settings: AlertSection
    channel_names: tuple[str, ...]
    silences: Sequence[Silence]
    standing: AbstractSet[str]
    acknowledged: AbstractSet[str]
    facts: Facts
    now: datetime

    def silenced(self, endpoint: Endpoint) -> Silence | None:
        """The silence that covers ``endpoint``, if one does."""
        return next((silence for silence in self.silences if silence.mutes(endpoint, self.now)), None)


Stage = Callable[[News, Route], str | None]


def flapping_rule(endpoint_id: str) -> str:
    """The rule under which the alert stands that an endpoint flaps."""
    return f"flapping {endpoint_id}"


def rule_selects(rule: RuleSection, endpoint: Endpoint, severity: Severity) -> bool:
    """Whether a rule is about this endpoint, at this severity."""
    matchers: dict[str, Any] = {"ids": rule.ids, "tags": rule.tags, "sites": rule.sites}
    return (not rule.severities or severity in rule.severities) and selects(matchers, endpoint)


def rule_of(news: News, settings: AlertSection) -> RuleSection | None:
    """The rule that found this news, or of those that choose whose outages are told the first that selects it."""
    if news.rule is not None or news.endpoint is None:
        return news.rule
    for rule in settings.rules_of(RuleKind.SERVICE_DOWN):
        if rule_selects(rule, news.endpoint, news.severity):
            return rule
    return None


def channels_of(news: News, route: Route) -> tuple[str, ...]:
    """Who is told: the rule's channels, else the default ones; an event that concerns all of servmon goes to all."""
    if news.event is not None and news.event.kind in CONNECTION_EVENTS:
        return route.channel_names
    rule = rule_of(news, route.settings)
    chosen = rule.channels if rule and rule.channels is not None else route.settings.notification_channels
    return still_there(chosen, route)


def still_there(chosen: Iterable[str], route: Route) -> tuple[str, ...]:
    """Those of the ``chosen`` channels that exist; where none is left, the default ones: better they than nobody."""
    named = (*chosen,)
    found = tuple(name for name in named if name in route.channel_names)
    if found or not named:
        return found
    return tuple(name for name in route.settings.notification_channels if name in route.channel_names)


def _rule(news: News, route: Route) -> str | None:
    if news.endpoint is None or not route.settings.chooses or rule_of(news, route.settings):
        return None
    return "no rule selects it"


def _maintenance(news: News, route: Route) -> str | None:
    if news.kind in LASTING and news.endpoint and route.facts.in_maintenance(news.endpoint.id):
        return "a maintenance window is over it"
    return None


def _dependency(news: News, route: Route) -> str | None:
    if news.kind is NewsKind.FLAPPING and news.endpoint:
        unsteady = route.facts.unsteady_parent(news.endpoint)
        return f"it depends on {unsteady}, which goes up and down" if unsteady else None
    cause = news.outage.caused_by if news.outage and news.kind in LASTING else None
    if cause is None:
        return None
    parent = route.facts.endpoint(cause)
    return f"it depends on {parent.name if parent else cause}, which is out or has just come back"


def _silence(news: News, route: Route) -> str | None:
    if news.endpoint is None or news.kind is NewsKind.RECOVERED:
        return None
    silence = route.silenced(news.endpoint)
    return f"silenced until {silence.ends_at:%Y-%m-%d %H:%M} UTC: {silence.reason}" if silence else None


def _acknowledged(news: News, route: Route) -> str | None:
    if news.kind is NewsKind.LONG and news.outage_id in route.acknowledged:
        return "somebody sees to it"
    return None


def _flapping(news: News, route: Route) -> str | None:
    if news.kind in LASTING and flapping_rule(news.endpoint_id or "") in route.standing:
        return "it is flapping, which was told"
    return None


def _whom(news: News, route: Route) -> str | None:
    return None if channels_of(news, route) else "no channel is configured for it"


def _when(news: News, route: Route) -> str | None:
    if news.kind not in LASTING and news.kind is not NewsKind.FLAPPING:
        return None
    end = route.settings.quiet_until(news.severity, route.now)
    return f"quiet hours until {end:%H:%M} ({end.tzinfo})" if end else None


STAGES: tuple[tuple[str, Stage], ...] = (
    ("rule", _rule),
    ("maintenance", _maintenance),
    ("dependency", _dependency),
    ("silence", _silence),
    ("acknowledged", _acknowledged),
    ("flapping", _flapping),
    ("whom", _whom),
    ("when", _when),
)


def stopped_by(news: News, route: Route) -> tuple[str, str] | None:
    """The first stage that keeps ``news`` back, with its reason; ``None`` where it is told."""
    for name, stage in STAGES:
        if (reason := stage(news, route)) is not None:
            return name, reason
    return None
