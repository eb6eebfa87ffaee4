"""``kind = "pagerduty"``: the Events API v2. One incident an alert: triggered, raised, resolved under its id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import SecretStr

from servmon.alerts.alert import ENDS, NOTICES, MessageKind, Notification
from servmon.alerts.channels.base import ChannelError
from servmon.alerts.channels.posting import PostingChannel, PostingSection
from servmon.alerts.channels.webhook import payload_of
from servmon.alerts.settings import Url
from servmon.clock import rfc3339
from servmon.model import Severity

# PagerDuty's words; its list ends with "info".
SEVERITIES: Mapping[Severity, str] = {
    Severity.CRITICAL: "critical",
    Severity.MAJOR: "error",
    Severity.MINOR: "warning",
    Severity.WARNING: "warning",
}
SUMMARY_LIMIT = 1024


class PagerDutySection(PostingSection):
    """An integration of a PagerDuty service; ``routing_key`` is its integration key."""

    kind: Literal["pagerduty"] = "pagerduty"
    url: Url = SecretStr("https://events.pagerduty.com/v2/enqueue")
    routing_key: SecretStr


class PagerDuty(PostingChannel):
    """Triggers and resolves incidents; the alert's id is the deduplication key."""

    kind = "pagerduty"
    settings_class = PagerDutySection

    def __init__(self, settings: PagerDutySection) -> None:
        super().__init__(settings)
        self._key = settings.routing_key

    async def send(self, notification: Notification) -> None:
        """Send one event, none of planned work: nobody is to be called for that. Raises ``ChannelError``.

        The incident of a test is resolved at once: nobody should have to close it.
        """
        if notification.kind in NOTICES:
            return
        key = self._key.get_secret_value()
        await self.post(event_of(notification, key, over=notification.kind in ENDS))
        if notification.kind is MessageKind.TEST:
            try:
                await self.post(event_of(notification, key, over=True))
            except ChannelError as error:
                raise ChannelError(f"the test arrived, but its incident is left open: {error}") from None


def event_of(notification: Notification, routing_key: str, *, over: bool) -> dict[str, Any]:
    """The message as an event of the API; what is ``over`` resolves, everything else triggers."""
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": "resolve" if over else "trigger",
        "dedup_key": notification.alert_id,
    }
    if not over:
        event["payload"] = {
            "summary": notification.subject[:SUMMARY_LIMIT],
            "source": "servmon",
            "severity": SEVERITIES[notification.severity],
            "timestamp": rfc3339(notification.created_at),
            "custom_details": payload_of(notification),
        }
    return event
