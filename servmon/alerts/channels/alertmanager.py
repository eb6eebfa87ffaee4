"""``kind = "alertmanager"``: alerts to a Prometheus Alertmanager (API v2), which groups and routes them on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from servmon.alerts.alert import ENDS, NOTICES, MessageKind, Notification
from servmon.alerts.channels.posting import PostingChannel, PostingSection
from servmon.clock import rfc3339

# An alert that is not repeated ends by itself there. Ours are repeated once a day at the latest.
STANDS_FOR = timedelta(hours=25)
TRIAL_STANDS_FOR = timedelta(minutes=5)


class AlertmanagerSection(PostingSection):
    """``url`` is the whole address, such as ``https://alertmanager.isp.example/api/v2/alerts``."""

    kind: Literal["alertmanager"] = "alertmanager"


class Alertmanager(PostingChannel):
    """Posts each message as one alert, told apart by the label ``alert_id``."""

    kind = "alertmanager"
    settings_class = AlertmanagerSection

    async def send(self, notification: Notification) -> None:
        """Post one alert, none of planned work, which is no alert. Raises ``ChannelError``."""
        if notification.kind in NOTICES:
            return
        await self.post([alert_of(notification)])


def alert_of(notification: Notification) -> dict[str, Any]:
    """The message as an alert of the API. Labels stay the same over an alert's life: they are its identity."""
    content = notification.content
    over = notification.kind in ENDS
    stands_for = TRIAL_STANDS_FOR if notification.kind is MessageKind.TEST else STANDS_FOR
    ends_at = notification.created_at if over else notification.created_at + stands_for
    return {
        "labels": {
            "alertname": str(content.get("rule", "servmon")),
            "service": str(content.get("title", notification.subject)),
            "alert_id": notification.alert_id,
        },
        "annotations": {
            "summary": notification.subject,
            "description": notification.body,
            "severity": notification.severity.value.lower(),
        },
        "startsAt": content.get("opened_at", rfc3339(notification.created_at)),
        "endsAt": rfc3339(ends_at),
    }
