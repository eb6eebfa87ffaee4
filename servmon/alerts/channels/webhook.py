"""``kind = "webhook"``: one POST of JSON, signed."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import SecretStr

from servmon.alerts.alert import Notification
from servmon.alerts.channels.posting import PostingChannel, PostingSection
from servmon.clock import SYSTEM_CLOCK, rfc3339


class WebhookSection(PostingSection):
    """A receiver of our JSON; with ``secret`` each request is signed."""

    kind: Literal["webhook"] = "webhook"
    secret: SecretStr | None = None
    headers: Mapping[str, SecretStr] = {}


class Webhook(PostingChannel):
    """Posts each message; a receiver knows a repetition by the header ``Idempotency-Key``."""

    kind = "webhook"
    settings_class = WebhookSection

    def __init__(self, settings: WebhookSection) -> None:
        super().__init__(settings)
        self._settings = settings

    async def send(self, notification: Notification) -> None:
        """Post the message. Raises ``ChannelError``."""
        body = json.dumps(payload_of(notification), ensure_ascii=False).encode()
        await self.post_body(body, self._headers(notification, body))

    def _headers(self, notification: Notification, body: bytes) -> dict[str, str]:
        headers = {name: secret.get_secret_value() for name, secret in self._settings.headers.items()}
        headers["Idempotency-Key"] = notification.id
        if self._settings.secret is not None:
            sent_at = str(int(SYSTEM_CLOCK.wall()))
            key = self._settings.secret.get_secret_value().encode()
            digest = hmac.new(key, sent_at.encode() + b"." + body, hashlib.sha256).hexdigest()
            headers |= {"Servmon-Timestamp": sent_at, "Servmon-Signature": f"sha256={digest}"}
        return headers


def payload_of(notification: Notification) -> dict[str, Any]:
    """The JSON that is posted; keys are only ever added."""
    return {
        "id": notification.id,
        "created_at": rfc3339(notification.created_at),
        "subject": notification.subject,
        "text": notification.body,
        **notification.content,
    }
