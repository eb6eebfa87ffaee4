"""What a template may name: the ``VARIABLES``, each there for every message, and where their values come from. Pure.

Names, banners and error texts are a stranger's: every one of them is on one line and without control characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from servmon.alerts.alert import MessageKind, Notification
from servmon.alerts.content import ABOUT, DELAYED
from servmon.alerts.lines import one_line
from servmon.alerts.links import ACKNOWLEDGE_URL
from servmon.model import Severity

_ENDPOINT: Mapping[str, Any] = {
    **dict.fromkeys(("id", "name", "protocol", "site"), ""),
    "tags": [],
    **{key: "" for key, _ in ABOUT},
}
_OUTAGE: Mapping[str, Any] = {
    **dict.fromkeys(("outage_id", "endpoint_id", "name"), ""),
    "start_time": None,
    "resolved_at": None,
    "description": "",
    "takes_down": [],
}
# In the order of the README's table, which a test compares with this.
VARIABLES: Mapping[str, str] = {
    "subject": "our subject",
    "text": "our text, several lines",
    "kind": "down, raised, reminder, recovered, partly recovered, was down, flapping, steady, event, planned, …",
    "title": "what it is about, in a few words",
    "severity": "CRITICAL, MAJOR, MINOR or WARNING",
    "rule": "the rule that fired",
    "channel": "the name of the channel",
    "id": "the message's id, the same when it is repeated",
    "alert_id": "the alert's id, the same for all messages on it",
    "created_at": "when it was decided",
    "opened_at": "when the alert began",
    "closed_at": "when it was over, or nothing",
    "outages": f"a list, each with {', '.join(_OUTAGE)}",
    "outage_count": "how many outages the alert has; more than `outages` names where they are thousands",
    "outage": "the first of them; empty values where there is none",
    "endpoints": f"a list, each with {', '.join(_ENDPOINT)}",
    "endpoint": "the first of them; empty values where there is none",
    "window_id": "the maintenance window of a notice of planned work",
    "start_time": "its start",
    "end_time": "its end",
    "endpoint_count": "how many endpoints it covers",
    "down": "the ids of those that do not answer",
    ACKNOWLEDGE_URL: "a link to a page with one button, where something is down and `[servmon] public_url` is set",
    DELAYED: "how late the message is where it is late, as `3 h 5 min`",
}
_TIMES = ("opened_at", "closed_at", "start_time", "end_time")


def values_of(notification: Notification) -> dict[str, Any]:
    """The value of every variable for one message."""
    content = notification.content
    outages = [_outage(one) for one in content.get("outages", ())]
    endpoints = [{**_ENDPOINT, **_clean(one)} for one in content.get("endpoints", ())]
    return {
        **{name: _clean(content.get(name, "")) for name in ("title", "rule", "window_id", ACKNOWLEDGE_URL, DELAYED)},
        **{name: _moment(content.get(name)) for name in _TIMES},
        "subject": notification.subject,
        "text": notification.body,
        "kind": notification.kind.value,
        "severity": notification.severity.value,
        "channel": notification.channel,
        "id": notification.id,
        "alert_id": notification.alert_id,
        "created_at": notification.created_at,
        "outages": outages,
        "outage_count": content.get("outage_count", 0),
        "outage": outages[0] if outages else _OUTAGE,
        "endpoints": endpoints,
        "endpoint": endpoints[0] if endpoints else _ENDPOINT,
        "endpoint_count": content.get("endpoint_count") or 0,
        "down": _clean(content.get("down", [])),
    }


def _outage(member: Mapping[str, Any]) -> dict[str, Any]:
    times = {name: _moment(member.get(name)) for name in ("start_time", "resolved_at")}
    return {**_OUTAGE, **_clean(member), **times}


def _moment(written: str | None) -> datetime | None:
    return datetime.fromisoformat(written) if written else None


def _clean(value: Any) -> Any:
    """``value`` with every text in it on one line, and nothing for ``None``."""
    if isinstance(value, str):
        return one_line(value, limit=10_000)
    if isinstance(value, Mapping):
        return {key: _clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return "" if value is None else value


def samples() -> Iterator[Notification]:
    """Messages of different shapes, on which a template is tried when it is read."""
    at = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
    since = "2026-11-24T02:58:00.000000Z"
    outage = {
        "outage_id": "1",
        "endpoint_id": "edge-1",
        "name": "Edge 1",
        "description": "no answer",
        "start_time": since,
        "resolved_at": None,
        "takes_down": ["web-1"],
    }
    endpoint = {"id": "edge-1", "name": "Edge 1", "protocol": "ICMP", "site": "pop-north", "tags": ["edge"]}
    content = {
        "title": "Edge 1",
        "rule": "service_down",
        "opened_at": since,
        "closed_at": None,
        "outages": [outage],
        "outage_count": 1,
        "endpoints": [endpoint],
    }
    down = Notification(
        "1", "2", "noc", MessageKind.DOWN, Severity.MAJOR, "DOWN: Edge 1 (MAJOR)", "Edge 1 is down.\n", at, content
    )
    yield down
    over = {**outage, "resolved_at": "2026-11-24T03:00:00.000000Z"}
    yield replace(down, kind=MessageKind.RECOVERED, content={**content, "outages": [over], "closed_at": since})
    yield replace(down, content={**content, "outages": [outage, outage], "outage_count": 2, DELAYED: "3 h"})
    yield replace(down, kind=MessageKind.EVENT, content={"title": "isolated"})
    window = {"window_id": "3", "start_time": since, "end_time": since, "endpoint_count": 2, "down": ["edge-1"]}
    yield replace(down, kind=MessageKind.PLANNED, content={"title": "New firmware", **window})
    yield replace(down, kind=MessageKind.TEST, content={})
