"""Links in messages by which a person says, without a token, that somebody sees to an outage. Pure but for the clock.

A link is signed (HMAC-SHA256), bound to one outage or to one alert with several, names the channel it was sent over,
and ends after ``VALID``. Whoever has it may acknowledge just that. Following it changes nothing: it leads to a button.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from servmon.alerts.alert import MessageKind, Notification
from servmon.alerts.rule_settings import RuleKind
from servmon.clock import SYSTEM_CLOCK, Clock, now

# What lasts longer is told again, at least once a day, with a link of its own.
VALID = timedelta(days=3)
PATH = "/ui/acknowledge"
ACKNOWLEDGE_URL = "acknowledge_url"
_PURPOSE = b"servmon acknowledge 1\0"
_LONGEST = 1000
_OPEN = frozenset(
    {
        MessageKind.DOWN,
        MessageKind.RAISED,
        MessageKind.REMINDER,
        MessageKind.PARTLY,
        MessageKind.LONG,
        MessageKind.ESCALATED,
    }
)


class BadLinkError(Exception):
    """A link that nobody here signed, or whose time is over; ``expired`` tells which."""

    def __init__(self, *, expired: bool) -> None:
        self.expired = expired
        super().__init__("expired" if expired else "not signed here")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a link lets its holder acknowledge: one outage, or all of one alert; and over which channel it came."""

    outage_id: str | None
    alert_id: str | None
    channel: str
    expires_at: datetime


class Links:
    """Makes and reads links below ``public_url`` with a secret ``key``."""

    def __init__(self, public_url: str, key: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._base = public_url.rstrip("/") + PATH
        self._key = key.encode()
        self._clock = clock

    def in_message(self, notification: Notification) -> Notification:
        """The message with the link for what is down in it, if anything is; made while it is sent, stored nowhere."""
        claim = self._claim(notification)
        if claim is None:
            return notification
        url = f"{self._base}/{self.token(claim)}"
        body = f"{notification.body.rstrip()}\n\nAcknowledge: {url}\n"
        return replace(notification, body=body, content={**notification.content, ACKNOWLEDGE_URL: url})

    def _claim(self, notification: Notification) -> Claim | None:
        listed = notification.content.get("outages", ())
        down = [one["outage_id"] for one in listed if not one.get("resolved_at")]
        if not down or notification.kind not in _OPEN | {MessageKind.WINDOW_OVER}:
            return None
        if notification.content.get("rule_kind") == RuleKind.RESPONSE_TIME:
            return None  # slow answers are no outage that somebody could see to
        expires_at = now(self._clock) + VALID
        if len(down) == 1:
            return Claim(down[0], None, notification.channel, expires_at)
        if notification.kind is MessageKind.WINDOW_OVER:
            return None  # it is about outages of other alerts, too
        return Claim(None, notification.alert_id, notification.channel, expires_at)

    def token(self, claim: Claim) -> str:
        """``claim``, signed, for an address."""
        said = [claim.outage_id, claim.alert_id, claim.channel, int(claim.expires_at.timestamp())]
        payload = _written(json.dumps(said, separators=(",", ":")).encode())
        return f"{payload}.{self._signature(payload)}"

    def read(self, token: str) -> Claim:
        """What a link says. Raises ``BadLinkError``."""
        payload, _, signature = token.partition(".")
        if len(token) > _LONGEST or not token.isascii():
            raise BadLinkError(expired=False)
        if not hmac.compare_digest(signature.encode(), self._signature(payload).encode()):
            raise BadLinkError(expired=False)
        try:
            outage_id, alert_id, channel, expires = json.loads(_read(payload))
            claim = Claim(_uuid(outage_id), _uuid(alert_id), channel, datetime.fromtimestamp(expires, UTC))
        except (ValueError, TypeError, binascii.Error):  # signed by us, and not what we sign by now
            raise BadLinkError(expired=False) from None
        if claim.expires_at <= now(self._clock):
            raise BadLinkError(expired=True)
        return claim

    def _signature(self, payload: str) -> str:
        return _written(hmac.new(self._key, _PURPOSE + payload.encode(), hashlib.sha256).digest())


def _uuid(value: str | None) -> str | None:
    return None if value is None else str(UUID(value))


def _written(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _read(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
