"""Alerts, decisions and messages as the database holds them, and the reverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from servmon.alerts.alert import Alert, Member, MessageKind, News, Notification, Told, news_of, news_of_event
from servmon.alerts.routing import Silence
from servmon.model import Severity
from servmon.store.alerts import Owed, Record
from servmon.store.rows import columns

Row = Mapping[str, Any]


def news_in(owed: Owed) -> tuple[list[News], list[str]]:
    """The news among what is owed, in its order, and the ids of what is none."""
    found: list[News] = []
    nothing: list[str] = []
    for change in owed.changes:
        outage = owed.outages.get(change.outage_id or change.evidence.get("outage_id") or "")
        endpoint = owed.endpoints.get(change.endpoint_id)
        news = news_of(change, outage, endpoint) if endpoint else None
        if news is None:
            nothing.append(change.id)
        else:
            found.append(news)
    return [*found, *map(news_of_event, owed.events)], nothing


def record_of(told: Told, processed: Sequence[str], at: datetime) -> Record:
    """A round as columns."""
    return Record(
        # Of one news held back and then told within a round, the last decision stands.
        decisions=list({decision.news_id: decision for decision in told.decisions}.values()),
        alerts=[replace(alert, members={}) for alert in told.alerts.values()],
        members=[
            {"alert_id": alert.id, **columns(member)}
            for alert in told.alerts.values()
            for member in alert.members.values()
        ],
        notifications=told.notifications,
        told=list({notification.alert_id for notification in told.notifications}),
        processed=processed,
        at=at,
    )


def alert_in(row: Row) -> Alert:
    """An open alert with its members."""
    members = (
        Member(
            outage_id=member["outage_id"],
            endpoint_id=member["endpoint_id"],
            name=member["name"],
            start_time=datetime.fromisoformat(member["start_time"]),
            description=member["description"],
            resolved_at=datetime.fromisoformat(member["resolved_at"]) if member["resolved_at"] else None,
        )
        for member in row["members"]
    )
    return Alert(
        id=str(row["id"]),
        rule=row["rule"],
        title=row["title"],
        severity=Severity(row["severity"]),
        opened_at=row["opened_at"],
        told_at=row["told_at"],
        channels=tuple(row["channels"]),
        members={member.outage_id: member for member in members},
        reminders=row["reminders"],
        closed_at=row["closed_at"],
        kind=row["kind"],
        reason=row["reason"],
        said=tuple(row["said"]),
    )


def notification_in(row: Row) -> Notification:
    """A message that is owed."""
    return Notification(
        id=str(row["id"]),
        alert_id=str(row["alert_id"]),
        channel=row["channel"],
        kind=MessageKind(row["kind"]),
        severity=Severity(row["severity"]),
        subject=row["subject"],
        body=row["body"],
        created_at=row["created_at"],
        content=row["content"],
        attempts=row["attempts"],
        last_error=row["last_error"],
        served=tuple(row["served"]),
        lost=row["lost"],
    )


def silence_in(row: Row) -> Silence:
    """A silence that is not over."""
    return Silence(
        id=str(row["id"]),
        matchers=row["matchers"],
        reason=row["reason"],
        starts_at=row["starts_at"],
        ends_at=row["ends_at"],
        created_by=row["created_by"],
    )
