"""The one message at the end of a window: what did not come back, news and known alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from servmon.alerts import window_ends
from servmon.alerts.alert import Alert, Member, MessageKind
from servmon.alerts.telling import Round, Telling
from servmon.alerts.waiting import Waiting
from servmon.alerts.window_ends import Ending, Part, WindowEnds
from servmon.model import Outage


def tell_window_end(telling: Telling, ends: WindowEnds, waiting: Waiting, ending: Ending, at: Round) -> None:
    """What a window left behind: what was declared since its end, and what was told before it began."""
    news = waiting.take(ending.group) if ending.group in waiting.groups else []
    down = ends.still_down(ending)
    parts = window_ends.parts_of(news, _said_before(telling, down, at), at.route)
    ends.settle(ending, down=bool(parts))
    notify = ending.covered.window.notify
    for channels, part in parts.items():
        first = next(iter(parts)) is channels
        alert = replace(
            telling.alert_of(part.news, at.route) if part.news else _nothing_new(telling, part, at),
            id=ending.id if first else telling.ids(),
            rule=window_ends.RULE,
            title=ending.title(max(len(down), len(news))),
            channels=tuple(dict.fromkeys((*channels, *notify))) if first else channels,
        )
        told = telling.say(alert, MessageKind.WINDOW_OVER, at, part.news, besides=part.known)
        for one in part.news:
            at.sent(one, alert, told, ", with its window")


def _said_before(telling: Telling, down: Iterable[Outage], at: Round) -> Iterator[tuple[Alert, Member]]:
    """Those of the outages that are told already; they are said again now, so the next reminder is far away."""
    for outage in down:
        alert = telling.alerts.of_outage(outage.id)
        if alert is not None:
            at.told.alerts[alert.id] = replace(alert, told_at=at.now)
            telling.alerts.keep(at.told.alerts[alert.id])
            yield alert, alert.members[outage.id]


def _nothing_new(telling: Telling, part: Part, at: Round) -> Alert:
    return Alert(
        id=telling.ids(),
        rule=window_ends.RULE,
        title="",
        severity=part.severity,
        opened_at=at.now,
        told_at=at.now,
        channels=(),
        closed_at=at.now,
    )
