"""Messages that come late, or another way: they say so, and what is true by now; many that are old become one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID, uuid5

from servmon.alerts.alert import NOTICES, MessageKind, Notification
from servmon.alerts.content import DELAYED, INSTEAD_OF, REMARKS
from servmon.alerts.lines import lasted, late_subject, one_line

# A message that arrives later says so.
LATE_AFTER = timedelta(minutes=5)
# When a channel is back after so many messages of at least such an age, one summary replaces them.
SUMMARY_ABOVE = 3
OLD = timedelta(minutes=10)


def as_of(notification: Notification, present: datetime, over: Callable[[str], bool]) -> Notification:
    """The message as it has to read now; ``over`` tells whether an alert is over by now."""
    late = present - notification.created_at
    if late < LATE_AFTER:
        return notification
    said_once = notification.kind is MessageKind.EVENT or notification.kind in NOTICES
    is_over = not said_once and over(notification.alert_id)
    state = "It is over by now." if is_over else "As far as is known it is still so."
    remark = f"This message is delayed: it is from {notification.created_at:%Y-%m-%d %H:%M:%S} UTC. {state}"
    remarks = [remark, *notification.content.get(REMARKS, ())]
    return replace(
        notification,
        subject=late_subject(notification.subject, lasted(late)),
        body=f"{remark}\n\n{notification.body}",
        content={**notification.content, DELAYED: lasted(late), REMARKS: remarks},
    )


def old_ones(waiting: Sequence[Notification], present: datetime) -> list[Notification]:
    """Those that a summary replaces, if there are enough of them."""
    old = [one for one in waiting if present - one.created_at >= OLD]
    return old if len(old) > SUMMARY_ABOVE else []


def summary(old: Sequence[Notification], present: datetime) -> Notification:
    """One message in place of many that come too late to be read one by one."""
    first = old[0]
    lines = [f"- {one.created_at:%Y-%m-%d %H:%M:%S} UTC  {one_line(one.subject)}" for one in old]
    waited = lasted(present - first.created_at)
    return replace(
        first,
        # Its receiver may know the first message already, and has to take this one all the same.
        id=str(uuid5(UUID(first.id), old[-1].id)),
        kind=MessageKind.SUMMARY,
        severity=min((one.severity for one in old), key=list(type(first.severity)).index),
        subject=f"servmon: {len(old)} messages of the last {waited} that did not get through",
        body="This channel did not take messages for a while. Meanwhile:\n" + "\n".join(lines) + "\n",
        content={"kind": MessageKind.SUMMARY.value, "subjects": [one.subject for one in old]},
        served=tuple(sorted(set.intersection(*({*one.served} for one in old)))),
    )


def copy_for(channel: str, notification: Notification, why: str) -> Notification:
    """The message for another channel than its own, with the reason."""
    remark = f"Sent here in place of {notification.channel}: {one_line(why)}"
    return replace(
        notification,
        # The same copy after a restart in between, so that its receiver knows it.
        id=str(uuid5(UUID(notification.id), channel)),
        channel=channel,
        body=f"{notification.body}\n{remark}\n",
        content={**notification.content, INSTEAD_OF: notification.id, REMARKS: [remark]},
        attempts=0,
        last_error=None,
        served=(),
        lost=None,
    )
