"""``kind = "smtp"``: mail, as text and as HTML."""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import aiosmtplib
from pydantic import AfterValidator, Field, SecretStr, model_validator

from servmon.alerts.alert import ENDS, NOTICES, MessageKind, Notification
from servmon.alerts.calendar import ics, method_of
from servmon.alerts.channels.base import DEADLINE_SECONDS, Channel, ChannelError
from servmon.alerts.links import ACKNOWLEDGE_URL
from servmon.alerts.settings import ChannelSection

_PORTS = {"starttls": 587, "tls": 465, "none": 25}
# RFC 5321: replies of 4yz may pass, those of 5yz do not.
_PERMANENT = 500
_BUTTON = "display:inline-block;padding:12px 20px;border-radius:6px;background:#0b57d0;color:#fff;text-decoration:none"


def _checked_address(value: str) -> str:
    local, at, domain = value.rpartition("@")
    if not (local and at and domain) or not value.isprintable() or any(char in value for char in " ,;<>"):
        raise ValueError(f"must be a mail address such as noc@isp.example, not {value!r}")
    return value


Address = Annotated[str, AfterValidator(_checked_address)]


class SmtpSection(ChannelSection):
    """A mail server and who gets the mail. Without ``port`` the usual one of ``tls`` is used."""

    kind: Literal["smtp"] = "smtp"
    host: str = Field(min_length=1)
    port: int | None = Field(None, ge=1, le=65_535)
    sender: Address
    recipients: tuple[Address, ...] = Field(min_length=1)
    tls: Literal["starttls", "tls", "none"] = "starttls"
    tls_verify: bool = True
    ca_file: Path | None = None
    username: str | None = None
    password: SecretStr | None = None

    shows_html: ClassVar[bool] = True

    @property
    def servers(self) -> frozenset[str]:
        """The mail server."""
        return frozenset({self.host})

    @model_validator(mode="after")
    def _fits(self) -> SmtpSection:
        if (self.username is None) is not (self.password is None):
            raise ValueError("username and password go together")
        if self.password is not None and self.tls == "none":
            raise ValueError('a password is not sent in the clear: set tls to "starttls" or "tls"')
        return self


class Smtp(Channel):
    """Sends each message as one mail to all recipients; mails on one alert stand in one thread."""

    kind = "smtp"
    settings_class = SmtpSection

    def __init__(self, settings: SmtpSection) -> None:
        self._settings = settings

    @property
    def receivers(self) -> tuple[str, ...]:
        """The recipients' addresses."""
        return self._settings.recipients

    async def send(self, notification: Notification) -> None:
        """Hand the mail to the server, for those who have not got it. Raises ``ChannelError``."""
        owed = [recipient for recipient in self._settings.recipients if recipient not in notification.served]
        if not owed:
            return
        refused = await self._hand_over(notification, owed)
        if refused:
            raise ChannelError(
                _told(refused, owed, self._settings.recipients),
                permanent=all(said.code >= _PERMANENT for said in refused.values()),
                # To send again would send it to them twice.
                served=[recipient for recipient in owed if recipient not in refused],
            )

    async def _hand_over(self, notification: Notification, owed: list[str]) -> Mapping[str, aiosmtplib.SMTPResponse]:
        """Those of ``owed`` whom the server refuses, and what it says."""
        settings = self._settings
        secret = settings.password
        try:
            refused, _ = await aiosmtplib.send(
                mail_of(notification, settings),
                recipients=owed,
                hostname=settings.host,
                port=settings.port or _PORTS[settings.tls],
                use_tls=settings.tls == "tls",
                start_tls=settings.tls == "starttls",
                validate_certs=settings.tls_verify,
                cert_bundle=str(settings.ca_file) if settings.ca_file else None,
                username=settings.username,
                password=secret.get_secret_value() if secret else None,
                timeout=DEADLINE_SECONDS,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            return {one.recipient: aiosmtplib.SMTPResponse(one.code, one.message) for one in error.recipients}
        except aiosmtplib.SMTPAuthenticationError as error:
            # May pass: somebody is changing the password.
            raise ChannelError(f"{settings.host} refused the login with {error.code}") from None
        except aiosmtplib.SMTPResponseException as error:
            # What it says of this mail stands; what it says of us, our sender included, somebody may be mending.
            permanent = isinstance(error, aiosmtplib.SMTPDataError) and error.code >= _PERMANENT
            raise ChannelError(f"{settings.host} answered {error.code} {error.message}", permanent=permanent) from None
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise ChannelError(f"{settings.host}: {error}") from None
        return refused


def _told(refused: Mapping[str, aiosmtplib.SMTPResponse], owed: Collection[str], everybody: Collection[str]) -> str:
    who = ", ".join(f"{recipient} ({said.code} {said.message})" for recipient, said in refused.items())
    if refused.keys() >= {*everybody}:
        return f"every recipient is refused: {who}"
    return f"refused for {who}" + ("; the other recipients have it" if refused.keys() < {*owed} else "")


def mail_of(notification: Notification, settings: SmtpSection) -> EmailMessage:
    """The message as a mail (RFC 5322); no answering machine should answer it (RFC 3834)."""
    domain = settings.sender.rpartition("@")[2]
    mail = EmailMessage()
    mail["From"] = settings.sender
    mail["To"] = ", ".join(settings.recipients)
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
            ics(event, settings.sender, notification.created_at),
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
