"""A message as a mail: as text and as HTML, with a calendar entry where it is about planned work."""

from __future__ import annotations

import html
from collections.abc import Iterable
from email.message import EmailMessage
from email.utils import format_datetime

from servmon.alerts.alert import ENDS, NOTICES, MessageKind, Notification
from servmon.alerts.calendar import ics, method_of
from servmon.alerts.links import ACKNOWLEDGE_URL

_BUTTON = "display:inline-block;padding:12px 20px;border-radius:6px;background:#0b57d0;color:#fff;text-decoration:none"


def mail_of(notification: Notification, sender: str, recipients: Iterable[str]) -> EmailMessage:
    """The message as a mail (RFC 5322); no answering machine should answer it (RFC 3834)."""
    domain = sender.rpartition("@")[2]
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = ", ".join(recipients)
    mail["Subject"] = notification.subject
    mail["Date"] = format_datetime(notification.created_at)
    mail["Message-ID"] = f"<{notification.id}@{domain}>"
    mail["References"] = f"<alert-{notification.alert_id}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Servmon-Alert"] = notification.alert_id
    if notification.severity == "CRITICAL" and notification.kind not in ENDS:
        mail["Importance"] = "high"
    mail.set_content(notification.body)
    mail.add_alternative(notification.html or _html(notification), subtype="html")
    if event := notification.content.get("calendar"):
        mail.add_attachment(
            ics(event, sender, notification.created_at),
            maintype="text",
            subtype="calendar",
            filename="maintenance.ics",
            params={"method": method_of(event), "charset": "utf-8"},
        )
    return mail


def _html(notification: Notification) -> str:
    calm = notification.kind in ENDS or notification.kind in NOTICES - {MessageKind.WINDOW_ENDS_SOON}
    colour = "#1a7f37" if calm else "#b42318"
    url = html.escape(notification.content.get(ACKNOWLEDGE_URL, ""))
    button = f'<p><a href="{url}" style="{_BUTTON}">I see to it …</a></p>' if url else ""
    return (
        '<!doctype html><html><body style="font-family:sans-serif">'
        f'<h2 style="color:{colour};font-size:18px">{html.escape(notification.subject)}</h2>'
        f'<pre style="font-family:inherit;white-space:pre-wrap">{html.escape(notification.body)}</pre>'
        f"{button}</body></html>"
    )
