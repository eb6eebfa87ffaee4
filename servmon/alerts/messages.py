"""The words of a message, for a tired person. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

from servmon.alerts.alert import Alert, Member, MessageKind, News, NewsKind, Notification
from servmon.alerts.content import ABOUT, NAMED, content_of
from servmon.alerts.lines import SUBJECT_LIMIT, lasted, one_line
from servmon.alerts.routing import Facts
from servmon.alerts.rule_settings import RuleKind
from servmon.alerts.sites import site_down
from servmon.detection.changes import RECOVERED
from servmon.model import Severity

NAMED_DEPENDANTS = 10

_LASTING = frozenset({MessageKind.REMINDER, MessageKind.LONG, MessageKind.ESCALATED})
# Over, but not seen well again.
CLOSED = "CLOSED"
_HEADS: Mapping[MessageKind, str] = {
    MessageKind.DOWN: "DOWN",
    MessageKind.RAISED: "RAISED",
    MessageKind.REMINDER: "STILL DOWN",
    MessageKind.RECOVERED: "UP",
    MessageKind.PARTLY: "PARTLY UP",
    MessageKind.BRIEF: "WAS DOWN",
    MessageKind.FLAPPING: "FLAPPING",
    MessageKind.STEADY: "STEADY",
    MessageKind.WINDOW_OVER: "MAINTENANCE OVER",
    MessageKind.EVENT: "servmon",
    MessageKind.EVENT_OVER: "servmon",
    MessageKind.LONG: "LONG OUTAGE",
    MessageKind.RULE: "RULE",
    MessageKind.ESCALATED: "ESCALATED",
    MessageKind.RULE_OVER: "OVER",
}
# What a rule of response times says is told in the same messages, by other words.
_SLOW_HEADS: Mapping[MessageKind, str] = {
    MessageKind.DOWN: "SLOW",
    MessageKind.REMINDER: "STILL SLOW",
    MessageKind.RECOVERED: "FAST AGAIN",
    MessageKind.PARTLY: "PARTLY FAST AGAIN",
    MessageKind.BRIEF: "WAS SLOW",
}


def title(news: Sequence[News], facts: Facts) -> str:
    """What an alert is about, in a few words: an endpoint's name, a site, or how many of how many sites."""
    endpoints = [one.endpoint for one in news if one.endpoint]
    if not endpoints:
        return one_line(news[0].reason, SUBJECT_LIMIT)
    if len(endpoints) == 1:
        return one_line(endpoints[0].name, SUBJECT_LIMIT)
    sites = {endpoint.site for endpoint in endpoints}
    if len(sites) > 1:
        return f"{len(endpoints)} endpoints at {len(sites - {None})} sites"
    site = endpoints[0].site
    if site is None:
        return f"{len(endpoints)} endpoints"
    if whole := site_down(news, facts):
        return one_line(f"site {site}: {whole.failing} of {whole.size} endpoints", SUBJECT_LIMIT)
    down = len(endpoints)
    return one_line(f"{down} of {max(facts.site_size(site), down)} endpoints at {site}", SUBJECT_LIMIT)


def compose(
    notification_id: str,
    channel: str,
    alert: Alert,
    kind: MessageKind,
    now: datetime,
    news: Sequence[News],
) -> Notification:
    """The message of this kind on ``alert``; ``news`` is what it was caused by, if anything was."""
    head = CLOSED if kind is MessageKind.RECOVERED and _closed(news) else _head(alert, kind)
    remark = "still down" if kind is MessageKind.WINDOW_OVER else f"({_remark(alert, kind, now)})"
    subject = one_line(f"{head}: {alert.title} {remark}", SUBJECT_LIMIT)
    return Notification(
        id=notification_id,
        alert_id=alert.id,
        channel=channel,
        kind=kind,
        severity=alert.severity,
        subject=subject,
        body="\n".join(_lines(alert, kind, now, news)) + "\n",
        created_at=now,
        content=content_of(alert, kind, news),
    )


def _head(alert: Alert, kind: MessageKind) -> str:
    return _SLOW_HEADS.get(kind, _HEADS[kind]) if _is_slow(alert) else _HEADS[kind]


def _is_slow(alert: Alert) -> bool:
    return alert.kind == RuleKind.RESPONSE_TIME


def with_line(notification: Notification, line: str, rule: str) -> Notification:
    """The same message with one more thing that a rule says of its outages."""
    rules = [*notification.content.get("rules", ()), rule]
    return replace(
        notification,
        body=f"{notification.body.rstrip()}\n{one_line(line)}\n",
        content={**notification.content, "rules": rules},
    )


def _closed(news: Sequence[News]) -> list[News]:
    """The outages that somebody ended, by hand or by a change of the endpoint: nobody knows that it is up again."""
    return [one for one in news if one.kind is NewsKind.RECOVERED and one.reason != RECOVERED]


def plain(notification_id: str, channel: str, alert: Alert, kind: MessageKind, now: datetime) -> Notification:
    """The message without anything that could go wrong in making it."""
    subject = one_line(f"{_head(alert, kind)}: {alert.title}", SUBJECT_LIMIT)
    body = f"{subject}\nThe details could not be put into words; they stand in the log.\n"
    return Notification(notification_id, alert.id, channel, kind, alert.severity, subject, body, now)


def trial(channel: str, now: datetime) -> Notification:
    """A message to see whether a channel works."""
    return Notification(
        id=str(uuid4()),
        alert_id=str(uuid4()),
        channel=channel,
        kind=MessageKind.TEST,
        severity=Severity.WARNING,
        subject="servmon: a test, nothing is down",
        body=f"This is a test of the channel {one_line(channel)}. If you read it, the channel works.\n",
        created_at=now,
        content={"kind": MessageKind.TEST.value},
    )


def _remark(alert: Alert, kind: MessageKind, now: datetime) -> str:
    if kind in (MessageKind.RECOVERED, MessageKind.BRIEF):
        return f"{_word(alert)} for {lasted(_longest(alert, now))}"
    if kind in _LASTING:
        return f"{alert.severity}, for {lasted(_longest(alert, now))}"
    if kind is MessageKind.PARTLY:
        return f"{len(alert.still_down)} of {len(alert.members)} still {_word(alert)}"
    return alert.severity.value


def _word(alert: Alert) -> str:
    return "slow" if _is_slow(alert) else "down"


def _longest(alert: Alert, now: datetime) -> timedelta:
    spans = ((member.resolved_at or now) - member.start_time for member in alert.members.values())
    return max(spans, default=now - alert.opened_at)


def _lines(alert: Alert, kind: MessageKind, now: datetime, news: Sequence[News]) -> Iterator[str]:
    members = tuple(alert.members.values())
    if kind is MessageKind.WINDOW_OVER:
        yield f"The maintenance window is over. {alert.title} still down:"
    if len(members) == 1:
        yield from _about_one(alert, kind, now, news)
    elif members:
        yield from _about_several(alert, kind, now)
    else:
        yield from (one_line(one.reason) for one in news)
        yield from _event_lines(news)
    if members and kind is MessageKind.ESCALATED:
        yield from _event_lines(news)
    yield ""
    yield f"Severity: {alert.severity}"
    if len(members) <= 1:
        yield from _endpoint_lines(news)


def _about_one(alert: Alert, kind: MessageKind, now: datetime, news: Sequence[News]) -> Iterator[str]:
    member = next(iter(alert.members.values()))
    name, word = one_line(member.name), _word(alert)
    if member.resolved_at is not None:
        span = lasted(member.resolved_at - member.start_time)
        yield f"{name} was {word} for {span}, from {_at(member.start_time)} to {_at(member.resolved_at)}."
        notes = {one.outage.resolution_notes for one in news if one.outage and one.outage.resolution_notes}
        notes = notes or {f"Closed: {one.reason}" for one in _closed(news)}
        yield from (one_line(note) for note in sorted(notes))
    else:
        for_how_long = f", for {lasted(now - member.start_time)}" if kind in _LASTING else ""
        yield f"{name} is {word} since {_at(member.start_time)}{for_how_long}."
    if member.description:
        yield one_line(member.description)
    if member.takes_down:
        yield _cut_off(member)


def _cut_off(member: Member) -> str:
    """What else is down because of an outage; each of those has an outage of its own, and no message."""
    below = member.takes_down
    number = "1 endpoint that depends" if len(below) == 1 else f"{len(below)} endpoints that depend"
    more = ", …" if len(below) > NAMED_DEPENDANTS else ""
    return one_line(f"Cuts off {number} on it: {', '.join(below[:NAMED_DEPENDANTS])}{more}")


def _about_several(alert: Alert, kind: MessageKind, now: datetime) -> Iterator[str]:
    down = alert.still_down
    over = [member for member in alert.members.values() if member.resolved_at is not None]
    again = "fast again" if _is_slow(alert) else "up again"
    if down:
        yield f"{len(down)} {_word(alert)}" + (f", {len(over)} {again}" if over else "") + ":"
        yield from _named(down, now)
    if over and kind not in _LASTING:
        yield f"{len(over)} {again}:"
        yield from _named(over, now)


def _named(members: Sequence[Member], now: datetime) -> Iterator[str]:
    for member in members[:NAMED]:
        span = lasted((member.resolved_at or now) - member.start_time)
        below = f", cuts off {len(member.takes_down)} more" if member.takes_down else ""
        yield f"- {one_line(member.name, 120)}: since {_at(member.start_time)}, {span}{below}"
    if len(members) > NAMED:
        yield f"- … and {len(members) - NAMED} more"


def _event_lines(news: Sequence[News]) -> Iterator[str]:
    for one in news:
        yield from map(one_line, one.lines[:NAMED])
        if len(one.lines) > NAMED:
            yield f"- … and {len(one.lines) - NAMED} more"
        for key, value in one.event.details.items() if one.event else ():
            shown = ", ".join(map(str, value[:NAMED])) if isinstance(value, list | tuple) else value
            yield one_line(f"{key}: {shown}")


def _endpoint_lines(news: Sequence[News]) -> Iterator[str]:
    endpoint = next((one.endpoint for one in news if one.endpoint), None)
    if endpoint is None:
        return
    yield one_line(f"Endpoint: {endpoint.id}, {endpoint.protocol} {endpoint.url}")
    if endpoint.site:
        yield one_line(f"Site: {endpoint.site}")
    if endpoint.tags:
        yield one_line(f"Tags: {', '.join(endpoint.tags)}")
    for option, label in ABOUT:
        if endpoint.options.get(option):
            yield one_line(f"{label}: {endpoint.options[option]}")


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
